/* test_image_input.c — images that are damaged, lie or are enormous; jobs: cancelled, after a fork,
 * and when memory runs out. */
#include <sys/wait.h>
#include <zlib.h>

#include "image_helpers.h"

#define SEEDS AM_TEST_DIR "/fuzz/corpus/image/"
static const char *const seeds[] = {
    "baseline.jpg", "progressive.jpg", "grey.jpg",       "ycck.jpg",       "xmp.jpg",
    "palette.png",  "one_bit.png",     "grey_16.png",    "rgb_16.png",     "interlaced.png",
    "lossy.webp",   "lossless.webp",   "animation.webp", "interlaced.gif", "animation.gif"};
enum { SEED_COUNT = sizeof seeds / sizeof *seeds };

static char *seed(const char *name, size_t *bytes)
{
    char path[512];
    snprintf(path, sizeof path, "%s%s", SEEDS, name);
    return slurp(path, bytes);
}

static int try_decode(const void *data, size_t bytes)
{
    void *exact = malloc(bytes ? bytes : 1); /* so that a sanitizer sees a read beyond the end */
    memcpy(exact, data, bytes);
    am_image_source source = bytes_of(exact, bytes);
    source.max_pixels = 100000;
    am_picture p;
    int rc = am_image_decode(&p, &source);
    if (rc == AM_OK)
        am_picture_free(&p);
    free(exact);
    return rc;
}

/* ---- damage */

/* A file that ends too soon is an error until the last few bytes, which hold no pixels. */
START_TEST(test_truncated)
{
    for (int i = 0; i < SEED_COUNT; i++) {
        size_t bytes;
        char *data = seed(seeds[i], &bytes);
        ck_assert_msg(try_decode(data, bytes) == AM_OK, "%s: %s", seeds[i], am_error_message());
        size_t needed = bytes;
        if (strstr(seeds[i], ".png"))
            needed -= 12; /* IEND */
        if (strstr(seeds[i], ".gif"))
            needed = bytes / 4; /* of frames that are not read, too */
        for (size_t n = 0; n < needed; n++) {
            int rc = try_decode(data, n);
            ck_assert_msg(rc == AM_EFORMAT || (rc == AM_EUNSUP && n < 12) ||
                              (rc == AM_OK && n >= needed - 8),
                          "%s: %zu bytes of %zu: %d", seeds[i], n, bytes, rc);
        }
        free(data);
    }
}
END_TEST

/* Every byte changed: an error or a picture, and nothing that a sanitizer sees. */
START_TEST(test_flipped)
{
    static const unsigned char flips[] = {1, 16, 128, 255};
    for (int i = 0; i < SEED_COUNT; i++) {
        size_t bytes;
        char *data = seed(seeds[i], &bytes);
        for (size_t k = 0; k < bytes * 4; k++) {
            data[k / 4] = (char)(data[k / 4] ^ flips[k % 4]);
            try_decode(data, bytes);
            data[k / 4] = (char)(data[k / 4] ^ flips[k % 4]);
        }
        free(data);
    }
}
END_TEST

START_TEST(test_garbage_after)
{
    for (int i = 0; i < SEED_COUNT; i++) {
        size_t bytes;
        char *data = seed(seeds[i], &bytes);
        data = realloc(data, bytes + 100);
        memset(data + bytes, 'x', 100);
        ck_assert_msg(try_decode(data, bytes + 100) == AM_OK, "%s", seeds[i]);
        free(data);
    }
}
END_TEST

START_TEST(test_messages)
{
    am_image_info info;
    am_image_source source = bytes_of("", 0);
    ck_assert_int_eq(am_image_header(&info, &source), AM_EFORMAT);
    ck_message("image: the file is empty");
    source = bytes_of("BMP?", 4);
    source.name = "row 3";
    ck_assert_int_eq(am_image_header(&info, &source), AM_EUNSUP);
    ck_message("row 3: this is no JPEG, PNG, WebP or GIF file");
    source = picture_at("none.jpg");
    ck_assert_int_eq(am_image_header(&info, &source), AM_EIO);
    ck_message("none.jpg");
    source = (am_image_source){.bytes = 5};
    ck_assert_int_eq(am_image_header(&info, &source), AM_EINVAL);
    float out;
    size_t bytes;
    char *data = seed("baseline.jpg", &bytes);
    source = bytes_of(data, bytes - 40);
    source.name = "cut.jpg";
    ck_assert_int_eq(run_plan(&out, 0, &source, NULL, 0), AM_EFORMAT);
    ck_message("cut.jpg: the JPEG cannot be read: the file is truncated");
    free(data);
}
END_TEST

