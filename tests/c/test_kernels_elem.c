/* Elementwise kernels of every instruction set against ref: dense, broadcast and permuted operands,
 * sizes around the vector width, NaN and infinities. */
#include "test_kernels.h"

static const int64_t sizes[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 97, 1009, 40000};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* Values with the special ones among them. */
static void *special_elems(int dtype, int64_t n, double lo, double hi)
{
    static const double special[] = {0, -0.0, NAN, INFINITY, -INFINITY, 1e-30, -100, 100, 88.5};
    void *p = random_elems(dtype, n, lo, hi);
    for (int64_t i = 0; i < n && n > 16; i += 11)
        elem_set(p, dtype, i, special[(i / 11) % 9]);
    return p;
}

static am_nd flat(int64_t n)
{
    am_nd nd = {.ndim = 1, .shape = {n}};
    for (int o = 0; o < AM_ND_OPERANDS; o++)
        nd.stride[o][0] = 1;
    return nd;
}

static void unary_case(const am_cpu_kernels *k, int isa, int op, int dtype, int64_t n)
{
    /* domains in which the function is well conditioned */
    double lo =
        op == AM_U_LOG || op == AM_U_SQRT || op == AM_U_RSQRT || op == AM_U_POW_SCALAR ? 0.01 : -9;
    void *a = special_elems(dtype, n, lo, 9), *dout = random_elems(dtype, n, -2, 2);
    void *got = elems(dtype, n), *want = elems(dtype, n);
    double p0 = op == AM_U_CLAMP ? -1.5 : op == AM_U_POW_SCALAR ? 1.7 : 0.75;
    am_unary_args args = {want, a, op, dtype, p0, 2.5, flat(n)};
    ck_assert_int_eq(am_backend_ref.unary(NULL, &args), AM_OK);
    args.out = got;
    ck_assert_int_eq(k->unary(NULL, &args), AM_OK);
    char what[64];
    snprintf(what, sizeof what, "%s unary %d %s", isa_label[isa], op, am_dtype_name(dtype));
    /* the approximations are good to a few f32 ulps, then one rounding to dtype; in GELU's tail the
     * rounding of x weighs x^2 times */
    int gelu = op == AM_U_GELU || op == AM_U_GELU_TANH || op == AM_U_QUICK_GELU;
    double relative = ulp_of(dtype) + (gelu ? 99 : 8) * ulp_of(AM_F32);
    check_close(what, got, want, dtype, n, relative, 1e-37);
    am_unary_bwd_args bwd = {want, dout, a, op, dtype, p0, 2.5, flat(n)};
    ck_assert_int_eq(am_backend_ref.unary_bwd(NULL, &bwd), AM_OK);
    bwd.da = got;
    ck_assert_int_eq(k->unary_bwd(NULL, &bwd), AM_OK);
    /* differences of nearly equal numbers, such as 1 - tanh^2, are off by an ulp of 1 */
    check_close(what, got, want, dtype, n, relative, 2e-6);
    free(a);
    free(dout);
    free(got);
    free(want);
}

START_TEST(unary)
{
    for (int isa = 0; isa < ISA_COUNT; isa++)
        for (int op = 0; isa_kernels(isa) && op < AM_U_COUNT; op++)
            for (int d = 0; d < 3; d++)
                for (int i = 0; i < (op == AM_U_SILU ? SIZES : SIZES - 1); i++)
                    unary_case(isa_kernels(isa), isa, op, half_dtypes[d], sizes[i]);
}
END_TEST

/* a is permuted, b broadcast in two ways, out dense */
static am_nd strided(int which)
{
    static const am_nd cases[] = {
        {3, {5, 7, 19}, {{133, 19, 1}, {19, 95, 1}, {0, 19, 1}, {133, 19, 1}}},
        {3, {4, 6, 9}, {{54, 9, 1}, {1, 4, 24}, {9, 0, 1}, {54, 9, 1}}},
        {2, {33, 18}, {{18, 1}, {1, 33}, {1, 0}, {18, 1}}},
        {4, {2, 3, 1, 40}, {{120, 40, 40, 1}, {120, 40, 40, 1}, {0, 0, 0, 0}, {120, 40, 40, 1}}},
        {0, {0}, {{0}}},
    };
    return cases[which];
}

static int64_t count(const am_nd *nd)
{
    int64_t n = 1;
    for (int i = 0; i < nd->ndim; i++)
        n *= nd->shape[i];
    return n;
}

