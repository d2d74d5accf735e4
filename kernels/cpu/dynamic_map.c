/* dynamic_map.c — makes the two maps of dynamic_map.h on first use. */
#include "dynamic_map.h"

#include <pthread.h>

enum { DECADES = 7 };
static am_dynamic_map maps[2]; /* unsigned, signed */
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Zero, the middles of equal parts of each decade, and one: how many there are. */
static int magnitudes(double *x, int parts)
{
    static const double top[DECADES] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1};
    int n = 0;
    x[n++] = 0;
    for (int d = 0; d < DECADES; d++, parts *= 2)
        for (int k = 0; k < parts; k++)
            x[n++] = top[d] * (0.1 + 0.9 * (k + 0.5) / parts);
    x[n++] = 1;
    return n;
}

static void make(am_dynamic_map *map, int with_sign)
{
    double x[256];
    int n = magnitudes(x, with_sign ? 1 : 2);
    map->negatives = with_sign ? n - 2 : 0; /* not -1 */
    map->zero = map->negatives;
    for (int j = 0; j < n; j++) {
        map->value[map->zero + j] = (float)x[j];
        if (j <= map->negatives)
            map->value[map->zero - j] = (float)-x[j];
        map->bound[j] = j + 1 < n ? (float)((x[j] + x[j + 1]) / 2) : INFINITY;
    }
    map->value[map->zero] = 0;
    if (!with_sign)
        map->bound[0] = 0;
    for (uint32_t cell = 0, below = 0; cell < AM_MAP_CELLS; cell++) {
        uint32_t bits = cell ? (cell + AM_MAP_LOW) << 16 : 0;
        float low;
        memcpy(&low, &bits, 4);
        while (map->bound[below] < low)
            below++;
        map->guess[cell] = (uint8_t)below;
    }
}

static void make_both(void)
{
    make(&maps[0], 0);
    make(&maps[1], 1);
}

const am_dynamic_map *am_dynamic_map_signed(void)
{
    pthread_once(&once, make_both);
    return &maps[1];
}

const am_dynamic_map *am_dynamic_map_unsigned(void)
{
    pthread_once(&once, make_both);
    return &maps[0];
}