/* ---- size */

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static size_t put_chunk(uint8_t *to, const char *type, const void *data, size_t bytes)
{
    put32(to, (uint32_t)bytes);
    memcpy(to + 4, type, 4);
    if (bytes)
        memcpy(to + 8, data, bytes);
    put32(to + 8 + bytes, (uint32_t)crc32(0, to + 4, (uInt)(bytes + 4)));
    return bytes + 12;
}

/* A black PNG of one bit a pixel, of which `rows` are there; freed with free. */
static uint8_t *black_png(uint32_t width, uint32_t height, uint32_t rows, size_t *bytes)
{
    size_t raw = (size_t)rows * (width / 8 + 2), room = compressBound(raw) + 200;
    uint8_t *zeros = calloc(1, raw), *packed = malloc(room), *out = malloc(room);
    uLongf length = room;
    ck_assert_int_eq(compress(packed, &length, zeros, (size_t)rows * ((width + 7) / 8 + 1)), Z_OK);
    uint8_t header[13] = {0};
    put32(header, width);
    put32(header + 4, height);
    header[8] = 1;
    memcpy(out, "\x89PNG\r\n\x1a\n", 8);
    size_t n = 8 + put_chunk(out + 8, "IHDR", header, 13);
    n += put_chunk(out + n, "IDAT", packed, length);
    *bytes = n + put_chunk(out + n, "IEND", NULL, 0);
    free(zeros);
    free(packed);
    return out;
}

static void check_too_large(const void *data, size_t bytes, const char *what)
{
    am_image_source source = bytes_of(data, bytes);
    source.name = what;
    am_image_info info;
    ck_assert_msg(am_image_header(&info, &source) == AM_EFORMAT, "%s", what);
    ck_message(what);
    ck_message("more than the limit of 178956970");
    float out;
    ck_assert_int_eq(run_plan(&out, 0, &source, NULL, 0), AM_EFORMAT);
}

START_TEST(test_bombs)
{
    static const uint32_t sizes[][2] = {{60000, 60000},           {1u << 31, 1},
                                        {0x7fffffff, 0x7fffffff}, {(1 << 20) + 1, 1},
                                        {1, (1 << 20) + 1},       {13378, 13378}};
    size_t bytes;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *png = black_png(8, 8, 8, &bytes);
        put32(png + 16, sizes[i][0]);
        put32(png + 20, sizes[i][1]);
        put32(png + 29, (uint32_t)crc32(0, png + 12, 17));
        am_image_source source = bytes_of(png, bytes);
        am_image_info info;
        if (sizes[i][0] == 1u << 31)
            ck_assert_int_eq(am_image_header(&info, &source), AM_EFORMAT);
        else
            check_too_large(png, bytes, "lying.png");
        free(png);
    }
    char *gif = seed("animation.gif", &bytes);
    memset(gif + 6, 255, 4);
    check_too_large(gif, bytes, "lying.gif");
    free(gif);
    char *jpeg = seed("baseline.jpg", &bytes), *frame = memmem(jpeg, bytes, "\xff\xc0", 2);
    memset(frame + 5, 0xfe, 4); /* 65278 x 65278 */
    check_too_large(jpeg, bytes, "lying.jpg");
    free(jpeg);
    char *webp = seed("animation.webp", &bytes);
    memset(webp + 24, 0xfe, 6); /* the canvas of VP8X: 2^24 - 257 a side, which libwebp refuses */
    am_image_source source = bytes_of(webp, bytes);
    am_image_info info;
    ck_assert_int_eq(am_image_header(&info, &source), AM_EFORMAT);
    free(webp);
}
END_TEST

