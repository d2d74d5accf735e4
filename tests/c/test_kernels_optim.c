/* Optimizer steps and the sum of squares of every instruction set against ref. */
#include "test_kernels.h"

/* The last is enough work for several threads. */
static const int64_t sizes[] = {1, 3, 8, 17, 101, 32999};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* A step's numbers are f32 there and double in ref: a few f32 ulps of the operands, and one
 * rounding to the stored dtype. */
static void compare(const char *what, const void *got, const void *want, int dtype, int64_t n)
{
    check_close(what, got, want, dtype, n, ulp_of(dtype) + 8 * ulp_of(AM_F32), 8 * ulp_of(AM_F32));
}

static void adam_case(const am_cpu_kernels *k, int64_t n, int dtype, int state, int grad_dtype,
                      int with_master, int decoupled)
{
    void *p = random_elems(dtype, n, -1, 1), *p_ref = copy_elems(dtype, n, p);
    void *m = random_elems(state, n, -0.1, 0.1), *m_ref = copy_elems(state, n, m);
    void *v = random_elems(state, n, 0.001, 0.01), *v_ref = copy_elems(state, n, v);
    float *w = random_elems(AM_F32, n, -1, 1), *w_ref = copy_elems(AM_F32, n, w);
    void *grad = random_elems(grad_dtype, n, -1, 1);
    am_adam_args args = {p,         m,     v,     with_master ? w : NULL,
                         grad,      dtype, state, grad_dtype,
                         decoupled, n,     1e-2,  0.9,
                         0.999,     1e-8,  0.1,   0.19,
                         0.002,     0.7};
    ck_assert_int_eq(k->adam(NULL, &args), AM_OK);
    args.param = p_ref;
    args.m = m_ref;
    args.v = v_ref;
    args.master = with_master ? w_ref : NULL;
    ck_assert_int_eq(am_backend_ref.adam(NULL, &args), AM_OK);
    compare("adam: param", p, p_ref, dtype, n);
    compare("adam: m", m, m_ref, state, n);
    compare("adam: v", v, v_ref, state, n);
    compare("adam: master", w, w_ref, AM_F32, n);
    free(p);
    free(p_ref);
    free(m);
    free(m_ref);
    free(v);
    free(v_ref);
    free(w);
    free(w_ref);
    free(grad);
}

START_TEST(adam)
{
    for (int isa = 0; isa < ISA_COUNT; isa++)
        for (int c = 0; isa_kernels(isa) && c < SIZES * 3 * 2 * 2 * 4; c++) {
            int dtype = half_dtypes[c / SIZES % 3];
            int state = c / SIZES / 3 % 2 ? AM_F32 : dtype;
            int grad = c / SIZES / 6 % 2 ? AM_F32 : dtype;
            if (c % SIZES == SIZES - 1 && (state != AM_F32 || grad != AM_F32))
                continue;
            adam_case(isa_kernels(isa), sizes[c % SIZES], dtype, state, grad, c / SIZES / 12 & 1,
                      c / SIZES / 24 & 1);
        }
}
END_TEST

static void sgd_case(const am_cpu_kernels *k, int64_t n, int dtype, int mode)
{
    void *p = random_elems(dtype, n, -1, 1), *p_ref = copy_elems(dtype, n, p);
    float *buf = random_elems(AM_F32, n, -1, 1), *buf_ref = copy_elems(AM_F32, n, buf);
    float *w = random_elems(AM_F32, n, -1, 1), *w_ref = copy_elems(AM_F32, n, w);
    float *grad = random_elems(AM_F32, n, -1, 1);
    int with_buf = mode & 1, with_master = mode >> 1 & 1, first = mode >> 2 & 1;
    am_sgd_args args = {p,
                        with_buf ? buf : NULL,
                        with_master ? w : NULL,
                        grad,
                        dtype,
                        AM_F32,
                        AM_F32,
                        first,
                        mode >> 3 & 1,
                        n,
                        0.1,
                        0.9,
                        0.25,
                        0.01,
                        0.5};
    ck_assert_int_eq(k->sgd(NULL, &args), AM_OK);
    args.param = p_ref;
    args.buf = with_buf ? buf_ref : NULL;
    args.master = with_master ? w_ref : NULL;
    ck_assert_int_eq(am_backend_ref.sgd(NULL, &args), AM_OK);
    compare("sgd: param", p, p_ref, dtype, n);
    compare("sgd: buf", buf, buf_ref, AM_F32, n);
    compare("sgd: master", w, w_ref, AM_F32, n);
    free(p);
    free(p_ref);
    free(buf);
    free(buf_ref);
    free(w);
    free(w_ref);
    free(grad);
}

START_TEST(sgd)
{
    for (int isa = 0; isa < ISA_COUNT; isa++)
        for (int c = 0; isa_kernels(isa) && c < SIZES * 3 * 16; c++)
            sgd_case(isa_kernels(isa), sizes[c % SIZES], half_dtypes[c / SIZES % 3], c / SIZES / 3);
}
END_TEST

START_TEST(sumsq)
{
    static const int64_t many[] = {1, 7, 65535, 65536, 65537, 200003};
    for (int isa = 0; isa < ISA_COUNT; isa++)
        for (int c = 0; isa_kernels(isa) && c < 6 * 3; c++) {
            int64_t n = many[c % 6];
            int dtype = half_dtypes[c / 6];
            void *x = random_elems(dtype, n, -3, 3);
            double got, want, again, partial[4];
            am_sumsq_args args = {&got, partial, x, dtype, n};
            am_threads_set(1);
            ck_assert_int_eq(isa_kernels(isa)->sumsq(NULL, &args), AM_OK);
            args.out = &again;
            am_threads_set(3);
            ck_assert_int_eq(isa_kernels(isa)->sumsq(NULL, &args), AM_OK);
            check_same_bits("sumsq: threads", &got, &again, sizeof got);
            args.out = &want;
            ck_assert_int_eq(am_backend_ref.sumsq(NULL, &args), AM_OK);
            check_close("sumsq", &got, &want, AM_F64, 1, 1e-12, 0);
            free(x);
        }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {adam, sgd, sumsq};
    return run_suite("kernels_optim", tests, sizeof tests / sizeof *tests);
}
