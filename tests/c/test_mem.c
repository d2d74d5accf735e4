/* test_mem.c — the allocator: counting, budget, refusals; and a training step in which every single
 * allocation fails in turn. The cache of released blocks is off under sanitizers, so that they see
 * each release: it is tested from Lua (tests/lua/core/scope_spec.lua) and here in other builds. */
#include "core/mem.h"
#include "engine_helpers.h"

static int cpu;

static void find_device(void)
{
    OK(am_device_find(&cpu, "cpu"));
}

static am_mem_stats stats(void)
{
    am_mem_stats s;
    OK(am_mem_get(cpu, &s));
    return s;
}

START_TEST(counts)
{
    am_tensor *t;
    const int64_t n = 1000;
    am_mem_stats before = stats();
    OK(am_mem_reset_peak(cpu));
    OK(am_tensor_new(&t, AM_F32, 1, &n, cpu));
    am_mem_stats with = stats();
    ck_assert_int_ge(with.live_bytes - before.live_bytes, 4000);
    ck_assert_int_le(with.live_bytes - before.live_bytes, 4500); /* an eighth of slack at most */
    ck_assert_int_eq(with.live_storages, before.live_storages + 1);
    ck_assert_int_eq(with.allocations, before.allocations + 1);
    am_tensor *view;
    OK(am_tensor_detach(&view, t));
    ck_assert_int_eq(stats().live_bytes, with.live_bytes);
    am_tensor_release(t);
    ck_assert_int_eq(stats().live_bytes, with.live_bytes); /* the view holds it */
    am_tensor_release(view);
    ck_assert_int_eq(stats().live_bytes, before.live_bytes);
    ck_assert_int_eq(stats().peak_bytes, with.live_bytes);
    OK(am_mem_reset_peak(cpu));
    ck_assert_int_eq(stats().peak_bytes, before.live_bytes);
    am_mem_stats s;
    FAILS(am_mem_get(-1, &s), AM_EINVAL, "-1");
    FAILS(am_mem_get(99, &s), AM_EINVAL, "99");
    FAILS(am_mem_reset_peak(99), AM_EINVAL, "99");
    FAILS(am_mem_trim(99), AM_EINVAL, "99");
}
END_TEST

/* Every size from 0 up: aligned, writable to its end, and never more than an eighth too large. */
START_TEST(sizes)
{
    for (int64_t n = 0; n < 5000; n += n < 600 ? 1 : 37) {
        void *p;
        int64_t before = stats().live_bytes;
        OK(am_device_alloc(cpu, AM_POOL_COMMON, &p, (size_t)n));
        ck_assert_int_eq((intptr_t)p % 64, 0);
        memset(p, 1, (size_t)n);
        int64_t got = stats().live_bytes - before;
        ck_assert_int_ge(got, n);
        ck_assert_int_le(got, n < 256 ? 256 : n + n / 8 + 1);
        am_device_free(cpu, AM_POOL_COMMON, p, (size_t)n);
        ck_assert_int_eq(stats().live_bytes, before);
    }
    void *p;
    FAILS(am_device_alloc(cpu, AM_POOL_COMMON, &p, (size_t)1 << 62), AM_ENOMEM, "cpu");
    FAILS(am_device_alloc(cpu, AM_POOL_COMMON, &p, SIZE_MAX), AM_ENOMEM, "cpu");
    FAILS(am_device_alloc(99, AM_POOL_COMMON, &p, 1), AM_EINVAL, "99");
}
END_TEST

START_TEST(cache)
{
    void *p, *q;
    OK(am_mem_trim(cpu));
    ck_assert_int_eq(stats().cached_bytes, 0);
    OK(am_device_alloc(cpu, AM_POOL_COMMON, &p, 100000));
    am_device_free(cpu, AM_POOL_COMMON, p, 100000);
#if defined(__SANITIZE_ADDRESS__)
    ck_assert_int_eq(stats().cached_bytes, 0);
#else
    int64_t kept = stats().cached_bytes;
    ck_assert_int_ge(kept, 100000);
    OK(am_device_alloc(cpu, AM_POOL_COMMON, &q, 99999)); /* the same block serves */
    ck_assert_ptr_eq(p, q);
    ck_assert_int_eq(stats().cached_bytes, 0);
    OK(am_device_alloc(cpu, AM_POOL_COMMON, &p, 50000)); /* another size does not */
    am_device_free(cpu, AM_POOL_COMMON, q, 99999);
    am_device_free(cpu, AM_POOL_COMMON, p, 50000);
    ck_assert_int_gt(stats().cached_bytes, kept);
#endif
    OK(am_mem_trim(cpu));
    ck_assert_int_eq(stats().cached_bytes, 0);
    q = NULL;
    am_device_free(cpu, AM_POOL_COMMON, q, 0);
}
END_TEST