/* The header's size, larger than what is there: an error once the rows end. A limit of the
 * caller's, to the pixel. */
START_TEST(test_lying_size)
{
    size_t bytes;
    uint8_t *png = black_png(3000, 2000, 5, &bytes);
    am_image_source source = bytes_of(png, bytes);
    float out[3];
    ck_assert_int_eq(run_plan(out, 0, &source, NULL, 0), AM_EFORMAT);
    free(png);
    png = black_png(30, 20, 20, &bytes);
    source = bytes_of(png, bytes);
    source.max_pixels = 600;
    ck_ok(run_plan(out, 0, &source, NULL, 0));
    source.max_pixels = 599;
    ck_assert_int_eq(run_plan(out, 0, &source, NULL, 0), AM_EFORMAT);
    free(png);
}
END_TEST

/* 28 million pixels, and the longest side there may be. */
START_TEST(test_large)
{
    static const uint32_t sizes[][2] = {
        {7000, 4000}, {AM_IMAGE_MAX_SIDE, 1}, {1, AM_IMAGE_MAX_SIDE}};
    for (int i = 0; i < 3; i++) {
        size_t bytes;
        uint8_t *png = black_png(sizes[i][0], sizes[i][1], sizes[i][1], &bytes);
        am_image_source source = bytes_of(png, bytes);
        am_image_step steps[] = {{.kind = AM_IMAGE_RESIZE,
                                  .width = 30,
                                  .height = 20,
                                  .filter = AM_IMAGE_LANCZOS,
                                  .backend = i % 2},
                                 {.kind = AM_IMAGE_EMIT}};
        float out[1800];
        ck_ok(run_plan(out, 1800, &source, steps, 2));
        for (int k = 0; k < 1800; k++)
            ck_assert(out[k] == 0);
        free(png);
    }
}
END_TEST

/* ---- EXIF */

static int exif(const void *data, size_t bytes)
{
    void *exact = malloc(bytes);
    memcpy(exact, data, bytes);
    int found = am_exif_orientation((am_image_bytes){exact, bytes});
    free(exact);
    return found;
}
#define EXIF(text) exif(text, sizeof(text) - 1)

START_TEST(test_exif)
{
    ck_assert_int_eq(EXIF("II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0"), 6);
    ck_assert_int_eq(EXIF("MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\3\0\0"), 3);
    ck_assert_int_eq(EXIF("MM\0*\0\0\0\x08\0\1\1\x12\0\4\0\0\0\1\0\0\0\x08"), 8);
    ck_assert_int_eq(EXIF("II*\0\x08\0\0\0\2\0\1\1\3\0\1\0\0\0\6\0\0\0\x12\1\3\0\1\0\0\0\2\0\0\0"),
                     2);
    /* a value out of range, two values, another type, and lies about places */
    ck_assert_int_eq(EXIF("II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x09\0\0\0"), 0);
    ck_assert_int_eq(EXIF("II*\0\x08\0\0\0\1\0\x12\1\3\0\2\0\0\0\6\0\6\0"), 0);
    ck_assert_int_eq(EXIF("II*\0\x08\0\0\0\1\0\x12\1\2\0\1\0\0\0\6\0\0\0"), 0);
    ck_assert_int_eq(EXIF("II*\0\xff\xff\xff\xff\1\0\x12\1\3\0\1\0\0\0\6\0\0\0"), 0);
    ck_assert_int_eq(EXIF("II*\0\x08\0\0\0\xff\xff\x12\1\3\0\1\0\0\0\6\0\0"), 0);
    ck_assert_int_eq(EXIF("II+\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0"), 0);
    ck_assert_int_eq(EXIF("II*\0\x08\0\0"), 0);
    ck_assert_int_eq(am_xmp_orientation((am_image_bytes){(const uint8_t *)"tiff:Orientation", 16}),
                     0);
    ck_assert_int_eq(am_xmp_orientation((am_image_bytes){
                         (const uint8_t *)"tiff:Orientation x <tiff:Orientation>7<", 38}),
                     7);
}
END_TEST

/* ---- plans */

