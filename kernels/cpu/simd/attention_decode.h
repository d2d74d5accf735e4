/* attention_decode.h — what attention.c hands to attention_decode.c. */
#ifndef AM_KERNELS_ATTENTION_DECODE_H
#define AM_KERNELS_ATTENTION_DECODE_H

#include "vec.h"

/* One query in each row and more than one key; no dropout; f32, bf16 or f16. */
AM_INLINE int is_decode(const am_attention_shape *x)
{
    return x->t == 1 && x->s > 1 && x->dropout_p == 0 && is_simd_float(x->dtype);
}
int AM_SIMD(attention_decode)(const am_attention_args *args);
#if defined(AM_AMX_TILES) || defined(AM_BF16_DOT) /* tiles are of no use to one query */
int am_cpu_attention_decode_avx512(const am_attention_args *args);
#define attention_decode am_cpu_attention_decode_avx512
#else
#define attention_decode AM_SIMD(attention_decode)
#endif

#endif
