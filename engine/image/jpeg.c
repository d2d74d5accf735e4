/* jpeg.c — JPEG by libjpeg-turbo: baseline, progressive and arithmetic, grey, YCbCr, RGB, CMYK and
 * YCCK, with the accurate DCT and smooth upsampling that Pillow's library uses too. Damage that
 * libjpeg only warns of is passed over as Pillow does; data that ends too soon is an error.
 * libjpeg calls back on errors, which is a longjmp to where it was called. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "../core/mem.h"
#include "image.h"

enum { MAX_SCANS = 500 }; /* of a progressive file: each is a pass over all of its pixels */

/* What libjpeg calls on errors, which is the head of where they lead. */
typedef struct failure {
    struct jpeg_error_mgr manager;
    jmp_buf place;
    char message[JMSG_LENGTH_MAX];
} failure;

static void on_error(j_common_ptr info)
{
    failure *f = (failure *)info->err;
    f->manager.format_message(info, f->message);
    longjmp(f->place, 1);
}

static void fail(j_common_ptr info, const char *message)
{
    failure *f = (failure *)info->err;
    snprintf(f->message, sizeof f->message, "%s", message);
    longjmp(f->place, 1);
}

static void on_message(j_common_ptr info, int level)
{
    (void)info, (void)level; /* warnings and traces */
}

static struct jpeg_error_mgr *errors_to(failure *f)
{
    jpeg_std_error(&f->manager);
    f->manager.error_exit = on_error;
    f->manager.emit_message = on_message;
    return &f->manager;
}

typedef struct reader {
    struct jpeg_decompress_struct info;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    failure failure;
    int orientation;
} reader;

static void on_scan(j_common_ptr info)
{
    if (info->is_decompressor && ((j_decompress_ptr)info)->input_scan_number > MAX_SCANS)
        fail(info, "it has too many scans");
}

/* ---- bytes in memory; their end is an error, not the end marker that libjpeg would make up */

static void source_nothing(j_decompress_ptr info)
{
    (void)info;
}

static boolean source_more(j_decompress_ptr info)
{
    fail((j_common_ptr)info, "the file is truncated");
    return FALSE;
}

static void source_skip(j_decompress_ptr info, long bytes)
{
    if (bytes <= 0)
        return;
    if ((size_t)bytes > info->src->bytes_in_buffer)
        fail((j_common_ptr)info, "the file is truncated");
    info->src->next_input_byte += bytes;
    info->src->bytes_in_buffer -= (size_t)bytes;
}

/* ---- orientation: APP1 segments are walked here, so that libjpeg need not keep them */

static int orientation_of(am_image_bytes file)
{
    static const char exif_tag[] = "Exif\0", xmp_tag[] = "http://ns.adobe.com/xap/1.0/";
    const uint8_t *p = file.data;
    int exif = 0, xmp = 0;
    for (size_t at = 2; at + 4 <= file.bytes && p[at] == 0xff;) {
        unsigned marker = p[at + 1];
        if (marker == 0xff) { /* fill bytes */
            at++;
            continue;
        }
        if (marker == 0xda || marker == 0xd9) /* pixels, end */
            break;
        if (marker == 0x01 || (marker >= 0xd0 && marker <= 0xd7)) { /* without a length */
            at += 2;
            continue;
        }
        size_t length = (size_t)p[at + 2] << 8 | p[at + 3];
        if (length < 2 || length > file.bytes - at - 2)
            break;
        am_image_bytes body = {p + at + 4, length - 2};
        if (marker == 0xe1 && body.bytes >= 6 && memcmp(body.data, exif_tag, 6) == 0) {
            if (!exif)
                exif = am_exif_orientation((am_image_bytes){body.data + 6, body.bytes - 6});
        } else if (marker == 0xe1 && body.bytes >= sizeof xmp_tag &&
                   memcmp(body.data, xmp_tag, sizeof xmp_tag) == 0) {
            if (!xmp)
                xmp = am_xmp_orientation(body);
        }
        at += 2 + length;
    }
    return exif ? exif : xmp ? xmp : 1;
}

/* ---- decoding */

static void open_reader(reader *r, am_image_bytes file)
{
    r->info.err = errors_to(&r->failure);
    jpeg_create_decompress(&r->info);
    r->progress.progress_monitor = on_scan;
    r->info.progress = &r->progress;
    r->source.next_input_byte = file.data;
    r->source.bytes_in_buffer = file.bytes;
    r->source.init_source = source_nothing;
    r->source.fill_input_buffer = source_more;
    r->source.skip_input_data = source_skip;
    r->source.resync_to_restart = jpeg_resync_to_restart;
    r->source.term_source = source_nothing;
    r->info.src = &r->source;
}

static int close_reader(reader *r, int failed)
{
    jpeg_destroy_decompress(&r->info);
    return failed ? am_fail(AM_EFORMAT, "the JPEG cannot be read: %s", r->failure.message) : AM_OK;
}

