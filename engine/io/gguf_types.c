/* gguf_types.c — the table of GGUF's tensor types, and dequantising the simple ones; K-quants are
 * in gguf_kquants.c, quantising in gguf_quantize.c. The layouts are ggml's; the arithmetic is that
 * of the gguf Python package (and so of transformers): every product and sum is rounded to f32 by
 * itself. Scales are f16, little endian; 32 quants follow, two to a byte: the low halves of the
 * bytes are elements 0 to 15, the high halves 16 to 31. */
#include "gguf_types.h"

#include <string.h>

#include "../am.h"
#include "../dtype.h"

enum { HALF = 16, BLOCK = 32 };

/* 32 bits to 32 bytes of 16 or 0: the fifth bits of quants. For each byte of bits: put it in all
 * bytes of a word, keep bit j in byte j, then move any bit that is there to the byte's bit 4. */
static void spread_bits(uint8_t out[BLOCK], const uint8_t *bits)
{
    for (size_t i = 0; i < BLOCK / 8; i++) {
        uint64_t w = bits[i] * 0x0101010101010101u & 0x8040201008040201u;
        w = (w + 0x7f7f7f7f7f7f7f7fu) >> 3 & 0x1010101010101010u;
        memcpy(&out[8 * i], &w, 8);
    }
}

/* d; 16 bytes of q + 8 */
static void q4_0(float *restrict out, const uint8_t *restrict b, size_t n)
{
    for (size_t i = 0; i < n; i++, b += 18, out += BLOCK) {
        float d = am_gguf_half(b);
        for (int j = 0; j < HALF; j++) {
            out[j] = d * (float)((b[2 + j] & 15) - 8);
            out[j + HALF] = d * (float)((b[2 + j] >> 4) - 8);
        }
    }
}

/* d, m; 16 bytes of q */
static void q4_1(float *restrict out, const uint8_t *restrict b, size_t n)
{
    for (size_t i = 0; i < n; i++, b += 20, out += BLOCK) {
        float d = am_gguf_half(b), m = am_gguf_half(b + 2);
        for (int j = 0; j < HALF; j++) {
            out[j] = am_gguf_scaled(d, b[4 + j] & 15, m);
            out[j + HALF] = am_gguf_scaled(d, b[4 + j] >> 4, m);
        }
    }
}

/* d; fifth bits (bit j: element j); 16 bytes of the low four bits of q + 16 */
static void q5_0(float *restrict out, const uint8_t *restrict b, size_t n)
{
    for (size_t i = 0; i < n; i++, b += 22, out += BLOCK) {
        float d = am_gguf_half(b);
        uint8_t fifth[BLOCK];
        spread_bits(fifth, b + 2);
        for (int j = 0; j < HALF; j++) {
            out[j] = d * (float)(((b[6 + j] & 15) | fifth[j]) - 16);
            out[j + HALF] = d * (float)((b[6 + j] >> 4 | fifth[j + HALF]) - 16);
        }
    }
}

/* d, m; fifth bits; 16 bytes of the low four bits of q */
static void q5_1(float *restrict out, const uint8_t *restrict b, size_t n)
{
    for (size_t i = 0; i < n; i++, b += 24, out += BLOCK) {
        float d = am_gguf_half(b), m = am_gguf_half(b + 2);
        uint8_t fifth[BLOCK];
        spread_bits(fifth, b + 4);
        for (int j = 0; j < HALF; j++) {
            out[j] = am_gguf_scaled(d, (b[8 + j] & 15) | fifth[j], m);
            out[j + HALF] = am_gguf_scaled(d, b[8 + j] >> 4 | fifth[j + HALF], m);
        }
    }
}

/* d; 32 signed bytes */
static void q8_0(float *restrict out, const uint8_t *restrict b, size_t n)
{
    for (size_t i = 0; i < n; i++, b += 34, out += BLOCK) {
        float d = am_gguf_half(b);
        for (int j = 0; j < BLOCK; j++)
            out[j] = d * (float)(int8_t)b[2 + j];
    }
}

