/* packed.c — weights in few bits: packing, unpacking, and a few rows times a packed weight, as one
 * generated token needs it; other products are ../packed.c's. f64 goes to ref.
 *
 * A product of a few rows unpacks W_ROWS rows of the weight at a time and is then gemv's (rows.h):
 * the same bits as by a weight that is unpacked whole. */
#include "rows.h"
#include "../packed.h"
#include "../ref_kernels.h"

/* ---- packing ------------------------------------------------------------------------------- */

/* Numbers first.. of a matrix, `run` at most: those of a block, or of a row. */
AM_INLINE void pack_run(const am_pack_args *args, const am_packed_parts *to, float *x,
                        int64_t first, int64_t count, int64_t run)
{
    float *scale = (args->work ? args->work : to->scale) + first / run;
    for (int64_t i = 0; i < count; i += VW) {
        vf v = vget_n(args->a, args->dtype, first + i, count - i, 0);
        if (args->packing.type == AM_PACK_INT8)
            v = from_f16(to_f16(v));
        vstore(x + i, v);
    }
    if (args->packing.type == AM_PACK_INT8)
        *scale = am_pack_int8_row((int8_t *)to->codes + first, x, count);
    else
        *scale = am_pack_block(to->codes + first / 2, x, count, args->packing.type);
}

int AM_SIMD(pack)(am_stream *s, const am_pack_args *args)
{
    const am_packing *p = &args->packing;
    int64_t n = p->rows * p->cols, run = p->type == AM_PACK_INT8 ? p->cols : AM_PACK_BLOCK;
    if (!is_simd_float(args->dtype))
        return am_ref_pack(s, args);
    am_packed_parts to = am_packed_parts_of(args->packed, p);
    int failed = 0;
#pragma omp parallel for num_threads(team(n)) schedule(static) reduction(| : failed)
    for (int64_t first = 0; first < n; first += run) {
        float *x = am_scratch(5, (size_t)(run + VW) * sizeof *x);
        if (x)
            pack_run(args, &to, x, first, at_most(n - first, run), run);
        failed |= !x;
    }
    if (failed)
        return am_kernel_fail(AM_ENOMEM, "pack: no scratch memory");
    if (args->work)
        am_pack_scales(&to, args->work, am_packing_blocks(p));
    return AM_OK;
}

/* ---- unpacking ----------------------------------------------------------------------------- */

typedef struct table16 {
    vf low, high; /* with vectors of 16 the first alone; of 4, in memory */
    const float *values;
} table16;

AM_INLINE table16 table_of(const am_packing *p)
{
    table16 t = {.values = am_packed_table(p)};
    t.low = vload(t.values);
    if (VW == 8)
        t.high = vload(t.values + 8);
    return t;
}

/* The values of VW codes. */
AM_INLINE vf looked_up(const table16 *t, vi code)
{
#if defined(__AVX512F__)
    return (vf)_mm512_permutexvar_ps((__m512i)code, (__m512)t->low);
#elif defined(__AVX2__)
    vf low = (vf)_mm256_permutevar8x32_ps((__m256)t->low, (__m256i)code);
    vf high = (vf)_mm256_permutevar8x32_ps((__m256)t->high, (__m256i)code);
    return vselect(code > 7, high, low);
#else
    vf v;
    for (int i = 0; i < VW; i++)
        v[i] = t->values[code[i]];
    return v;
#endif
}

