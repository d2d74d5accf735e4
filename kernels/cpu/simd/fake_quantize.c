/* fake_quantize.c — rounding to what few bits hold, with ref's bits: f32 operations, each rounded
 * to the dtype that it is computed in. */
#include "vec.h"
#include "../ref_kernels.h"

/* How a group is rounded. */
typedef struct grid {
    float scale, inverse, zero, base, middle, lowest, highest;
} grid;

AM_INLINE float rounded1(int dtype, float v)
{
    if (dtype == AM_F32)
        return v;
    return dtype == AM_BF16 ? am_bf16_to_f32(am_f32_to_bf16(v)) : am_f16_to_f32(am_f32_to_f16(v));
}

AM_INLINE vf rounded(int dtype, vf v)
{
    if (dtype == AM_F32)
        return v;
    return dtype == AM_BF16 ? from_bf16(round_to_bf16(v)) : from_f16(to_f16(v));
}

/* Whole numbers, halves to even, of what is below 2^22; -0 becomes 0. */
AM_INLINE vf whole(vf v)
{
    vf big = vsplat(12582912.0f); /* 1.5 * 2^23 */
    return (v + big) - big;
}

AM_INLINE grid grid_of(const am_fake_quantize_args *args, int own, float least, float most)
{
    int kept = args->kind == AM_FQ_INT4    ? args->dtype_scale
               : args->kind == AM_FQ_UINT4 ? AM_BF16
                                           : AM_F32;
    grid g = {0};
    float scale;
    switch (args->kind) {
    case AM_FQ_INT4:
        g.lowest = -8;
        g.highest = 7;
        scale = rounded1(own, fmaxf(-least, most) / 7.5f);
        g.scale = rounded1(kept, fmaxf(scale, own == AM_F16 ? 0x1p-14f : 0x1p-126f));
        break;
    case AM_FQ_UINT4:
        g.highest = 15;
        scale = fmaxf(rounded1(own, rounded1(own, most - least) / 15), rounded1(own, 1e-6f));
        g.middle = rounded1(kept, rounded1(own, least + rounded1(own, scale * 8)));
        g.scale = rounded1(kept, scale);
        g.base = rounded1(kept, g.middle - rounded1(kept, g.scale * 8));
        break;
    default:
        g.lowest = -128;
        g.highest = 127;
        least = fminf(least, 0);
        most = fmaxf(most, 0);
        scale = fmaxf(rounded1(own, rounded1(own, most - least) / 255), 0x1p-23f);
        g.zero = rounded1(own, -128 - rintf(rounded1(own, least / scale)));
        g.zero = fminf(fmaxf(g.zero, -128), 127);
        g.scale = scale;
    }
    g.inverse = rounded1(kept, 1 / g.scale);
    return g;
}

/* The least and the largest of a group. */
AM_INLINE void range(const am_fake_quantize_args *args, int own, int64_t first, float *least,
                     float *most)
{
    float start = load1(args->x, own, first), lows[VW], highs[VW];
    vf low = vsplat(start), high = low;
    for (int64_t i = 0; i < args->size; i += VW) {
        vf v = vget_n(args->x, own, first + i, args->size - i, start);
        low = vmin(v, low); /* a NaN stays out of it, as in ref */
        high = vmax(v, high);
    }
    vstore(lows, low);
    vstore(highs, high);
    *least = *most = start;
    for (int i = 0; i < VW; i++) {
        *least = fminf(*least, lows[i]);
        *most = fmaxf(*most, highs[i]);
    }
}

/* Elements first to first + size, a group, with the constants own (the dtype), wide (that of what
 * is computed of x and the scale) and kind. */
AM_INLINE void group(const am_fake_quantize_args *args, int own, int wide, int kind, int64_t first)
{
    float least, most;
    range(args, own, first, &least, &most);
    grid g = grid_of(args, own, least, most);
    vf scale = vsplat(g.scale), inverse = vsplat(g.inverse), zero = vsplat(g.zero);
    vf base = vsplat(g.base), middle = vsplat(g.middle);
    vf lowest = vsplat(g.lowest), highest = vsplat(g.highest);
    for (int64_t i = 0; i < args->size; i += VW) {
        int64_t n = args->size - i;
        vf x = vget_n(args->x, own, first + i, n, 0), level, v;
        if (kind == AM_FQ_UINT4)
            level = whole(rounded(wide, rounded(wide, x - base) / scale));
        else
            level = rounded(wide, whole(rounded(wide, x * inverse)) + zero);
        if (args->grad) {
            v = rounded(own, rounded(wide, vget_n(args->grad, own, first + i, n, 0) * scale));
            v = vselect((level > lowest) & (level < highest), v, vsplat(0));
            v = kind == AM_FQ_UINT4 ? v / scale : v * inverse;
        } else {
            level = vselect(level < lowest, lowest, vselect(level > highest, highest, level));
            if (kind == AM_FQ_UINT4)
                v = rounded(own, rounded(wide, (level - vsplat(8)) * scale)) + middle;
            else
                v = rounded(own, level - zero) * scale;
        }
        vput_n(args->out, own, first + i, n, rounded(wide, v));
    }
}

/* One loop for each kind and dtype, so that the choice is made outside of it. */
AM_INLINE void one(const am_fake_quantize_args *args, int own, int64_t k)
{
    int64_t first = k * args->size;
    int narrow = own == AM_BF16 && (args->kind == AM_FQ_UINT4 ||
                                    (args->kind == AM_FQ_INT4 && args->dtype_scale == AM_BF16));
    switch (args->kind) {
    case AM_FQ_INT4:
        if (narrow)
            group(args, own, AM_BF16, AM_FQ_INT4, first);
        else
            group(args, own, AM_F32, AM_FQ_INT4, first);
        break;
    case AM_FQ_UINT4:
        if (narrow)
            group(args, own, AM_BF16, AM_FQ_UINT4, first);
        else
            group(args, own, AM_F32, AM_FQ_UINT4, first);
        break;
    default:
        group(args, own, AM_F32, AM_FQ_INT8, first);
    }
}

int AM_SIMD(fake_quantize)(am_stream *s, const am_fake_quantize_args *args)
{
    if (!is_simd_float(args->dtype))
        return am_ref_fake_quantize(s, args);
#pragma omp parallel for num_threads(team(4 * args->groups * args->size)) schedule(static)
    for (int64_t k = 0; k < args->groups; k++)
        AM_WITH_DTYPE(T, args->dtype, one(args, T, k))
    return AM_OK;
}
