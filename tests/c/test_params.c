/* test_params.c — parameters in flat buffers: layout, what sealing keeps, norms, refusals. */
#include "engine_helpers.h"

static int ref, cpu;

static void find_devices(void)
{
    OK(am_device_find(&ref, "ref"));
    OK(am_device_find(&cpu, "cpu"));
}

static am_tensor *numbered(int device, int dtype, int64_t n, double first)
{
    double v[64];
    for (int64_t i = 0; i < n; i++)
        v[i] = first + (double)i;
    return make_on(device, dtype, 1, &n, v);
}

START_TEST(layout)
{
    static const struct {
        int dtype;
        int64_t n;
    } list[] = {{AM_F32, 3}, {AM_BF16, 5}, {AM_F32, 17}, {AM_F32, 0},
                {AM_F64, 1}, {AM_F32, 16}, {AM_BF16, 40}};
    enum { COUNT = sizeof list / sizeof *list };
    am_tensor *t[COUNT];
    am_params *p;
    char name[COUNT][8];
    OK(am_params_new(&p));
    for (int i = 0; i < COUNT; i++) {
        t[i] = leaf(numbered(cpu, list[i].dtype, list[i].n, i + 1));
        snprintf(name[i], sizeof name[i], "p%d", i);
        OK(am_params_add(p, name[i], t[i]));
    }
    am_tensor *frozen = numbered(cpu, AM_F32, 4, 0);
    OK(am_params_add(p, "frozen", frozen));
    ck_assert_int_eq(am_params_count(p), COUNT + 1);
    OK(am_params_seal(p));
    ck_assert_int_eq(am_params_count(p), COUNT); /* the frozen one is left out */
    ck_assert_int_eq(am_params_numel(p), 3 + 5 + 17 + 0 + 1 + 16 + 40);
    ck_assert_ptr_null(am_params_name(p, COUNT));
    ck_assert_ptr_null(am_params_name(p, -1));
    for (int i = 0; i < COUNT; i++) {
        ck_assert_str_eq(am_params_name(p, i), name[i]);
        am_tensor *same;
        OK(am_params_tensor(&same, p, i));
        ck_assert_ptr_eq(same, t[i]);
        am_tensor_release(same);
        const double *v = values_of(t[i]);
        for (int64_t j = 0; j < list[i].n; j++)
            ck_assert_double_eq(v[j], i + 1 + (double)j);
        ck_assert_int_eq((intptr_t)am_tensor_data(t[i]) % 64, 0);
        /* in the order they were added, one behind the other, per dtype */
        for (int k = 0; k < i; k++)
            if (list[k].dtype == list[i].dtype)
                ck_assert(am_tensor_data(t[k]) <= am_tensor_data(t[i]));
    }
    ck_assert_int_eq((char *)am_tensor_data(t[2]) - (char *)am_tensor_data(t[0]), 64);
    ck_assert_int_eq((char *)am_tensor_data(t[6]) - (char *)am_tensor_data(t[1]), 64);
    am_tensor *out;
    FAILS(am_params_tensor(&out, p, COUNT), AM_EINVAL, "7");
    FAILS(am_params_seal(p), AM_ESTATE, "sealed");
    FAILS(am_params_add(p, "late", frozen), AM_ESTATE, "late");
    am_params_release(p);
    for (int i = 0; i < COUNT; i++) { /* tensors live on without the set */
        const double *v = values_of(t[i]);
        for (int64_t j = 0; j < list[i].n; j++)
            ck_assert_double_eq(v[j], i + 1 + (double)j);
        am_tensor_release(t[i]);
    }
    am_tensor_release(frozen);
}
END_TEST