static void binary_case(const am_cpu_kernels *k, int op, int dtype, am_nd nd)
{
    int64_t n = count(&nd), size = 1100 > n ? 1100 : n;
    void *a = special_elems(dtype, size, -4, 4), *b = special_elems(dtype, size, -4, 4);
    void *dout = random_elems(dtype, size, -1, 1);
    void *got = elems(dtype, n), *want = elems(dtype, n);
    for (int64_t i = 5; i < size; i += 13) /* ties */
        elem_set(b, dtype, i, elem_get(a, dtype, i));
    am_binary_args args = {want, a, b, op, dtype, nd};
    ck_assert_int_eq(am_backend_ref.binary(NULL, &args), AM_OK);
    args.out = got;
    ck_assert_int_eq(k->binary(NULL, &args), AM_OK);
    if (op >= AM_B_EQ) {
        ck_assert_int_eq(memcmp(got, want, (size_t)n), 0);
    } else {
        check_close("binary", got, want, dtype, n, ulp_of(dtype), 1e-37);
        for (int which = 0; op >= AM_B_MUL && which < 2; which++) {
            am_nd four = nd; /* d, dout, a, b: dout lies as d does */
            memcpy(four.stride[3], nd.stride[2], sizeof four.stride[3]);
            memcpy(four.stride[2], nd.stride[1], sizeof four.stride[2]);
            memcpy(four.stride[1], nd.stride[0], sizeof four.stride[1]);
            am_binary_bwd_args bwd = {want, dout, a, b, op, which, dtype, four};
            ck_assert_int_eq(am_backend_ref.binary_bwd(NULL, &bwd), AM_OK);
            bwd.d = got;
            ck_assert_int_eq(k->binary_bwd(NULL, &bwd), AM_OK);
            check_close("binary_bwd", got, want, dtype, n, ulp_of(dtype) + 4 * ulp_of(AM_F32),
                        1e-37);
        }
    }
    free(a);
    free(b);
    free(dout);
    free(got);
    free(want);
}

START_TEST(binary)
{
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        for (int op = 0; isa_kernels(isa) && op < AM_B_COUNT; op++) {
            for (int d = 0; d < 3; d++) {
                for (int i = 0; i < 5; i++)
                    binary_case(isa_kernels(isa), op, half_dtypes[d], strided(i));
                for (int i = 0; i < SIZES; i++)
                    binary_case(isa_kernels(isa), op, half_dtypes[d], flat(sizes[i]));
            }
        }
    }
}
END_TEST

START_TEST(copy_and_fill)
{
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        const am_cpu_kernels *k = isa_kernels(isa);
        for (int c = 0; k && c < 6 * 3 * 3 * 2; c++) {
            int to = half_dtypes[c / 6 % 3], from = half_dtypes[c / 18 % 3];
            am_nd nd = c % 6 < 5 ? strided(c % 6) : flat(1009);
            int64_t n = count(&nd);
            void *a = special_elems(from, 1100, -4, 4), *got = random_elems(to, n, -1, 1);
            void *want = copy_elems(to, n, got);
            am_copy_args args = {want, a, to, from, c / 54, nd};
            ck_assert_int_eq(am_backend_ref.copy(NULL, &args), AM_OK);
            args.out = got;
            ck_assert_int_eq(k->copy(NULL, &args), AM_OK);
            check_close("copy", got, want, to, n, c / 54 ? ulp_of(to) : 0, 0);
            am_fill_args fill = {got, 0.3, to, nd};
            ck_assert_int_eq(k->fill(NULL, &fill), AM_OK);
            fill.out = want;
            ck_assert_int_eq(am_backend_ref.fill(NULL, &fill), AM_OK);
            check_close("fill", got, want, to, n, 0, 0);
            free(a);
            free(got);
            free(want);
        }
    }
}
END_TEST

