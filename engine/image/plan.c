/* plan.c — running a plan: resize, crop, and writing what a model reads. Which steps there are for
 * which model is Lua's to know. */
#include <stdlib.h>
#include <string.h>

#include "../core/mem.h"
#include "image.h"

/* ---- checks that need no picture */

static int in_range(int64_t v, int64_t least, int64_t most)
{
    return v >= least && v <= most;
}

static int check_emit(const am_image_step *s, int64_t n_floats)
{
    if (!in_range(s->layout, AM_IMAGE_CHW, AM_IMAGE_PATCHES))
        return am_fail(AM_EINVAL, "layout %d does not exist", s->layout);
    if (!in_range(s->offset, 0, n_floats))
        return am_fail(AM_EINVAL, "offset %lld is outside the output", (long long)s->offset);
    if (s->layout == AM_IMAGE_PATCHES &&
        !(in_range(s->patch, 1, 4096) && in_range(s->merge, 1, 4096) &&
          in_range(s->temporal_patch, 1, 4096)))
        return am_fail(AM_EINVAL, "patch, temporal_patch and merge must be 1 to 4096");
    if (s->frame_width < 0 || s->frame_height < 0)
        return am_fail(AM_EINVAL, "a frame has no negative side");
    for (int c = 0; c < 3; c++) {
        if (s->do_normalize && s->std[c] == 0)
            return am_fail(AM_EINVAL, "std is 0");
    }
    return AM_OK;
}

static int check_step(const am_image_step *s, int64_t n_floats)
{
    if (!in_range(s->kind, AM_IMAGE_RESIZE, AM_IMAGE_EMIT))
        return am_fail(AM_EINVAL, "kind %d does not exist", s->kind);
    if (!in_range(s->src, 0, AM_IMAGE_SLOTS - 1) ||
        (s->kind != AM_IMAGE_EMIT && !in_range(s->dst, 0, AM_IMAGE_SLOTS - 1)))
        return am_fail(AM_EINVAL, "slots are 0 to %d", AM_IMAGE_SLOTS - 1);
    if (s->kind != AM_IMAGE_CROP && !in_range(s->backend, AM_IMAGE_PIL, AM_IMAGE_TORCHVISION))
        return am_fail(AM_EINVAL, "backend %d does not exist", s->backend);
    if (s->kind == AM_IMAGE_EMIT)
        return check_emit(s, n_floats);
    if (!in_range(s->width, 1, AM_IMAGE_MAX_SIDE) || !in_range(s->height, 1, AM_IMAGE_MAX_SIDE))
        return am_fail(AM_EINVAL, "%d x %d is no size for a picture", s->width, s->height);
    if (s->kind == AM_IMAGE_RESIZE && !in_range(s->filter, AM_IMAGE_NEAREST, AM_IMAGE_BOX))
        return am_fail(AM_EINVAL, "filter %d does not exist", s->filter);
    return AM_OK;
}

static int step_failed(int rc, int64_t i)
{
    return rc == AM_OK ? rc : am_fail_context(rc, "step %lld", (long long)i + 1);
}

int am_plan_check(const am_image_step *steps, int64_t n, int64_t n_floats)
{
    if (n < 0 || n_floats < 0 || n_floats > INT64_MAX / (int64_t)sizeof(float) || (n && !steps))
        return am_fail(AM_EINVAL, "a plan of %lld steps and %lld floats", (long long)n,
                       (long long)n_floats);
    for (int64_t i = 0; i < n; i++)
        AM_TRY(step_failed(check_step(&steps[i], n_floats), i));
    return AM_OK;
}

/* ---- crop */

static void fill_pixels(uint8_t *to, int64_t n, const uint8_t pixel[4])
{
    for (int64_t i = 0; i < n; i++)
        memcpy(to + 4 * i, pixel, 4);
}

static int crop(am_picture *out, const am_picture *p, const am_image_step *s)
{
    am_picture q;
    AM_TRY(am_picture_new(&q, s->width, s->height));
    const uint8_t fill[4] = {(uint8_t)(s->fill >> 16), (uint8_t)(s->fill >> 8), (uint8_t)s->fill,
                             255};
    /* Columns [left, right) and rows [top, bottom) of the result lie in the picture. */
    int64_t left = s->x < 0 ? -(int64_t)s->x : 0, right = (int64_t)p->width - s->x;
    int64_t top = s->y < 0 ? -(int64_t)s->y : 0, bottom = (int64_t)p->height - s->y;
    right = right > s->width ? s->width : right;
    bottom = bottom > s->height ? s->height : bottom;
    for (int64_t y = 0; y < s->height; y++) {
        uint8_t *row = q.pixels + (size_t)y * (size_t)s->width * 4;
        if (y < top || y >= bottom || left >= right) {
            fill_pixels(row, s->width, fill);
            continue;
        }
        fill_pixels(row, left, fill);
        memcpy(row + 4 * left, p->pixels + 4 * ((y + s->y) * (int64_t)p->width + left + s->x),
               (size_t)(right - left) * 4);
        fill_pixels(row + 4 * right, s->width - right, fill);
    }
    *out = q;
    return AM_OK;
}

/* ---- emit: a value has 256 possible results in each channel, which are looked up */

