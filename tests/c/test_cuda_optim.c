/* test_cuda_optim.c — optimizers' kernels on device "cuda" against ref: steps in every mixture of
 * dtypes, on 8-bit moments, several in a row; Adafactor; the sum of squares. The backend is the
 * module that AMLUA_CUDA names. */
#include "cuda_run.h"
#include "kernels/cpu/dynamic_map.h"
#include "optim_steps.h"

static const int64_t sizes[] = {1, 3, 4, 255, 257, 1030};
enum { SIZES = sizeof sizes / sizeof *sizes, STEPS = 3 };

/* A step's numbers are f32 there and double in ref: a few f32 ulps of the operands each step, and
 * one rounding to the stored dtype, which the next step starts from. */
static void compare(const char *what, const void *got, const void *want, int dtype, int64_t n)
{
    check_close(what, got, want, dtype, n, STEPS * (ulp_of(dtype) + 8 * ulp_of(AM_F32)),
                STEPS * (8 * ulp_of(AM_F32) +
                         (dtype == AM_F32 || dtype == AM_F64 ? 0 : 0.01 * ulp_of(dtype))));
}

/* What a rule steps: got on CUDA, want on ref. */
typedef struct weights {
    void *p[2], *s[3][2], *grad;
    float *master[2];
} weights;

static weights make_weights(int64_t n, int dtype, int state, int dtype_grad)
{
    weights w;
    w.p[0] = keep(random_elems(dtype, n, -1, 1));
    w.p[1] = keep(copy_elems(dtype, n, w.p[0]));
    for (int k = 0; k < 3; k++) { /* a momentum with a sign, two second moments */
        w.s[k][0] = keep(random_elems(state, n, k ? 0.001 : -0.1, k ? 0.01 : 0.1));
        w.s[k][1] = keep(copy_elems(state, n, w.s[k][0]));
    }
    w.master[0] = keep(random_elems(AM_F32, n, -1, 1));
    w.master[1] = keep(copy_elems(AM_F32, n, w.master[0]));
    w.grad = keep(random_elems(dtype_grad, n, -1, 1));
    return w;
}

static void compare_weights(const char *name, const weights *w, int64_t n, int dtype, int state)
{
    compare(name, w->p[0], w->p[1], dtype, n);
    compare(name, w->master[0], w->master[1], AM_F32, n);
    for (int k = 0; k < 3; k++)
        compare(name, w->s[k][0], w->s[k][1], state, n);
    free_kept();
}

/* dtypes of weights, moments and gradients; a master is for the 16-bit ones */
static const int mixtures[][3] = {
    {AM_F32, AM_F32, AM_F32},   {AM_BF16, AM_F32, AM_F32}, {AM_BF16, AM_BF16, AM_BF16},
    {AM_F16, AM_F32, AM_F16},   {AM_F64, AM_F64, AM_F64},  {AM_F32, AM_BF16, AM_F64},
    {AM_BF16, AM_F32, AM_BF16},
};
enum { MIXTURES = sizeof mixtures / sizeof *mixtures };

static am_adam_args an_adam_step(int64_t n, const int *mixture, int decoupled)
{
    am_adam_args args = adam_step(n, decoupled);
    args.dtype = mixture[0];
    args.dtype_state = mixture[1];
    args.dtype_grad = mixture[2];
    return args;
}

static void adam_case(int64_t n, const int *mixture, int mode)
{
    weights w = make_weights(n, mixture[0], mixture[1], mixture[2]);
    size_t p = (size_t)n * elem_size(mixture[0]), s = (size_t)n * elem_size(mixture[1]);
    size_t g = (size_t)n * elem_size(mixture[2]), f = (size_t)n * 4;
    am_adam_args args = an_adam_step(n, mixture, mode >> 1 & 1);
    for (int step = 0; step < STEPS; step++)
        for (int on = 0; on < 2; on++) {
            args.param = w.p[on];
            args.m = w.s[0][on];
            args.v = w.s[1][on];
            args.vmax = mode & 4 ? w.s[2][on] : NULL;
            args.master = mode & 1 ? w.master[on] : NULL;
            args.grad = w.grad;
            if (on == 0)
                CUDA_OK(ON_CUDA(adam, &args, p, s, s, s, f, 0, 0, g));
            else
                ck_assert_int_eq(am_backend_ref.adam(NULL, &args), AM_OK);
        }
    compare_weights("adam", &w, n, mixture[0], mixture[1]);
}

