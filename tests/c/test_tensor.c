/* test_tensor.c — tensors: shapes, views and their bounds, host transfers, copies between devices,
 * dtypes and layouts, items, dropping. */
#include <math.h>

#include "core/tensor.h"
#include "engine_helpers.h"

static int ref, cpu;

static void find_devices(void)
{
    OK(am_device_find(&ref, "ref"));
    OK(am_device_find(&cpu, "cpu"));
}

START_TEST(shapes)
{
    am_tensor *t;
    const int64_t two_three[] = {2, 3};
    OK(am_tensor_new(&t, AM_F32, 2, two_three, cpu));
    ck_assert_int_eq(am_tensor_ndim(t), 2);
    ck_assert_int_eq(am_tensor_shape(t)[1], 3);
    ck_assert_int_eq(am_tensor_strides(t)[0], 3);
    ck_assert_int_eq(am_tensor_strides(t)[1], 1);
    ck_assert_int_eq(am_tensor_numel(t), 6);
    ck_assert(am_tensor_is_contiguous(t) && am_tensor_is_leaf(t) && am_tensor_alive(t));
    ck_assert_int_eq((intptr_t)am_tensor_data(t) % 64, 0);
    am_tensor_release(t);
    OK(am_tensor_new(&t, AM_F64, 0, NULL, cpu));
    ck_assert_int_eq(am_tensor_numel(t), 1);
    am_tensor_release(t);
    const int64_t eight[] = {1, 1, 1, 2, 1, 1, 1, 1};
    OK(am_tensor_new(&t, AM_BOOL, 8, eight, cpu));
    am_tensor_release(t);
    am_tensor_release(NULL);
}
END_TEST

START_TEST(wild_shapes)
{
    am_tensor *t = NULL;
    const int64_t negative[] = {2, -1}, huge[] = {INT64_MAX, 2},
                  hidden[] = {0, INT64_MAX, INT64_MAX};
    const int64_t large[] = {INT64_MAX / 16 + 1}, nine[9] = {0}, above[] = {(int64_t)1 << 56};
    FAILS(am_tensor_new(&t, AM_F32, 2, negative, cpu), AM_ESHAPE, "-1");
    FAILS(am_tensor_new(&t, AM_F32, 2, huge, cpu), AM_ESHAPE, "range");
    FAILS(am_tensor_new(&t, AM_F32, 3, hidden, cpu), AM_ESHAPE, "range");
    FAILS(am_tensor_new(&t, AM_U8, 1, large, cpu), AM_ESHAPE, "range");
    FAILS(am_tensor_new(&t, AM_F32, 9, nine, cpu), AM_ESHAPE, "9");
    FAILS(am_tensor_new(&t, AM_F32, -1, nine, cpu), AM_ESHAPE, "-1");
    FAILS(am_tensor_new(&t, AM_DTYPE_COUNT, 1, nine, cpu), AM_EINVAL, "dtype");
    FAILS(am_tensor_new(&t, -1, 1, nine, cpu), AM_EINVAL, "dtype");
    FAILS(am_tensor_new(&t, AM_F32, 1, nine, 99), AM_EINVAL, "99");
    FAILS(am_tensor_new(&t, AM_F32, 1, above, cpu), AM_ENOMEM, "memory");
    ck_assert_ptr_null(t);
}
END_TEST

START_TEST(shape_texts)
{
    char text[96];
    const int64_t worst[] = {INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN,
                             INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN};
    const int64_t small[] = {1, 2, 3, 4, 5, 6, 7, 8};
    ck_assert_str_eq(am_shape_text(text, 0, NULL), "[]");
    ck_assert_str_eq(am_shape_text(text, 8, small), "[1,2,3,4,5,6,7,8]");
    for (int n = 1; n <= 8; n++) {
        const char *s = am_shape_text(text, n, worst);
        ck_assert_uint_lt(strlen(s), sizeof text);
        ck_assert(s[strlen(s) - 1] == ']');
    }
}
END_TEST

/* ---- views --------------------------------------------------------------------------------- */

START_TEST(strided_views)
{
    am_tensor *t = VEC(AM_F32, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11), *v, *w;
    const int64_t two_three[] = {2, 3}, steps[] = {5, 2}, back[] = {3, 2}, turned[] = {2, 5};
    OK(am_tensor_as_strided(&v, t, 2, two_three, steps, 1));
    HOLDS(v, 1, 3, 5, 6, 8, 10);
    ck_assert(!am_tensor_is_contiguous(v));
    OK(am_tensor_as_strided(&w, v, 2, back, turned, 0)); /* offsets count from the view's own */
    HOLDS(w, 1, 6, 3, 8, 5, 10);
    OK(am_tensor_fill(v, -1)); /* only its own elements */
    HOLDS(t, 0, -1, 2, -1, 4, -1, -1, 7, -1, 9, -1, 11);
    am_tensor_release(t);
    HOLDS(w, -1, -1, -1, -1, -1, -1);
    RELEASE(v, w);
}
END_TEST