START_TEST(sealing_keeps_gradients)
{
    am_tensor *a = leaf(VEC(AM_BF16, 1, 2, 3)), *b = leaf(VEC(AM_F32, 4, 5)),
              *c = leaf(VEC(AM_F64, 6));
    am_tensor *ga = VEC(AM_F32, 0.1f, 0.2f, 0.3f), *wide = times(c, 1), *g = NULL;
    am_event ev;
    am_params *p;
    OK(am_tensor_set_grad(a, ga));
    OK(am_backward_begin(wide, NULL));
    OK(am_backward_next(&ev));
    OK(am_params_new(&p));
    OK(am_params_add(p, "a", a));
    OK(am_params_add(p, "b", b));
    OK(am_params_add(p, "c", c));
    OK(am_params_seal(p));
    HAS_GRAD(a, 0.1f, 0.2f, 0.3f);
    HAS_GRAD(c, 1);
    OK(am_tensor_grad(&g, b));
    ck_assert_ptr_null(g);
    OK(am_tensor_grad(&g, c));
    ck_assert_int_eq(am_tensor_dtype(g), AM_F64);
    am_tensor_release(g);
    /* backward adds to what is there; zero_grad empties */
    am_tensor *loss = total(a);
    OK(am_backward_begin(loss, NULL));
    OK(am_backward_next(&ev));
    HAS_GRAD(a, (double)(0.1f + 1.0f), (double)(0.2f + 1.0f), (double)(0.3f + 1.0f));
    OK(am_params_zero_grad(p));
    OK(am_tensor_grad(&g, a));
    ck_assert_ptr_null(g);
    am_tensor *again = total(a);
    OK(am_backward_begin(again, NULL));
    OK(am_backward_next(&ev));
    HAS_GRAD(a, 1, 1, 1);
    am_params_release(p);
    HAS_GRAD(a, 1, 1, 1);
    RELEASE(a, b, c, ga, wide, loss, again);
}
END_TEST

START_TEST(norms)
{
    static const char *const devices[] = {"ref", "cpu", "fence"};
    for (int d = 0; d < 3; d++) {
        int device;
        double norm = -1;
        am_params *p;
        am_event ev;
        OK(am_device_find(&device, devices[d]));
        am_tensor *a = leaf(make_on(device, AM_F32, 1, (int64_t[]){2}, (double[]){3, 4}));
        am_tensor *b = leaf(make_on(device, AM_BF16, 1, (int64_t[]){1}, (double[]){12}));
        OK(am_params_new(&p));
        OK(am_params_add(p, "a", a));
        OK(am_params_add(p, "b", b));
        FAILS(am_params_norm(p, &norm), AM_ESTATE, "sealed");
        OK(am_params_seal(p));
        OK(am_params_norm(p, &norm));
        ck_assert_double_eq(norm, 13);
        OK(am_params_grad_norm(p, 1, &norm));
        ck_assert_double_eq(norm, 0);
        am_tensor *y = times(a, 3), *loss = total(y);
        OK(am_backward_begin(loss, NULL));
        OK(am_backward_next(&ev));
        OK(am_params_grad_norm(p, -0.5, &norm));
        ck_assert_double_eq(norm, 0.5 * sqrt(18));
        OK(am_params_grad_sumsq(p, 0, &norm));
        ck_assert_double_eq(norm, 18);
        OK(am_params_grad_sumsq(p, 1, &norm)); /* no gradient */
        ck_assert_double_eq(norm, 0);
        FAILS(am_params_grad_sumsq(p, 2, &norm), AM_EINVAL, "2");
        double squares[2] = {-1, -1};
        OK(am_params_grad_squares(p, squares, 2));
        ck_assert(squares[0] == 18 && squares[1] == 0);
        FAILS(am_params_grad_squares(p, squares, 1), AM_EINVAL, "1 numbers for 2 parameters");
        FAILS(am_params_clear_grad(p, -1), AM_EINVAL, "-1");
        OK(am_params_clear_grad(p, 0));
        OK(am_params_grad_norm(p, 1, &norm));
        ck_assert_double_eq(norm, 0);
        am_tensor_drop(b); /* even then */
        OK(am_params_norm(p, &norm));
        ck_assert_double_eq(norm, 13);
        RELEASE(a, b, y, loss);
        am_params_release(p);
    }
}
END_TEST

/* Over more than one block, with the same bits for any number of threads. */
START_TEST(norms_of_many)
{
    const int64_t n = 200003;
    double expected = 0, norm = 0, first = 0;
    am_tensor *t, *g;
    am_params *p;
    OK(am_tensor_new(&t, AM_F32, 1, &n, cpu));
    OK(am_tensor_new(&g, AM_F32, 1, &n, cpu));
    OK(am_rng_seed(3));
    OK(am_rng_normal(g, 0, 1));
    const float *v = am_tensor_data(g);
    for (int64_t i = 0; i < n; i++)
        expected += (double)v[i] * (double)v[i];
    leaf(t);
    OK(am_params_new(&p));
    OK(am_params_add(p, "t", t));
    OK(am_params_seal(p));
    OK(am_tensor_set_grad(t, g));
    for (int threads = 1; threads <= 3; threads++) {
        OK(am_threads_set(threads));
        OK(am_params_grad_norm(p, 1, &norm));
        ck_assert_double_eq_tol(norm, sqrt(expected), 1e-12 * sqrt(expected));
        first = threads == 1 ? norm : first;
        ck_assert(norm == first);
    }
    RELEASE(t, g);
    am_params_release(p);
}
END_TEST

