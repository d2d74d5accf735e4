/* test_image.c — decoding, resampling and emitting against what Pillow, torchvision and
 * transformers make of the same pictures: data/image/make.py wrote goldens.txt and says what its
 * lines are. */
#include "image_helpers.h"

enum { TEXT = 80 };

static int index_of(const char *const *names, const char *name)
{
    for (int i = 0; names[i]; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    ck_abort_msg("unknown name %s", name);
    return -1;
}

static const char *const formats[] = {"jpeg", "png", "webp", "gif", NULL};
static const char *const filters[] = {"nearest", "lanczos", "bilinear", "bicubic", "box", NULL};
static const char *const backends[] = {"pil", "torchvision", NULL};
static const char *const layouts[] = {"chw", "patches", NULL};

/* Calls `check` with each line of goldens.txt that begins with `kind`; returns their number. */
static int each_golden(const char *kind, void (*check)(const char *line))
{
    FILE *f = fopen(PICTURES "goldens.txt", "r");
    ck_assert_ptr_nonnull(f);
    char line[512];
    int n = 0;
    size_t length = strlen(kind);
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, kind, length) == 0 && line[length] == ' ') {
            check(line + length + 1);
            n++;
        }
    }
    fclose(f);
    return n;
}

static void check_header(const char *file, const char *format, const int facts[5])
{
    am_image_source source = picture_at(file);
    am_image_info info;
    ck_ok(am_image_header(&info, &source));
    int found[] = {info.width, info.height, info.channels, info.has_alpha, info.orientation};
    for (int i = 0; i < 5; i++)
        ck_assert_msg(found[i] == facts[i], "%s: fact %d is %d, not %d", file, i, found[i],
                      facts[i]);
    ck_assert_int_eq(info.format, index_of(formats, format));
}

/* ---- decoding */

static void check_pixels(const char *file, int32_t background, const char *expected)
{
    am_image_source source = picture_at(file);
    source.background = background;
    int width, height;
    uint8_t *rgb = rgb_of(&source, &width, &height);
    const char *found = digest_of(rgb, (size_t)(width * height * 3));
    ck_assert_msg(strcmp(found, expected) == 0, "%s: pixels differ", file);
    free(rgb);
}

static void check_picture(const char *line)
{
    char file[TEXT], format[TEXT], plain[TEXT], over[TEXT];
    int facts[5];
    ck_assert_int_eq(sscanf(line, "%79s %79s %d %d %d %d %d %79s %79s", file, format, &facts[0],
                            &facts[1], &facts[2], &facts[3], &facts[4], plain, over),
                     9);
    check_header(file, format, facts);
    check_pixels(file, -1, plain);
    check_pixels(file, 0xffffff, facts[3] ? over : plain);
}

/* Other versions of libjpeg and libwebp may round otherwise: one level. With those that Debian
 * bookworm has, no pixel differs. */
static void check_lossy(const char *line)
{
    char file[TEXT], format[TEXT], expected[TEXT];
    int facts[5], width, height, expected_width, expected_height;
    ck_assert_int_eq(sscanf(line, "%79s %79s %d %d %d %d %d %79s", file, format, &facts[0],
                            &facts[1], &facts[2], &facts[3], &facts[4], expected),
                     8);
    check_header(file, format, facts);
    am_image_source source = picture_at(file), golden = picture_at(expected);
    uint8_t *a = rgb_of(&source, &width, &height);
    uint8_t *b = rgb_of(&golden, &expected_width, &expected_height);
    ck_assert(width == expected_width && height == expected_height);
    for (int i = 0; i < width * height * 3; i++)
        ck_assert_msg(abs(a[i] - b[i]) <= 1, "%s: byte %d is %d, not %d", file, i, a[i], b[i]);
    free(a);
    free(b);
}

START_TEST(test_pictures)
{
    ck_assert_int_ge(each_golden("picture", check_picture), 20);
    ck_assert_int_ge(each_golden("lossy", check_lossy), 19);
}
END_TEST

/* ---- resampling: the same bits */

