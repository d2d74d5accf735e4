/* test_gguf_write.c — GGUF files as they are written: bytes of every type against ggml's reference
 * (data/io/make_quantised.py), key-values read back, and refusals that leave no file. */
#include <math.h>

#include "io/archive.h"
#include "io/gguf.h"
#include "io_helpers.h"

enum { ROWS = 8, COLUMNS = 512 };

/* Begin a file of one tensor "t". */
static int begin(am_gguf_writer **w, const char *type, int ndim, const int64_t *shape,
                 const char *metadata)
{
    static const char *const names[] = {"t"};
    int64_t shapes[AM_MAX_DIMS] = {0};
    memcpy(shapes, shape, (size_t)ndim * sizeof *shape);
    *w = NULL;
    return am_gguf_writer_begin(w, folder_path("out.gguf"), metadata, 1, names, &type, &ndim,
                                shapes);
}

static am_tensor *numbers(int64_t rows, int64_t columns, float value)
{
    am_tensor *t;
    ck_ok(am_tensor_new(&t, AM_F32, 2, (int64_t[]){rows, columns}, 0));
    ck_ok(am_tensor_fill(t, (double)value));
    return t;
}

static const am_archive_entry *entry(const am_archive *a, const char *name)
{
    int64_t i = am_archive_find(a, name);
    ck_assert_msg(i >= 0, "no tensor %s", name);
    return &a->entries[i];
}

/* ---- writing ------------------------------------------------------------------------------ */

static const char *const types[] = {"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_0", "Q4_K"};
enum { TYPES = sizeof types / sizeof *types };

START_TEST(test_bytes_of_every_type)
{
    am_archive *golden, *written;
    am_gguf_writer *w;
    am_tensor *x, *turned, *far;
    int ndims[TYPES], fence;
    int64_t shapes[TYPES * AM_MAX_DIMS] = {0};
    ck_ok(am_archive_open(&golden, DATA("quantised.gguf")));
    ck_ok(am_archive_tensor(&x, golden, am_archive_find(golden, "x"), -1, 0));
    for (int k = 0; k < TYPES; k++) {
        ndims[k] = 2;
        shapes[k * AM_MAX_DIMS] = ROWS;
        shapes[k * AM_MAX_DIMS + 1] = COLUMNS;
    }
    ck_ok(am_gguf_writer_begin(&w, folder_path("out.gguf"), "{}", TYPES, types, types, ndims,
                               shapes));
    /* strided, and of another device */
    ck_ok(am_tensor_new(&turned, AM_F32, 2, (int64_t[]){COLUMNS, ROWS}, 0));
    float *const from = am_tensor_data(x), *const to = am_tensor_data(turned);
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++)
            to[j * ROWS + i] = from[i * COLUMNS + j];
    am_tensor *strided;
    ck_ok(am_tensor_as_strided(&strided, turned, 2, (int64_t[]){ROWS, COLUMNS},
                               (int64_t[]){1, ROWS}, 0));
    ck_ok(am_device_find(&fence, "fence"));
    ck_ok(am_archive_tensor(&far, golden, am_archive_find(golden, "x"), -1, fence));
    am_tensor *const given[] = {x, strided, far};
    for (int k = 0; k < TYPES; k++)
        ck_ok(am_gguf_writer_add(w, given[k % 3]));
    ck_ok(am_gguf_writer_commit(w));
    am_gguf_writer_release(w);
    ck_assert_int_eq(folder_count(), 1);

    ck_ok(am_archive_open(&written, folder_path("out.gguf")));
    for (int k = 0; k < TYPES; k++) {
        const am_archive_entry *have = entry(written, types[k]);
        const am_archive_entry *want = entry(golden, k == 0 ? "x" : types[k]);
        ck_assert_str_eq(have->stored_as, types[k]);
        ck_assert_uint_eq(have->bytes, want->bytes);
        ck_assert(have->offset % 32 == 0 && have->ndim == 2 && have->shape[1] == COLUMNS);
        for (size_t i = 0; i < have->bytes; i++)
            ck_assert_msg(written->map->data[have->offset + i] ==
                              golden->map->data[want->offset + i],
                          "%s: byte %zu", types[k], i);
    }
    am_archive_release(written);
    am_archive_release(golden);
    am_tensor *all[] = {x, turned, strided, far};
    for (int i = 0; i < 4; i++)
        am_tensor_release(all[i]);
}
END_TEST

