/* image.h — pictures inside the engine: what the decoders, the resampler, plans and jobs share.
 * The public side is in am.h. */
#ifndef AM_IMAGE_H
#define AM_IMAGE_H

#include "../am.h"
#include "../core/error.h"

/* 8-bit pixels, four bytes each: red, green, blue, alpha. Alpha is 255 where a file has none, and
 * means nothing once the picture has been decoded. Pixels come from am_alloc. */
typedef struct am_picture {
    int32_t width, height;
    uint8_t *pixels;
} am_picture;

/* Room for a picture, zeroed; AM_EINVAL unless its sides are 1 to AM_IMAGE_MAX_SIDE and it has at
 * most AM_IMAGE_MAX_PIXELS. */
int am_picture_new(am_picture *out, int64_t width, int64_t height);
void am_picture_free(am_picture *p);

/* The bytes of a file of any of the four formats. */
typedef struct am_image_bytes {
    const uint8_t *data;
    size_t bytes;
} am_image_bytes;

/* A format's file, NAME.c: what the header says (width, height and orientation as the file has
 * them), and all pixels of a picture whose header was read and found to be within limits. decode
 * gets a picture of the header's size. */
int am_jpeg_header(am_image_info *info, am_image_bytes file);
int am_jpeg_decode(am_picture *p, am_image_bytes file);
int am_png_header(am_image_info *info, am_image_bytes file);
int am_png_decode(am_picture *p, am_image_bytes file);
int am_webp_header(am_image_info *info, am_image_bytes file);
int am_webp_decode(am_picture *p, am_image_bytes file);
int am_gif_header(am_image_info *info, am_image_bytes file);
int am_gif_decode(am_picture *p, am_image_bytes file);

/* A picture without alpha as a JPEG file; *data is to be freed with am_free. */
int am_jpeg_encode(uint8_t **data, size_t *bytes, const am_picture *p, int quality);

/* EXIF's orientation in a TIFF structure: 1 to 8, or 0 when it has none that is readable. */
int am_exif_orientation(am_image_bytes tiff);
/* The same in an XMP packet (tiff:Orientation). */
int am_xmp_orientation(am_image_bytes xmp);

/* Decode a source into *out, oriented and over its background. Messages do not name the source. */
int am_image_decode(am_picture *out, const am_image_source *source);

/* Put the source's name before the message of an error; AM_OK passes. Returns rc. */
int am_image_fail(int rc, const am_image_source *source);

/* *out = a new picture, p at width x height. Nothing is copied when the size is the same and the
 * filter changes nothing: then *out owns a copy. */
int am_picture_resize(am_picture *out, const am_picture *p, int64_t width, int64_t height,
                      int filter, int backend);

/* Check steps as far as they can be without the picture; run them on it. The caller's
 * *p becomes slot 0 and is left empty, also after an error. `out` has n_floats, zeroed. */
int am_plan_check(const am_image_step *steps, int64_t n, int64_t n_floats);
int am_plan_run(am_picture *p, const am_image_step *steps, int64_t n, float *out, int64_t n_floats);

#endif
