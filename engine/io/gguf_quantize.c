/* gguf_quantize.c — f32 to GGUF's types, with the arithmetic and the order of rounding of ggml's
 * reference quantisers (quantize_row_*_ref), so that the bytes are theirs: every product and sum is
 * rounded to f32 by itself. Layouts are in gguf_types.c and gguf_kquants.c. */
#include <math.h>
#include <string.h>

#include "gguf_types.h"

enum { HALF = 16, BLOCK = 32, SUPER = 256, RUNS = SUPER / BLOCK };

int am_gguf_to_f32(uint8_t *b, const float *x, size_t n)
{
    memcpy(b, x, n * sizeof *x);
    return 1;
}

int am_gguf_to_f16(uint8_t *b, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h = am_f32_to_f16(x[i]);
        memcpy(b + 2 * i, &h, 2);
    }
    return 1;
}

int am_gguf_to_bf16(uint8_t *b, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h = am_f32_to_bf16(x[i]);
        memcpy(b + 2 * i, &h, 2);
    }
    return 1;
}

/* ---- one scale for 32 -------------------------------------------------------------------- */

/* Store a scale; 0 when f16 cannot hold it. */
static int put_half(uint8_t *p, float scale)
{
    uint16_t h = am_f32_to_f16(scale);
    memcpy(p, &h, 2);
    return (h & 0x7c00) != 0x7c00;
}

/* What to multiply by; 0 where ggml's reference would divide by a number so small that the result
 * is no number: f16 stores that scale as 0 anyway. */
static float inverse(float d)
{
    float id = d != 0 ? 1.0f / d : 0.0f;
    return isfinite(id) ? id : 0.0f;
}

/* The element that is largest without its sign. */
static float extreme(const float *x)
{
    float largest = 0, with_sign = 0;
    for (int j = 0; j < BLOCK; j++)
        if (largest < fabsf(x[j])) {
            largest = fabsf(x[j]);
            with_sign = x[j];
        }
    return with_sign;
}

/* x * id + half, cut to an integer of at most `most`; x * id >= -half. */
static uint8_t cut(float x, float id, float half, int most)
{
    float product = x * id;
    int q = (int)(product + half);
    return (uint8_t)(q < most ? q : most);
}

int am_gguf_to_q4_0(uint8_t *b, const float *x, size_t n)
{
    int fits = 1;
    for (size_t i = 0; i < n; i++, b += 18, x += BLOCK) {
        float d = extreme(x) / -8, id = inverse(d);
        fits &= put_half(b, d);
        for (int j = 0; j < HALF; j++)
            b[2 + j] = (uint8_t)(cut(x[j], id, 8.5f, 15) | cut(x[j + HALF], id, 8.5f, 15) << 4);
    }
    return fits;
}

int am_gguf_to_q5_0(uint8_t *b, const float *x, size_t n)
{
    int fits = 1;
    for (size_t i = 0; i < n; i++, b += 22, x += BLOCK) {
        float d = extreme(x) / -16, id = inverse(d);
        uint32_t fifth = 0;
        fits &= put_half(b, d);
        for (int j = 0; j < HALF; j++) {
            uint8_t low = cut(x[j], id, 16.5f, 31), high = cut(x[j + HALF], id, 16.5f, 31);
            b[6 + j] = (uint8_t)((low & 15) | (high & 15) << 4);
            fifth |= (uint32_t)low >> 4 << j | (uint32_t)high >> 4 << (j + HALF);
        }
        for (int j = 0; j < 4; j++)
            b[2 + j] = (uint8_t)(fifth >> 8 * j & 0xff);
    }
    return fits;
}

int am_gguf_to_q8_0(uint8_t *b, const float *x, size_t n)
{
    int fits = 1;
    for (size_t i = 0; i < n; i++, b += 34, x += BLOCK) {
        float d = fabsf(extreme(x)) / 127, id = inverse(d);
        fits &= put_half(b, d);
        for (int j = 0; j < BLOCK; j++)
            b[2 + j] = (uint8_t)(int8_t)roundf(x[j] * id);
    }
    return fits;
}

/* ---- Q4_K -------------------------------------------------------------------------------- */

/* To the nearest integer, ties to even, for |x| below 2^22; some integer for others. */
static int nearest(float x)
{
    float shifted = x + 12582912.0f;
    int32_t bits;
    memcpy(&bits, &shifted, 4);
    return (bits & 0x007fffff) - 0x00400000;
}

static uint8_t limited(int q, int most)
{
    return (uint8_t)(q < 0 ? 0 : q > most ? most : q);
}

/* A sub-block while its scale and minimum are sought: x is about scale * q + least. */
typedef struct fit {
    const float *x;
    float weights[BLOCK], sum_w, sum_x; /* how much each element counts, and sums so weighted */
    float scale, least;
} fit;

enum { LEVELS = 15, STEPS = 20 };

static float fit_error(const fit *f, const uint8_t *q, float scale, float least)
{
    float error = 0;
    for (int i = 0; i < BLOCK; i++) {
        float value = scale * (float)q[i];
        float sum = value + least;
        float diff = sum - f->x[i];
        float square = diff * diff;
        float weighted = f->weights[i] * square;
        error += weighted;
    }
    return error;
}

static void fit_quants(const fit *f, uint8_t *q, float iscale, float least)
{
    for (int i = 0; i < BLOCK; i++)
        q[i] = limited(nearest(iscale * (f->x[i] - least)), LEVELS);
}

