/* ref.h — what the scalar reference kernels share: element access by dtype, the strided walk, and
 * activations. Everything goes through double, so that ref can be the oracle of faster backends.
 * Other backends do not include this file. */
#ifndef AM_KERNELS_REF_H
#define AM_KERNELS_REF_H

#include <math.h>
#include "dtype.h"
#include "ref_kernels.h"
#include "rng.h"

#define AM_INLINE static inline __attribute__((always_inline))

/* ---- element access -------------------------------------------------------------------- */

AM_INLINE int is_float(int dtype)
{
    return dtype == AM_F32 || dtype == AM_BF16 || dtype == AM_F16 || dtype == AM_F64;
}

AM_INLINE double load(const void *p, int dtype, int64_t i)
{
    switch (dtype) {
    case AM_F32:
        return (double)((const float *)p)[i];
    case AM_BF16:
        return (double)am_bf16_to_f32(((const uint16_t *)p)[i]);
    case AM_F16:
        return (double)am_f16_to_f32(((const uint16_t *)p)[i]);
    default:
        return ((const double *)p)[i];
    }
}

AM_INLINE void store(void *p, int dtype, int64_t i, double v)
{
    switch (dtype) {
    case AM_F32:
        ((float *)p)[i] = (float)v;
        break;
    case AM_BF16:
        ((uint16_t *)p)[i] = am_f32_to_bf16((float)v);
        break;
    case AM_F16:
        ((uint16_t *)p)[i] = am_f32_to_f16((float)v);
        break;
    default:
        ((double *)p)[i] = v;
        break;
    }
}

/* Integer dtypes and bool. */
AM_INLINE int64_t load_int(const void *p, int dtype, int64_t i)
{
    switch (dtype) {
    case AM_I32:
        return ((const int32_t *)p)[i];
    case AM_I64:
        return ((const int64_t *)p)[i];
    default:
        return ((const uint8_t *)p)[i];
    }
}

AM_INLINE void store_int(void *p, int dtype, int64_t i, int64_t v)
{
    switch (dtype) {
    case AM_I32:
        ((int32_t *)p)[i] = (int32_t)(uint32_t)(uint64_t)v;
        break;
    case AM_I64:
        ((int64_t *)p)[i] = v;
        break;
    case AM_BOOL:
        ((uint8_t *)p)[i] = v != 0;
        break;
    default:
        ((uint8_t *)p)[i] = (uint8_t)(uint64_t)v;
        break;
    }
}

/* C's conversion where C defines it; saturating, and 0 for NaN, where it does not. */
AM_INLINE int64_t double_to_int(double v)
{
    if (v != v)
        return 0;
    if (v >= 9223372036854775808.0)
        return INT64_MAX;
    return v < -9223372036854775808.0 ? INT64_MIN : (int64_t)v;
}

/* Statistics (lse, rstd, losses) are f32, or f64 for f64 data. */
AM_INLINE int stat_dtype(int dtype)
{
    return dtype == AM_F64 ? AM_F64 : AM_F32;
}

/* Run body(args, dtype) with a constant dtype, so that the inlined body has one type. */
#define AM_DISPATCH_FLOAT(dtype, body, args)                                                       \
    switch (dtype) {                                                                               \
    case AM_F32:                                                                                   \
        return body(args, AM_F32);                                                                 \
    case AM_BF16:                                                                                  \
        return body(args, AM_BF16);                                                                \
    case AM_F16:                                                                                   \
        return body(args, AM_F16);                                                                 \
    case AM_F64:                                                                                   \
        return body(args, AM_F64);                                                                 \
    default:                                                                                       \
        return AM_EUNSUP;                                                                          \
    }

/* ---- the strided walk ------------------------------------------------------------------ */

typedef struct nd_walk {
    int64_t index[AM_MAX_DIMS];
    int64_t at[AM_ND_OPERANDS]; /* offsets of the current element, in elements */
} nd_walk;

AM_INLINE int64_t nd_count(const am_nd *nd)
{
    int64_t n = 1;
    for (int i = 0; i < nd->ndim; i++)
        n *= nd->shape[i];
    return n;
}

AM_INLINE void nd_step(const am_nd *nd, nd_walk *w, int operands)
{
    for (int i = nd->ndim - 1; i >= 0; i--) {
        for (int o = 0; o < operands; o++)
            w->at[o] += nd->stride[o][i];
        if (++w->index[i] < nd->shape[i])
            return;
        for (int o = 0; o < operands; o++)
            w->at[o] -= nd->stride[o][i] * nd->shape[i];
        w->index[i] = 0;
    }
}

/* ---- activations ----------------------------------------------------------------------- */

AM_INLINE double ref_sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

/* GELU by tanh (Hendrycks & Gimpel 2016): 0.5 x (1 + tanh u) with u = sqrt(2/pi) (x + 0.044715
 * x^3); (1 + tanh u) / 2 is sigmoid(2u), which keeps its digits where tanh u is near -1. */
#define GELU_C 0.79788456080286535588
#define GELU_A 0.044715

AM_INLINE double ref_act(int act, double x)
{
    switch (act) {
    case AM_ACT_SILU:
        return x * ref_sigmoid(x);
    case AM_ACT_GELU:
        return 0.5 * x * erfc(-x * 0.70710678118654752440);
    case AM_ACT_GELU_TANH:
        return x * ref_sigmoid(2 * GELU_C * (x + GELU_A * x * x * x));
    case AM_ACT_RELU:
        return x < 0 ? 0 : x;
    case AM_ACT_RELU2:
        return x < 0 ? 0 : x * x;
    case AM_ACT_QUICK_GELU:
        return x * ref_sigmoid(1.702 * x);
    case AM_ACT_TANH:
        return tanh(x);
    default:
        return ref_sigmoid(x);
    }
}

AM_INLINE double ref_act_grad(int act, double x)
{
    double s = ref_sigmoid(x);
    switch (act) {
    case AM_ACT_SILU:
        return s * (1.0 + x * (1.0 - s));
    case AM_ACT_GELU: /* Phi(x) + x phi(x) */
        return 0.5 * erfc(-x * 0.70710678118654752440) +
               x * 0.39894228040143267794 * exp(-0.5 * x * x);
    case AM_ACT_GELU_TANH: {
        double gate = ref_sigmoid(2 * GELU_C * (x + GELU_A * x * x * x));
        return gate + 2 * x * gate * (1.0 - gate) * GELU_C * (1.0 + 3.0 * GELU_A * x * x);
    }
    case AM_ACT_RELU:
        return x > 0 ? 1 : x <= 0 ? 0 : x;
    case AM_ACT_RELU2:
        return x < 0 ? 0 : 2 * x;
    case AM_ACT_QUICK_GELU: {
        double gate = ref_sigmoid(1.702 * x);
        return gate + 1.702 * x * gate * (1.0 - gate);
    }
    case AM_ACT_TANH:
        return 1.0 - tanh(x) * tanh(x);
    default:
        return s * (1.0 - s);
    }
}

#endif