static void sgd_case(int64_t n, const int *mixture, int mode)
{
    weights w = make_weights(n, mixture[0], mixture[1], mixture[2]);
    size_t p = (size_t)n * elem_size(mixture[0]), s = (size_t)n * elem_size(mixture[1]);
    size_t g = (size_t)n * elem_size(mixture[2]), f = (size_t)n * 4;
    for (int step = 0; step < STEPS; step++)
        for (int on = 0; on < 2; on++) {
            am_sgd_args args = {.param = w.p[on],
                                .buf = mode & 4 ? w.s[0][on] : NULL,
                                .master = mode & 1 ? w.master[on] : NULL,
                                .grad = w.grad,
                                .dtype = mixture[0],
                                .dtype_state = mixture[1],
                                .dtype_grad = mixture[2],
                                .first = step == 0,
                                .nesterov = mode >> 1 & 1,
                                .n = n,
                                .lr = 0.1,
                                .momentum = 0.9,
                                .dampening = 0.25,
                                .weight_decay = 0.01,
                                .grad_scale = 0.5};
            if (on == 0)
                CUDA_OK(ON_CUDA(sgd, &args, p, s, f, 0, g));
            else
                ck_assert_int_eq(am_backend_ref.sgd(NULL, &args), AM_OK);
        }
    compare_weights("sgd", &w, n, mixture[0], mixture[1]);
}

/* One step: a momentum that was rounded the other way may change a sign. */
static void lion_case(int64_t n, const int *mixture, int mode)
{
    weights w = make_weights(n, mixture[0], mixture[1], mixture[2]);
    size_t p = (size_t)n * elem_size(mixture[0]), s = (size_t)n * elem_size(mixture[1]);
    size_t g = (size_t)n * elem_size(mixture[2]), f = (size_t)n * 4;
    elem_set(w.grad, mixture[2], 0, 0); /* the sign of 0 is 0 */
    for (int on = 0; on < 2; on++) {
        elem_set(w.s[0][on], mixture[1], 0, 0);
        if (n > 2)
            elem_set(w.s[0][on], mixture[1], 1, NAN);
    }
    for (int on = 0; on < 2; on++) {
        am_lion_args args = {.param = w.p[on],
                             .m = w.s[0][on],
                             .master = mode & 1 ? w.master[on] : NULL,
                             .grad = w.grad,
                             .dtype = mixture[0],
                             .dtype_state = mixture[1],
                             .dtype_grad = mixture[2],
                             .n = n,
                             .lr = 0.01,
                             .beta1 = 0.875, /* exact, as where m and g cancel out */
                             .beta2 = 0.99,
                             .weight_decay = 0.1,
                             .grad_scale = 0.5};
        if (on == 0)
            CUDA_OK(ON_CUDA(lion, &args, p, s, f, 0, g));
        else
            ck_assert_int_eq(am_backend_ref.lion(NULL, &args), AM_OK);
    }
    compare_weights("lion", &w, n, mixture[0], mixture[1]);
}

static void all_cases(void (*one)(int64_t, const int *, int))
{
    for (int c = 0; c < SIZES * MIXTURES * 8; c++) {
        const int *mixture = mixtures[c / SIZES % MIXTURES];
        int mode = c / SIZES / MIXTURES;
        if ((mode & 1) && mixture[0] != AM_BF16 && mixture[0] != AM_F16)
            continue;
        cuda_shift = c % 5 == 4 ? 8 : 0; /* off 16 bytes now and then */
        one(sizes[c % SIZES], mixture, mode);
    }
}

START_TEST(adam)
{
    all_cases(adam_case);
}
END_TEST

START_TEST(sgd)
{
    all_cases(sgd_case);
}
END_TEST

START_TEST(lion)
{
    all_cases(lion_case);
}
END_TEST

START_TEST(refused)
{
    float x[4] = {0};
    am_adam_args args = {.param = x, .m = x, .v = x, .grad = x, .dtype = AM_I32, .n = 4};
    ck_assert_int_eq(ON_CUDA(adam, &args, 16, 16, 16, 0, 0, 0, 0, 16), AM_EUNSUP);
    args.dtype = AM_F32;
    args.dtype_grad = AM_I64;
    ck_assert_int_eq(ON_CUDA(adam, &args, 16, 16, 16, 0, 0, 0, 0, 16), AM_EUNSUP);
    args.dtype_grad = AM_F32;
    args.dtype_state = AM_I32;
    ck_assert_int_eq(ON_CUDA(adam, &args, 16, 16, 16, 0, 0, 0, 0, 16), AM_EUNSUP);
}
END_TEST