START_TEST(strided_bounds)
{
    am_tensor *t = VEC(AM_F32, 0, 1, 2, 3, 4, 5), *v = NULL;
    static const struct {
        int64_t shape[2], stride[2], offset;
        int fits;
    } cases[] = {
        {{2, 3}, {3, 1}, 0, 1},
        {{1, 64}, {1, 1}, 0, 0}, /* the block behind it is larger than the tensor */
        {{2, 3}, {3, 1}, 1, 0},
        {{2, 3}, {4, 1}, 0, 0},
        {{2, 2}, {0, 0}, 5, 1},
        {{2, 2}, {0, 0}, 6, 0},
        {{1, 1}, {1, 1}, -1, 0},
        {{2, 2}, {-1, 1}, 3, 0},
        {{0, 2}, {1, 1}, 6, 1},
        {{0, 2}, {1, 1}, 7, 0},
        {{0, 2}, {INT64_MAX, INT64_MAX}, 0, 1},
        {{1, 1}, {INT64_MAX, INT64_MAX}, 5, 1},
        {{2, 1}, {INT64_MAX, 1}, 0, 0},
        {{2, 2}, {INT64_MAX / 2, INT64_MAX / 2}, 2, 0},
        {{1, 1}, {1, 1}, INT64_MAX, 0},
        {{INT64_MAX, 2}, {0, 0}, 0, 0},
        {{-1, 2}, {1, 1}, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int rc = am_tensor_as_strided(&v, t, 2, cases[i].shape, cases[i].stride, cases[i].offset);
        ck_assert_msg(rc == (cases[i].fits ? AM_OK : AM_ESHAPE), "case %d: %s", (int)i,
                      am_error_name(rc));
        if (rc == AM_OK) {
            (void)values_of(v); /* the sanitizer watches */
            am_tensor_release(v);
        }
    }
    /* seen from a view, offsets add up */
    const int64_t one[] = {1}, four[] = {4};
    am_tensor *last;
    OK(am_tensor_as_strided(&last, t, 1, one, one, 5));
    FAILS(am_tensor_as_strided(&v, last, 1, one, one, 1), AM_ESHAPE, "outside");
    FAILS(am_tensor_as_strided(&v, last, 1, one, one, INT64_MAX), AM_ESHAPE, "outside");
    FAILS(am_tensor_as_strided(&v, last, 1, four, one, 0), AM_ESHAPE, "outside");
    FAILS(am_tensor_as_strided(&v, NULL, 1, one, one, 0), AM_EINVAL, "as_strided");
    RELEASE(t, last);
}
END_TEST

START_TEST(detached)
{
    am_tensor *x = leaf(VEC(AM_F32, 1, 2)), *y = times(x, 2), *d;
    OK(am_tensor_detach(&d, y));
    ck_assert(am_tensor_is_leaf(d) && !am_tensor_requires_grad(d));
    OK(am_tensor_fill(d, 9));
    HOLDS(y, 9, 9); /* the same bytes */
    RELEASE(x, y, d);
}
END_TEST

/* ---- transfers and copies ------------------------------------------------------------------ */

START_TEST(read_and_write)
{
    const int64_t two_three[] = {2, 3}, three_two[] = {3, 2}, turned[] = {1, 3};
    for (int device = 0; device < devices_here(); device++) {
        am_tensor *t, *v;
        float in[6] = {1, 2, 3, 4, 5, 6}, out[6];
        OK(am_tensor_new(&t, AM_F32, 2, two_three, device));
        OK(am_tensor_write(t, in, sizeof in));
        OK(am_tensor_as_strided(&v, t, 2, three_two, turned, 0));
        OK(am_tensor_read(v, out, sizeof out));
        const float columns[] = {1, 4, 2, 5, 3, 6};
        ck_assert_int_eq(memcmp(out, columns, sizeof out), 0);
        OK(am_tensor_write(v, in, sizeof in)); /* back through the strides */
        OK(am_tensor_read(t, out, sizeof out));
        const float rows[] = {1, 3, 5, 2, 4, 6};
        ck_assert_int_eq(memcmp(out, rows, sizeof out), 0);
        FAILS(am_tensor_read(t, out, 20), AM_ESHAPE, "20 bytes");
        FAILS(am_tensor_write(t, in, 25), AM_ESHAPE, "25 bytes");
        ck_assert((am_tensor_data(t) != NULL) == am_device_is_host(device));
        am_tensor_drop(t);
        ck_assert_ptr_null(am_tensor_data(t));
        FAILS(am_tensor_read(t, out, 24), AM_ESTATE, "read");
        FAILS(am_tensor_write(t, out, 24), AM_ESTATE, "write");
        FAILS(am_tensor_fill(t, 0), AM_ESTATE, "fill");
        FAILS(am_tensor_copy(t, v), AM_ESTATE, "copy");
        FAILS(am_tensor_copy(v, t), AM_ESTATE, "copy");
        RELEASE(t, v);
    }
}
END_TEST

/* From every device to every device, between all dtypes, strided on both sides. */
START_TEST(copies)
{
    const int64_t two_three[] = {2, 3}, turned[] = {1, 2}, six[] = {6};
    const double v[] = {0, 1, 2, 3, 100, 127};
    for (int from = 0; from < devices_here(); from++)
        for (int to = 0; to < devices_here(); to++)
            for (int a = 0; a < AM_DTYPE_COUNT; a++)
                for (int b = 0; b < AM_DTYPE_COUNT; b++) {
                    am_tensor *src = make_on(from, a, 1, six, v), *dst, *seen, *into;
                    OK(am_tensor_new(&dst, b, 1, six, to));
                    OK(am_tensor_as_strided(&seen, src, 2, two_three, turned, 0));
                    OK(am_tensor_as_strided(&into, dst, 2, two_three, turned, 0));
                    OK(am_tensor_copy(into, seen));
                    if (a == AM_BOOL || b == AM_BOOL)
                        HOLDS(dst, 0, 1, 1, 1, 1, 1);
                    else
                        holds(dst, 6, v);
                    RELEASE(src, dst, seen, into);
                }
}
END_TEST

START_TEST(copies_broadcast)
{
    const int64_t two_three[] = {2, 3}, two_one[] = {2, 1};
    am_tensor *row = VEC(AM_F32, 1, 2, 3),
              *column = make_on(ref, AM_F32, 2, two_one, (double[]){7, 8});
    am_tensor *four = VEC(AM_F32, 1, 2, 3, 4), *dst,
              *one = make_on(cpu, AM_F64, 0, NULL, (double[]){5});
    OK(am_tensor_new(&dst, AM_F32, 2, two_three, ref));
    OK(am_tensor_copy(dst, row));
    HOLDS(dst, 1, 2, 3, 1, 2, 3);
    OK(am_tensor_copy(dst, column));
    HOLDS(dst, 7, 7, 7, 8, 8, 8);
    OK(am_tensor_copy(dst, one)); /* another device, another dtype */
    HOLDS(dst, 5, 5, 5, 5, 5, 5);
    FAILS(am_tensor_copy(dst, four), AM_ESHAPE, "[4] into [2,3]");
    FAILS(am_tensor_copy(row, dst), AM_ESHAPE, "[2,3] into [3]");
    FAILS(am_tensor_copy(dst, NULL), AM_EINVAL, "copy");
    RELEASE(row, column, four, dst, one);
}
END_TEST

START_TEST(appends)
{
    const int64_t store_shape[] = {2, 3, 2}, pair[] = {2, 2, 2}, wide[] = {2, 1, 3};
    for (int device = 0; device < devices_here(); device++) {
        am_tensor *store = make_on(device, AM_F32, 3, store_shape, (double[12]){0}), *all, *other;
        am_tensor *src = leaf(make_on(device, AM_F64, 3, pair, (double[]){1, 2, 3, 4, 5, 6, 7, 8}));
        OK(am_tensor_append(&all, store, src, 1));
        HOLDS(all, 0, 0, 1, 2, 3, 4, 0, 0, 5, 6, 7, 8);
        ck_assert(!am_tensor_requires_grad(all));
        am_tensor_release(all);
        OK(am_tensor_append(&all, store, src, 0));
        ck_assert_int_eq(am_tensor_shape(all)[1], 2);
        HOLDS(all, 1, 2, 3, 4, 5, 6, 7, 8);
        HOLDS(store, 1, 2, 3, 4, 3, 4, 5, 6, 7, 8, 7, 8);
        am_tensor_release(all);
        other = make_on(device, AM_F32, 3, wide, (double[6]){0});
        FAILS(am_tensor_append(&all, store, src, 2), AM_ESHAPE,
              "[2,2,2] does not fit into [2,3,2]");
        FAILS(am_tensor_append(&all, store, src, -1), AM_ESHAPE, "at -1");
        FAILS(am_tensor_append(&all, store, src, INT64_MAX), AM_ESHAPE, "append");
        FAILS(am_tensor_append(&all, store, other, 0), AM_ESHAPE, "append");
        FAILS(am_tensor_append(&all, store, NULL, 0), AM_EINVAL, "append");
        FAILS(am_tensor_append(&all, NULL, src, 0), AM_EINVAL, "append");
        RELEASE(store, src, other);
    }
}
END_TEST

START_TEST(items)
{
    double value;
    for (int device = 0; device < devices_here(); device++)
        for (int dtype = 0; dtype < AM_DTYPE_COUNT; dtype++) {
            am_tensor *t = make_on(device, dtype, 0, NULL, (double[]){dtype == AM_BOOL ? 1 : 77});
            OK(am_tensor_item(t, &value));
            ck_assert_double_eq(value, dtype == AM_BOOL ? 1 : 77);
            am_tensor_release(t);
        }
    am_tensor *two = VEC(AM_F32, 1, 2), *v;
    FAILS(am_tensor_item(two, &value), AM_ESHAPE, "[2]");
    const int64_t one[] = {1};
    OK(am_tensor_as_strided(&v, two, 1, one, one, 1));
    OK(am_tensor_item(v, &value));
    ck_assert_double_eq(value, 2);
    am_tensor_drop(v);
    FAILS(am_tensor_item(v, &value), AM_ESTATE, "item");
    RELEASE(two, v);
}
END_TEST

START_TEST(dropped)
{
    int64_t before = live_bytes(ref);
    am_tensor *x = leaf(VEC(AM_F32, 1, 2)), *y = times(x, 2), *loss = total(y), *view, *g = NULL;
    am_event ev;
    OK(am_tensor_detach(&view, x));
    OK(am_backward_begin(loss, NULL));
    OK(am_backward_next(&ev));
    am_tensor_drop(x);
    am_tensor_drop(x);
    ck_assert(!am_tensor_alive(x));
    OK(am_tensor_grad(&g, x)); /* gone with it */
    ck_assert_ptr_null(g);
    ck_assert_int_eq(am_tensor_shape(x)[0], 2);
    HOLDS(view, 1, 2);
    RELEASE(x, y, loss, view);
    ck_assert_int_eq(live_bytes(ref), before);
}
END_TEST

START_TEST(dtypes)
{
    static const struct {
        const char *name;
        int dtype;
    } good[] = {{"float32", AM_F32}, {"F32", AM_F32},    {"torch.float32", AM_F32},
                {"float", AM_F32},   {"half", AM_F16},   {"torch.bfloat16", AM_BF16},
                {"BF16", AM_BF16},   {"double", AM_F64}, {"int64", AM_I64},
                {"long", AM_I64},    {"int", AM_I32},    {"uint8", AM_U8},
                {"bool", AM_BOOL},   {"Float16", AM_F16}};
    int dtype = -1;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        OK(am_dtype_find(&dtype, good[i].name));
        ck_assert_msg(dtype == good[i].dtype, "%s is %s", good[i].name, am_dtype_name(dtype));
    }
    FAILS(am_dtype_find(&dtype, "float31"), AM_EINVAL, "float31");
    FAILS(am_dtype_find(&dtype, ""), AM_EINVAL, "");
    FAILS(am_dtype_find(&dtype, NULL), AM_EINVAL, "");
    ck_assert_str_eq(am_dtype_name(-1), "?");
    ck_assert_str_eq(am_dtype_name(AM_DTYPE_COUNT), "?");
    ck_assert_int_eq(am_dtype_size(AM_DTYPE_COUNT), 0);
    ck_assert_int_eq(am_dtype_size(AM_BF16), 2);
}
END_TEST

