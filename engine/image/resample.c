/* resample.c — changing a picture's size with the numbers of Pillow and of torchvision's
 * antialiased resize of uint8 tensors.
 *
 * Both do the same: weights of a filter stretched by the ratio of sizes, in double; a pass across
 * (along rows) and one down (along columns), each rounded to 8 bits; a pass whose size stays is
 * left out. They differ in the fixed point of the weights: Pillow's have 22 bits behind the point,
 * torchvision's as many as let the largest fit 16 bits.
 *
 * The passes run together. Eight rows at a time are interleaved, so that a pixel of all eight is
 * one vector, and those rows that went across and are still needed to go down stay in a ring. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../core/mem.h"
#include "image.h"

enum { PILLOW_BITS = 22, ROWS = 8 };

/* ---- filters */

static double box(double x)
{
    return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
}

static double triangle(double x)
{
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

/* Keys' cubic with a = -1/2. */
static double cubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static double sinc(double x)
{
    if (x == 0.0)
        return 1.0;
    x *= M_PI;
    return sin(x) / x;
}

static double lanczos3(double x)
{
    return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
}

static const struct {
    double (*weight)(double x);
    double support;
} filters[] = {
    [AM_IMAGE_LANCZOS] = {lanczos3, 3.0},
    [AM_IMAGE_BILINEAR] = {triangle, 1.0},
    [AM_IMAGE_BICUBIC] = {cubic, 2.0},
    [AM_IMAGE_BOX] = {box, 0.5},
};

/* ---- weights of one direction */

typedef struct weights {
    int32_t bits;    /* behind the point */
    int32_t most;    /* inputs of an output, at most */
    int32_t *starts; /* [n] first input of an output */
    int32_t *counts; /* [n] how many */
    int32_t *fixed;  /* [n, most] */
} weights;

static void weights_free(weights *w)
{
    am_free(w->starts);
    am_free(w->counts);
    am_free(w->fixed);
}

static int32_t rounded(double v)
{
    return (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
}

/* As many bits as keep the largest weight below 2^15, 22 at most. */
static int32_t bits_of(double largest)
{
    int32_t bits = 0;
    while (bits < PILLOW_BITS && (int32_t)(0.5 + largest * (double)(1 << (bits + 1))) < 1 << 15)
        bits++;
    return bits;
}

/* Also after an error, *w is to be freed. */
static int weights_new(weights *w, int64_t in, int64_t out, int filter, int backend)
{
    *w = (weights){0};
    double scale = (double)in / (double)out, stretch = scale < 1.0 ? 1.0 : scale;
    double support = filters[filter].support * stretch;
    int64_t most = (int64_t)ceil(support) * 2 + 1;
    most = most > in ? in : most;
    w->most = (int32_t)most;
    void *exact = NULL;
    size_t total = (size_t)(out * most);
    int rc;
    AM_TRY_OUT(am_alloc((void **)&w->starts, (size_t)out * sizeof(int32_t)));
    AM_TRY_OUT(am_alloc((void **)&w->counts, (size_t)out * sizeof(int32_t)));
    AM_TRY_OUT(am_alloc((void **)&w->fixed, total * sizeof(int32_t)));
    AM_TRY_OUT(am_alloc(&exact, total * sizeof(double)));
    double *k = exact, largest = 0;
    for (int64_t i = 0; i < out; i++, k += most) {
        double center = ((double)i + 0.5) * scale, sum = 0, inverse = 1.0 / stretch;
        int64_t first = (int64_t)(center - support + 0.5), end = (int64_t)(center + support + 0.5);
        first = first < 0 ? 0 : first;
        end = end > in ? in : end;
        w->starts[i] = (int32_t)first;
        w->counts[i] = (int32_t)(end - first);
        for (int64_t j = 0; j < end - first; j++) {
            k[j] = filters[filter].weight(((double)(j + first) - center + 0.5) * inverse);
            sum += k[j];
        }
        for (int64_t j = 0; j < end - first; j++) {
            if (sum != 0.0)
                k[j] /= sum;
            largest = k[j] > largest ? k[j] : largest;
        }
    }
    w->bits = backend == AM_IMAGE_PIL ? PILLOW_BITS : bits_of(largest);
    k = exact;
    for (size_t i = 0; i < total; i++)
        w->fixed[i] = rounded(k[i] * (double)(1 << w->bits));
out:
    am_free(exact);
    return rc;
}

/* ---- the passes. A lane is a pixel, whose three colours are taken out of it and summed apart:
 * alpha means nothing here and becomes 0. Each pass is written once and compiled for AVX2, too;
 * they compute with integers, so both give the same bits. */

#define INLINE static inline __attribute__((always_inline))

typedef int32_t lanes __attribute__((vector_size(4 * ROWS), aligned(4)));

/* Sums of eight pixels' colours; half of what is cut off in the end is added first. */
typedef struct sums {
    lanes red, green, blue;
} sums;

INLINE sums sums_of_none(int32_t bits)
{
    lanes half = (lanes){0} + (1 << (bits - 1));
    return (sums){half, half, half};
}

INLINE void add(sums *s, const void *pixels, int32_t k)
{
    lanes v = *(const lanes *)pixels;
    s->red += (v & 255) * k;
    s->green += ((v >> 8) & 255) * k;
    s->blue += ((v >> 16) & 255) * k;
}

#define CLAMPED(v) (((v) & ~((v) >> 31) & ~((v) > 255)) | (((v) > 255) & 255))

INLINE void put(void *pixels, sums s, int32_t bits)
{
    lanes red = s.red >> bits, green = s.green >> bits, blue = s.blue >> bits;
    *(lanes *)pixels = CLAMPED(red) | CLAMPED(green) << 8 | CLAMPED(blue) << 16;
}

/* rows[0..7], each width pixels -> [width][8 rows]. */
static void interleave(uint32_t *to, const uint32_t *const rows[ROWS], int64_t width)
{
    for (int64_t x = 0; x < width; x++) {
        for (int r = 0; r < ROWS; r++)
            to[ROWS * x + r] = rows[r][x];
    }
}

/* Across, eight rows at once. */
INLINE void pass_rows(uint32_t *const to[ROWS], const uint32_t *from, const weights *w,
                      int64_t width)
{
    const int32_t *k = w->fixed;
    int32_t bits = w->bits;
    for (int64_t x = 0; x < width; x++, k += w->most) {
        const uint32_t *p = from + (size_t)w->starts[x] * ROWS;
        int32_t n = w->counts[x];
        sums s = sums_of_none(bits);
        for (int32_t j = 0; j < n; j++, p += ROWS)
            add(&s, p, k[j]);
        uint32_t pixels[ROWS];
        put(pixels, s, bits);
        for (int r = 0; r < ROWS; r++)
            to[r][x] = pixels[r];
    }
}

/* Down: one row of `width` pixels from n rows. */
INLINE void pass_columns(uint32_t *to, const uint32_t *const *rows, const int32_t *k, int32_t n,
                         int32_t bits, int64_t width)
{
    int64_t x = 0;
    for (; x + ROWS <= width; x += ROWS) {
        sums s = sums_of_none(bits);
        for (int32_t j = 0; j < n; j++)
            add(&s, rows[j] + x, k[j]);
        put(to + x, s, bits);
    }
    if (x < width) { /* the rest, by way of eight pixels of which some are not there */
        uint32_t pixels[ROWS] = {0};
        sums s = sums_of_none(bits);
        for (int32_t j = 0; j < n; j++) {
            memcpy(pixels, rows[j] + x, (size_t)(width - x) * 4);
            add(&s, pixels, k[j]);
        }
        put(pixels, s, bits);
        memcpy(to + x, pixels, (size_t)(width - x) * 4);
    }
}

typedef struct passes {
    void (*rows)(uint32_t *const to[ROWS], const uint32_t *from, const weights *w, int64_t width);
    void (*columns)(uint32_t *to, const uint32_t *const *rows, const int32_t *k, int32_t n,
                    int32_t bits, int64_t width);
} passes;

/* Both passes for an instruction set, as passes_NAME. */
#define PASSES(name, target)                                                                       \
    target static void rows_##name(uint32_t *const to[ROWS], const uint32_t *from,                 \
                                   const weights *w, int64_t width)                                \
    {                                                                                              \
        pass_rows(to, from, w, width);                                                             \
    }                                                                                              \
    target static void columns_##name(uint32_t *to, const uint32_t *const *rows, const int32_t *k, \
                                      int32_t n, int32_t bits, int64_t width)                      \
    {                                                                                              \
        pass_columns(to, rows, k, n, bits, width);                                                 \
    }                                                                                              \
    static const passes passes_##name = {rows_##name, columns_##name};

