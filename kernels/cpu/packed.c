/* packed.c — products with a weight in few bits: parts of it are unpacked to where caches hold them
 * and multiplied by gemm.c. A part is as many rows of the weight (its columns, for the gradient of
 * the input) as fit, whatever the number of rows that it is multiplied with, and sums over whole
 * columns or rows, so that a result is rounded as gemm rounds it. */
#include "packed.h"
#include "cpu.h"
#include "ref_kernels.h"

enum { PART_BYTES = 8 << 20, PART_STEP = AM_PACK_BLOCK };

static int (*unpack)(am_stream *s, const am_unpack_args *args);
static int (*few_rows)(am_stream *s, const am_packed_gemm_args *args);

void am_cpu_packed_init(const am_cpu_kernels *simd)
{
    unpack = simd->unpack;
    few_rows = simd->packed_gemm;
}

static int64_t size_of(int dtype)
{
    return dtype == AM_F32 ? 4 : 2;
}

static void *at(const void *p, int64_t elements, int dtype)
{
    return p ? (char *)(uintptr_t)p + elements * size_of(dtype) : NULL;
}

/* Of `count` rows or columns of `length`, how many make a part. */
static int64_t part_of(int64_t count, int64_t length, int dtype)
{
    int64_t fit = PART_BYTES / (length * size_of(dtype)) / PART_STEP * PART_STEP;
    fit = fit < PART_STEP ? PART_STEP : fit;
    return fit < count ? fit : count;
}

int am_cpu_packed_gemm(am_stream *s, const am_packed_gemm_args *args)
{
    const am_packing *p = &args->packing;
    int dtype = args->dtype, trans = args->trans, rc = AM_OK;
    if (dtype == AM_F64)
        return am_ref_packed_gemm(s, args);
    if (dtype != AM_F32 && dtype != AM_BF16 && dtype != AM_F16)
        return AM_EUNSUP;
    if (args->few)
        return few_rows(s, args);
    int64_t n = trans ? p->rows : p->cols, k = trans ? p->cols : p->rows;
    int64_t part = part_of(n, k, dtype);
    void *tile = am_scratch(5, (size_t)(part * k * size_of(dtype)));
    if (!tile)
        return am_kernel_fail(AM_ENOMEM, "packed_gemm: no scratch memory");
    for (int64_t first = 0; first < n && rc == AM_OK; first += part) {
        int64_t count = n - first < part ? n - first : part;
        rc = unpack(s, &(am_unpack_args){.out = tile,
                                         .packed = args->w,
                                         .dtype = dtype,
                                         .packing = *p,
                                         .row = trans ? first : 0,
                                         .rows = trans ? count : k,
                                         .col = trans ? 0 : first,
                                         .cols = trans ? k : count});
        if (rc == AM_OK)
            rc = am_cpu_gemm(s, &(am_gemm_args){.c = at(args->c, first, args->dtype_c),
                                                .a = args->a,
                                                .b = tile,
                                                .bias = at(args->bias, first, dtype),
                                                .dtype_ab = dtype,
                                                .dtype_c = args->dtype_c,
                                                .trans_b = trans,
                                                .accumulate = args->accumulate,
                                                .alpha = 1,
                                                .m = args->m,
                                                .n = count,
                                                .k = k,
                                                .lda = k,
                                                .ldb = trans ? k : count,
                                                .ldc = n,
                                                .batch = 1});
    }
    return rc;
}