START_TEST(test_metadata)
{
    am_gguf_writer *w;
    am_archive *a;
    const am_gguf_array *array;
    size_t bytes;
    ck_ok(am_gguf_writer_begin(
        &w, folder_path("out.gguf"),
        "{\"u8\":{\"u8\":255},\"i8\":{\"i8\":-128},\"u16\":{\"u16\":65535},\"i16\":{\"i16\":-1},"
        "\"u32\":{\"u32\":4294967295},\"i32\":{\"i32\":-2147483648},\"u64\":{\"u64\":1},"
        "\"i64\":{\"i64\":-5},\"f32\":{\"f32\":0.1},\"f64\":{\"f64\":0.1},\"b\":{\"bool\":true},"
        "\"s\":{\"string\":\"\xc3\xa9 \\u0000\"},\"as\":{\"string\":[\"a\",\"\"]},"
        "\"ai\":{\"i32\":[-1,2]},\"none\":{\"f32\":[]}}",
        0, NULL, NULL, NULL, NULL));
    ck_ok(am_gguf_writer_commit(w));
    am_gguf_writer_release(w);
    ck_ok(am_archive_open(&a, folder_path("out.gguf")));
    ck_assert_str_eq(am_archive_metadata(a),
                     "{\"u8\":255,\"i8\":-128,\"u16\":65535,\"i16\":-1,\"u32\":4294967295,"
                     "\"i32\":-2147483648,\"u64\":1,\"i64\":-5,\"f32\":0.10000000149011612,"
                     "\"f64\":0.1,\"b\":true,\"s\":\"\xc3\xa9 \\u0000\",\"as\":[\"a\",\"\"],"
                     "\"ai\":[-1,2],\"none\":[]}");
    ck_ok(am_gguf_array_find(&array, a, "as"));
    am_gguf_array_string(array, 0, &bytes);
    ck_assert_uint_eq(bytes, 1);
    am_archive_release(a);
}
END_TEST

/* Blocks whose scale is too small for a float's inverse become zeros. */
START_TEST(test_tiny_numbers)
{
    static const char *const quantised[] = {"Q8_0", "Q4_0", "Q5_0", "Q4_K"};
    for (int k = 0; k < 4; k++) {
        am_gguf_writer *w;
        am_archive *a;
        am_tensor *t = numbers(1, 256, 1e-44f), *back;
        ck_ok(begin(&w, quantised[k], 2, (int64_t[]){1, 256}, "{}"));
        ck_ok(am_gguf_writer_add(w, t));
        ck_ok(am_gguf_writer_commit(w));
        am_gguf_writer_release(w);
        ck_ok(am_archive_open(&a, folder_path("out.gguf")));
        ck_ok(am_archive_tensor(&back, a, 0, -1, 0));
        for (int i = 0; i < 256; i++)
            ck_assert(((float *)am_tensor_data(back))[i] == 0);
        am_tensor_release(back);
        am_tensor_release(t);
        am_archive_release(a);
    }
}
END_TEST

/* ---- refusals ----------------------------------------------------------------------------- */

static void refused(int rc, int code, const char *message, am_gguf_writer **w)
{
    ck_assert_msg(rc == code, "%d instead of %d: %s", rc, code, am_error_message());
    ck_message(message);
    ck_message("out.gguf");
    am_gguf_writer_release(*w);
    ck_assert_int_eq(folder_count(), 0);
}