/* ---- 8-bit moments --------------------------------------------------------------------------- */

typedef struct codes8 {
    uint8_t *code[2];
    float *absmax[2];
} codes8;

static int64_t blocks_of(int64_t n)
{
    return (n + AM_STATE_BLOCK - 1) / AM_STATE_BLOCK;
}

static codes8 random_codes(int64_t n, const am_dynamic_map *map, double size)
{
    codes8 c;
    float *x = keep(elems(AM_F32, n));
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(random_in(map->zero ? -size : 0, size) * exp(random_in(-12, 0)));
    if (n > 300)
        memset(x, 0, AM_STATE_BLOCK * sizeof *x); /* a block that nothing has come to yet */
    for (int on = 0; on < 2; on++) {
        c.code[on] = keep(malloc((size_t)n));
        c.absmax[on] = keep(elems(AM_F32, blocks_of(n)));
        for (int64_t b = 0; b < blocks_of(n); b++) {
            int64_t first = b * AM_STATE_BLOCK, left = n - first;
            c.absmax[on][b] = am_to_codes(c.code[on] + first, x + first,
                                          left < AM_STATE_BLOCK ? left : AM_STATE_BLOCK, map);
        }
    }
    return c;
}

/* The same codes as ref's, but for numbers that lie on a bound. */
static void compare_codes(const char *what, const codes8 *c, int64_t n)
{
    int64_t other = 0;
    check_close(what, c->absmax[0], c->absmax[1], AM_F32, blocks_of(n), 1e-5, 0);
    for (int64_t i = 0; i < n; i++) {
        int off = c->code[0][i] - c->code[1][i];
        other += off != 0;
        ck_assert_msg(off >= -1 && off <= 1, "%s: code %lld is off by %d", what, (long long)i, off);
    }
    ck_assert_msg(other <= n / 200 + 1, "%s: %lld of %lld codes differ", what, (long long)other,
                  (long long)n);
}

static void codes_case(int64_t n, int dtype)
{
    const am_dynamic_map *with_sign = am_dynamic_map_signed(), *without = am_dynamic_map_unsigned();
    codes8 m = random_codes(n, with_sign, 0.1), v = random_codes(n, without, 0.01);
    codes8 buf = random_codes(n, with_sign, 1), lion_m = random_codes(n, with_sign, 1);
    size_t p = (size_t)n * elem_size(dtype), s = (size_t)n, f = (size_t)n * 4;
    size_t a = (size_t)blocks_of(n) * 4;
    int mixture[] = {dtype, AM_U8, AM_F32};
    weights w[3];
    for (int k = 0; k < 3; k++)
        w[k] = make_weights(n, dtype, AM_F32, AM_F32);
    for (int on = 0; on < 2; on++) {
        int with_master = dtype == AM_BF16;
        am_adam_args adam_args = an_adam_step(n, mixture, 1);
        adam_args.param = w[0].p[on];
        adam_args.m = m.code[on];
        adam_args.v = v.code[on];
        adam_args.m_absmax = m.absmax[on];
        adam_args.v_absmax = v.absmax[on];
        adam_args.master = with_master ? w[0].master[on] : NULL;
        adam_args.grad = w[0].grad;
        am_sgd_args sgd_args = {.param = w[1].p[on],
                                .buf = buf.code[on],
                                .buf_absmax = buf.absmax[on],
                                .grad = w[1].grad,
                                .dtype = dtype,
                                .dtype_state = AM_U8,
                                .dtype_grad = AM_F32,
                                .n = n,
                                .lr = 0.1,
                                .momentum = 0.9,
                                .grad_scale = 0.5};
        am_lion_args lion_args = {.param = w[2].p[on],
                                  .m = lion_m.code[on],
                                  .m_absmax = lion_m.absmax[on],
                                  .grad = w[2].grad,
                                  .dtype = dtype,
                                  .dtype_state = AM_U8,
                                  .dtype_grad = AM_F32,
                                  .n = n,
                                  .lr = 0.01,
                                  .beta1 = 0.9,
                                  .beta2 = 0.99,
                                  .grad_scale = 1};
        if (on == 0) {
            CUDA_OK(ON_CUDA(adam, &adam_args, p, s, s, 0, f, a, a, f));
            CUDA_OK(ON_CUDA(sgd, &sgd_args, p, s, f, a, f));
            CUDA_OK(ON_CUDA(lion, &lion_args, p, s, f, a, f));
        } else {
            ck_assert_int_eq(am_backend_ref.adam(NULL, &adam_args), AM_OK);
            ck_assert_int_eq(am_backend_ref.sgd(NULL, &sgd_args), AM_OK);
            ck_assert_int_eq(am_backend_ref.lion(NULL, &lion_args), AM_OK);
        }
    }
    for (int k = 0; k < 3; k++) {
        compare("8 bits: param", w[k].p[0], w[k].p[1], dtype, n);
        compare("8 bits: master", w[k].master[0], w[k].master[1], AM_F32, n);
    }
    compare_codes("adam: m", &m, n);
    compare_codes("adam: v", &v, n);
    compare_codes("sgd: buf", &buf, n);
    compare_codes("lion: m", &lion_m, n);
    free_kept();
}

