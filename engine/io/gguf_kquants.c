/* gguf_kquants.c — dequantising GGUF's K-quants: blocks of 256 elements in sub-blocks of 16 or 32
 * with scales of their own, which are quantised too. Layouts and arithmetic as in gguf_types.c. */
#include "gguf_types.h"

enum { SUPER = 256, HALF = 128, RUN = 32 };

/* d[j] q - m for 32 elements whose quants are the two bits at `shift`; two sub-blocks of 16. */
static void q2_run(float *restrict out, const uint8_t *restrict q, int shift, const float d[2],
                   const float m[2])
{
    for (int j = 0; j < RUN; j++)
        out[j] = am_gguf_scaled(d[j / 16], q[j] >> shift & 3, -m[j / 16]);
}

/* 16 bytes: scale of a sub-block in the low half, minimum in the high; 64 bytes of q: byte j of
 * half h holds the elements 128 h + 32 s + j at bit 2 s; d, then that of the minima */
void am_gguf_q2_k(float *restrict out, const uint8_t *restrict b, size_t n)
{
    for (size_t i = 0; i < n; i++, b += 84, out += SUPER) {
        float d = am_gguf_half(b + 80), least = am_gguf_half(b + 82);
        for (int run = 0; run < SUPER / RUN; run++) {
            const uint8_t *scales = b + 2 * run;
            float ds[] = {d * (float)(scales[0] & 15), d * (float)(scales[1] & 15)};
            float ms[] = {least * (float)(scales[0] >> 4), least * (float)(scales[1] >> 4)};
            q2_run(out + run * RUN, b + 16 + run / 4 * RUN, run % 4 * 2, ds, ms);
        }
    }
}

/* The scale of sub-block i: six bits in 12 bytes, the low four of two scales to a byte in the first
 * eight, the high two of four in the rest; less 32. */
static int q3_scale(const uint8_t *s, int i)
{
    int low = i < 8 ? s[i] & 15 : s[i - 8] >> 4;
    return (low | (s[8 + i % 4] >> i / 4 * 2 & 3) << 4) - 32;
}

/* 32 bytes of third bits: bit r of byte j for element 32 r + j, 0 means q - 4; 64 bytes as in Q2_K;
 * scales; d */
void am_gguf_q3_k(float *restrict out, const uint8_t *restrict b, size_t n)
{
    for (size_t i = 0; i < n; i++, b += 110, out += SUPER) {
        float d = am_gguf_half(b + 108);
        for (int run = 0; run < SUPER / RUN; run++) {
            const uint8_t *q = b + 32 + run / 4 * RUN;
            float ds[] = {d * (float)q3_scale(b + 96, 2 * run),
                          d * (float)q3_scale(b + 96, 2 * run + 1)};
            for (int j = 0; j < RUN; j++) {
                int low = q[j] >> run % 4 * 2 & 3;
                out[run * RUN + j] = ds[j / 16] * (float)(low - (b[j] >> run & 1 ? 0 : 4));
            }
        }
    }
}

/* Scale and minimum of sub-block i of Q4_K and Q5_K: six bits each in 12 bytes. Those of the first
 * four fill the low bits of eight bytes; the others' high two bits lie above them. */
static void q4_scales(const uint8_t *s, int i, int *scale, int *least)
{
    if (i < 4) {
        *scale = s[i] & 63;
        *least = s[i + 4] & 63;
    } else {
        *scale = (s[i + 4] & 15) | s[i - 4] >> 6 << 4;
        *least = s[i + 4] >> 4 | s[i] >> 6 << 4;
    }
}

/* d and that of the minima, scales, fifth bits of Q5_K (bit r of byte j for element 32 r + j), 128
 * bytes: byte j of group g holds the elements 64 g + j in its low half and 64 g + 32 + j in its
 * high. */
static void q4_or_q5(float *restrict out, const uint8_t *restrict b, const uint8_t *restrict fifth,
                     const uint8_t *restrict q)
{
    float d = am_gguf_half(b), least = am_gguf_half(b + 2);
    for (int run = 0; run < SUPER / RUN; run++, out += RUN) {
        int scale, m;
        q4_scales(b + 4, run, &scale, &m);
        float ds = d * (float)scale, ms = least * (float)m;
        const uint8_t *group = q + run / 2 * RUN;
        for (int j = 0; j < RUN; j++) {
            int high = fifth ? (fifth[j] >> run & 1) << 4 : 0;
            out[j] = am_gguf_scaled(ds, (group[j] >> run % 2 * 4 & 15) | high, -ms);
        }
    }
}

void am_gguf_q4_k(float *restrict out, const uint8_t *restrict b, size_t n)
{
    for (size_t i = 0; i < n; i++, b += 144, out += SUPER)
        q4_or_q5(out, b, NULL, b + 16);
}

void am_gguf_q5_k(float *restrict out, const uint8_t *restrict b, size_t n)
{
    for (size_t i = 0; i < n; i++, b += 176, out += SUPER)
        q4_or_q5(out, b, b + 16, b + 48);
}

/* 128 bytes of low halves: of half h the elements 0 to 63 low, 64 to 127 high; 64 bytes of the
 * upper two bits as in Q2_K; 16 signed scales; d. q less 32. */
void am_gguf_q6_k(float *restrict out, const uint8_t *restrict b, size_t n)
{
    for (size_t i = 0; i < n; i++, b += 210, out += SUPER) {
        float d = am_gguf_half(b + 208);
        for (int run = 0; run < SUPER / RUN; run++) {
            const uint8_t *low = b + run / 4 * 64 + run % 2 * RUN;
            const uint8_t *high = b + HALF + run / 4 * RUN;
            const int8_t *scales = (const int8_t *)b + 192 + 2 * run;
            float ds[] = {d * (float)scales[0], d * (float)scales[1]};
            for (int j = 0; j < RUN; j++) {
                int q = (low[j] >> run % 4 / 2 * 4 & 15) | (high[j] >> run % 4 * 2 & 3) << 4;
                out[run * RUN + j] = ds[j / 16] * (float)(q - 32);
            }
        }
    }
}
