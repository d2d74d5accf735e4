/* thumbnail.c — a picture made small, as a JPEG file in memory. */
#include "../core/mem.h"
#include "image.h"

enum { QUALITY = 85 };

static int64_t scaled(int64_t length, int64_t side, int64_t longest)
{
    int64_t v = (length * side + longest / 2) / longest;
    return v > 0 ? v : 1;
}

int am_image_thumbnail(uint8_t **data, size_t *bytes, const am_image_source *source, int side)
{
    if (side < 1 || side > 65500)
        return am_fail(AM_EINVAL, "a thumbnail's side is 1 to 65500, not %d", side);
    am_picture p = {0, 0, NULL}, small = {0, 0, NULL};
    int rc = am_image_decode(&p, source);
    if (rc != AM_OK)
        return am_image_fail(rc, source);
    int64_t longest = p.width > p.height ? p.width : p.height;
    int64_t most = longest < side ? longest : side;
    rc = am_picture_resize(&small, &p, scaled(p.width, most, longest),
                           scaled(p.height, most, longest), AM_IMAGE_BICUBIC, AM_IMAGE_PIL);
    if (rc == AM_OK)
        rc = am_jpeg_encode(data, bytes, &small, QUALITY);
    am_picture_free(&p);
    am_picture_free(&small);
    return am_image_fail(rc, source);
}

void am_image_bytes_release(uint8_t *data)
{
    am_free(data);
}