START_TEST(test_bad_plans)
{
    am_image_source source = picture_at("rgb.png"); /* 90 x 90 */
    static const struct {
        am_image_step step;
        const char *message;
    } cases[] = {
        {{.kind = 9}, "kind"},
        {{.kind = AM_IMAGE_RESIZE, .width = 1, .height = 1, .dst = AM_IMAGE_SLOTS}, "slots"},
        {{.kind = AM_IMAGE_RESIZE, .width = 1, .height = 1, .src = -1}, "slots"},
        {{.kind = AM_IMAGE_RESIZE, .width = 1}, "size"},
        {{.kind = AM_IMAGE_RESIZE, .width = 1, .height = 1, .filter = 5}, "filter"},
        {{.kind = AM_IMAGE_RESIZE, .width = 1, .height = 1, .backend = 2}, "backend"},
        {{.kind = AM_IMAGE_RESIZE, .width = 1 << 20, .height = 1 << 20}, "too large"},
        {{.kind = AM_IMAGE_EMIT, .layout = 2}, "layout"},
        {{.kind = AM_IMAGE_EMIT, .offset = -1}, "offset"},
        {{.kind = AM_IMAGE_EMIT, .offset = 24301}, "offset"},
        {{.kind = AM_IMAGE_EMIT, .offset = 1}, "beyond the output"},
        {{.kind = AM_IMAGE_EMIT, .src = 7}, "slot 7 is empty"},
        {{.kind = AM_IMAGE_EMIT, .do_normalize = 1}, "std is 0"},
        {{.kind = AM_IMAGE_EMIT, .frame_width = 89, .frame_height = 90}, "do not fit"},
        {{.kind = AM_IMAGE_EMIT, .frame_width = 0x7fffffff, .frame_height = 0x7fffffff}, "beyond"},
        {{.kind = AM_IMAGE_EMIT, .layout = 1, .patch = 0, .merge = 1, .temporal_patch = 1},
         "patch"},
        {{.kind = AM_IMAGE_EMIT, .layout = 1, .patch = 4, .merge = 1, .temporal_patch = 1},
         "multiple"},
        {{.kind = AM_IMAGE_EMIT, .layout = 1, .patch = 9, .merge = 2, .temporal_patch = 2},
         "beyond"},
    };
    static float out[24300];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int rc = run_plan(out, 24300, &source, &cases[i].step, 1);
        ck_assert_msg(rc == AM_EINVAL, "case %zu: %d", i, rc);
        ck_message(cases[i].message);
        ck_message("step 1: ");
    }
    ck_assert_int_eq(run_plan(out, -1, &source, NULL, 0), AM_EINVAL);
}
END_TEST

/* ---- jobs */

static const am_image_step emit_all = {.kind = AM_IMAGE_EMIT};
enum { RGB_PNG = 90 * 90 * 3 };

static am_image_job *submit_rgb(void)
{
    am_image_source source = picture_at("rgb.png");
    am_image_job *job;
    ck_ok(am_image_submit(&job, &source, &emit_all, 1, RGB_PNG));
    return job;
}

/* More jobs than threads; some cancelled in any state; some waited for out of order. */
START_TEST(test_jobs)
{
    enum { JOBS = 60 };
    static float out[RGB_PNG], first[RGB_PNG];
    for (int threads = 0; threads < 4; threads++) {
        ck_ok(am_image_threads_set(threads));
        ck_assert_int_eq(am_image_threads(), threads);
        am_image_job *jobs[JOBS];
        for (int i = 0; i < JOBS; i++)
            jobs[i] = submit_rgb();
        for (int i = JOBS - 1; i >= 0; i--) {
            if (i % 3) {
                ck_ok(am_image_wait(jobs[i], out));
                if (threads == 0 && i == JOBS - 1)
                    memcpy(first, out, sizeof out);
                ck_assert_mem_eq(out, first, sizeof out);
                ck_assert_int_eq(am_image_wait(jobs[i], out), AM_ESTATE);
            }
            am_image_release(jobs[i]);
        }
    }
    am_image_release(NULL);
    ck_assert_int_eq(am_image_threads_set(-1), AM_EINVAL);
    ck_assert_int_eq(am_image_threads_set(257), AM_EINVAL);
    am_shutdown();
    am_image_job *job = submit_rgb(); /* begins anew */
    ck_ok(am_image_wait(job, out));
    am_image_release(job);
    am_shutdown();
}
END_TEST