START_TEST(test_refused_metadata)
{
    static const struct {
        const char *metadata, *message;
    } cases[] = {
        {"[]", "an array, no object"},
        {"{", "GGUF metadata"},
        {"{\"k\":1}", "\"k\" is no object of one type"},
        {"{\"k\":{\"u7\":1}}", "\"k\" is no object of one type"},
        {"{\"k\":{\"array\":1}}", "\"k\" is no object of one type"},
        {"{\"k\":{\"u8\":256}}", "\"k\": a number is no u8"},
        {"{\"k\":{\"u32\":-1}}", "is no u32"},
        {"{\"k\":{\"i32\":0.5}}", "is no i32"},
        {"{\"k\":{\"string\":[\"a\",1]}}", "a number is no string"},
        {"{\"k\":{\"bool\":1}}", "is no bool"},
        {"{\"k\":{\"u8\":1},\"k\":{\"u8\":1}}", "k"},
        {"{\"\":{\"u8\":1}}", "no name of a key"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        am_gguf_writer *w;
        int rc = begin(&w, "F32", 1, (int64_t[]){1}, cases[i].metadata);
        refused(rc, AM_EINVAL, cases[i].message, &w);
    }
}
END_TEST

START_TEST(test_refused_tensors)
{
    am_gguf_writer *w;
    refused(begin(&w, "Q6_K", 1, (int64_t[]){256}, "{}"), AM_EUNSUP, "\"t\": type \"Q6_K\"", &w);
    refused(begin(&w, "nonsense", 1, (int64_t[]){256}, "{}"), AM_EUNSUP, "cannot be written", &w);
    refused(begin(&w, "Q8_0", 2, (int64_t[]){2, 33}, "{}"), AM_EINVAL, "rows of 33", &w);
    refused(begin(&w, "Q4_K", 2, (int64_t[]){2, 128}, "{}"), AM_EINVAL, "blocks of 256", &w);
    refused(begin(&w, "F32", 2, (int64_t[]){2, 0}, "{}"), AM_EINVAL, "dim 1 is 0", &w);
    refused(begin(&w, "F32", 2, (int64_t[]){1ll << 62, 4}, "{}"), AM_EINVAL, "dim 1", &w);
    refused(begin(&w, "F32", 5, (int64_t[]){1, 1, 1, 1, 1}, "{}"), AM_EINVAL, "5 dims", &w);
    const char *twice[] = {"a", "a"}, *kinds[] = {"F32", "F32"};
    int64_t shapes[2 * AM_MAX_DIMS] = {1};
    shapes[AM_MAX_DIMS] = 1;
    w = NULL;
    refused(am_gguf_writer_begin(&w, folder_path("out.gguf"), "{}", 2, twice, kinds, (int[]){1, 1},
                                 shapes),
            AM_EINVAL, "two tensors are named \"a\"", &w);
    char name[65] = {0};
    memset(name, 'n', 64);
    twice[0] = name;
    w = NULL;
    refused(am_gguf_writer_begin(&w, folder_path("out.gguf"), "{}", 1, twice, kinds, (int[]){1},
                                 shapes),
            AM_EINVAL, "1 to 63 bytes", &w);
}
END_TEST

START_TEST(test_refused_numbers)
{
    am_gguf_writer *w;
    static const struct {
        const char *type;
        float value;
        const char *message;
    } cases[] = {{"Q8_0", NAN, "\"t\": it holds numbers that are not finite, which Q8_0"},
                 {"Q4_K", INFINITY, "not finite"},
                 {"Q4_0", 1e7f, "too large for Q4_0"},
                 {"Q8_0", 1e9f, "too large for Q8_0"},
                 {"Q5_0", 1e7f, "too large"},
                 {"Q4_K", -1e9f, "too large"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        am_tensor *t = numbers(1, 256, cases[i].value);
        ck_ok(begin(&w, cases[i].type, 2, (int64_t[]){1, 256}, "{}"));
        refused(am_gguf_writer_add(w, t), AM_EINVAL, cases[i].message, &w);
        am_tensor_release(t);
    }
}
END_TEST

START_TEST(test_order)
{
    am_gguf_writer *w;
    am_tensor *t = numbers(2, 32, 1), *other = numbers(32, 2, 1), *whole;
    ck_ok(am_tensor_new(&whole, AM_I32, 2, (int64_t[]){2, 32}, 0));
    ck_ok(begin(&w, "F32", 2, (int64_t[]){2, 32}, "{}"));
    ck_assert_int_eq(am_gguf_writer_commit(w), AM_ESTATE);
    ck_message("0 of 1 tensors");
    ck_assert_int_eq(am_gguf_writer_add(w, other), AM_EINVAL);
    ck_message("\"t\": its shape");
    ck_assert_int_eq(am_gguf_writer_add(w, whole), AM_EINVAL);
    ck_message("int32");
    ck_ok(am_gguf_writer_add(w, t));
    refused(am_gguf_writer_add(w, t), AM_ESTATE, "all of its 1 tensors", &w);
    am_tensor_release(t);
    am_tensor_release(other);
    am_tensor_release(whole);
}
END_TEST

static ssize_t no_room(int fd, const void *data, size_t bytes)
{
    (void)fd, (void)data, (void)bytes;
    errno = ENOSPC;
    return -1;
}

START_TEST(test_full_disk)
{
    am_gguf_writer *w;
    am_tensor *t = numbers(2, 32, 1);
    ck_ok(begin(&w, "F32", 2, (int64_t[]){2, 32}, "{}"));
    am_file_system.write = no_room;
    refused(am_gguf_writer_add(w, t), AM_EIO, "No space left on device", &w);
    refused(begin(&w, "F32", 2, (int64_t[]){2, 32}, "{}"), AM_EIO, "No space left on device", &w);
    am_tensor_release(t);
}
END_TEST

/* An old file stays until the new one is whole. */
START_TEST(test_old_file_stays)
{
    am_gguf_writer *w;
    FILE *f = fopen(folder_path("out.gguf"), "wb");
    fputs("old", f);
    fclose(f);
    ck_ok(begin(&w, "F32", 2, (int64_t[]){2, 32}, "{}"));
    am_gguf_writer_release(w);
    size_t bytes;
    char *data = slurp(folder_path("out.gguf"), &bytes);
    ck_assert_uint_eq(bytes, 3);
    free(data);
    ck_assert_int_eq(folder_count(), 1);
}
END_TEST

START_TEST(test_without_memory)
{
    int failures = 0;
    am_tensor *t = numbers(2, 32, 1);
    for (int64_t k = 1;; k++, failures++) {
        am_gguf_writer *w = NULL;
        am_mem_fail_at(k);
        int rc = begin(&w, "Q8_0", 2, (int64_t[]){2, 32}, "{\"a\":{\"string\":[\"b\"]}}");
        if (rc == AM_OK)
            rc = am_gguf_writer_add(w, t);
        if (rc == AM_OK)
            rc = am_gguf_writer_commit(w);
        am_mem_fail_at(0);
        am_gguf_writer_release(w);
        if (rc == AM_OK)
            break;
        ck_assert_int_eq(rc, AM_ENOMEM);
        ck_assert_int_eq(folder_count(), 0);
    }
    ck_assert_int_ge(failures, 8);
    am_tensor_release(t);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_bytes_of_every_type, test_metadata,        test_tiny_numbers, test_refused_metadata,
        test_refused_tensors,     test_refused_numbers, test_order,        test_full_disk,
        test_old_file_stays,      test_without_memory,
    };
    return run_suite("gguf_write", tests, sizeof tests / sizeof *tests);
}
