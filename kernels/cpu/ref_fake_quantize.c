/* ref_fake_quantize.c — rounding to what few bits hold: am_fake_quantize_args in backend.h. Each
 * step is computed in double and rounded once, to the dtype that PyTorch computes it in. */
#include "ref.h"

/* How a group is rounded. `wide`: the dtype of what is computed of x and the scale. */
typedef struct grid {
    double scale, inverse, zero, base, middle, lowest, highest;
    int wide;
} grid;

AM_INLINE double rounded(int dtype, double v)
{
    switch (dtype) {
    case AM_F32:
        return (double)(float)v;
    case AM_BF16:
        return (double)am_bf16_to_f32(am_f32_to_bf16((float)v));
    case AM_F16:
        return (double)am_f16_to_f32(am_f32_to_f16((float)v));
    default:
        return v;
    }
}

static int wider(int a, int b)
{
    return a == b ? a : a == AM_F64 || b == AM_F64 ? AM_F64 : AM_F32;
}

static double smallest_normal(int dtype)
{
    return dtype == AM_F64 ? 0x1p-1022 : dtype == AM_F16 ? 0x1p-14 : 0x1p-126;
}

/* The grid of a group from its least and largest element. */
AM_INLINE grid grid_of(const am_fake_quantize_args *args, int own, double least, double most)
{
    int kept = args->kind == AM_FQ_INT4    ? args->dtype_scale
               : args->kind == AM_FQ_UINT4 ? AM_BF16
                                           : AM_F32;
    grid g = {.wide = wider(own, kept)};
    double scale;
    switch (args->kind) {
    case AM_FQ_INT4:
        g.lowest = -8;
        g.highest = 7;
        scale = rounded(own, fmax(-least, most) / 7.5);
        g.scale = rounded(kept, fmax(scale, smallest_normal(own)));
        break;
    case AM_FQ_UINT4:
        g.highest = 15;
        scale = fmax(rounded(own, rounded(own, most - least) / 15), rounded(own, 1e-6));
        g.middle = rounded(kept, rounded(own, least + rounded(own, scale * 8)));
        g.scale = rounded(kept, scale);
        g.base = rounded(kept, g.middle - rounded(kept, g.scale * 8));
        break;
    default:
        g.lowest = -128;
        g.highest = 127;
        least = fmin(least, 0);
        most = fmax(most, 0);
        scale = fmax(rounded(own, rounded(own, most - least) / 255), 0x1p-23);
        g.zero = rounded(own, -128 - rint(rounded(own, least / scale)));
        g.zero = fmin(fmax(g.zero, -128), 127);
        g.scale = rounded(kept, scale);
    }
    g.inverse = rounded(kept, 1 / g.scale);
    return g;
}

/* The level of x before it is cut to the lowest or highest. */
AM_INLINE double level_of(const grid *g, int kind, double x)
{
    if (kind == AM_FQ_UINT4)
        return rint(rounded(g->wide, rounded(g->wide, x - g->base) / g->scale));
    return rounded(g->wide, rint(rounded(g->wide, x * g->inverse)) + g->zero);
}

AM_INLINE double value_of(const grid *g, int kind, int own, double level)
{
    level = level < g->lowest ? g->lowest : level > g->highest ? g->highest : level;
    if (kind != AM_FQ_UINT4)
        return rounded(own, rounded(g->wide, rounded(own, level - g->zero) * g->scale));
    double v = rounded(own, rounded(g->wide, (level - 8) * g->scale));
    return rounded(own, rounded(g->wide, v + g->middle));
}

AM_INLINE double slope_of(const grid *g, int kind, int own, double level, double grad)
{
    double v = rounded(own, rounded(g->wide, grad * g->scale));
    if (!(level > g->lowest && level < g->highest))
        return 0;
    v = kind == AM_FQ_UINT4 ? v / g->scale : v * g->inverse;
    return rounded(own, rounded(g->wide, v));
}

AM_INLINE int fake_quantize_float(const am_fake_quantize_args *args, int dtype)
{
    for (int64_t k = 0; k < args->groups; k++) {
        int64_t first = k * args->size;
        double least = load(args->x, dtype, first), most = least;
        for (int64_t i = first; i < first + args->size; i++) {
            least = fmin(least, load(args->x, dtype, i));
            most = fmax(most, load(args->x, dtype, i));
        }
        grid g = grid_of(args, dtype, least, most);
        for (int64_t i = first; i < first + args->size; i++) {
            double level = level_of(&g, args->kind, load(args->x, dtype, i));
            store(args->out, dtype, i,
                  args->grad ? slope_of(&g, args->kind, dtype, level, load(args->grad, dtype, i))
                             : value_of(&g, args->kind, dtype, level));
        }
    }
    return AM_OK;
}

int am_ref_fake_quantize(am_stream *s, const am_fake_quantize_args *args)
{
    (void)s;
    AM_DISPATCH_FLOAT(args->dtype, fake_quantize_float, args)
}
