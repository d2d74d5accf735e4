/* Optimizer steps, also on 8-bit state, and the sum of squares of every instruction set against
 * ref. */
#include "kernels/cpu/dynamic_map.h"
#include "optim_steps.h"
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
                      int with_master, int decoupled, int amsgrad)
{
    void *p = random_elems(dtype, n, -1, 1), *p_ref = copy_elems(dtype, n, p);
    void *m = random_elems(state, n, -0.1, 0.1), *m_ref = copy_elems(state, n, m);
    void *v = random_elems(state, n, 0.001, 0.01), *v_ref = copy_elems(state, n, v);
    void *vmax = random_elems(state, n, 0.001, 0.01), *vmax_ref = copy_elems(state, n, vmax);
    float *w = random_elems(AM_F32, n, -1, 1), *w_ref = copy_elems(AM_F32, n, w);
    void *grad = random_elems(grad_dtype, n, -1, 1);
    am_adam_args args = adam_step(n, decoupled);
    args.dtype = dtype;
    args.param = p;
    args.m = m;
    args.v = v;
    args.vmax = amsgrad ? vmax : NULL;
    args.master = with_master ? w : NULL;
    args.grad = grad;
    args.dtype_state = state;
    args.dtype_grad = grad_dtype;
    ck_assert_int_eq(k->adam(NULL, &args), AM_OK);
    args.param = p_ref;
    args.m = m_ref;
    args.v = v_ref;
    args.vmax = amsgrad ? vmax_ref : NULL;
    args.master = with_master ? w_ref : NULL;
    ck_assert_int_eq(am_backend_ref.adam(NULL, &args), AM_OK);
    compare("adam: param", p, p_ref, dtype, n);
    compare("adam: m", m, m_ref, state, n);
    compare("adam: v", v, v_ref, state, n);
    compare("adam: vmax", vmax, vmax_ref, state, n);
    compare("adam: master", w, w_ref, AM_F32, n);
    free(p);
    free(p_ref);
    free(m);
    free(m_ref);
    free(v);
    free(v_ref);
    free(vmax);
    free(vmax_ref);
    free(w);
    free(w_ref);
    free(grad);
}