/* VW bytes, each in a lane. */
AM_INLINE vi bytes_at(const uint8_t *p)
{
#if defined(__AVX512F__)
    return (vi)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
#elif defined(__AVX2__)
    return (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
#else
    return (vi){p[0], p[1], p[2], p[3]};
#endif
}

/* Rounded to bf16, in the upper half of each lane; NaN stays NaN. */
AM_INLINE vu upper_bf16(vf v)
{
    vu u = (vu)v, rounded = u + 0x7fffu + ((u >> 16) & 1u), nan = (vu)vnan(v);
    return (((u | 0x400000u) & nan) | (rounded & ~nan)) & 0xffff0000u;
}

/* A whole block to `out`. Bytes hold neighbours: even numbers in their upper halves. */
AM_INLINE void unpack_block(void *out, int dtype, int64_t to, const uint8_t *codes, float scale,
                            const table16 *t)
{
    vf by = vsplat(scale);
    for (int i = 0; i < AM_PACK_BLOCK / 2; i += VW) {
        vi both = bytes_at(codes + i);
        vf even = looked_up(t, both >> 4) * by, odd = looked_up(t, both & 15) * by;
        if (dtype == AM_BF16) {
            vu pair = upper_bf16(even) >> 16 | upper_bf16(odd); /* little-endian */
            memcpy((uint16_t *)out + to + 2 * i, &pair, sizeof pair);
        } else {
            vput(out, dtype, to + 2 * i, __builtin_shufflevector(even, odd, AM_LOW));
            vput(out, dtype, to + 2 * i + VW, __builtin_shufflevector(even, odd, AM_HIGH));
        }
    }
}

/* Numbers i.., `count` of one block or fewer, that may begin and end anywhere in it. */
AM_INLINE void unpack_piece(void *out, int dtype, int64_t to, const am_packed_parts *w, int64_t i,
                            int64_t count, const table16 *t)
{
    float scale = am_packed_scale(w, i / AM_PACK_BLOCK);
    if (count == AM_PACK_BLOCK) {
        unpack_block(out, dtype, to, w->codes + i / 2, scale, t);
        return;
    }
    for (int64_t j = i; j < i + count; j++) {
        int code = j % 2 ? w->codes[j / 2] & 15 : w->codes[j / 2] >> 4;
        store1(out, dtype, to + j - i, t->values[code] * scale);
    }
}

/* Columns col.. of one row, to element `to` of `out`. */
AM_INLINE void unpack_row(void *out, int dtype, int64_t to, const am_packed_parts *w,
                          const am_packing *p, int64_t row, int64_t col, int64_t cols)
{
    int64_t first = row * p->cols + col, end = first + cols;
    if (p->type == AM_PACK_INT8) {
        for (int64_t i = 0; i < cols; i++)
            store1(out, dtype, to + i, am_packed_int8((int8_t)w->codes[first + i], w->scale[row]));
        return;
    }
    table16 t = table_of(p);
    for (int64_t i = first; i < end;) {
        int64_t count = at_most(AM_PACK_BLOCK - i % AM_PACK_BLOCK, end - i);
        unpack_piece(out, dtype, to + i - first, w, i, count, &t);
        i += count;
    }
}

int AM_SIMD(unpack)(am_stream *s, const am_unpack_args *args)
{
    if (!is_simd_float(args->dtype))
        return am_ref_unpack(s, args);
    am_packed_parts w = am_packed_parts_of(args->packed, &args->packing);
#pragma omp parallel for num_threads(team(args->rows * args->cols)) schedule(static)
    for (int64_t r = 0; r < args->rows; r++)
        AM_WITH_DTYPE(T, args->dtype,
                      unpack_row(args->out, T, r * args->cols, &w, &args->packing, args->row + r,
                                 args->col, args->cols))
    return AM_OK;
}

/* ---- a few rows ---------------------------------------------------------------------------- */

/* c's elements of a's rows r.. and the weight's rows j.., which lie unpacked in `tile`. */
AM_INLINE void few_tile(const am_packed_gemm_args *args, int dtype, const float *a, int64_t padded,
                        int64_t r, int rows, const void *tile, int64_t j, int cols)
{
    vf sum[X_ROWS][W_ROWS];
    int64_t n = args->packing.rows, k = args->packing.cols;
    rows_dot(sum, a + r * padded, padded, rows, tile, dtype, k, cols, k);
    for (int m = 0; m < rows; m++)
        for (int c = 0; c < cols; c++) {
            int64_t at = (r + m) * n + j + c;
            float v = vsum(sum[m][c]);
            if (args->bias)
                v += load1(args->bias, dtype, j + c);
            if (args->accumulate)
                v += load1(args->c, args->dtype_c, at);
            store1(args->c, args->dtype_c, at, v);
        }
}

AM_INLINE void few_columns(const am_packed_gemm_args *args, int dtype, const float *a,
                           int64_t padded, const am_packed_parts *w, void *tile, int64_t j,
                           int cols)
{
    for (int c = 0; c < cols; c++)
        unpack_row(tile, dtype, c * args->packing.cols, w, &args->packing, j + c, 0,
                   args->packing.cols);
    ROWS_EACH(args->m, few_tile(args, dtype, a, padded, r, rows, tile, j, cols));
}

int AM_SIMD(packed_gemm)(am_stream *s, const am_packed_gemm_args *args)
{
    int64_t n = args->packing.rows, k = args->packing.cols, padded = (k + VW - 1) / VW * VW;
    (void)s;
    if (!is_simd_float(args->dtype) || !args->few)
        return AM_EUNSUP;
    am_packed_parts w = am_packed_parts_of(args->w, &args->packing);
    float *a = am_scratch(0, (size_t)(args->m * padded) * sizeof *a);
    if (!a)
        return am_kernel_fail(AM_ENOMEM, "packed_gemm: no scratch memory");
    for (int64_t r = 0; r < args->m; r++)
        for (int64_t i = 0; i < k; i += VW)
            vstore(a + r * padded + i, vget_n(args->a, args->dtype, r * k + i, k - i, 0));
    int failed = 0;
#pragma omp parallel for num_threads(team(n *k)) schedule(static) reduction(| : failed)
    for (int64_t j = 0; j < n; j += W_ROWS) {
        void *tile = am_scratch(5, (size_t)(W_ROWS * k * simd_size(args->dtype)));
        if (tile && n - j >= W_ROWS)
            AM_WITH_DTYPE(T, args->dtype, few_columns(args, T, a, padded, &w, tile, j, W_ROWS))
        else
            for (int64_t c = j; tile && c < n; c++)
                AM_WITH_DTYPE(T, args->dtype, few_columns(args, T, a, padded, &w, tile, c, 1))
        failed |= !tile;
    }
    return failed ? am_kernel_fail(AM_ENOMEM, "packed_gemm: no scratch memory") : AM_OK;
}