/* Each device computes its own: a kernel of another can't read what fence has. */
START_TEST(norms_over_devices)
{
    int fence;
    double norm = 0;
    am_params *p;
    OK(am_device_find(&fence, "fence"));
    am_tensor *a = leaf(make_on(cpu, AM_F32, 1, (int64_t[]){1}, (double[]){2}));
    am_tensor *b = leaf(make_on(fence, AM_F32, 1, (int64_t[]){2}, (double[]){3, 6}));
    am_tensor *c = leaf(make_on(cpu, AM_BF16, 1, (int64_t[]){1}, (double[]){4}));
    OK(am_params_new(&p));
    OK(am_params_add(p, "a", a));
    OK(am_params_add(p, "b", b));
    OK(am_params_add(p, "c", c));
    OK(am_params_seal(p));
    OK(am_params_norm(p, &norm));
    ck_assert_double_eq(norm, sqrt(4 + 9 + 36 + 16));
    OK(am_params_sumsq(p, 1, &norm));
    ck_assert_double_eq(norm, 45);
    RELEASE(a, b, c);
    am_params_release(p);
}
END_TEST

START_TEST(refused)
{
    am_params *p;
    am_tensor *a = leaf(VEC(AM_F32, 1)), *y = times(a, 2), *gone;
    OK(am_params_new(&p));
    OK(am_params_add(p, "a", a));
    FAILS(am_params_add(p, "a", y), AM_EINVAL, "result of an op");
    am_tensor *b = leaf(VEC(AM_F32, 1));
    FAILS(am_params_add(p, "a", b), AM_EINVAL, "named a");
    FAILS(am_params_add(p, "tied", a), AM_EINVAL, "same tensor");
    OK(am_scope_push());
    gone = VEC(AM_F32, 1);
    OK(am_scope_pop());
    FAILS(am_params_add(p, "gone", gone), AM_ESTATE, "gone");
    OK(am_params_add(p, "b", b));
    am_tensor_drop(b);
    FAILS(am_params_seal(p), AM_ESTATE, "b");
    RELEASE(a, b, y, gone);
    am_params_release(p);
    am_params_release(NULL);
}
END_TEST

/* Out of memory at any moment of sealing: nothing lost, and sealing again works. */
START_TEST(seals_after_a_failure)
{
    int64_t before = live_bytes(ref);
    int failures = 0;
    for (int64_t k = 1; k < 60; k++) {
        am_tensor *a = leaf(VEC(AM_F32, 1, 2, 3)), *b = leaf(VEC(AM_F64, 4, 5)),
                  *c = leaf(VEC(AM_F32, 6));
        am_tensor *g = VEC(AM_F32, 7, 8, 9);
        am_params *p;
        OK(am_tensor_set_grad(a, g));
        OK(am_params_new(&p));
        OK(am_params_add(p, "a", a));
        OK(am_params_add(p, "b", b));
        OK(am_params_add(p, "c", c));
        OK(am_mem_fail_at(k));
        int rc = am_params_seal(p);
        OK(am_mem_fail_at(0));
        if (rc != AM_OK) {
            ck_assert_int_eq(rc, AM_ENOMEM);
            failures++;
            HOLDS(a, 1, 2, 3);
            HAS_GRAD(a, 7, 8, 9);
            OK(am_params_seal(p));
        }
        HOLDS(a, 1, 2, 3);
        HOLDS(b, 4, 5);
        HOLDS(c, 6);
        HAS_GRAD(a, 7, 8, 9);
        RELEASE(a, b, c, g);
        am_params_release(p);
        ck_assert_int_eq(live_bytes(ref), before);
    }
    ck_assert_int_gt(failures, 8);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("params");
    TCase *t = tcase_create("params");
    tcase_add_checked_fixture(t, find_devices, NULL);
    tcase_add_test(t, layout);
    tcase_add_test(t, sealing_keeps_gradients);
    tcase_add_test(t, norms);
    tcase_add_test(t, norms_of_many);
    tcase_add_test(t, norms_over_devices);
    tcase_add_test(t, refused);
    tcase_add_test(t, seals_after_a_failure);
    suite_add_tcase(s, t);
    return run_suite(s);
}