START_TEST(adam)
{
    for (int isa = 0; isa < ISA_COUNT; isa++)
        for (int c = 0; isa_kernels(isa) && c < SIZES * 3 * 2 * 2 * 8; c++) {
            int dtype = half_dtypes[c / SIZES % 3];
            int state = c / SIZES / 3 % 2 ? AM_F32 : dtype;
            int grad = c / SIZES / 6 % 2 ? AM_F32 : dtype;
            if (c % SIZES == SIZES - 1 && (state != AM_F32 || grad != AM_F32))
                continue;
            adam_case(isa_kernels(isa), sizes[c % SIZES], dtype, state, grad, c / SIZES / 12 & 1,
                      c / SIZES / 24 & 1, c / SIZES / 48 & 1);
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
                        NULL,
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

static void lion_case(const am_cpu_kernels *k, int64_t n, int dtype, int state, int with_master)
{
    void *p = random_elems(dtype, n, -1, 1), *p_ref = copy_elems(dtype, n, p);
    void *m = random_elems(state, n, -1, 1), *m_ref = copy_elems(state, n, m);
    float *w = random_elems(AM_F32, n, -1, 1), *w_ref = copy_elems(AM_F32, n, w);
    float *grad = random_elems(AM_F32, n, -1, 1);
    if (n > 2) {
        memset(m, 0, elem_size(state)); /* the sign of 0 is 0 */
        memset(m_ref, 0, elem_size(state));
        grad[0] = 0;
        grad[1] = NAN;
    }
    am_lion_args args = {.param = p,
                         .m = m,
                         .master = with_master ? w : NULL,
                         .grad = grad,
                         .dtype = dtype,
                         .dtype_state = state,
                         .dtype_grad = AM_F32,
                         .n = n,
                         .lr = 0.01,
                         .beta1 = 0.9,
                         .beta2 = 0.99,
                         .weight_decay = 0.1,
                         .grad_scale = 0.5};
    ck_assert_int_eq(k->lion(NULL, &args), AM_OK);
    args.param = p_ref;
    args.m = m_ref;
    args.master = with_master ? w_ref : NULL;
    ck_assert_int_eq(am_backend_ref.lion(NULL, &args), AM_OK);
    compare("lion: param", p, p_ref, dtype, n);
    compare("lion: m", m, m_ref, state, n);
    compare("lion: master", w, w_ref, AM_F32, n);
    free(p);
    free(p_ref);
    free(m);
    free(m_ref);
    free(w);
    free(w_ref);
    free(grad);
}

START_TEST(lion)
{
    for (int isa = 0; isa < ISA_COUNT; isa++)
        for (int c = 0; isa_kernels(isa) && c < SIZES * 3 * 4; c++) {
            int dtype = half_dtypes[c / SIZES % 3];
            lion_case(isa_kernels(isa), sizes[c % SIZES], dtype, c / SIZES / 3 % 2 ? AM_F32 : dtype,
                      c / SIZES / 6);
        }
}
END_TEST

/* ---- Adafactor --------------------------------------------------------------------------- */

/* rms and the columns' sums add up many numbers in f32. */
static void compare_sums(const char *what, const void *got, const void *want, int dtype, int64_t n)
{
    check_close(what, got, want, dtype, n, ulp_of(dtype) + 64 * ulp_of(AM_F32), 4 * ulp_of(dtype));
}

static void adafactor_case(const am_cpu_kernels *k, const int64_t *size, int dtype, int mode)
{
    int64_t batch = size[0], rows = size[1], cols = size[2], n = batch * rows * cols;
    int with_master = mode & 1;
    void *p[3];
    float *row[3], *col[3], *w[3], *grad = random_elems(AM_F32, n, -1, 1);
    double *work = malloc((size_t)(batch * (rows / AM_ADAFACTOR_ROWS + 1) * (cols + 3)) * 8);
    for (int t = 0; t < 3; t++) {
        p[t] = t ? copy_elems(dtype, n, p[0]) : random_elems(dtype, n, -1, 1);
        row[t] = t ? copy_elems(AM_F32, batch * rows, row[0])
                   : random_elems(AM_F32, batch * rows, 0.1, 1);
        col[t] = t ? copy_elems(AM_F32, batch * cols, col[0])
                   : random_elems(AM_F32, batch * cols, 0.1, 1);
        w[t] = t ? copy_elems(AM_F32, n, w[0]) : random_elems(AM_F32, n, -1, 1);
    }
    for (int t = 0; t < 3; t++) { /* one thread, three, ref */
        am_adafactor_args args = adafactor_step(batch, rows, cols, mode);
        args.param = p[t];
        args.row = row[t];
        args.col = col[t];
        args.master = with_master ? w[t] : NULL;
        args.work = work;
        args.grad = grad;
        args.dtype = dtype;
        args.dtype_grad = AM_F32;
        am_threads_set(t == 1 ? 3 : 1);
        ck_assert_int_eq(t == 2 ? am_backend_ref.adafactor(NULL, &args) : k->adafactor(NULL, &args),
                         AM_OK);
    }
    check_same_bits("adafactor: threads", p[0], p[1], (size_t)n * elem_size(dtype));
    check_same_bits("adafactor: threads, row", row[0], row[1], (size_t)(batch * rows) * 4);
    check_same_bits("adafactor: threads, col", col[0], col[1], (size_t)(batch * cols) * 4);
    compare_sums("adafactor: param", p[0], p[2], dtype, n);
    compare_sums("adafactor: row", row[0], row[2], AM_F32, batch * rows);
    compare_sums("adafactor: col", col[0], col[2], AM_F32, batch * cols);
    compare_sums("adafactor: master", w[0], w[2], AM_F32, n);
    for (int t = 0; t < 3; t++) {
        free(p[t]);
        free(row[t]);
        free(col[t]);
        free(w[t]);
    }
    free(grad);
    free(work);
}

START_TEST(adafactor)
{
    static const int64_t many[][3] = {{1, 1, 1},   {1, 3, 17},  {2, 5, 8},
                                      {1, 32, 33}, {3, 65, 40}, {1, 200, 301}};
    for (int isa = 0; isa < ISA_COUNT; isa++)
        for (int c = 0; isa_kernels(isa) && c < 6 * 3 * 8; c++)
            adafactor_case(isa_kernels(isa), many[c % 6], half_dtypes[c / 6 % 3], c / 18);
}
END_TEST

/* ---- 8-bit state ------------------------------------------------------------------------- */

/* The values of bitsandbytes' map that its formula gives by hand. */
START_TEST(map_values)
{
    const am_dynamic_map *s = am_dynamic_map_signed(), *u = am_dynamic_map_unsigned();
    static const struct {
        int code;
        double with_sign, without;
    } known[] = {{0, -(1 - 0.9 / 128), 0},
                 {1, -(1 - 0.9 * 3 / 128), 3.25e-7},
                 {2, -(1 - 0.9 * 5 / 128), 7.75e-7},
                 {3, -(1 - 0.9 * 7 / 128), 2.125e-6},
                 {126, -5.5e-7, 1e-1 * (0.1 + 0.9 * 63.5 / 64)},
                 {127, 0, 0.1 + 0.9 * 0.5 / 128},
                 {128, 5.5e-7, 0.1 + 0.9 * 1.5 / 128},
                 {129, 3.25e-6, 0.1 + 0.9 * 2.5 / 128},
                 {130, 7.75e-6, 0.1 + 0.9 * 3.5 / 128},
                 {254, 1 - 0.9 / 128, 1 - 0.9 / 256},
                 {255, 1, 1}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        double a = known[i].with_sign, b = known[i].without;
        ck_assert_double_eq_tol((double)s->value[known[i].code], a, 1e-7 * fabs(a) + 1e-30);
        ck_assert_double_eq_tol((double)u->value[known[i].code], b, 1e-7 * fabs(b) + 1e-30);
    }
    for (int i = 1; i < 256; i++)
        ck_assert_msg(s->value[i] > s->value[i - 1] && u->value[i] > u->value[i - 1], "code %d", i);
    ck_assert_int_eq(s->zero, AM_STATE_ZERO);
    ck_assert_int_eq(u->zero, 0);
}
END_TEST

/* Does code stand for a value that no other is nearer to? A float's rounding decides ties. */
static int is_nearest(const am_dynamic_map *map, int code, double share)
{
    double off = fabs((double)map->value[code] - share);
    for (int i = 0; i < 256; i++)
        if (fabs((double)map->value[i] - share) < off - 3e-7 * fabs(share))
            return 0;
    return 1;
}

static void check_code(const am_dynamic_map *map, float share)
{
    float x[2] = {share, 1};
    uint8_t codes[2];
    float absmax = am_to_codes(codes, x, 2, map);
    int lifted = map->zero == 0 && share > 0 && codes[0] == 1 && (double)share < 3.25e-7;
    ck_assert_msg((double)absmax == 1 && codes[1] == 255, "absmax %g, code %d", (double)absmax,
                  codes[1]);
    if (!is_nearest(map, codes[0], (double)share) && !lifted)
        ck_abort_msg("%.9g became %.9g", (double)share, (double)map->value[codes[0]]);
    ck_assert_msg(map->zero > 0 || (share > 0) == (codes[0] > 0), "%g: %d", (double)share,
                  codes[0]);
}

START_TEST(to_codes)
{
    for (int with_sign = 0; with_sign < 2; with_sign++) {
        const am_dynamic_map *map = with_sign ? am_dynamic_map_signed() : am_dynamic_map_unsigned();
        /* every exponent, in steps that miss no bound */
        for (uint32_t bits = 0; bits <= 0x3f800000u; bits += 8191) {
            float share;
            memcpy(&share, &bits, 4);
            check_code(map, share);
            if (with_sign)
                check_code(map, -share);
        }
        /* every value comes back as it is; and so does the neighbourhood of every bound */
        for (int i = 0; i < 256; i++) {
            float x[2] = {map->value[i] * 64, 64}, back[2];
            uint8_t codes[2];
            float absmax = am_to_codes(codes, x, 2, map);
            ck_assert_int_eq(codes[0], i);
            am_from_codes(back, codes, absmax, 2, map);
            check_same_bits("decoded", back, x, sizeof x);
            float middle = i ? (map->value[i] + map->value[i - 1]) / 2 : 0;
            check_code(map, middle);
            check_code(map, nextafterf(middle, 1));
            check_code(map, nextafterf(middle, 0));
        }
        static const float odd[][3] = {{0, 0, 0},
                                       {0, 1e-45f, 1e-45f},
                                       {1, NAN, 2},
                                       {1, INFINITY, 2},
                                       {3e38f, 1e-38f, 3.4e38f}};
        for (int i = 0; i < 5; i++) {
            uint8_t codes[3];
            float back[3];
            am_from_codes(back, codes, am_to_codes(codes, odd[i], 3, map), 3, map);
            for (int k = 0; k < 3 && i < 2; k++)
                ck_assert_float_eq(back[k], odd[i][k]);
            ck_assert_int_eq(isnan(back[0]), i == 2 || i == 3);
            ck_assert_int_eq(i == 4, !isnan(back[2]) && back[2] > 3e38f);
        }
    }
}
END_TEST

/* Moments of n elements in 8 bits, as left by a step: random, block by block of another size. */
typedef struct codes8 {
    uint8_t *code;
    float *absmax, *value;
} codes8;

static int64_t blocks_of(int64_t n)
{
    return (n + AM_STATE_BLOCK - 1) / AM_STATE_BLOCK;
}

static codes8 random_codes(int64_t n, const am_dynamic_map *map, double size)
{
    codes8 c = {malloc((size_t)n), malloc((size_t)blocks_of(n) * sizeof(float)),
                malloc((size_t)n * sizeof(float))};
    for (int64_t first = 0; first < n; first += AM_STATE_BLOCK) {
        int64_t count = n - first < AM_STATE_BLOCK ? n - first : AM_STATE_BLOCK;
        for (int64_t i = 0; i < count; i++)
            c.value[first + i] =
                (float)(random_in(map->zero ? -size : 0, size) * exp(random_in(-12, 0)));
        float *absmax = &c.absmax[first / AM_STATE_BLOCK];
        *absmax = am_to_codes(c.code + first, c.value + first, count, map);
        am_from_codes(c.value + first, c.code + first, *absmax, count, map);
    }
    return c;
}

static codes8 copy_codes(const codes8 *from, int64_t n)
{
    codes8 c = {malloc((size_t)n), malloc((size_t)blocks_of(n) * sizeof(float)),
                malloc((size_t)n * sizeof(float))};
    memcpy(c.code, from->code, (size_t)n);
    memcpy(c.absmax, from->absmax, (size_t)blocks_of(n) * sizeof(float));
    memcpy(c.value, from->value, (size_t)n * sizeof(float));
    return c;
}

static void free_codes(codes8 *c)
{
    free(c->code);
    free(c->absmax);
    free(c->value);
}

/* got's codes are those of the f32 moments in `exact`, but for numbers that lie on a bound. */
static void check_codes(const char *what, const codes8 *got, const float *exact, int64_t n,
                        const am_dynamic_map *map)
{
    int64_t other = 0;
    for (int64_t first = 0; first < n; first += AM_STATE_BLOCK) {
        int64_t count = n - first < AM_STATE_BLOCK ? n - first : AM_STATE_BLOCK;
        uint8_t want[AM_STATE_BLOCK];
        float absmax = am_to_codes(want, exact + first, count, map);
        check_close(what, &got->absmax[first / AM_STATE_BLOCK], &absmax, AM_F32, 1, 1e-5, 0);
        for (int64_t i = 0; i < count; i++) {
            int off = got->code[first + i] - want[i];
            other += off != 0;
            ck_assert_msg(off >= -1 && off <= 1, "%s: code %lld is off by %d", what,
                          (long long)(first + i), off);
        }
    }
    ck_assert_msg(other <= n / 200 + 1, "%s: %lld of %lld codes differ", what, (long long)other,
                  (long long)n);
}

/* Against ref's step on the same moments in f32, and on one thread against three. */
static void adam8_case(const am_backend *ref, const am_cpu_kernels *k, int64_t n, int dtype,
                       int with_master)
{
    const am_dynamic_map *with_sign = am_dynamic_map_signed(), *without = am_dynamic_map_unsigned();
    codes8 m = random_codes(n, with_sign, 0.1), v = random_codes(n, without, 0.01);
    codes8 m2 = copy_codes(&m, n), v2 = copy_codes(&v, n);
    void *p = random_elems(dtype, n, -1, 1), *p2 = copy_elems(dtype, n, p);
    void *p_ref = copy_elems(dtype, n, p);
    float *w = random_elems(AM_F32, n, -1, 1), *w2 = copy_elems(AM_F32, n, w);
    float *w_ref = copy_elems(AM_F32, n, w), *grad = random_elems(AM_F32, n, -0.1, 0.1);
    am_adam_args args = adam_step(n, 1);
    args.dtype = dtype;
    args.dtype_grad = AM_F32;
    args.grad = grad;
    args.param = p_ref;
    args.m = m.value;
    args.v = v.value;
    args.master = with_master ? w_ref : NULL;
    args.dtype_state = AM_F32;
    ck_assert_int_eq(ref->adam(NULL, &args), AM_OK);
    args.dtype_state = AM_U8;
    for (int again = 0; again < 2; again++) {
        args.param = again ? p2 : p;
        args.m = again ? m2.code : m.code;
        args.v = again ? v2.code : v.code;
        args.m_absmax = again ? m2.absmax : m.absmax;
        args.v_absmax = again ? v2.absmax : v.absmax;
        args.master = with_master ? again ? w2 : w : NULL;
        am_threads_set(again ? 3 : 1);
        ck_assert_int_eq(k ? k->adam(NULL, &args) : ref->adam(NULL, &args), AM_OK);
    }
    compare("adam8: param", p, p_ref, dtype, n);
    compare("adam8: master", w, w_ref, AM_F32, n);
    check_codes("adam8: m", &m, m.value, n, with_sign);
    check_codes("adam8: v", &v, v.value, n, without);
    check_same_bits("adam8: threads, param", p, p2, (size_t)n * elem_size(dtype));
    check_same_bits("adam8: threads, m", m.code, m2.code, (size_t)n);
    check_same_bits("adam8: threads, v", v.code, v2.code, (size_t)n);
    free_codes(&m);
    free_codes(&v);
    free_codes(&m2);
    free_codes(&v2);
    free(p);
    free(p2);
    free(p_ref);
    free(w);
    free(w2);
    free(w_ref);
    free(grad);
}

static void sgd8_case(const am_backend *ref, const am_cpu_kernels *k, int64_t n, int mode)
{
    const am_dynamic_map *map = am_dynamic_map_signed();
    codes8 buf = random_codes(n, map, 1);
    float *p = random_elems(AM_F32, n, -1, 1), *p_ref = copy_elems(AM_F32, n, p);
    float *grad = random_elems(AM_F32, n, -1, 1);
    am_sgd_args args = {.param = p_ref,
                        .buf = buf.value,
                        .grad = grad,
                        .dtype = AM_F32,
                        .dtype_state = AM_F32,
                        .dtype_grad = AM_F32,
                        .first = mode & 1,
                        .nesterov = mode >> 1 & 1,
                        .n = n,
                        .lr = 0.1,
                        .momentum = 0.9,
                        .grad_scale = 0.5};
    ck_assert_int_eq(ref->sgd(NULL, &args), AM_OK);
    args.param = p;
    args.buf = buf.code;
    args.buf_absmax = buf.absmax;
    args.dtype_state = AM_U8;
    ck_assert_int_eq(k ? k->sgd(NULL, &args) : ref->sgd(NULL, &args), AM_OK);
    compare("sgd8: param", p, p_ref, AM_F32, n);
    check_codes("sgd8: buf", &buf, buf.value, n, map);
    free_codes(&buf);
    free(p);
    free(p_ref);
    free(grad);
}

static void lion8_case(const am_backend *ref, const am_cpu_kernels *k, int64_t n, int dtype)
{
    const am_dynamic_map *map = am_dynamic_map_signed();
    codes8 m = random_codes(n, map, 1);
    void *p = random_elems(dtype, n, -1, 1), *p_ref = copy_elems(dtype, n, p);
    float *grad = random_elems(AM_F32, n, -1, 1);
    am_lion_args args = {.param = p_ref,
                         .m = m.value,
                         .grad = grad,
                         .dtype = dtype,
                         .dtype_state = AM_F32,
                         .dtype_grad = AM_F32,
                         .n = n,
                         .lr = 0.01,
                         .beta1 = 0.9,
                         .beta2 = 0.99,
                         .grad_scale = 1};
    ck_assert_int_eq(ref->lion(NULL, &args), AM_OK);
    args.param = p;
    args.m = m.code;
    args.m_absmax = m.absmax;
    args.dtype_state = AM_U8;
    ck_assert_int_eq(k ? k->lion(NULL, &args) : ref->lion(NULL, &args), AM_OK);
    compare("lion8: param", p, p_ref, dtype, n);
    check_codes("lion8: m", &m, m.value, n, map);
    free_codes(&m);
    free(p);
    free(p_ref);
    free(grad);
}

START_TEST(codes)
{
    static const int64_t many[] = {1, 17, 255, 256, 257, 700, 33001};
    for (int isa = -1; isa < ISA_COUNT; isa++) { /* -1: ref's own */
        const am_cpu_kernels *k = isa < 0 ? NULL : isa_kernels(isa);
        for (int c = 0; (isa < 0 || k) && c < 7 * 3 * 2; c++)
            adam8_case(&am_backend_ref, k, many[c % 7], half_dtypes[c / 7 % 3], c / 21);
        for (int c = 0; (isa < 0 || k) && c < 7 * 4; c++)
            sgd8_case(&am_backend_ref, k, many[c % 7], c / 7);
        for (int c = 0; (isa < 0 || k) && c < 7 * 3; c++)
            lion8_case(&am_backend_ref, k, many[c % 7], half_dtypes[c / 7]);
    }
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
    const TTest *const tests[] = {adam, sgd, lion, adafactor, map_values, to_codes, codes, sumsq};
    return run_suite("kernels_optim", tests, sizeof tests / sizeof *tests);
}
