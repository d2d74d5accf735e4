/* png.c — PNG by libspng: all colour types and depths, interlaced too. Samples of 16 bits keep
 * their high byte as Pillow's do, but for grey, where Pillow cuts off at 255. Checksums of chunks
 * are compared. */
#include <string.h>

#include <spng.h>

#include "../core/mem.h"
#include "image.h"

/* Of all chunks but the pixels', compressed texts and profiles among them. */
enum { MAX_CHUNK = 8 << 20, MAX_CHUNKS = 32 << 20 };

static int failed(int rc)
{
    return rc == SPNG_EMEM ? am_fail(AM_ENOMEM, "out of memory for a PNG")
                           : am_fail(AM_EFORMAT, "damaged PNG: %s", spng_strerror(rc));
}

/* Big-endian length and type of the chunk at `at`; 0 when it does not fit the file. */
static int chunk_at(am_image_bytes file, size_t at, size_t *length, const uint8_t **type)
{
    if (at > file.bytes || file.bytes - at < 12)
        return 0;
    const uint8_t *p = file.data + at;
    *length = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
    *type = p + 4;
    return *length <= file.bytes - at - 12;
}

/* Chunks are walked here, since libspng would decode all that come before eXIf. */
static void read_chunks(am_image_info *info, am_image_bytes file)
{
    static const char xmp_key[] = "XML:com.adobe.xmp";
    int exif = 0, xmp = 0;
    const uint8_t *type = NULL;
    for (size_t at = 8, length = 0; chunk_at(file, at, &length, &type); at += length + 12) {
        am_image_bytes body = {type + 4, length};
        if (memcmp(type, "tRNS", 4) == 0)
            info->has_alpha = 1;
        else if (memcmp(type, "eXIf", 4) == 0)
            exif = am_exif_orientation(body);
        else if (memcmp(type, "iTXt", 4) == 0 && length > sizeof xmp_key &&
                 memcmp(body.data, xmp_key, sizeof xmp_key) == 0)
            xmp = am_xmp_orientation(body);
        else if (memcmp(type, "IEND", 4) == 0)
            break;
    }
    info->orientation = exif ? exif : xmp ? xmp : 1;
}

int am_png_header(am_image_info *info, am_image_bytes file)
{
    spng_ctx *ctx = spng_ctx_new(0);
    if (!ctx)
        return failed(SPNG_EMEM);
    struct spng_ihdr ihdr;
    int rc = spng_set_png_buffer(ctx, file.data, file.bytes);
    if (rc == 0)
        rc = spng_get_ihdr(ctx, &ihdr);
    spng_ctx_free(ctx);
    if (rc != 0)
        return failed(rc);
    if (ihdr.width > INT32_MAX || ihdr.height > INT32_MAX)
        return am_fail(AM_EFORMAT, "damaged PNG: its size is out of range");
    static const int channels[] = {1, 0, 3, 1, 2, 0, 4};
    info->width = (int32_t)ihdr.width;
    info->height = (int32_t)ihdr.height;
    info->channels = channels[ihdr.color_type];
    info->has_alpha = info->channels == 2 || info->channels == 4;
    read_chunks(info, file);
    return AM_OK;
}

/* The transparent colour of a picture without palette. As in Pillow, the low byte of the number in
 * the file is compared with values of 8 bits, also where the file's have more or fewer; but for one
 * bit, where what is not 0 is white. */
static void hide_color(am_picture *p, const struct spng_trns *trns, const struct spng_ihdr *ihdr)
{
    int grey = ihdr->color_type == SPNG_COLOR_TYPE_GRAYSCALE;
    uint8_t red = (uint8_t)(grey ? trns->gray : trns->red);
    uint8_t green = (uint8_t)(grey ? trns->gray : trns->green);
    uint8_t blue = (uint8_t)(grey ? trns->gray : trns->blue);
    if (ihdr->bit_depth == 1)
        red = green = blue = trns->gray ? 255 : 0;
    uint8_t *pixel = p->pixels, *end = pixel + (size_t)p->width * (size_t)p->height * 4;
    for (; pixel < end; pixel += 4) {
        if (pixel[0] == red && pixel[1] == green && pixel[2] == blue)
            pixel[3] = 0;
    }
}

/* Values above 255 become 255. Rows arrive in the host's byte order. */
static int decode_grey16(spng_ctx *ctx, am_picture *p)
{
    size_t pixels = (size_t)p->width * (size_t)p->height;
    void *grey = NULL;
    if (am_alloc(&grey, pixels * 2) != AM_OK)
        return SPNG_EMEM;
    int rc = spng_decode_image(ctx, grey, pixels * 2, SPNG_FMT_PNG, 0);
    for (size_t i = 0; rc == 0 && i < pixels; i++) {
        uint16_t v = ((const uint16_t *)grey)[i];
        memset(p->pixels + 4 * i, v > 255 ? 255 : v, 3);
        p->pixels[4 * i + 3] = 255;
    }
    am_free(grey);
    return rc;
}

static int decode_with(spng_ctx *ctx, am_picture *p, am_image_bytes file)
{
    struct spng_ihdr ihdr;
    int rc = spng_set_chunk_limits(ctx, MAX_CHUNK, MAX_CHUNKS);
    if (rc == 0)
        rc = spng_set_png_buffer(ctx, file.data, file.bytes);
    if (rc == 0)
        rc = spng_get_ihdr(ctx, &ihdr);
    if (rc != 0)
        return failed(rc);
    int palette = ihdr.color_type == SPNG_COLOR_TYPE_INDEXED;
    if (ihdr.color_type == SPNG_COLOR_TYPE_GRAYSCALE && ihdr.bit_depth == 16) {
        rc = decode_grey16(ctx, p);
    } else {
        size_t bytes = (size_t)p->width * (size_t)p->height * 4;
        rc = spng_decode_image(ctx, p->pixels, bytes, SPNG_FMT_RGBA8,
                               palette ? SPNG_DECODE_TRNS : 0);
    }
    struct spng_trns trns;
    if (rc == 0 && !palette && spng_get_trns(ctx, &trns) == 0)
        hide_color(p, &trns, &ihdr);
    return rc == 0 ? AM_OK : failed(rc);
}

int am_png_decode(am_picture *p, am_image_bytes file)
{
    spng_ctx *ctx = spng_ctx_new(0);
    if (!ctx)
        return failed(SPNG_EMEM);
    int rc = decode_with(ctx, p, file);
    spng_ctx_free(ctx);
    return rc;
}
