/* test_kernels_packed.c — weights in few bits against ref, on each instruction set and as this CPU
 * has them: the same bytes packed and the same bits unpacked, whole and in parts that begin and end
 * anywhere; products of many and of a few rows, forward and for the input's gradient, with bias and
 * accumulation; rows whose bits don't depend on how many there are. */
#include "test_kernels.h"

enum { KERNELS = ISA_COUNT + 1 };

/* A kernel of an instruction set, or NULL where this CPU lacks it; after them the CPU's own. */
#define KERNEL_AT(i, kernel)                                                                       \
    ((i) == ISA_COUNT ? am_backend_cpu()->kernel : isa_kernels(i) ? isa_kernels(i)->kernel : NULL)

static const int64_t sizes[][2] = {{1, 1},    {3, 64},   {5, 13}, {7, 128},
                                   {70, 130}, {33, 192}, {9, 577}};
static const am_packing kinds[] = {{.type = AM_PACK_NF4},
                                   {.type = AM_PACK_NF4, .nested = 1},
                                   {.type = AM_PACK_FP4},
                                   {.type = AM_PACK_FP4, .nested = 1},
                                   {.type = AM_PACK_INT8}};
enum { SIZES = sizeof sizes / sizeof *sizes, KINDS = sizeof kinds / sizeof *kinds };

static am_packing packing_of(int kind, int size)
{
    am_packing p = kinds[kind];
    p.rows = sizes[size][0];
    p.cols = sizes[size][1];
    return p;
}

static size_t bytes_of(const am_packing *p)
{
    return (size_t)(4 * am_packing_scales(p) + am_packing_nested(p) + am_packing_codes(p));
}

static void *pack_by(int (*pack)(am_stream *, const am_pack_args *), const am_packing *p,
                     const void *a, int dtype)
{
    void *packed = malloc(bytes_of(p));
    float *work = malloc((size_t)am_packing_blocks(p) * sizeof *work);
    ck_assert(packed && work);
    memset(packed, 0xff, bytes_of(p));
    ck_assert_int_eq(pack(NULL, &(am_pack_args){.packed = packed,
                                                .work = am_packing_nested(p) ? work : NULL,
                                                .a = a,
                                                .dtype = dtype,
                                                .packing = *p}),
                     AM_OK);
    free(work);
    return packed;
}

/* A packed matrix of random numbers. */
static void *random_packed(const am_packing *p)
{
    void *a = random_elems(AM_F32, p->rows * p->cols, -1, 1);
    void *packed = pack_by(am_backend_ref.pack, p, a, AM_F32);
    free(a);
    return packed;
}

START_TEST(packs_the_same_bytes)
{
    for (int kind = 0; KERNEL_AT(_i, pack) && kind < KINDS; kind++)
        for (int size = 0; size < SIZES; size++)
            for (int d = 0; d < 4; d++) {
                am_packing p = packing_of(kind, size);
                void *a = random_elems(float_dtypes[d], p.rows * p.cols, -1, 1);
                elem_set(a, float_dtypes[d], 0, 0);
                void *want = pack_by(am_backend_ref.pack, &p, a, float_dtypes[d]);
                void *got = pack_by(KERNEL_AT(_i, pack), &p, a, float_dtypes[d]);
                check_same_bits("packed", got, want, bytes_of(&p));
                free(a);
                free(want);
                free(got);
            }
}
END_TEST

static void compare_part(int i, const void *packed, am_unpack_args part)
{
    int64_t n = part.rows * part.cols;
    am_unpack_args want = part;
    part.packed = want.packed = packed;
    part.out = elems(part.dtype, n);
    want.out = elems(part.dtype, n);
    ck_assert_int_eq(am_backend_ref.unpack(NULL, &want), AM_OK);
    ck_assert_int_eq(KERNEL_AT(i, unpack)(NULL, &part), AM_OK);
    check_same_bits("unpacked", part.out, want.out, (size_t)n * elem_size(part.dtype));
    free(part.out);
    free(want.out);
}

