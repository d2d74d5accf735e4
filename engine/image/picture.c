/* picture.c — the memory of a picture, and turning one upright. */
#include "image.h"

#include <string.h>

#include "../core/mem.h"

int am_picture_new(am_picture *out, int64_t width, int64_t height)
{
    if (width < 1 || height < 1 || width > AM_IMAGE_MAX_SIDE || height > AM_IMAGE_MAX_SIDE ||
        width * height > AM_IMAGE_MAX_PIXELS)
        return am_fail(AM_EINVAL, "a picture of %lld x %lld pixels is too large or empty",
                       (long long)width, (long long)height);
    void *pixels = NULL;
    AM_TRY(am_alloc(&pixels, (size_t)(width * height) * 4));
    *out = (am_picture){(int32_t)width, (int32_t)height, pixels};
    return AM_OK;
}

void am_picture_free(am_picture *p)
{
    am_free(p->pixels);
    *p = (am_picture){0, 0, NULL};
}