PASSES(generic, )
#if defined(__x86_64__)
PASSES(avx2, __attribute__((target("avx2"))))
#endif

static const passes *passes_of_cpu(void)
{
#if defined(__x86_64__)
    const char *isa = am_cpu_isa(); /* all but these two have AVX2 */
    if (strcmp(isa, "generic") != 0 && strcmp(isa, "none") != 0)
        return &passes_avx2;
#endif
    return &passes_generic;
}

/* ---- both together */

typedef struct resizer {
    const am_picture *from;
    am_picture *to;
    const passes *passes;
    weights across, down; /* of the passes; starts is NULL for one that is left out */
    uint32_t *group;      /* [from width][8] */
    uint32_t *ring;       /* rows of the pass that comes first; row y in slot y % slots */
    int64_t slots;
    const uint32_t **rows; /* those that an output row is made of */
} resizer;

static uint32_t *row_of(const am_picture *p, int64_t y)
{
    return (uint32_t *)(void *)(p->pixels + (size_t)y * (size_t)p->width * 4);
}

/* Rows y to y + 7 into the ring, across; beyond the last row it is the last again. */
static void fill_ring(resizer *r, int64_t y)
{
    const uint32_t *in[ROWS];
    uint32_t *out[ROWS];
    for (int i = 0; i < ROWS; i++) {
        in[i] = row_of(r->from, y + i < r->from->height ? y + i : r->from->height - 1);
        out[i] = r->ring + (y + i) % r->slots * r->to->width;
    }
    interleave(r->group, in, r->from->width);
    r->passes->rows(out, r->group, &r->across, r->to->width);
}