/* Read up to the first scan. 0: a number of channels that Pillow has no mode for either. */
static int read_header(reader *r)
{
    (void)jpeg_read_header(&r->info, TRUE);
    return r->info.num_components == 1 || r->info.num_components == 3 ||
           r->info.num_components == 4;
}

int am_jpeg_header(am_image_info *info, am_image_bytes file)
{
    reader r;
    memset(&r, 0, sizeof r);
    if (setjmp(r.failure.place))
        return close_reader(&r, 1);
    open_reader(&r, file);
    int supported = read_header(&r);
    info->width = (int32_t)r.info.image_width;
    info->height = (int32_t)r.info.image_height;
    info->channels = r.info.num_components;
    info->has_alpha = 0;
    info->orientation = orientation_of(file);
    AM_TRY(close_reader(&r, 0));
    if (!supported)
        return am_fail(AM_EUNSUP, "a JPEG of %d channels is not read", info->channels);
    return AM_OK;
}

/* Adobe's CMYK is inverted, and so is what Pillow takes any CMYK for; then as its
 * convert("RGB"): (255 - k) less c's share of it, rounded. */
static void cmyk_to_rgb(uint8_t *row, int32_t width)
{
    for (int32_t i = 0; i < width; i++, row += 4) {
        int light = row[3]; /* 255 - k */
        for (int c = 0; c < 3; c++) {
            int t = (255 - row[c]) * light + 128;
            int ink = (t + (t >> 8)) >> 8;
            row[c] = (uint8_t)(light > ink ? light - ink : 0);
        }
        row[3] = 255;
    }
}

int am_jpeg_decode(am_picture *p, am_image_bytes file)
{
    reader r;
    memset(&r, 0, sizeof r);
    if (setjmp(r.failure.place))
        return close_reader(&r, 1);
    open_reader(&r, file);
    int supported = read_header(&r);
    if (!supported || r.info.image_width != (JDIMENSION)p->width ||
        r.info.image_height != (JDIMENSION)p->height)
        fail((j_common_ptr)&r.info, "its header changed");
    int cmyk = r.info.num_components == 4;
    r.info.out_color_space = cmyk ? JCS_CMYK : JCS_EXT_RGBA;
    r.info.dct_method = JDCT_ISLOW;
    r.info.do_fancy_upsampling = TRUE;
    (void)jpeg_start_decompress(&r.info);
    size_t stride = (size_t)p->width * 4;
    while (r.info.output_scanline < r.info.output_height) {
        JSAMPROW row = p->pixels + r.info.output_scanline * stride;
        (void)jpeg_read_scanlines(&r.info, &row, 1);
        if (cmyk)
            cmyk_to_rgb(row, p->width);
    }
    return close_reader(&r, 0); /* what follows the last row is not looked at */
}

/* ---- writing */

typedef struct writer {
    struct jpeg_compress_struct info;
    struct jpeg_destination_mgr sink;
    failure failure;
    void *data;
    size_t bytes;
} writer;

static void sink_open(j_compress_ptr info)
{
    (void)info;
}

/* The buffer is full: twice as much. */
static boolean sink_grow(j_compress_ptr info)
{
    writer *w = info->client_data;
    if (am_realloc(&w->data, w->bytes * 2) != AM_OK)
        fail((j_common_ptr)info, "out of memory");
    info->dest->next_output_byte = (uint8_t *)w->data + w->bytes;
    info->dest->free_in_buffer = w->bytes;
    w->bytes *= 2;
    return TRUE;
}

int am_jpeg_encode(uint8_t **data, size_t *bytes, const am_picture *p, int quality)
{
    writer w;
    memset(&w, 0, sizeof w);
    w.bytes = 16384;
    AM_TRY(am_alloc(&w.data, w.bytes));
    if (setjmp(w.failure.place)) {
        jpeg_destroy_compress(&w.info);
        am_free(w.data);
        return am_fail(AM_ENOMEM, "a JPEG could not be written: %s", w.failure.message);
    }
    w.info.err = errors_to(&w.failure);
    w.info.client_data = &w;
    jpeg_create_compress(&w.info);
    w.sink.init_destination = sink_open;
    w.sink.empty_output_buffer = sink_grow;
    w.sink.term_destination = sink_open;
    w.sink.next_output_byte = w.data;
    w.sink.free_in_buffer = w.bytes;
    w.info.dest = &w.sink;
    w.info.image_width = (JDIMENSION)p->width;
    w.info.image_height = (JDIMENSION)p->height;
    w.info.input_components = 4;
    w.info.in_color_space = JCS_EXT_RGBX;
    jpeg_set_defaults(&w.info);
    jpeg_set_quality(&w.info, quality, TRUE);
    jpeg_start_compress(&w.info, TRUE);
    while (w.info.next_scanline < w.info.image_height) {
        JSAMPROW row = p->pixels + (size_t)w.info.next_scanline * (size_t)p->width * 4;
        (void)jpeg_write_scanlines(&w.info, &row, 1);
    }
    jpeg_finish_compress(&w.info);
    *bytes = w.bytes - w.sink.free_in_buffer;
    *data = w.data;
    jpeg_destroy_compress(&w.info);
    return AM_OK;
}