static void check_resize(const char *line)
{
    char file[TEXT], filter[TEXT], backend[TEXT], expected[TEXT];
    int width, height;
    ck_assert_int_eq(
        sscanf(line, "%79s %d %d %79s %79s %79s", file, &width, &height, filter, backend, expected),
        6);
    am_image_source source = picture_at(file);
    am_picture p, q;
    ck_ok(am_image_decode(&p, &source));
    ck_ok(am_picture_resize(&q, &p, width, height, index_of(filters, filter),
                            index_of(backends, backend)));
    ck_assert(q.width == width && q.height == height);
    uint8_t *rgb = malloc((size_t)(width * height * 3));
    for (int i = 0; i < width * height; i++)
        memcpy(rgb + 3 * i, q.pixels + 4 * i, 3);
    const char *found = digest_of(rgb, (size_t)(width * height * 3));
    ck_assert_msg(strcmp(found, expected) == 0, "pixels differ: %s", line);
    free(rgb);
    am_picture_free(&p);
    am_picture_free(&q);
}

START_TEST(test_resize)
{
    ck_assert_int_ge(each_golden("resize", check_resize), 120);
}
END_TEST

/* Sizes at which a vector's rest, the ring and the last group of rows matter: a picture of one
 * colour stays that, and the same size changes nothing. */
START_TEST(test_resize_sizes)
{
    for (int n = 1; n < 40; n += 3) {
        am_picture p, q;
        ck_ok(am_picture_new(&p, n, 41 - n));
        memset(p.pixels, 77, (size_t)(p.width * p.height * 4));
        for (int width = 1; width < 60; width += 7) {
            for (int height = 1; height < 60; height += 5) {
                for (int filter = AM_IMAGE_NEAREST; filter <= AM_IMAGE_BOX; filter++) {
                    ck_ok(am_picture_resize(&q, &p, width, height, filter, width % 2));
                    int others = 0;
                    for (int i = 0; i < width * height * 4; i++)
                        others += i % 4 != 3 && q.pixels[i] != 77;
                    ck_assert_int_eq(others, 0);
                    am_picture_free(&q);
                }
            }
        }
        am_picture_free(&p);
    }
    am_picture p;
    ck_ok(am_picture_new(&p, 3, 3));
    ck_assert_int_eq(am_picture_resize(&p, &p, AM_IMAGE_MAX_SIDE + 1, 1, 0, 0), AM_EINVAL);
    ck_assert_int_eq(am_picture_resize(&p, &p, 1 << 19, 1 << 19, 0, 0), AM_EINVAL);
    am_picture_free(&p);
}
END_TEST

/* ---- emit */

static const am_image_step clip = {
    .kind = AM_IMAGE_EMIT,
    .patch = 14,
    .temporal_patch = 2,
    .merge = 2,
    .rescale = 1 / 255.0,
    .mean = {0.48145466, 0.4578275, 0.40821073},
    .std = {0.26862954, 0.26130258, 0.27577711},
};

static void check_emit(const char *line)
{
    char file[TEXT], layout[TEXT], backend[TEXT], expected[TEXT];
    am_image_step step = clip;
    ck_assert_int_eq(sscanf(line, "%79s %79s %79s %d %d %79s", file, layout, backend,
                            &step.do_rescale, &step.do_normalize, expected),
                     6);
    step.layout = index_of(layouts, layout);
    step.backend = index_of(backends, backend);
    am_image_source source = picture_at(file);
    am_image_info info;
    ck_ok(am_image_header(&info, &source));
    int64_t n = (int64_t)info.width * info.height * 3 * (step.layout ? 2 : 1);
    float *out = malloc((size_t)n * sizeof *out);
    ck_ok(run_plan(out, n, &source, &step, 1));
    const char *found = digest_of(out, (size_t)n * sizeof *out);
    ck_assert_msg(strcmp(found, expected) == 0, "numbers differ: %s", line);
    free(out);
}

START_TEST(test_emit)
{
    ck_assert_int_ge(each_golden("emit", check_emit), 8);
}
END_TEST