START_TEST(budget)
{
    am_tensor *t = NULL;
    const int64_t n = 1 << 20;
    int64_t before = stats().live_bytes;
    OK(am_mem_set_budget(cpu, before + (3 << 20)));
    FAILS(am_tensor_new(&t, AM_F32, 1, &n, cpu), AM_ENOMEM, "budget");
    ck_assert_ptr_null(t);
    ck_assert_int_eq(stats().live_bytes, before);
    OK(am_tensor_new(&t, AM_BF16, 1, &n, cpu));
    am_tensor_release(t);
    OK(am_mem_set_budget(cpu, 0));
    OK(am_tensor_new(&t, AM_F32, 1, &n, cpu));
    am_tensor_release(t);
    FAILS(am_mem_set_budget(cpu, -1), AM_EINVAL, "-1");
    FAILS(am_mem_set_budget(-1, 5), AM_EINVAL, "-1");
    FAILS(am_mem_fail_at(-1), AM_EINVAL, "-1");
}
END_TEST

START_TEST(fails_from_k)
{
    void *p = NULL;
    OK(am_mem_fail_from(3));
    for (int i = 1; i <= 5; i++) {
        int rc = am_alloc(&p, 10);
        ck_assert_int_eq(rc, i >= 3 ? AM_ENOMEM : AM_OK);
        if (rc == AM_OK)
            am_free(p);
    }
    OK(am_mem_fail_from(0));
    OK(am_alloc(&p, 10));
    am_free(p);
    FAILS(am_mem_fail_from(-1), AM_EINVAL, "-1");
}
END_TEST

START_TEST(fails_once_at_k)
{
    void *p = NULL;
    OK(am_mem_fail_at(3));
    for (int i = 1; i <= 5; i++) {
        int rc = am_alloc(&p, 10);
        ck_assert_int_eq(rc, i == 3 ? AM_ENOMEM : AM_OK);
        if (rc == AM_OK)
            am_free(p);
    }
    p = NULL;
    OK(am_realloc(&p, 100));
    memset(p, 7, 100);
    OK(am_mem_fail_at(1));
    void *old = p;
    FAILS(am_realloc(&p, 1 << 20), AM_ENOMEM, "memory");
    ck_assert_ptr_eq(p, old); /* still ours */
    am_free(p);
    am_free(NULL);
}
END_TEST

START_TEST(grows)
{
    int *items = NULL;
    size_t cap = 0;
    for (size_t n = 1; n < 1000; n++) {
        void *p = items;
        OK(am_grow(&p, &cap, n, sizeof *items));
        items = p;
        ck_assert(cap >= n);
        items[n - 1] = (int)n;
    }
    for (int i = 0; i < 999; i++)
        ck_assert_int_eq(items[i], i + 1);
    am_free(items);
    char *s;
    OK(am_strdup(&s, "rms"));
    ck_assert_str_eq(s, "rms");
    am_free(s);
}
END_TEST

/* ---- a training step without memory ---------------------------------------------------------- */

typedef struct model {
    am_tensor *embed, *norm, *w, *a, *b, *ids, *labels;
    am_params *params;
    am_optim *optim;
} model;

static am_tensor *random_leaf(int ndim, int64_t rows, int64_t cols, int trainable)
{
    am_tensor *t;
    const int64_t shape[] = {rows, cols};
    OK(am_tensor_new(&t, AM_F32, ndim, shape, cpu));
    OK(am_rng_normal(t, 0, 0.5));
    if (trainable)
        OK(am_tensor_set_requires_grad(t, 1));
    return t;
}