START_TEST(codes)
{
    static const int64_t many[] = {1, 17, 255, 256, 257, 700};
    static const int dtypes[] = {AM_F32, AM_BF16, AM_F64};
    for (int c = 0; c < 6 * 3; c++)
        codes_case(many[c % 6], dtypes[c / 6]);
}
END_TEST

/* A share that is the bound between two codes has the one nearer to zero: in every bit as on a CPU.
 */
START_TEST(bounds)
{
    const am_dynamic_map *map = am_dynamic_map_signed();
    enum { N = AM_STATE_BLOCK };
    float p[2][N] = {0}, grad[N], absmax[2][1] = {0};
    uint8_t code[2][N] = {0};
    for (int i = 0; i < N; i++)
        grad[i] = isfinite(map->bound[i / 2]) ? map->bound[i / 2] * (i % 2 ? -1 : 1) : 0;
    grad[N - 1] = 1; /* the largest */
    for (int on = 0; on < 2; on++) {
        am_sgd_args args = {.param = p[on],
                            .buf = code[on],
                            .buf_absmax = absmax[on],
                            .grad = grad,
                            .dtype_state = AM_U8,
                            .n = N,
                            .lr = 1,
                            .momentum = 0.9,
                            .first = 1,
                            .grad_scale = 1};
        if (on == 0)
            CUDA_OK(
                ON_CUDA(sgd, &args, sizeof p[0], sizeof code[0], 0, sizeof absmax[0], sizeof grad));
        else
            ck_assert_int_eq(am_backend_ref.sgd(NULL, &args), AM_OK);
    }
    check_same_bits("codes", code[0], code[1], sizeof code[0]);
}
END_TEST

/* ---- Adafactor ------------------------------------------------------------------------------- */

/* rms and the columns' sums add up many numbers in f32. */
static void compare_sums(const char *what, const void *got, const void *want, int dtype, int64_t n)
{
    check_close(what, got, want, dtype, n, ulp_of(dtype) + 64 * ulp_of(AM_F32), 4 * ulp_of(dtype));
}