static float emitted(const am_image_step *s, int channel, int v)
{
    float mean = (float)s->mean[channel], std = (float)s->std[channel];
    if (s->backend == AM_IMAGE_TORCHVISION && s->do_rescale && s->do_normalize) {
        float unscale = (float)(1.0 / s->rescale); /* mean and std are scaled, not the picture */
        return ((float)v - mean * unscale) / (std * unscale);
    }
    float scaled = (float)v;
    if (s->do_rescale)
        scaled =
            s->backend == AM_IMAGE_PIL ? (float)(v * s->rescale) : (float)v * (float)s->rescale;
    return s->do_normalize ? (scaled - mean) / std : scaled;
}

static int emit_chw(float *out, const am_picture *p, const am_image_step *s, float table[3][256],
                    int64_t room)
{
    int64_t width = s->frame_width ? s->frame_width : p->width;
    int64_t height = s->frame_height ? s->frame_height : p->height;
    if (p->width > width || p->height > height)
        return am_fail(AM_EINVAL, "%d x %d pixels do not fit a frame of %lld x %lld", p->width,
                       p->height, (long long)width, (long long)height);
    if (width * height > room / 3)
        return am_fail(AM_EINVAL, "3 x %lld x %lld values go beyond the output", (long long)height,
                       (long long)width);
    for (int c = 0; c < 3; c++) {
        const float *value = table[c];
        const uint8_t *pixel = p->pixels + c;
        for (int64_t y = 0; y < p->height; y++) {
            float *row = out + ((int64_t)c * height + y) * width;
            for (int64_t x = 0; x < p->width; x++, pixel += 4)
                row[x] = value[*pixel];
        }
    }
    return AM_OK;
}

/* One patch: [3, temporal, patch, patch]. */
static float *emit_patch(float *out, const am_picture *p, const am_image_step *s,
                         float table[3][256], int64_t y, int64_t x)
{
    size_t plane = (size_t)s->patch * (size_t)s->patch;
    for (int c = 0; c < 3; c++) {
        float *first = out;
        for (int32_t row = 0; row < s->patch; row++) {
            const uint8_t *pixel = p->pixels + 4 * ((y + row) * (int64_t)p->width + x) + c;
            for (int32_t column = 0; column < s->patch; column++, pixel += 4)
                *out++ = table[c][*pixel];
        }
        for (int32_t t = 1; t < s->temporal_patch; t++, out += plane)
            memcpy(out, first, plane * sizeof *out);
    }
    return out;
}

static int emit_patches(float *out, const am_picture *p, const am_image_step *s,
                        float table[3][256], int64_t room)
{
    int64_t square = (int64_t)s->patch * s->merge;
    if (p->width % square || p->height % square)
        return am_fail(AM_EINVAL, "%d x %d pixels are no multiple of patch * merge, %lld", p->width,
                       p->height, (long long)square);
    if ((int64_t)p->width * p->height * 3 > room / s->temporal_patch)
        return am_fail(AM_EINVAL, "the patches of %d x %d pixels go beyond the output", p->width,
                       p->height);
    for (int64_t y = 0; y < p->height; y += square) {
        for (int64_t x = 0; x < p->width; x += square) {
            for (int32_t i = 0; i < s->merge * s->merge; i++)
                out = emit_patch(out, p, s, table, y + i / s->merge * s->patch,
                                 x + i % s->merge * s->patch);
        }
    }
    return AM_OK;
}

static int emit(float *out, const am_picture *p, const am_image_step *s, int64_t n_floats)
{
    float table[3][256];
    for (int c = 0; c < 3; c++) {
        for (int v = 0; v < 256; v++)
            table[c][v] = emitted(s, c, v);
    }
    int64_t room = n_floats - s->offset;
    return s->layout == AM_IMAGE_CHW ? emit_chw(out + s->offset, p, s, table, room)
                                     : emit_patches(out + s->offset, p, s, table, room);
}

/* ---- the plan */

static int run_step(am_picture *slots, const am_image_step *s, float *out, int64_t n_floats)
{
    const am_picture *from = &slots[s->src];
    if (!from->pixels)
        return am_fail(AM_EINVAL, "slot %d is empty", s->src);
    if (s->kind == AM_IMAGE_EMIT)
        return emit(out, from, s, n_floats);
    am_picture made;
    AM_TRY(s->kind == AM_IMAGE_CROP
               ? crop(&made, from, s)
               : am_picture_resize(&made, from, s->width, s->height, s->filter, s->backend));
    am_picture_free(&slots[s->dst]);
    slots[s->dst] = made;
    return AM_OK;
}

int am_plan_run(am_picture *p, const am_image_step *steps, int64_t n, float *out, int64_t n_floats)
{
    void *memory = NULL;
    int rc = am_alloc(&memory, AM_IMAGE_SLOTS * sizeof(am_picture));
    if (rc != AM_OK) {
        am_picture_free(p);
        return rc;
    }
    am_picture *slots = memory;
    slots[0] = *p;
    *p = (am_picture){0, 0, NULL};
    for (int64_t i = 0; rc == AM_OK && i < n; i++)
        rc = step_failed(run_step(slots, &steps[i], out, n_floats), i);
    for (int i = 0; i < AM_IMAGE_SLOTS; i++)
        am_picture_free(&slots[i]);
    am_free(memory);
    return rc;
}
