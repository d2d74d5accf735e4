/* packed_tables.c — the tables of packed.h, and scales in 8 bits, which all backends on the host
 * make alike. */
#include "packed.h"

#include <pthread.h>

/* NormalFloat4 of Dettmers et al. 2023, and the 4-bit floats of bitsandbytes. */
const float am_nf4[16] = {-1.0f,
                          -0.6961928009986877f,
                          -0.5250730514526367f,
                          -0.39491748809814453f,
                          -0.28444138169288635f,
                          -0.18477343022823334f,
                          -0.09105003625154495f,
                          0.0f,
                          0.07958029955625534f,
                          0.16093020141124725f,
                          0.24611230194568634f,
                          0.33791524171829224f,
                          0.44070982933044434f,
                          0.5626170039176941f,
                          0.7229568362236023f,
                          1.0f};
#define FP4 0.0f, 0.0625f / 12, 8.0f / 12, 12.0f / 12, 4.0f / 12, 6.0f / 12, 2.0f / 12, 3.0f / 12
const float am_fp4[16] = {FP4,        0.0f,       -0.0625f / 12, -8.0f / 12, -12.0f / 12,
                          -4.0f / 12, -6.0f / 12, -2.0f / 12,    -3.0f / 12};
const uint8_t am_fp4_order[16] = {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3};

enum { SHARES = 256, DECADES = 7, MIDDLE = 127 };
static float map[SHARES];
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Step k of n from 0.1 to 1 as torch.linspace goes: from the nearer end, fused. */
static float step_of(int k, int n)
{
    float step = (1.0f - 0.1f) / (float)n;
    return k < (n + 1) / 2 ? fmaf(step, (float)k, 0.1f) : fmaf(-step, (float)(n - k), 1.0f);
}

/* Middles of 1, 2, … 64 equal parts of seven decades, with either sign; zero and one. */
static void make(void)
{
    static const float top[DECADES] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1};
    int at = 1;
    for (int d = 0; d < DECADES; d++)
        for (int k = 0; k < 1 << d; k++, at++) {
            float sum = step_of(k, 1 << d) + step_of(k + 1, 1 << d);
            map[MIDDLE + at] = top[d] * (sum / 2);
            map[MIDDLE - at] = -map[MIDDLE + at];
        }
    map[SHARES - 1] = 1;
}

const float *am_scale_map(void)
{
    pthread_once(&once, make);
    return map;
}

/* The code of a share of -1 to 1, as bitsandbytes' CPU backend looks it up: by the nearest of 65536
 * even steps, whose code is that of the nearest share. NaN, of 0 / 0, has that of the lowest. */
static uint8_t code_of(float share)
{
    enum { STEPS = 65535 };
    const float *shares = am_scale_map();
    if (!(share >= -1))
        return 0;
    float step = floorf((share + 1) * (STEPS / 2.0f) + 0.5f);
    share = (step < STEPS ? step : STEPS) / (STEPS / 2.0f) - 1;
    int low = 0, high = SHARES;
    while (high - low > 1) { /* shares[low] <= share, but for the first */
        int middle = (low + high) / 2;
        if (shares[middle] <= share)
            low = middle;
        else
            high = middle;
    }
    if (low + 1 < SHARES && fabsf(share - shares[low + 1]) < fabsf(share - shares[low]))
        low++;
    return (uint8_t)low;
}

void am_pack_scales(const am_packed_parts *to, float *scales, int64_t blocks)
{
    double sum = 0;
    for (int64_t b = 0; b < blocks; b++)
        sum += (double)scales[b];
    float mean = (float)sum / (float)blocks;
    to->scale[0] = mean;
    for (int64_t b = 0; b < blocks; b++)
        scales[b] -= mean;
    for (int64_t first = 0; first < blocks; first += AM_PACK_NEST) {
        int64_t n = blocks - first < AM_PACK_NEST ? blocks - first : AM_PACK_NEST;
        float absmax = am_packed_absmax(scales + first, n);
        to->scale[1 + first / AM_PACK_NEST] = absmax;
        for (int64_t b = first; b < first + n; b++)
            to->nested[b] = code_of(scales[b] / absmax);
    }
}