static void adafactor_case(const int64_t *size, int dtype, int dtype_grad, int mode)
{
    int64_t batch = size[0], rows = size[1], cols = size[2], n = batch * rows * cols;
    int vector = rows == 0; /* cols elements */
    if (vector)
        rows = 1, n = cols;
    size_t g = elem_size(dtype_grad);
    size_t work = (size_t)(batch * (rows / AM_ADAFACTOR_ROWS + 1) * (cols + 3)) * 8;
    void *p[2], *row[2], *col[2], *var[2], *grad = keep(random_elems(dtype_grad, n, -1, 1));
    float *w[2];
    for (int on = 0; on < 2; on++) {
        p[on] = keep(on ? copy_elems(dtype, n, p[0]) : random_elems(dtype, n, -1, 1));
        row[on] = keep(on ? copy_elems(dtype_grad, batch * rows, row[0])
                          : random_elems(dtype_grad, batch * rows, 0.1, 1));
        col[on] = keep(on ? copy_elems(dtype_grad, batch * cols, col[0])
                          : random_elems(dtype_grad, batch * cols, 0.1, 1));
        var[on] = keep(on ? copy_elems(dtype_grad, cols, var[0])
                          : random_elems(dtype_grad, cols, 0.1, 1));
        w[on] = keep(on ? copy_elems(AM_F32, n, w[0]) : random_elems(AM_F32, n, -1, 1));
    }
    for (int on = 0; on < 2; on++) {
        am_adafactor_args args = adafactor_step(batch, rows, cols, mode);
        args.param = p[on];
        args.row = vector ? NULL : row[on];
        args.col = vector ? NULL : col[on];
        args.var = vector ? var[on] : NULL;
        args.master = (mode & 1) && dtype == AM_BF16 ? w[on] : NULL;
        args.work = keep(malloc(work));
        args.grad = grad;
        args.dtype = dtype;
        args.dtype_grad = dtype_grad;
        if (on == 0)
            CUDA_OK(ON_CUDA(adafactor, &args, (size_t)n * elem_size(dtype),
                            (size_t)(batch * rows) * g, (size_t)(batch * cols) * g,
                            (size_t)cols * g, (size_t)n * 4, work, (size_t)n * g));
        else
            ck_assert_int_eq(am_backend_ref.adafactor(NULL, &args), AM_OK);
    }
    compare_sums("adafactor: param", p[0], p[1], dtype, n);
    compare_sums("adafactor: master", w[0], w[1], AM_F32, n);
    compare_sums("adafactor: row", row[0], row[1], dtype_grad, batch * rows);
    compare_sums("adafactor: col", col[0], col[1], dtype_grad, batch * cols);
    compare_sums("adafactor: var", var[0], var[1], dtype_grad, cols);
    free_kept();
}

START_TEST(adafactor)
{
    static const int64_t many[][3] = {{1, 1, 1},   {1, 3, 17},   {2, 5, 8}, {1, 16, 33},
                                      {3, 35, 40}, {1, 50, 301}, {1, 0, 1}, {1, 0, 301}};
    static const int dtypes[][2] = {
        {AM_F32, AM_F32}, {AM_BF16, AM_F32}, {AM_F16, AM_F32}, {AM_F64, AM_F64}, {AM_F32, AM_F64}};
    for (int c = 0; c < 8 * 5 * 8; c++)
        adafactor_case(many[c % 8], dtypes[c / 8 % 5][0], dtypes[c / 8 % 5][1], c / 40);
}
END_TEST

START_TEST(sumsq)
{
    static const int64_t many[] = {0, 1, 7, 65535, 65536, 65537, 200003};
    for (int c = 0; c < 7 * 4; c++) {
        int64_t n = many[c % 7];
        int dtype = float_dtypes[c / 7];
        void *x = keep(random_elems(dtype, n, -3, 3));
        double got = NAN, again = NAN, want, partial[4] = {0};
        am_sumsq_args args = {&got, partial, x, dtype, n};
        size_t partials = (size_t)((n + AM_SUMSQ_BLOCK - 1) / AM_SUMSQ_BLOCK) * sizeof *partial;
        CUDA_OK(ON_CUDA(sumsq, &args, 8, partials, (size_t)n * elem_size(dtype)));
        args.out = &again; /* the bits depend on n alone, not on where x lies */
        cuda_shift = 8;
        CUDA_OK(ON_CUDA(sumsq, &args, 8, partials, (size_t)n * elem_size(dtype)));
        cuda_shift = 0;
        check_same_bits("sumsq", &got, &again, sizeof got);
        args.out = &want;
        ck_assert_int_eq(am_backend_ref.sumsq(NULL, &args), AM_OK);
        check_close("sumsq", &got, &want, AM_F64, 1, 1e-12, 0);
        free_kept();
    }
}
END_TEST

int main(void)
{
    const cuda_test tests[] = {{"adam", adam, 0, 1},           {"sgd", sgd, 0, 1},
                               {"lion", lion, 0, 1},           {"refused", refused, 0, 1},
                               {"codes", codes, 0, 1},         {"bounds", bounds, 0, 1},
                               {"adafactor", adafactor, 0, 1}, {"sumsq", sumsq, 0, 1}};
    return run_on_cuda("cuda optim", tests, sizeof tests / sizeof *tests);
}
