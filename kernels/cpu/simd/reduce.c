/* reduce.c — sums, maxima, argmax and logsumexp, orders, rows picked by index. What is rare
 * (integers, extremes or logsumexp over an outer dimension, indices for each element) is ref's. */
#include "vec.h"
#include "../ref_kernels.h"

/* ---- reductions ----------------------------------------------------------------------------- */

/* f32 lanes are emptied into double after this many vectors. */
enum { CHAIN = 256 };

AM_INLINE double row_sum(const void *p, int dtype, int64_t at, int64_t n)
{
    double total = 0;
    for (int64_t first = 0; first < n; first += CHAIN * VW) {
        int64_t end = at_most(n, first + CHAIN * VW);
        vf sum = {0};
        for (int64_t i = first; i < end; i += VW)
            sum += vget_n(p, dtype, at + i, end - i, 0);
        total += (double)vsum(sum);
    }
    return total;
}

enum { COLS = 4 }; /* vectors of columns summed together */

/* [n, inner] -> [inner] for columns i.. of one outer index, rows in order. */
AM_INLINE void column_sums(const am_reduce_args *args, int dtype, int to, int64_t o, int64_t i)
{
    int64_t inner = args->inner, from = o * args->n * inner;
    vf total[COLS] = {{0}};
    for (int64_t first = 0; first < args->n; first += CHAIN) {
        vf sum[COLS] = {{0}};
        for (int64_t j = first; j < at_most(args->n, first + CHAIN); j++)
            for (int64_t k = 0; k < COLS; k++) {
                int64_t col = i + k * VW;
                sum[k] += vget_n(args->a, dtype, from + j * inner + col, inner - col, 0);
            }
        for (int k = 0; k < COLS; k++)
            total[k] += sum[k];
    }
    for (int64_t k = 0; k < COLS; k++) {
        int64_t col = i + k * VW, at = o * inner + col;
        vf v = total[k] * (float)args->scale;
        if (args->accumulate)
            v += vget_n(args->out, to, at, inner - col, 0);
        vput_n(args->out, to, at, inner - col, v);
    }
}

static int sum_rows(const am_reduce_args *args)
{
    int64_t outer = args->outer, n = args->n, inner = args->inner;
    int64_t blocks = (inner + COLS * VW - 1) / (COLS * VW);
    int to = args->dtype_out;
#pragma omp parallel for num_threads(team(outer *n *inner)) schedule(static)
    for (int64_t w = 0; w < outer * blocks; w++) {
        if (inner != 1) {
            AM_WITH_DTYPE(T, args->dtype,
                          column_sums(args, T, to, w / blocks, w % blocks * COLS * VW))
            continue;
        }
        float v = 0;
        AM_WITH_DTYPE(T, args->dtype, v = (float)(row_sum(args->a, T, w * n, n) * args->scale))
        if (args->accumulate)
            v += load1(args->out, to, w);
        store1(args->out, to, w, v);
    }
    return AM_OK;
}

/* One row of the other reductions, for rows that are dense. */
static int reduce_rows(const am_reduce_args *args)
{
    int64_t size = simd_size(args->dtype), size_out = simd_size(args->dtype_out);
    if (args->op >= AM_R_ARGMAX)
        size_out = 8;
#pragma omp parallel for num_threads(team(args->outer * args->n)) schedule(static)
    for (int64_t o = 0; o < args->outer; o++) {
        am_reduce_args row = *args;
        row.outer = 1;
        row.a = (const char *)args->a + o * args->n * size;
        row.out = (char *)args->out + o * size_out;
        am_ref_reduce(NULL, &row);
    }
    return AM_OK;
}

int AM_SIMD(reduce)(am_stream *s, const am_reduce_args *args)
{
    int rows = args->op >= 0 && args->op < AM_R_COUNT && is_simd_float(args->dtype) &&
               (args->op >= AM_R_ARGMAX || is_simd_float(args->dtype_out));
    if (rows && args->op == AM_R_SUM)
        return sum_rows(args);
    return rows && args->inner == 1 ? reduce_rows(args) : am_ref_reduce(s, args);
}

/* ---- rows picked by index -------------------------------------------------------------------- */

static int64_t index_at(const void *index, int dtype, int64_t i)
{
    return dtype == AM_I32 ? ((const int32_t *)index)[i] : ((const int64_t *)index)[i];
}