/* Every bf16 and f16 pattern survives the way to f32 and back; every rounding case is ref's. */
START_TEST(half_conversions)
{
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        const am_cpu_kernels *k = isa_kernels(isa);
        for (int d = 1; k && d < 3; d++) {
            int dtype = half_dtypes[d];
            uint16_t *all = elems(dtype, 65536), *back = elems(dtype, 65536);
            float *wide = elems(AM_F32, 65536);
            for (int i = 0; i < 65536; i++)
                all[i] = (uint16_t)i;
            am_copy_args args = {wide, all, AM_F32, dtype, 0, flat(65536)};
            ck_assert_int_eq(k->copy(NULL, &args), AM_OK);
            for (int i = 0; i < 65536; i++) {
                float want = (float)elem_get(all, dtype, i);
                ck_assert((wide[i] != wide[i] && want != want) || wide[i] == want);
            }
            for (int step = -1; step <= 1; step++) { /* halfway, and one f32 below and above */
                for (int i = 0; i < 65536; i++) {
                    uint32_t u;
                    float f = (float)elem_get(all, dtype, i);
                    memcpy(&u, &f, 4);
                    u += (uint32_t)((dtype == AM_BF16 ? 0x8000 : 0x1000) + step);
                    memcpy(&wide[i], &u, 4);
                }
                am_copy_args round = {back, wide, dtype, AM_F32, 0, flat(65536)};
                ck_assert_int_eq(k->copy(NULL, &round), AM_OK);
                for (int i = 0; i < 65536; i++) {
                    uint16_t want =
                        dtype == AM_BF16 ? am_f32_to_bf16(wide[i]) : am_f32_to_f16(wide[i]);
                    double to = elem_get(back, dtype, i);
                    if (wide[i] == wide[i] ? back[i] != want : to == to)
                        ck_abort_msg("%a: %04x, expected %04x", (double)wide[i], back[i], want);
                }
            }
            free(all);
            free(back);
            free(wide);
        }
    }
}
END_TEST

START_TEST(random_numbers)
{
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        const am_cpu_kernels *k = isa_kernels(isa);
        for (int d = 0; k && d < 3; d++) {
            int dtype = half_dtypes[d];
            for (int i = 0; i < SIZES; i++) {
                int64_t n = sizes[i];
                void *a = random_elems(dtype, n, -1, 1), *got = elems(dtype, n);
                void *want = elems(dtype, n);
                for (int kind = 0; kind < 2; kind++) {
                    am_random_args args = {got, kind, dtype, 0.5, 2, 7, 9, n};
                    ck_assert_int_eq(k->random(NULL, &args), AM_OK);
                    args.out = want;
                    ck_assert_int_eq(am_backend_ref.random(NULL, &args), AM_OK);
                    check_close("random", got, want, dtype, n, 0, 0);
                }
                for (int p = 0; p <= 4; p++) {
                    am_dropout_args args = {got, a, dtype, p / 4.0, 7, 1000003, n, 0};
                    ck_assert_int_eq(k->dropout(NULL, &args), AM_OK);
                    args.accumulate = 1;
                    ck_assert_int_eq(k->dropout(NULL, &args), AM_OK);
                    args.out = want;
                    args.accumulate = 0;
                    ck_assert_int_eq(am_backend_ref.dropout(NULL, &args), AM_OK);
                    args.accumulate = 1;
                    ck_assert_int_eq(am_backend_ref.dropout(NULL, &args), AM_OK);
                    check_close("dropout", got, want, dtype, n, 2 * ulp_of(dtype), 0);
                }
                free(a);
                free(got);
                free(want);
            }
        }
    }
}
END_TEST

START_TEST(integers_go_to_ref)
{
    int64_t a[] = {1, -7, INT64_MAX}, b[] = {2, 0, 1}, out[3];
    am_binary_args args = {out, a, b, AM_B_ADD, AM_I64, flat(3)};
    ck_assert_int_eq(am_backend_cpu()->binary(NULL, &args), AM_OK);
    ck_assert_int_eq(out[0], 3);
    ck_assert_int_eq(out[2], INT64_MIN);
    args.op = AM_B_DIV;
    ck_assert_int_eq(am_backend_cpu()->binary(NULL, &args), AM_EINVAL);
    ck_assert_ptr_nonnull(strstr(am_error_message(), "division by zero"));
    uint8_t flags[3];
    float f[] = {0, NAN, -0.5f};
    am_copy_args copy = {flags, f, AM_BOOL, AM_F32, 0, flat(3)};
    ck_assert_int_eq(am_backend_cpu()->copy(NULL, &copy), AM_OK);
    ck_assert(flags[0] == 0 && flags[1] == 1 && flags[2] == 1);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        unary, binary, copy_and_fill, half_conversions, random_numbers, integers_go_to_ref};
    return run_suite("kernels_elem", tests, sizeof tests / sizeof *tests);
}