/* A language without types passes NULL where a tensor is missing. */
START_TEST(no_tensor)
{
    am_tensor *t, *real;
    double value;
    const int64_t one = 1;
    OK(am_tensor_new(&real, AM_F32, 1, &one, cpu));
    ck_assert(!am_tensor_alive(NULL) && am_tensor_dtype(NULL) == -1 &&
              am_tensor_device(NULL) == -1);
    ck_assert(am_tensor_ndim(NULL) == 0 && am_tensor_numel(NULL) == 1 && !am_tensor_data(NULL));
    ck_assert(am_tensor_shape(NULL) && am_tensor_strides(NULL) && !am_tensor_requires_grad(NULL));
    (void)am_tensor_is_contiguous(NULL);
    (void)am_tensor_is_leaf(NULL);
    am_tensor_retain(NULL);
    am_tensor_drop(NULL);
    am_tensor_release(NULL);
    ck_assert_int_eq(am_tensor_write(NULL, &value, 0), AM_EINVAL);
    ck_assert_int_eq(am_tensor_read(NULL, &value, 0), AM_EINVAL);
    ck_assert_int_eq(am_tensor_item(NULL, &value), AM_EINVAL);
    ck_assert_int_eq(am_tensor_copy(NULL, real), AM_EINVAL);
    ck_assert_int_eq(am_tensor_copy(real, NULL), AM_EINVAL);
    ck_assert_int_eq(am_tensor_fill(NULL, 1), AM_EINVAL);
    ck_assert_int_eq(am_tensor_set_requires_grad(NULL, 1), AM_EINVAL);
    ck_assert_int_eq(am_tensor_grad(&t, NULL), AM_EINVAL);
    ck_assert_int_eq(am_tensor_set_grad(NULL, real), AM_EINVAL);
    ck_assert_int_eq(am_tensor_detach(&t, NULL), AM_EINVAL);
    ck_assert_int_eq(am_tensor_as_strided(&t, NULL, 1, &one, &one, 0), AM_EINVAL);
    ck_assert_int_eq(am_rng_uniform(NULL, 0, 1), AM_EINVAL);
    ck_assert_int_eq(am_rng_normal(NULL, 0, 1), AM_EINVAL);
    OK(am_scope_push());
    ck_assert_int_eq(am_scope_keep(NULL), AM_EINVAL);
    ck_assert_int_eq(am_scope_escape(NULL), AM_EINVAL);
    OK(am_scope_pop());
    ck_assert_str_eq(am_error_message(), "am.escape: a tensor is missing");
    am_tensor_release(real);
}
END_TEST