/* Looks at all indices before anything is read by them. */
static int check_index(const char *kernel, const void *index, int dtype, int64_t m, int64_t n)
{
    for (int64_t j = 0; j < m; j++) {
        int64_t i = index_at(index, dtype, j);
        if (i < 0 || i >= n)
            return am_kernel_fail(AM_EINVAL, "%s: index %lld is outside 0..%lld", kernel,
                                  (long long)i, (long long)(n - 1));
    }
    return AM_OK;
}

int AM_SIMD(gather)(am_stream *s, const am_gather_args *args)
{
    if (args->per_element || !is_simd_float(args->dtype) ||
        (args->dtype_index != AM_I32 && args->dtype_index != AM_I64))
        return am_ref_gather(s, args);
    int rc = check_index("gather", args->index, args->dtype_index, args->m, args->n);
    if (rc != AM_OK)
        return rc;
    int64_t bytes = args->inner * simd_size(args->dtype), m = args->m;
#pragma omp parallel for num_threads(team(args->outer *m * args->inner)) schedule(static)
    for (int64_t w = 0; w < args->outer * m; w++) {
        int64_t from = w / m * args->n + index_at(args->index, args->dtype_index, w % m);
        memcpy((char *)args->out + w * bytes, (const char *)args->a + from * bytes, (size_t)bytes);
    }
    return AM_OK;
}

enum { GATHER_COLS = 4 * VW };

/* Columns first.. of one outer index, the picked rows in order. */
AM_INLINE void gather_bwd_columns(const am_gather_bwd_args *args, int dtype, int to, int64_t o,
                                  int64_t first)
{
    int64_t inner = args->inner, end = at_most(inner, first + GATHER_COLS);
    for (int64_t j = 0; j < args->m; j++) {
        int64_t index = index_at(args->index, args->dtype_index, j);
        int64_t row = o * args->n + index;
        if (args->has_padding && index == args->padding)
            continue;
        for (int64_t i = first; i < end; i += VW)
            vput_n(args->da, to, row * inner + i, end - i,
                   vget_n(args->da, to, row * inner + i, end - i, 0) +
                       vget_n(args->dout, dtype, (o * args->m + j) * inner + i, end - i, 0));
    }
}

int AM_SIMD(gather_bwd)(am_stream *s, const am_gather_bwd_args *args)
{
    int fast = !args->per_element && (args->dtype_da == AM_F32 || args->dtype_da == args->dtype) &&
               (args->dtype_index == AM_I32 || args->dtype_index == AM_I64);
    if (!fast || !is_simd_float(args->dtype))
        return am_ref_gather_bwd(s, args);
    int rc = check_index("gather_bwd", args->index, args->dtype_index, args->m, args->n);
    if (rc != AM_OK)
        return rc;
    int64_t blocks = (args->inner + GATHER_COLS - 1) / GATHER_COLS;
#pragma omp parallel for num_threads(team(args->outer * args->m * args->inner)) schedule(static)
    for (int64_t w = 0; w < args->outer * blocks; w++) { /* threads share out the columns */
        int64_t o = w / blocks, first = w % blocks * GATHER_COLS;
        if (args->dtype_da == AM_F32)
            AM_WITH_DTYPE(T, args->dtype, gather_bwd_columns(args, T, AM_F32, o, first))
        else
            AM_WITH_DTYPE(T, args->dtype, gather_bwd_columns(args, T, T, o, first))
    }
    return AM_OK;
}

/* ---- orders ------------------------------------------------------------------------------- */

/* Threads share out the rows; each is sorted as ref does. */
int AM_SIMD(argsort)(am_stream *s, const am_argsort_args *args)
{
    int64_t row = args->n * args->inner;
    int failed = AM_OK;
    if (!is_simd_float(args->dtype))
        return am_ref_argsort(s, args);
#pragma omp parallel for num_threads(team(args->outer *row)) schedule(static)
    for (int64_t o = 0; o < args->outer; o++) {
        am_argsort_args one = *args;
        one.outer = 1;
        one.a = (const char *)args->a + o * row * simd_size(args->dtype);
        one.out = (int64_t *)args->out + o * row;
        int rc = am_ref_argsort(NULL, &one);
        if (rc != AM_OK) {
#pragma omp atomic write
            failed = rc;
        }
    }
    return failed == AM_OK ? AM_OK : am_kernel_fail(failed, "argsort: no scratch memory");
}
