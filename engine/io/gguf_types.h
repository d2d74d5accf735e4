/* gguf_types.h — the tensor types of GGUF: their blocks, and how they become f32 and come from it.
 */
#ifndef AM_GGUF_TYPES_H
#define AM_GGUF_TYPES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../dtype.h"

/* A row of a tensor is cut into blocks of `items` elements, `bytes` bytes each. A type is read as
 * it is (dtype >= 0, dequantize NULL), as f32 through dequantize, or not at all (dtype -1). It is
 * written through quantize, whose numbers must be finite; 0: a scale became larger than f16 holds.
 */
typedef struct am_gguf_type {
    const char *name;
    int items, bytes, dtype;
    void (*dequantize)(float *out, const uint8_t *blocks, size_t n_blocks);
    int (*quantize)(uint8_t *blocks, const float *x, size_t n_blocks);
} am_gguf_type;

/* By the number in the file; NULL for numbers without a meaning. */
const am_gguf_type *am_gguf_type_find(uint32_t number);
/* The number of a type that is written, by its name; -1 for others. */
int am_gguf_type_number(const char *name);

/* n_blocks blocks each; gguf_kquants.c. */
void am_gguf_q2_k(float *restrict out, const uint8_t *restrict blocks, size_t n_blocks);
void am_gguf_q3_k(float *restrict out, const uint8_t *restrict blocks, size_t n_blocks);
void am_gguf_q4_k(float *restrict out, const uint8_t *restrict blocks, size_t n_blocks);
void am_gguf_q5_k(float *restrict out, const uint8_t *restrict blocks, size_t n_blocks);
void am_gguf_q6_k(float *restrict out, const uint8_t *restrict blocks, size_t n_blocks);

/* n_blocks blocks each; gguf_quantize.c. */
int am_gguf_to_f32(uint8_t *blocks, const float *x, size_t n_blocks);
int am_gguf_to_f16(uint8_t *blocks, const float *x, size_t n_blocks);
int am_gguf_to_bf16(uint8_t *blocks, const float *x, size_t n_blocks);
int am_gguf_to_q4_0(uint8_t *blocks, const float *x, size_t n_blocks);
int am_gguf_to_q5_0(uint8_t *blocks, const float *x, size_t n_blocks);
int am_gguf_to_q8_0(uint8_t *blocks, const float *x, size_t n_blocks);
int am_gguf_to_q4_k(uint8_t *blocks, const float *x, size_t n_blocks);

/* A scale: f16, little endian. */
static inline float am_gguf_half(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, 2);
    return am_f16_to_f32(h);
}

/* d * q + m, rounded twice: two statements, so that no compiler fuses them. */
static inline float am_gguf_scaled(float d, int q, float m)
{
    float product = d * (float)q;
    return product + m;
}

#endif