/* The weighted least squares' scale and minimum for given quants; 0 when there are none. */
static int fit_line(const fit *f, const uint8_t *q, float *scale, float *least)
{
    float sum_l = 0, sum_l2 = 0, sum_xl = 0;
    for (int i = 0; i < BLOCK; i++) {
        float l = (float)q[i], wl = f->weights[i] * l;
        float wl2 = wl * l, wlx = wl * f->x[i];
        sum_l += wl;
        sum_l2 += wl2;
        sum_xl += wlx;
    }
    float a = f->sum_w * sum_l2, b = sum_l * sum_l;
    float determinant = a - b;
    if (!(determinant > 0))
        return 0;
    float c = f->sum_w * sum_xl, d = f->sum_x * sum_l;
    float e = sum_l2 * f->sum_x, g = sum_l * sum_xl;
    *scale = (c - d) / determinant;
    *least = (e - g) / determinant;
    if (*least > 0) {
        *least = 0;
        *scale = sum_xl / sum_l2;
    }
    return 1;
}

/* Scale, minimum (at most 0) and quants of 32 elements: of 22 tries the one with the least error,
 * large elements counting more. ggml: make_qkx2_quants. */
static void fit_run(fit *f, const float *x, uint8_t *q)
{
    float square_sum = 0, largest = x[0], error;
    f->x = x;
    for (int i = 0; i < BLOCK; i++) {
        float square = x[i] * x[i];
        square_sum += square;
    }
    float typical = sqrtf(square_sum / BLOCK);
    for (int i = 0; i < BLOCK; i++)
        f->weights[i] = typical + fabsf(x[i]);
    f->least = x[0];
    f->sum_w = f->weights[0];
    f->sum_x = f->weights[0] * x[0];
    for (int i = 1; i < BLOCK; i++) {
        float wx = f->weights[i] * x[i];
        f->least = x[i] < f->least ? x[i] : f->least;
        largest = x[i] > largest ? x[i] : largest;
        f->sum_w += f->weights[i];
        f->sum_x += wx;
    }
    f->least = f->least > 0 ? 0 : f->least;
    f->scale = 0;
    memset(q, 0, BLOCK);
    if (largest == f->least)
        return;
    float lowest = f->least, range = largest - lowest, iscale = LEVELS / range;
    f->scale = 1 / iscale;
    fit_quants(f, q, iscale, lowest);
    error = fit_error(f, q, f->scale, f->least);
    for (int step = 0; step <= STEPS; step++) {
        uint8_t tried[BLOCK];
        float scale, least, shift = 0.1f * (float)step;
        /* ggml's `min` is that of the best try so far */
        range = largest - f->least;
        fit_quants(f, tried, (-1.0f + shift + LEVELS) / range, f->least);
        if (!fit_line(f, tried, &scale, &least))
            continue;
        float new_error = fit_error(f, tried, scale, least);
        if (new_error < error) {
            memcpy(q, tried, BLOCK);
            error = new_error;
            f->scale = scale;
            f->least = least;
        }
    }
}

/* Six bits each of scale and minimum of sub-block i, in 12 bytes that were 0: q4_scales' inverse.
 */
static void put_scales(uint8_t *s, int i, uint8_t scale, uint8_t least)
{
    if (i < 4) {
        s[i] = scale;
        s[i + 4] = least;
    } else {
        s[i + 4] = (uint8_t)((scale & 15) | (least & 15) << 4);
        s[i - 4] = (uint8_t)(s[i - 4] | scale >> 4 << 6);
        s[i] = (uint8_t)(s[i] | least >> 4 << 6);
    }
}

static int q4_k_block(uint8_t *b, const float *x)
{
    uint8_t q[SUPER], scales[RUNS], mins[RUNS];
    fit fits[RUNS];
    float max_scale = 0, max_min = 0;
    for (int run = 0; run < RUNS; run++) {
        fit_run(&fits[run], x + run * BLOCK, q + run * BLOCK);
        max_scale = fits[run].scale > max_scale ? fits[run].scale : max_scale;
        max_min = -fits[run].least > max_min ? -fits[run].least : max_min;
    }
    float inv_scale = max_scale > 0 ? 63.0f / max_scale : 0,
          inv_min = max_min > 0 ? 63.0f / max_min : 0;
    int fits_f16 = put_half(b, max_scale / 63.0f);
    fits_f16 &= put_half(b + 2, max_min / 63.0f);
    memset(b + 4, 0, 12);
    for (int run = 0; run < RUNS; run++) {
        scales[run] = limited(nearest(inv_scale * fits[run].scale), 63);
        mins[run] = limited(nearest(inv_min * -fits[run].least), 63);
        put_scales(b + 4, run, scales[run], mins[run]);
    }
    /* once more with the scales as they are stored */
    for (int run = 0; run < RUNS; run++) {
        float d = am_gguf_half(b) * (float)scales[run];
        float m = am_gguf_half(b + 2) * (float)mins[run];
        for (int j = 0; j < BLOCK && d != 0; j++) {
            float above = x[run * BLOCK + j] + m;
            q[run * BLOCK + j] = limited(nearest(above / d), LEVELS);
        }
    }
    for (int j = 0; j < SUPER; j += 2 * BLOCK)
        for (int l = 0; l < BLOCK; l++)
            b[16 + j / 2 + l] = (uint8_t)(q[j + l] | q[j + l + BLOCK] << 4);
    return fits_f16;
}

int am_gguf_to_q4_k(uint8_t *b, const float *x, size_t n)
{
    int fits = 1;
    for (size_t i = 0; i < n; i++)
        fits &= q4_k_block(b + i * 144, x + i * SUPER);
    return fits;
}