/* Errors of threads arrive with their message. */
START_TEST(test_job_errors)
{
    ck_ok(am_image_threads_set(2));
    am_image_job *jobs[20];
    for (int i = 0; i < 20; i++) {
        char name[32];
        snprintf(name, sizeof name, "row %d", i);
        am_image_source source = bytes_of("GIF89a", 6);
        source.name = name;
        ck_ok(am_image_submit(&jobs[i], &source, &emit_all, 1, 10));
    }
    for (int i = 0; i < 20; i++) {
        char name[32];
        float out[10];
        snprintf(name, sizeof name, "row %d: ", i);
        ck_assert_int_eq(am_image_wait(jobs[i], out), AM_EFORMAT);
        ck_message(name);
        am_image_release(jobs[i]);
    }
    am_shutdown();
}
END_TEST

/* A copy of the process has no threads and none of the jobs, and can start its own. */
START_TEST(test_fork)
{
#ifdef __SANITIZE_THREAD__
    printf("SKIP ThreadSanitizer knows no program with threads that forks\n");
    return;
#endif
    static float out[RGB_PNG];
    am_image_job *jobs[10];
    ck_ok(am_image_threads_set(2));
    for (int i = 0; i < 10; i++)
        jobs[i] = submit_rgb();
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        int rc = am_image_wait(jobs[9], out) != AM_ESTATE;
        for (int i = 0; i < 10; i++)
            am_image_release(jobs[i]);
        am_image_job *own = submit_rgb();
        rc |= am_image_wait(own, out) != AM_OK;
        am_image_release(own);
        am_shutdown();
        _exit(rc);
    }
    for (int i = 0; i < 10; i++) {
        ck_ok(am_image_wait(jobs[i], out));
        am_image_release(jobs[i]);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    am_shutdown();
}
END_TEST

/* Memory that runs out at each allocation in turn: an error, nothing held, and then all goes well.
 */
START_TEST(test_no_memory)
{
    static const char *const names[] = {"exif_6.jpg", "grey_16.png", "transparent.gif",
                                        "exif_8.webp"};
    ck_ok(am_image_threads_set(0));
    for (int i = 0; i < 4; i++) {
        am_image_source source = picture_at(names[i]);
        const am_image_step steps[] = {
            {.kind = AM_IMAGE_RESIZE,
             .dst = 1,
             .width = 9,
             .height = 7,
             .filter = AM_IMAGE_BICUBIC},
            {.kind = AM_IMAGE_CROP, .src = 1, .dst = 1, .width = 9, .height = 9},
            {.kind = AM_IMAGE_RESIZE, .src = 1, .dst = 2, .width = 5, .height = 4},
            {.kind = AM_IMAGE_EMIT, .src = 2}};
        float out[60];
        int k = 1, rc;
        for (;; k++) {
            ck_ok(am_mem_fail_at(k));
            rc = run_plan(out, 60, &source, steps, 4);
            if (rc == AM_OK)
                break;
            ck_assert_msg(rc == AM_ENOMEM, "%s: allocation %d: %d", names[i], k, rc);
        }
        ck_ok(am_mem_fail_at(0));
        ck_assert_int_gt(k, 10);
        uint8_t *data;
        size_t bytes;
        for (k = 1;; k++) {
            ck_ok(am_mem_fail_at(k));
            rc = am_image_thumbnail(&data, &bytes, &source, 20);
            if (rc == AM_OK)
                break;
            ck_assert_int_eq(rc, AM_ENOMEM);
        }
        ck_ok(am_mem_fail_at(0));
        am_image_bytes_release(data);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_truncated,  test_flipped, test_garbage_after, test_messages,  test_bombs,
        test_lying_size, test_large,   test_exif,          test_bad_plans, test_jobs,
        test_job_errors, test_fork,    test_no_memory};
    return run_suite("image input", tests, sizeof tests / sizeof *tests);
}
