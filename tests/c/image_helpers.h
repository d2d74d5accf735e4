/* image_helpers.h — for the tests of engine/image: pictures of the folder data/image, decoded, and
 * plans run in one call. */
#ifndef IMAGE_HELPERS_H
#define IMAGE_HELPERS_H

#include "image/image.h"
#include "io_helpers.h"

#define PICTURES AM_TEST_DIR "/c/data/image/"

static inline am_image_source picture_at(const char *name)
{
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s%s", PICTURES, name);
    return (am_image_source){.path = path, .background = -1};
}

static inline am_image_source bytes_of(const void *data, size_t bytes)
{
    return (am_image_source){.data = data, .bytes = bytes, .background = -1};
}

/* Submit and wait. */
static inline int run_plan(float *out, int64_t n_floats, const am_image_source *source,
                           const am_image_step *steps, int64_t n)
{
    am_image_job *job;
    int rc = am_image_submit(&job, source, steps, n, n_floats);
    if (rc != AM_OK)
        return rc;
    rc = am_image_wait(job, out);
    am_image_release(job);
    return rc;
}

/* The picture as RGB bytes, to be freed with free; a check that fails names the source. */
static inline uint8_t *rgb_of(const am_image_source *source, int *width, int *height)
{
    am_picture p;
    int rc = am_image_decode(&p, source);
    ck_assert_msg(rc == AM_OK, "%s: %s", source->path, am_error_message());
    uint8_t *rgb = malloc((size_t)p.width * (size_t)p.height * 3);
    for (int i = 0; i < p.width * p.height; i++)
        memcpy(rgb + 3 * i, p.pixels + 4 * i, 3);
    *width = p.width;
    *height = p.height;
    am_picture_free(&p);
    return rgb;
}

/* The digest of bytes in hexadecimal. */
static inline const char *digest_of(const void *data, size_t bytes)
{
    static char text[2 * AM_HASH_BYTES + 1];
    uint8_t digest[AM_HASH_BYTES];
    am_hash(digest, data, bytes);
    for (int i = 0; i < AM_HASH_BYTES; i++)
        sprintf(text + 2 * i, "%02x", digest[i]);
    return text;
}

#endif