/* LuaJIT would take these NaNs for nil, a table, a function … */
START_TEST(plain_nans)
{
    const uint32_t bits32[] = {0xffffffff, 0xffe00000, 0x7f800001, 0x3f800000, 0x7f800000};
    const uint64_t bits64[] = {0xfffa000041414141, 0x7ff0000000000001, 0x4000000000000000};
    const uint64_t plain = 0x7ff8000000000000;
    const int64_t one = 1;
    float f32[5];
    double f64[3], value;
    am_tensor *t;
    memcpy(f32, bits32, sizeof f32);
    memcpy(f64, bits64, sizeof f64);
    for (int i = 0; i < 3; i++) {
        OK(am_tensor_new(&t, AM_F32, 1, &one, cpu));
        OK(am_tensor_write(t, &f32[i], sizeof *f32));
        OK(am_tensor_item(t, &value));
        ck_assert_mem_eq(&value, &plain, sizeof plain);
        am_tensor_release(t);
    }
    OK(am_floats_canonical(f32, AM_F32, 5));
    OK(am_floats_canonical(f64, AM_F64, 3));
    for (int i = 0; i < 3; i++)
        ck_assert_mem_eq(&f32[i], &(uint32_t){0x7fc00000}, 4);
    ck_assert(f32[3] == 1 && f32[4] == INFINITY && f64[2] == 2);
    ck_assert(memcmp(&f64[0], &plain, 8) == 0 && memcmp(&f64[1], &plain, 8) == 0);
    ck_assert_int_eq(am_floats_canonical(f32, AM_I32, 5), AM_EINVAL);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("tensor");
    TCase *t = tcase_create("shapes");
    tcase_add_checked_fixture(t, find_devices, NULL);
    tcase_add_test(t, shapes);
    tcase_add_test(t, wild_shapes);
    tcase_add_test(t, shape_texts);
    tcase_add_test(t, dtypes);
    suite_add_tcase(s, t);
    t = tcase_create("views");
    tcase_add_checked_fixture(t, find_devices, NULL);
    tcase_add_test(t, strided_views);
    tcase_add_test(t, strided_bounds);
    tcase_add_test(t, detached);
    tcase_add_test(t, dropped);
    suite_add_tcase(s, t);
    t = tcase_create("copies");
    tcase_add_checked_fixture(t, find_devices, NULL);
    tcase_add_test(t, read_and_write);
    tcase_add_test(t, copies);
    tcase_add_test(t, copies_broadcast);
    tcase_add_test(t, appends);
    tcase_add_test(t, items);
    tcase_add_test(t, plain_nans);
    tcase_add_test(t, no_tensor);
    suite_add_tcase(s, t);
    return run_suite(s);
}