/* Output row y of the pass down, whose inputs are rows of `from`, or of the ring. */
static void make_row(resizer *r, uint32_t *to, int64_t y, int from_ring)
{
    int64_t first = r->down.starts[y], width = from_ring ? r->to->width : r->from->width;
    int32_t n = r->down.counts[y];
    for (int32_t j = 0; j < n; j++)
        r->rows[j] =
            from_ring ? r->ring + (first + j) % r->slots * width : row_of(r->from, first + j);
    r->passes->columns(to, r->rows, r->down.fixed + y * r->down.most, n, r->down.bits, width);
}

static void across_only(resizer *r)
{
    for (int64_t y = 0; y < r->to->height; y++) {
        if (y % ROWS == 0)
            fill_ring(r, y);
        memcpy(row_of(r->to, y), r->ring + y % r->slots * r->to->width, (size_t)r->to->width * 4);
    }
}

static void across_then_down(resizer *r)
{
    int64_t next = 0; /* the first row that the ring has never held */
    for (int64_t y = 0; y < r->to->height; y++) {
        int64_t first = r->down.starts[y], end = first + r->down.counts[y];
        if (next < first)
            next = first;
        for (; next < end; next += ROWS)
            fill_ring(r, next);
        make_row(r, row_of(r->to, y), y, 1);
    }
}

static void down_then_across(resizer *r)
{
    uint32_t *in[ROWS], *out[ROWS], *spare = r->ring + ROWS * (int64_t)r->from->width;
    for (int64_t y = 0; y < r->to->height; y += ROWS) {
        for (int i = 0; i < ROWS; i++) {
            int inside = y + i < r->to->height;
            in[i] = r->ring + i * (int64_t)r->from->width;
            out[i] = inside ? row_of(r->to, y + i) : spare;
            if (inside)
                make_row(r, in[i], y + i, 0);
        }
        interleave(r->group, (const uint32_t *const *)in, r->from->width);
        r->passes->rows(out, r->group, &r->across, r->to->width);
    }
}