START_TEST(unpacks_the_same_bits)
{
    for (int kind = 0; KERNEL_AT(_i, unpack) && kind < KINDS; kind++)
        for (int size = 0; size < SIZES; size++) {
            am_packing p = packing_of(kind, size);
            void *packed = random_packed(&p);
            for (int d = 0; d < 4; d++) {
                am_unpack_args whole = {.dtype = float_dtypes[d],
                                        .packing = p,
                                        .rows = p.rows,
                                        .cols = p.cols},
                               part = whole;
                compare_part(_i, packed, whole);
                part.row = p.rows / 2;
                part.rows = p.rows - part.row;
                part.col = p.cols / 3;
                part.cols = p.cols - part.col;
                compare_part(_i, packed, part);
            }
            free(packed);
        }
}
END_TEST

static void compare_product(int i, am_packed_gemm_args g)
{
    int64_t n = g.trans ? g.packing.rows : g.packing.cols;
    int64_t k = g.trans ? g.packing.cols : g.packing.rows;
    void *a = random_elems(g.dtype, g.m * k, -1, 1), *bias = random_elems(g.dtype, n, -1, 1);
    void *before = random_elems(g.dtype_c, g.m * n, -1, 1), *w = random_packed(&g.packing);
    am_packed_gemm_args want = g;
    g.a = want.a = a;
    g.w = want.w = w;
    g.bias = want.bias = g.accumulate ? NULL : bias;
    g.c = copy_elems(g.dtype_c, g.m * n, before);
    want.c = copy_elems(g.dtype_c, g.m * n, before);
    ck_assert_int_eq(am_backend_ref.packed_gemm(NULL, &want), AM_OK);
    ck_assert_int_eq(KERNEL_AT(i, packed_gemm)(NULL, &g), AM_OK);
    double error = 4e-6 * sqrt((double)k + 1); /* of a sum of k random terms, in another order */
    check_close("product", g.c, want.c, g.dtype_c, g.m * n, ulp_of(g.dtype_c),
                error + ulp_of(g.dtype_c) * 1e-2);
    if (g.m > 1) { /* the first row alone */
        void *one = copy_elems(g.dtype_c, n, before);
        am_packed_gemm_args alone = g;
        alone.c = one;
        alone.m = 1;
        ck_assert_int_eq(KERNEL_AT(i, packed_gemm)(NULL, &alone), AM_OK);
        check_same_bits("a row alone", one, g.c, (size_t)n * elem_size(g.dtype_c));
        free(one);
    }
    free(a);
    free(bias);
    free(before);
    free(w);
    free(g.c);
    free(want.c);
}

/* By instruction set only a few rows are there. */
START_TEST(multiplies_as_ref)
{
    for (int kind = 0; KERNEL_AT(_i, packed_gemm) && kind < KINDS; kind++)
        for (int size = 0; size < SIZES; size++)
            for (int d = 0; d < 3; d++)
                for (int mode = _i == ISA_COUNT ? 0 : 4; mode < 6; mode++) {
                    int dtype = half_dtypes[d], few = mode >= 4;
                    compare_product(_i, (am_packed_gemm_args){.dtype = dtype,
                                                              .dtype_c = mode == 3 ? AM_F32 : dtype,
                                                              .trans = mode != 1 && mode != 3,
                                                              .few = few,
                                                              .accumulate = mode % 2,
                                                              .packing = packing_of(kind, size),
                                                              .m = few ? 5 : 19});
                }
}
END_TEST

/* A weight of more than one part: packed.c's 8 MB. */
START_TEST(multiplies_by_parts)
{
    static const int64_t large[][2] = {{300, 12000}, {12000, 300}};
    for (int i = 0; i < 4; i++)
        compare_product(ISA_COUNT, (am_packed_gemm_args){.dtype = AM_F32,
                                                         .dtype_c = AM_F32,
                                                         .trans = i % 2,
                                                         .packing = {.type = AM_PACK_NF4,
                                                                     .nested = 1,
                                                                     .rows = large[i / 2][0],
                                                                     .cols = large[i / 2][1]},
                                                         .m = 3});
}
END_TEST

int main(void)
{
    const TTest *const loops[] = {packs_the_same_bytes, unpacks_the_same_bits, multiplies_as_ref};
    const TTest *const once[] = {multiplies_by_parts};
    int failed = run_loops("packed weights", loops, 3, KERNELS);
    return run_suite("large packed weights", once, 1) || failed;
}