/* An exponent, 2^(e - 128) for halves; 16 bytes of numbers in halves, which is exact also where the
 * exponent makes a subnormal scale. */
static void mxfp4(float *restrict out, const uint8_t *restrict b, size_t n)
{
    static const int8_t halves[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    for (size_t i = 0; i < n; i++, b += 17, out += BLOCK) {
        uint32_t bits = b[0] < 2 ? 0x00200000u << b[0] : (uint32_t)(b[0] - 1) << 23;
        float d;
        memcpy(&d, &bits, 4);
        for (int j = 0; j < HALF; j++) {
            out[j] = d * (float)halves[b[1 + j] & 15];
            out[j + HALF] = d * (float)halves[b[1 + j] >> 4];
        }
    }
}

/* Sizes of types without a reader are here too: a file that has such a tensor can be checked and
 * its other tensors read. */
static const am_gguf_type types[] = {
    [0] = {"F32", 1, 4, AM_F32, NULL, am_gguf_to_f32},
    [1] = {"F16", 1, 2, AM_F16, NULL, am_gguf_to_f16},
    [2] = {"Q4_0", 32, 18, AM_F32, q4_0, am_gguf_to_q4_0},
    [3] = {"Q4_1", 32, 20, AM_F32, q4_1, NULL},
    [6] = {"Q5_0", 32, 22, AM_F32, q5_0, am_gguf_to_q5_0},
    [7] = {"Q5_1", 32, 24, AM_F32, q5_1, NULL},
    [8] = {"Q8_0", 32, 34, AM_F32, q8_0, am_gguf_to_q8_0},
    [9] = {"Q8_1", 32, 40, -1, NULL, NULL},
    [10] = {"Q2_K", 256, 84, AM_F32, am_gguf_q2_k, NULL},
    [11] = {"Q3_K", 256, 110, AM_F32, am_gguf_q3_k, NULL},
    [12] = {"Q4_K", 256, 144, AM_F32, am_gguf_q4_k, am_gguf_to_q4_k},
    [13] = {"Q5_K", 256, 176, AM_F32, am_gguf_q5_k, NULL},
    [14] = {"Q6_K", 256, 210, AM_F32, am_gguf_q6_k, NULL},
    [15] = {"Q8_K", 256, 292, -1, NULL, NULL},
    [16] = {"IQ2_XXS", 256, 66, -1, NULL, NULL},
    [17] = {"IQ2_XS", 256, 74, -1, NULL, NULL},
    [18] = {"IQ3_XXS", 256, 98, -1, NULL, NULL},
    [19] = {"IQ1_S", 256, 50, -1, NULL, NULL},
    [20] = {"IQ4_NL", 32, 18, -1, NULL, NULL},
    [21] = {"IQ3_S", 256, 110, -1, NULL, NULL},
    [22] = {"IQ2_S", 256, 82, -1, NULL, NULL},
    [23] = {"IQ4_XS", 256, 136, -1, NULL, NULL},
    [24] = {"I8", 1, 1, -1, NULL, NULL},
    [25] = {"I16", 1, 2, -1, NULL, NULL},
    [26] = {"I32", 1, 4, AM_I32, NULL, NULL},
    [27] = {"I64", 1, 8, AM_I64, NULL, NULL},
    [28] = {"F64", 1, 8, AM_F64, NULL, NULL},
    [29] = {"IQ1_M", 256, 56, -1, NULL, NULL},
    [30] = {"BF16", 1, 2, AM_BF16, NULL, am_gguf_to_bf16},
    [34] = {"TQ1_0", 256, 54, -1, NULL, NULL},
    [35] = {"TQ2_0", 256, 66, -1, NULL, NULL},
    [39] = {"MXFP4", 32, 17, AM_F32, mxfp4, NULL},
};

const am_gguf_type *am_gguf_type_find(uint32_t number)
{
    if (number >= sizeof types / sizeof *types || !types[number].name)
        return NULL;
    return &types[number];
}

int am_gguf_type_number(const char *name)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].quantize && strcmp(types[i].name, name) == 0)
            return (int)i;
    return -1;
}