/* Pillow 13 goes down first where more than twice as much height goes as width; earlier ones and
 * torchvision always go across first. */
static int down_first(const am_picture *from, const am_picture *to, int backend)
{
    return backend == AM_IMAGE_PIL && to->height < from->height &&
           from->height - to->height > 2 * (from->width - to->width);
}

static int filtered(am_picture *to, const am_picture *from, int filter, int backend)
{
    resizer r = {.from = from, .to = to, .passes = passes_of_cpu()};
    int rc = AM_OK, reversed = down_first(from, to, backend);
    if (to->width != from->width)
        AM_TRY_OUT(weights_new(&r.across, from->width, to->width, filter, backend));
    if (to->height != from->height)
        AM_TRY_OUT(weights_new(&r.down, from->height, to->height, filter, backend));
    int32_t most = r.down.starts ? r.down.most : 1;
    r.slots = most + ROWS;
    if (r.across.starts) {
        size_t ring = reversed ? (size_t)from->width * ROWS + (size_t)to->width
                               : (size_t)(r.slots * to->width);
        AM_TRY_OUT(am_alloc((void **)&r.group, (size_t)from->width * ROWS * 4));
        AM_TRY_OUT(am_alloc((void **)&r.ring, ring * 4));
    }
    AM_TRY_OUT(am_alloc((void **)&r.rows, (size_t)most * sizeof *r.rows));
    if (!r.down.starts) {
        across_only(&r);
    } else if (!r.across.starts) {
        for (int64_t y = 0; y < to->height; y++)
            make_row(&r, row_of(to, y), y, 0);
    } else if (reversed) {
        down_then_across(&r);
    } else {
        across_then_down(&r);
    }
out:
    weights_free(&r.across);
    weights_free(&r.down);
    am_free(r.group);
    am_free(r.ring);
    am_free(r.rows);
    return rc;
}

/* Pillow adds up positions in double; torch multiplies in float ("nearest-exact"). */
static void nearest_index(int32_t *at, int64_t in, int64_t out, int backend)
{
    double scale = (double)in / (double)out, position = scale * 0.5;
    for (int64_t i = 0; i < out; i++, position += scale) {
        float exact = ((float)i + 0.5f) * ((float)in / (float)out);
        int64_t index = backend == AM_IMAGE_PIL ? (int64_t)position : (int64_t)exact;
        at[i] = (int32_t)(index < in ? index : in - 1);
    }
}

static int nearest(am_picture *to, const am_picture *from, int backend)
{
    void *index = NULL;
    AM_TRY(am_alloc(&index, ((size_t)to->width + (size_t)to->height) * sizeof(int32_t)));
    int32_t *columns = index, *lines = columns + to->width;
    nearest_index(columns, from->width, to->width, backend);
    nearest_index(lines, from->height, to->height, backend);
    uint32_t *pixel = (uint32_t *)(void *)to->pixels;
    for (int32_t y = 0; y < to->height; y++) {
        const uint32_t *row = row_of(from, lines[y]);
        for (int32_t x = 0; x < to->width; x++)
            *pixel++ = row[columns[x]];
    }
    am_free(index);
    return AM_OK;
}

int am_picture_resize(am_picture *out, const am_picture *p, int64_t width, int64_t height,
                      int filter, int backend)
{
    am_picture q;
    AM_TRY(am_picture_new(&q, width, height));
    int rc = AM_OK;
    if (width == p->width && height == p->height)
        memcpy(q.pixels, p->pixels, (size_t)(width * height) * 4);
    else if (filter == AM_IMAGE_NEAREST)
        rc = nearest(&q, p, backend);
    else
        rc = filtered(&q, p, filter, backend);
    if (rc != AM_OK) {
        am_picture_free(&q);
        return rc;
    }
    *out = q;
    return AM_OK;
}
