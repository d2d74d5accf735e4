/* fuzz_image.c — decode any bytes as an image and run a plan on it, whose sizes and filters the
 * last bytes choose. Pictures are limited to some 10^5 pixels: damage is the subject, not time. */
#include <stdlib.h>
#include <string.h>

#include "am.h"

enum { MAX_PIXELS = 100000, SIDE = 64, FLOATS = 3 * SIDE * SIDE * 2 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static float out[FLOATS];
    uint8_t choice[4] = {0};
    if (bytes >= 4)
        memcpy(choice, data + bytes - 4, 4);
    am_image_source source = {.data = data, .bytes = bytes, .max_pixels = MAX_PIXELS};
    source.background = choice[0] & 1 ? 0x808080 : -1;
    am_image_info info;
    if (am_image_header(&info, &source) != AM_OK)
        return 0;
    am_image_step steps[] = {
        {.kind = AM_IMAGE_RESIZE,
         .dst = 1,
         .width = 1 + choice[1] % 200,
         .height = 1 + choice[2] % 200,
         .filter = choice[3] % 5,
         .backend = choice[0] >> 1 & 1},
        {.kind = AM_IMAGE_CROP,
         .src = 1,
         .dst = 2,
         .x = choice[1] - 128,
         .y = choice[2] - 128,
         .width = SIDE,
         .height = SIDE},
        {.kind = AM_IMAGE_EMIT,
         .src = 2,
         .layout = choice[3] >> 7,
         .patch = 16,
         .temporal_patch = 2,
         .merge = 2,
         .do_rescale = 1,
         .rescale = 1.0 / 255},
        {.kind = AM_IMAGE_EMIT, .src = choice[0] >> 2 & 1},
    };
    am_image_job *job;
    (void)am_image_threads_set(0);
    if (am_image_submit(&job, &source, steps, 4, FLOATS) != AM_OK)
        abort();
    if (am_image_wait(job, out) == AM_OK && (int64_t)info.width * info.height > MAX_PIXELS)
        abort();
    am_image_release(job);
    uint8_t *small;
    size_t n;
    if (am_image_thumbnail(&small, &n, &source, SIDE) == AM_OK)
        am_image_bytes_release(small);
    return 0;
}