/* Into a frame and at an offset: all else stays 0. */
START_TEST(test_emit_frame)
{
    am_image_source source = picture_at("1x1.png");
    am_image_step steps[] = {
        {.kind = AM_IMAGE_RESIZE, .dst = 1, .width = 2, .height = 1, .filter = AM_IMAGE_BOX},
        {.kind = AM_IMAGE_CROP,
         .src = 1,
         .dst = 0,
         .x = 1,
         .y = -1,
         .width = 2,
         .height = 3,
         .fill = 0x0a141e},
        {.kind = AM_IMAGE_EMIT, .offset = 5, .frame_width = 4, .frame_height = 5},
    };
    float out[5 + 60 + 3];
    am_picture p;
    ck_ok(am_image_decode(&p, &source));
    ck_ok(run_plan(out, 68, &source, steps, 3));
    for (int i = 0; i < 68; i++) {
        int c = (i - 5) / 20, y = (i - 5) / 4 % 5, x = (i - 5) % 4;
        float expected = 0;
        if (i >= 5 && i < 65 && y < 3 && x < 2)
            expected = y == 1 && x == 0 ? p.pixels[c] : (float)(10 * (c + 1));
        ck_assert_msg(out[i] == expected, "%d: %g, not %g", i, (double)out[i], (double)expected);
    }
    am_picture_free(&p);
}
END_TEST

/* ---- crop: inside, across each edge, and beyond */
START_TEST(test_crop)
{
    am_image_source source = picture_at("values.png");
    am_picture p;
    ck_ok(am_image_decode(&p, &source));
    float out[3 * 6 * 5];
    for (int y = -8; y < 20; y++) {
        for (int x = -8; x < 20; x++) {
            am_image_step steps[] = {
                {.kind = AM_IMAGE_CROP, .x = x, .y = y, .width = 6, .height = 5, .fill = 0xff},
                {.kind = AM_IMAGE_EMIT}};
            ck_ok(run_plan(out, 90, &source, steps, 2));
            for (int i = 0; i < 90; i++) {
                int c = i / 30, row = i / 6 % 5 + y, column = i % 6 + x;
                int inside = row >= 0 && row < 16 && column >= 0 && column < 16;
                int expected = inside ? p.pixels[4 * (row * 16 + column) + c] : c == 2 ? 255 : 0;
                ck_assert(out[i] == (float)expected);
            }
        }
    }
    am_picture_free(&p);
}
END_TEST

/* ---- thumbnails */
START_TEST(test_thumbnail)
{
    static const struct {
        const char *name;
        int side, width, height;
    } cases[] = {{"ycbcr_420.jpg", 64, 64, 43},
                 {"exif_6.jpg", 1000, 29, 75},
                 {"nx1.png", 50, 50, 1},
                 {"1x1.png", 1, 1, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        am_image_source source = picture_at(cases[i].name);
        uint8_t *data;
        size_t bytes;
        ck_ok(am_image_thumbnail(&data, &bytes, &source, cases[i].side));
        am_image_source small = bytes_of(data, bytes);
        am_image_info info;
        ck_ok(am_image_header(&info, &small));
        ck_assert_int_eq(info.format, AM_IMAGE_JPEG);
        ck_assert_int_eq(info.width, cases[i].width);
        ck_assert_int_eq(info.height, cases[i].height);
        int width, height, original_width, original_height;
        uint8_t *a = rgb_of(&small, &width, &height);
        uint8_t *b = rgb_of(&source, &original_width, &original_height);
        if (width ==
            original_width) { /* quality 85 of a photograph or text: within 20 on average */
            int64_t apart = 0;
            for (int k = 0; k < width * height * 3; k++)
                apart += abs(a[k] - b[k]);
            ck_assert_int_lt(apart, 20 * width * height * 3);
        }
        free(a);
        free(b);
        am_image_bytes_release(data);
    }
    am_image_source source = picture_at("1x1.png");
    uint8_t *data;
    size_t bytes;
    ck_assert_int_eq(am_image_thumbnail(&data, &bytes, &source, 0), AM_EINVAL);
    source = picture_at("none.png");
    ck_assert_int_eq(am_image_thumbnail(&data, &bytes, &source, 5), AM_EIO);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_pictures,   test_resize, test_resize_sizes, test_emit,
                                  test_emit_frame, test_crop,   test_thumbnail};
    return run_suite("image", tests, sizeof tests / sizeof *tests);
}
