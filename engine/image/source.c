/* source.c — from a path or bytes to a picture: which format it is, limits, decoding, orientation,
 * background. What the formats themselves say is in jpeg.c and its neighbours. */
#include <string.h>

#include "../core/mem.h"
#include "../io/file.h"
#include "image.h"

enum { MAX_FILE_BYTES = 0x7fffffff };

typedef struct format {
    int (*header)(am_image_info *info, am_image_bytes file);
    int (*decode)(am_picture *p, am_image_bytes file);
} format;
static const format formats[] = {
    [AM_IMAGE_JPEG] = {am_jpeg_header, am_jpeg_decode},
    [AM_IMAGE_PNG] = {am_png_header, am_png_decode},
    [AM_IMAGE_WEBP] = {am_webp_header, am_webp_decode},
    [AM_IMAGE_GIF] = {am_gif_header, am_gif_decode},
};

static int format_of(am_image_bytes file)
{
    const uint8_t *p = file.data;
    size_t n = file.bytes;
    if (n >= 3 && memcmp(p, "\xff\xd8\xff", 3) == 0)
        return AM_IMAGE_JPEG;
    if (n >= 8 && memcmp(p, "\x89PNG\r\n\x1a\n", 8) == 0)
        return AM_IMAGE_PNG;
    if (n >= 12 && memcmp(p, "RIFF", 4) == 0 && memcmp(p + 8, "WEBP", 4) == 0)
        return AM_IMAGE_WEBP;
    if (n >= 6 && (memcmp(p, "GIF87a", 6) == 0 || memcmp(p, "GIF89a", 6) == 0))
        return AM_IMAGE_GIF;
    return -1;
}

/* The header as the file has it, within limits. */
static int read_header(am_image_info *info, am_image_bytes file, const am_image_source *source)
{
    int kind = format_of(file);
    if (file.bytes == 0)
        return am_fail(AM_EFORMAT, "the file is empty");
    if (kind < 0)
        return am_fail(AM_EUNSUP, "this is no JPEG, PNG, WebP or GIF file");
    *info = (am_image_info){.format = kind};
    AM_TRY(formats[kind].header(info, file));
    int64_t width = info->width, height = info->height;
    int64_t most = source->max_pixels > 0 && source->max_pixels < AM_IMAGE_MAX_PIXELS
                       ? source->max_pixels
                       : AM_IMAGE_MAX_PIXELS;
    if (width < 1 || height < 1)
        return am_fail(AM_EFORMAT, "it says to be %lld x %lld pixels", (long long)width,
                       (long long)height);
    if (width > AM_IMAGE_MAX_SIDE || height > AM_IMAGE_MAX_SIDE || width > most / height)
        return am_fail(AM_EFORMAT,
                       "%lld x %lld pixels are more than the limit of %lld in all and %d a side",
                       (long long)width, (long long)height, (long long)most, AM_IMAGE_MAX_SIDE);
    return AM_OK;
}

/* Of a path, the file's bytes, which *owned is to be freed of; of bytes, these. */
static int open_source(am_image_bytes *file, char **owned, const am_image_source *source)
{
    *owned = NULL;
    if (!source->path) {
        if (!source->data && source->bytes)
            return am_fail(AM_EINVAL, "there is neither a path nor data");
        *file = (am_image_bytes){source->data, source->bytes};
        return AM_OK;
    }
    AM_TRY(am_file_read(owned, &file->bytes, source->path, MAX_FILE_BYTES));
    file->data = (const uint8_t *)*owned;
    return AM_OK;
}

static const char *name_of(const am_image_source *source)
{
    return source->name ? source->name : source->path ? source->path : "image";
}

int am_image_fail(int rc, const am_image_source *source)
{
    const char *name = name_of(source);
    size_t n = strlen(name);
    if (rc == AM_OK || (strncmp(am_error_message(), name, n) == 0 && am_error_message()[n] == ':'))
        return rc; /* what reading the file says names it */
    return am_fail_context(rc, "%s", name);
}

int am_image_header(am_image_info *info, const am_image_source *source)
{
    am_image_bytes file;
    char *owned = NULL;
    am_image_info found;
    int rc = open_source(&file, &owned, source);
    if (rc == AM_OK)
        rc = read_header(&found, file, source);
    am_free(owned);
    if (rc != AM_OK)
        return am_image_fail(rc, source);
    if (found.orientation >= 5) {
        int32_t width = found.width;
        found.width = found.height;
        found.height = width;
    }
    *info = found;
    return AM_OK;
}

/* Pixels over an opaque colour, with the rounding of Pillow's alpha_composite. */
static void compose(am_picture *p, int32_t background)
{
    const int under[3] = {background >> 16 & 255, background >> 8 & 255, background & 255};
    uint8_t *pixel = p->pixels, *end = pixel + (size_t)p->width * (size_t)p->height * 4;
    for (; pixel < end; pixel += 4) {
        int over = pixel[3] * 128;
        for (int c = 0; c < 3; c++) {
            int v = pixel[c] * over + under[c] * (255 * 128 - over) + (128 << 7);
            pixel[c] = (uint8_t)(((v >> 8) + v) >> 15);
        }
        pixel[3] = 255;
    }
}

/* EXIF's orientation says which side of the picture its first row and first column are: 2 mirrored,
 * 3 upside down, 4 mirrored upside down; 5 to 8 the same with rows and columns exchanged. */
static int orient(am_picture *p, int orientation)
{
    if (orientation <= 1)
        return AM_OK;
    int swap = orientation >= 5;
    int mirror = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    int flip = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    am_picture q;
    AM_TRY(am_picture_new(&q, swap ? p->height : p->width, swap ? p->width : p->height));
    const uint32_t *from = (const uint32_t *)(const void *)p->pixels;
    uint32_t *to = (uint32_t *)(void *)q.pixels;
    for (int32_t y = 0; y < q.height; y++) {
        for (int32_t x = 0; x < q.width; x++) {
            int32_t column = swap ? y : x, row = swap ? x : y;
            if (mirror)
                column = p->width - 1 - column;
            if (flip)
                row = p->height - 1 - row;
            *to++ = from[(size_t)row * (size_t)p->width + (size_t)column];
        }
    }
    am_picture_free(p);
    *p = q;
    return AM_OK;
}

static int decode_bytes(am_picture *p, am_image_bytes file, const am_image_source *source)
{
    am_image_info info;
    AM_TRY(read_header(&info, file, source));
    AM_TRY(am_picture_new(p, info.width, info.height));
    AM_TRY(formats[info.format].decode(p, file));
    if (source->background >= 0 && info.has_alpha)
        compose(p, source->background);
    return orient(p, info.orientation);
}

int am_image_decode(am_picture *out, const am_image_source *source)
{
    am_image_bytes file;
    char *owned = NULL;
    am_picture p = {0, 0, NULL};
    int rc = open_source(&file, &owned, source);
    if (rc == AM_OK)
        rc = decode_bytes(&p, file, source);
    am_free(owned);
    if (rc != AM_OK) {
        am_picture_free(&p);
        return rc;
    }
    *out = p;
    return AM_OK;
}