static model new_model(void)
{
    model m;
    const am_optim_config config = {
        .kind = AM_OPTIM_ADAMW, .state_dtype = -1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    const int64_t two_five[] = {2, 5}, ten[] = {10};
    OK(am_rng_seed(5));
    m.embed = random_leaf(2, 11, 8, 1);
    m.norm = random_leaf(1, 8, 1, 1);
    m.w = random_leaf(2, 8, 8, 0);
    m.a = random_leaf(2, 2, 8, 1);
    m.b = random_leaf(2, 8, 2, 1);
    m.ids = make_on(cpu, AM_I32, 2, two_five, (double[]){1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
    m.labels = make_on(cpu, AM_I64, 1, ten, (double[]){2, 3, 4, 5, -100, 7, 8, 9, 10, 0});
    OK(am_params_new(&m.params));
    OK(am_params_add(m.params, "embed", m.embed));
    OK(am_params_add(m.params, "norm", m.norm));
    OK(am_params_add(m.params, "a", m.a));
    OK(am_params_add(m.params, "b", m.b));
    OK(am_params_seal(m.params));
    OK(am_optim_new(&m.optim, m.params, &config));
    return m;
}

static void free_model(model *m)
{
    am_optim_release(m->optim);
    am_params_release(m->params);
    RELEASE(m->embed, m->norm, m->w, m->a, m->b, m->ids, m->labels);
}

#define STEP(call)                                                                                 \
    do {                                                                                           \
        if (rc == AM_OK)                                                                           \
            rc = (call);                                                                           \
    } while (0)

static int apply(am_tensor **out, int op, int n, am_tensor *const *in, am_attrs attrs)
{
    return am_apply(op, out, in, n, &attrs);
}

/* Forward, backward, norm, update; stops at the first error. */
static int training_step(model *m, double *loss)
{
    enum { EMBEDDED, NORMED, QUERY, HEADS, ATTENDED, FLAT, ADDED, HIDDEN, LOSS, COUNT };
    am_tensor *t[COUNT] = {NULL};
    am_event ev;
    double norm = 0;
    int rc = am_scope_push(), scope = rc == AM_OK;
    STEP(apply(&t[EMBEDDED], AM_OP_embedding, 2, (am_tensor *[]){m->ids, m->embed},
               (am_attrs){.embedding = {-1}}));
    STEP(apply(&t[NORMED], AM_OP_rms_norm, 2, (am_tensor *[]){t[EMBEDDED], m->norm},
               (am_attrs){.norm = {1e-5}}));
    STEP(apply(&t[QUERY], AM_OP_lora_linear, 4, (am_tensor *[]){t[NORMED], m->w, m->a, m->b},
               (am_attrs){.lora = {2, 0.1, 1}}));
    STEP(apply(&t[HEADS], AM_OP_reshape, 1, &t[QUERY], (am_attrs){.view = {4, {2, 5, 2, 4}}}));
    STEP(apply(&t[ATTENDED], AM_OP_attention, 3, (am_tensor *[]){t[HEADS], t[HEADS], t[HEADS]},
               (am_attrs){.attention = {.causal = 1}}));
    STEP(apply(&t[FLAT], AM_OP_reshape, 1, &t[ATTENDED], (am_attrs){.view = {3, {2, 5, 8}}}));
    STEP(apply(&t[ADDED], AM_OP_add, 2, (am_tensor *[]){t[EMBEDDED], t[FLAT]},
               (am_attrs){.dim = {0}}));
    STEP(apply(&t[HIDDEN], AM_OP_reshape, 1, &t[ADDED], (am_attrs){.view = {2, {10, 8}}}));
    STEP(apply(&t[LOSS], AM_OP_linear_cross_entropy, 3,
               (am_tensor *[]){t[HIDDEN], m->embed, m->labels}, (am_attrs){.loss = {-100, 0}}));
    STEP(am_tensor_item(t[LOSS], loss));
    STEP(am_backward_begin(t[LOSS], NULL));
    STEP(am_backward_next(&ev));
    STEP(am_params_grad_norm(m->params, 1, &norm));
    STEP(am_optim_step(m->optim, 1e-3, 0.01, 1 / fmax(norm, 1)));
    STEP(am_params_zero_grad(m->params));
    release_all(t, COUNT);
    if (scope)
        OK(am_scope_pop());
    return rc;
}

START_TEST(without_memory)
{
    double first, loss;
    int64_t k = 1;
    model m = new_model(); /* first run: grows the tape's arrays to their size */
    OK(training_step(&m, &first));
    free_model(&m);
    int64_t before = live_bytes(cpu);
    for (int done = 0; !done; k++) {
        m = new_model();
        OK(am_mem_fail_at(k));
        int rc = training_step(&m, &loss);
        done = rc == AM_OK;
        OK(am_mem_fail_at(0));
        if (!done) {
            ck_assert_msg(rc == AM_ENOMEM, "allocation %d: %s", (int)k, am_error_message());
            ck_assert_msg(strstr(am_error_message(), "memory"), "%s", am_error_message());
            ck_assert_msg(am_scope_depth() == 0, "a scope was left open at allocation %d", (int)k);
            ck_assert_msg(am_tape_length() == 0, "%d nodes on the tape after allocation %d",
                          (int)am_tape_length(), (int)k);
            /* and it can be done again, with the numbers of an undisturbed run */
            if (am_optim_steps(m.optim) == 0) {
                OK(am_rng_seed(5));
                model fresh = new_model();
                OK(am_params_zero_grad(m.params));
                OK(training_step(&m, &loss));
                ck_assert_msg(loss == first, "loss %.17g after allocation %d, expected %.17g", loss,
                              (int)k, first);
                free_model(&fresh);
            }
        }
        free_model(&m);
        ck_assert_msg(live_bytes(cpu) == before, "%lld bytes lost at allocation %d",
                      (long long)(live_bytes(cpu) - before), (int)k);
    }
    ck_assert_int_gt(k, 100); /* so many there are */
}
END_TEST

int main(void)
{
    Suite *s = suite_create("mem");
    TCase *t = tcase_create("allocator");
    tcase_add_checked_fixture(t, find_device, NULL);
    tcase_add_test(t, counts);
    tcase_add_test(t, sizes);
    tcase_add_test(t, cache);
    tcase_add_test(t, budget);
    tcase_add_test(t, fails_once_at_k);
    tcase_add_test(t, fails_from_k);
    tcase_add_test(t, grows);
    suite_add_tcase(s, t);
    t = tcase_create("training");
    tcase_add_checked_fixture(t, find_device, NULL);
    tcase_add_test(t, without_memory);
    suite_add_tcase(s, t);
    return run_suite(s);
}
