/* test_safetensors.c — reading files written by the reference implementation, refusing hostile
 * ones, sharing the mapping, and writing. */
#include "core/tensor.h"
#include "io/archive.h"
#include "io_helpers.h"

static am_archive *open_file(const char *path)
{
    am_archive *a;
    ck_ok(am_archive_open(&a, path));
    return a;
}

static am_tensor *get(am_archive *a, const char *name, int dtype, int device)
{
    am_tensor *t;
    int64_t i = am_archive_find(a, name);
    ck_assert_msg(i >= 0, "no tensor %s", name);
    ck_ok(am_archive_tensor(&t, a, i, dtype, device));
    return t;
}

static int device_named(const char *name)
{
    int device;
    ck_ok(am_device_find(&device, name));
    return device;
}

/* ---- reading ----------------------------------------------------------------------------- */

/* data/io/make.py: f32 [3,4] of i / 8 - 0.5, the same in other float types, and small integers. */
START_TEST(test_types)
{
    am_archive *a = open_file(DATA("types.safetensors"));
    ck_assert_str_eq(am_archive_kind(a), "safetensors");
    ck_assert_int_eq((int)am_archive_count(a), 12);
    const char *metadata = am_archive_metadata(a); /* safetensors writes it in any order */
    ck_assert_ptr_nonnull(strstr(metadata, "\"format\":\"pt\""));
    ck_assert_ptr_nonnull(strstr(metadata, "\"note\":\"a \\\"quoted\\\" line\\n\""));
    static const struct {
        const char *name;
        int dtype;
    } floats[] = {{"f32", AM_F32}, {"bf16", AM_BF16}, {"f16", AM_F16}, {"f64", AM_F64}};
    for (size_t k = 0; k < 4; k++) {
        am_tensor *t = get(a, floats[k].name, -1, 0);
        ck_assert_int_eq(am_tensor_dtype(t), floats[k].dtype);
        am_tensor_release(t);
        t = get(a, floats[k].name, AM_F32, 0);
        ck_assert_int_eq(am_tensor_ndim(t), 2);
        ck_assert_int_eq((int)am_tensor_shape(t)[0], 3);
        ck_assert_int_eq((int)am_tensor_shape(t)[1], 4);
        const float *x = am_tensor_data(t);
        for (int i = 0; i < 12; i++)
            ck_assert(x[i] == (float)i / 8 - 0.5f);
        am_tensor_release(t);
    }
    am_tensor *i32 = get(a, "i32", -1, 0), *i64 = get(a, "i64", -1, 0), *u8 = get(a, "u8", -1, 0);
    am_tensor *bools = get(a, "bool", -1, 0), *scalar = get(a, "scalar", -1, 0);
    am_tensor *empty = get(a, "empty", -1, 0), *utf8 = get(a, "na\xc3\xafve.weight", -1, 0);
    ck_assert_mem_eq(am_tensor_data(i32), ((int32_t[]){-1, 0, 2147483647}), 12);
    ck_assert_mem_eq(am_tensor_data(i64), ((int64_t[]){-1, 9007199254740993}), 16);
    ck_assert_mem_eq(am_tensor_data(u8), "\0\xff\7", 3);
    ck_assert_mem_eq(am_tensor_data(bools), "\1\0\1", 3);
    ck_assert_int_eq(am_tensor_ndim(scalar), 0);
    ck_assert(*(float *)am_tensor_data(scalar) == 2.5f);
    ck_assert_int_eq(am_tensor_ndim(empty), 3);
    ck_assert_int_eq((int)am_tensor_numel(empty), 0);
    ck_assert(*(float *)am_tensor_data(utf8) == 1.5f);
    am_tensor *all[] = {i32, i64, u8, bools, scalar, empty, utf8};
    for (int i = 0; i < 7; i++)
        am_tensor_release(all[i]);
    am_archive_release(a);
}
END_TEST

START_TEST(test_type_the_engine_lacks)
{
    am_archive *a = open_file(DATA("types.safetensors"));
    int dtype, ndim;
    const char *stored_as;
    int64_t shape[AM_MAX_DIMS];
    am_tensor *t;
    int64_t i = am_archive_find(a, "i8");
    ck_ok(am_archive_info(a, i, &dtype, &stored_as, &ndim, shape));
    ck_assert_int_eq(dtype, -1);
    ck_assert_str_eq(stored_as, "I8");
    ck_assert_int_eq((int)shape[0], 2);
    ck_assert_int_eq(am_archive_tensor(&t, a, i, -1, 0), AM_EUNSUP);
    ck_message("types.safetensors: tensor \"i8\": stored as I8");
    ck_assert_int_eq(am_archive_tensor(&t, a, 99, -1, 0), AM_EINVAL);
    ck_assert_int_eq(am_archive_tensor(&t, a, -1, -1, 0), AM_EINVAL);
    ck_assert_int_eq(am_archive_tensor(&t, a, 0, 99, 0), AM_EINVAL);
    ck_assert_int_ne(am_archive_tensor(&t, a, 0, -1, 99), AM_OK);
    ck_assert_int_eq(am_archive_info(a, 99, &dtype, &stored_as, &ndim, shape), AM_EINVAL);
    ck_assert_int_eq((int)am_archive_find(a, "absent"), -1);
    ck_assert_ptr_null(am_archive_name(a, 99));
    am_archive_release(a);
}
END_TEST

START_TEST(test_other_devices)
{
    static const char *const devices[] = {"ref", "fence"};
    am_archive *a = open_file(DATA("types.safetensors"));
    for (int k = 0; k < 2; k++) {
        int device = device_named(devices[k]);
        for (int dtype = -1; dtype <= 0; dtype++) { /* as stored, and converted to f32 */
            am_tensor *t = get(a, "bf16", dtype, device);
            float wide[12];
            uint16_t narrow[12];
            ck_assert_int_eq(am_tensor_device(t), device);
            if (dtype < 0) {
                ck_ok(am_tensor_read(t, narrow, sizeof narrow));
                ck_assert_uint_eq(narrow[11], 0x3f60); /* 0.875 */
            } else {
                ck_ok(am_tensor_read(t, wide, sizeof wide));
                ck_assert(wide[11] == 0.875f);
            }
            am_tensor_release(t);
        }
    }
    am_archive_release(a);
}
END_TEST

/* Aligned tensors of the file's dtype lie in the mapping, outlive the archive, and writing to
 * them leaves the file alone. */
START_TEST(test_shared)
{
    size_t bytes, bytes_after;
    char *before = slurp(DATA("types.safetensors"), &bytes);
    am_archive *a = open_file(DATA("types.safetensors"));
    uint8_t *start = a->map->data, *end = start + a->map->bytes;
    am_tensor *t = get(a, "f32", -1, 0), *bf16 = get(a, "bf16", -1, 0),
              *wide = get(a, "bf16", 0, 0);
    uint8_t *data = am_tensor_data(t);
    ck_assert(data >= start && data < end);
    data = am_tensor_data(bf16);
    ck_assert(data >= start && data < end);
    data = am_tensor_data(wide);
    ck_assert(data < start || data >= end);
    am_mem_stats stats;
    ck_ok(am_mem_get(0, &stats));
    ck_assert_int_eq((int)stats.live_storages, 1); /* `wide`; shared bytes are not counted */
    am_archive_release(a);
    ck_ok(am_tensor_fill(t, 7));
    ck_assert(((float *)am_tensor_data(t))[11] == 7.0f);
    char *after = slurp(DATA("types.safetensors"), &bytes_after);
    ck_assert_mem_eq(before, after, bytes);
    free(before);
    free(after);
    am_tensor_release(t);
    am_tensor_release(bf16);
    am_tensor_release(wide);
}
END_TEST

START_TEST(test_scope_owns)
{
    am_archive *a = open_file(DATA("types.safetensors"));
    ck_ok(am_scope_push());
    am_tensor *t = get(a, "f32", -1, 0);
    ck_ok(am_scope_pop());
    ck_assert(!am_tensor_alive(t));
    am_tensor_release(t);
    ck_assert_int_eq(a->map->refs, 1);
    am_archive_release(a);
}
END_TEST

/* ---- hostile files ------------------------------------------------------------------------ */

/* A file of a header and `bytes` zeros, or ones that are not 0 or 1 as bools. */
static char *build(const char *header, size_t data_bytes, int fill, size_t *bytes)
{
    size_t n = strlen(header);
    *bytes = 8 + n + data_bytes;
    char *file = calloc(1, *bytes);
    memcpy(file, &n, 8);
    memcpy(file + 8, header, n);
    memset(file + 8 + n, fill, data_bytes);
    return file;
}

START_TEST(test_hostile_headers)
{
    static const struct {
        const char *header;
        size_t bytes;
        const char *message; /* NULL: accepted */
    } cases[] = {
        {"{}", 0, NULL},
        {"{}  \n", 0, NULL},
        {"{\"__metadata__\":{}}", 0, NULL},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, NULL},
        {"{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[4,5]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         5, NULL},
        {"{\"a\":{\"dtype\":\"F99\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, NULL},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0,9],\"data_offsets\":[0,0]}}", 0, NULL},
        {"{\"a\":1}", 0, "tensor \"a\": described by a number"},
        {"{\"a\":{}}", 0, "\"dtype\" is missing"},
        {"{\"a\":{\"dtype\":1,\"shape\":[],\"data_offsets\":[0,4]}}", 4, "\"dtype\" is missing"},
        {"{\"a\":{\"dtype\":\"F32\\u0000\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, "\"dtype\""},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "\"shape\" is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "not a size"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "not a size"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
         "9 dims"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[]}}", 4, "\"data_offsets\" is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0]}}", 4, "\"data_offsets\""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4.0]}}", 4, "two integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[-4,0]}}", 4, "not a range"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[4,0]}}", 4, "not a range"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,8]}}", 4, "truncated"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,9223372036854775807]}}", 4,
         "truncated"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "F32 of its shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387905],\"data_offsets\":[0,4]}}", 4,
         "too large"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
         "too large"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[4,8]}}", 8, "4 bytes before it"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 5, "1 bytes after"},
        {"{}", 1, "1 bytes after"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}",
         4, "overlap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}",
         6, "overlap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[4,8]}}",
         8, "key \"a\" occurs twice"},
        {"{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, "zero byte"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "\"a\" is not a string"},
        {"{\"__metadata__\":[]}", 0, "__metadata__ is an array"},
        {"[]", 0, "no JSON header"},
        {" {}", 0, "no JSON header"},
        {"{", 0, "no JSON header"},
        {"{} {}", 0, "text after the value"},
        {"{\"a\":\xff}", 0, "JSON line 1, column 6"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t bytes;
        char *file = build(cases[i].header, cases[i].bytes, 0, &bytes);
        int rc = archive_try(file, bytes);
        free(file);
        if (cases[i].message) {
            ck_assert_msg(rc != AM_OK, "accepted: %s", cases[i].header);
            ck_message(cases[i].message);
            ck_message("served: ");
        } else {
            ck_assert_msg(rc == AM_OK, "%s: %s", cases[i].header, am_error_message());
        }
    }
}
END_TEST

START_TEST(test_lying_length)
{
    static const uint64_t lengths[] = {0,         1,          3,          9,
                                       100000001, 1ull << 63, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        char file[10] = "\0\0\0\0\0\0\0\0{}";
        memcpy(file, &lengths[i], 8);
        ck_assert_int_eq(archive_try(file, sizeof file), AM_EFORMAT);
        ck_message("safetensors");
    }
    ck_assert_int_eq(archive_try("", 0), AM_EFORMAT);
    ck_message("0 bytes are no safetensors");
    ck_assert_int_eq(archive_try("version https://git-lfs.github.com/spec/v1\n", 43), AM_EFORMAT);
    ck_message("git lfs pull");
    ck_assert_int_eq(archive_try("PK\3\4 and so on", 13), AM_EFORMAT);
    ck_message("zip");
    am_archive *a;
    ck_assert_int_eq(am_archive_open(&a, "x"), AM_EFORMAT);
}
END_TEST

/* An f32 at an odd address is copied; bytes of a bool become 0 or 1. */
START_TEST(test_unaligned_and_bool)
{
    size_t bytes;
    char *file = build("{\"b\":{\"dtype\":\"BOOL\",\"shape\":[1],\"data_offsets\":[0,1]},"
                       "\"f\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1,5]}}",
                       5, 0x40, &bytes);
    serve(file, bytes);
    am_archive *a = open_file("served");
    am_tensor *b = get(a, "b", -1, 0), *f = get(a, "f", -1, 0);
    ck_assert_int_eq(*(uint8_t *)am_tensor_data(b), 1);
    ck_assert(*(float *)am_tensor_data(f) == 3.00392151f); /* 0x40404040 */
    ck_assert_int_eq(a->map->refs, 1);
    am_tensor_release(b);
    am_tensor_release(f);
    am_archive_release(a);
    free(file);
}
END_TEST

START_TEST(test_truncated_and_flipped)
{
    archive_torture(DATA("types.safetensors"), 0);
}
END_TEST

START_TEST(test_open_without_memory)
{
    int failures = 0;
    for (int64_t k = 1;; k++, failures++) {
        am_archive *a = NULL;
        am_mem_fail_at(k);
        int rc = am_archive_open(&a, DATA("types.safetensors"));
        am_tensor *t = NULL;
        if (rc == AM_OK)
            rc = am_archive_tensor(&t, a, am_archive_find(a, "bf16"), AM_F32, 0);
        am_mem_fail_at(0);
        am_tensor_release(t);
        am_archive_release(a);
        if (rc == AM_OK)
            break;
        ck_assert_int_eq(rc, AM_ENOMEM);
    }
    ck_assert_int_ge(failures, 8);
}
END_TEST

/* ---- writing ------------------------------------------------------------------------------ */

static am_tensor *counting(int dtype, int ndim, const int64_t *shape, int device)
{
    am_tensor *t, *f;
    ck_ok(am_tensor_new(&t, dtype, ndim, shape, device));
    ck_ok(am_tensor_new(&f, AM_F32, ndim, shape, 0));
    for (int64_t i = 0; i < am_tensor_numel(f); i++)
        ((float *)am_tensor_data(f))[i] = (float)(i % 100) / 4;
    ck_ok(am_tensor_copy(t, f));
    am_tensor_release(f);
    return t;
}

/* All dtypes; a transposed view; another device. Read back and compared with the originals. */
START_TEST(test_save)
{
    const int64_t shape[] = {3, 5}, swapped[] = {5, 3};
    am_tensor *t[AM_DTYPE_COUNT + 4], *view, *dense;
    const char *names[AM_DTYPE_COUNT + 4];
    int n = 0, fence = device_named("fence");
    for (int d = 0; d < AM_DTYPE_COUNT; d++, n++) {
        names[n] = am_dtype_name(d);
        t[n] = counting(d, 2, shape, 0);
    }
    const int64_t column[] = {1, 5};
    ck_ok(am_tensor_as_strided(&view, t[0], 2, swapped, column, 0));
    ck_ok(am_tensor_new(&dense, AM_F32, 2, swapped, 0));
    ck_ok(am_tensor_copy(dense, view));
    names[n] = "transposed \"\xc3\xa9\"";
    t[n++] = view;
    names[n] = "on fence";
    t[n++] = counting(AM_BF16, 2, shape, fence);
    names[n] = "scalar";
    t[n++] = counting(AM_F32, 0, NULL, 0);
    names[n] = "empty";
    t[n++] = counting(AM_F32, 2, (int64_t[]){0, 5}, 0);
    const char *path = folder_path("a.safetensors");
    ck_ok(am_safetensors_save(path, n, names, t, NULL));

    am_archive *a = open_file(path);
    ck_assert_str_eq(am_archive_metadata(a), "{\"format\":\"pt\"}");
    ck_assert_int_eq((int)am_archive_count(a), n);
    for (int i = 0; i < n; i++) {
        ck_assert_str_eq(am_archive_name(a, i), names[i]); /* the order given */
        am_tensor *back = get(a, names[i], -1, 0), *expected = t[i] == view ? dense : t[i];
        ck_assert_int_eq(am_tensor_dtype(back), am_tensor_dtype(expected));
        ck_assert(am_shape_equal(back, expected));
        size_t bytes = (size_t)am_tensor_numel(back) * (size_t)am_dtype_size(back->dtype);
        char want[128], got[128];
        ck_ok(am_tensor_read(expected, want, bytes));
        ck_ok(am_tensor_read(back, got, bytes));
        ck_assert(memcmp(want, got, bytes) == 0);
        /* Every tensor is aligned for its dtype, whatever stands before it. */
        ck_assert_uint_eq(a->entries[i].offset % (size_t)am_dtype_size(back->dtype), 0);
        am_tensor_release(back);
    }
    am_archive_release(a);
    for (int i = 0; i < n; i++)
        am_tensor_release(t[i]);
    am_tensor_release(dense);
    size_t bytes;
    char *file = slurp(path, &bytes);
    uint64_t header;
    memcpy(&header, file, 8);
    ck_assert_uint_eq(header % 8, 0);
    free(file);
}
END_TEST

/* The bytes of a file, so that a change of layout is seen. */
START_TEST(test_save_layout)
{
    const int64_t one = 1;
    am_tensor *u8 = counting(AM_U8, 1, &one, 0), *f32 = counting(AM_F32, 1, &one, 0);
    const char *path = folder_path("a.safetensors"), *names[] = {"u", "f"};
    ck_ok(am_safetensors_save(path, 2, names, (am_tensor *[]){u8, f32}, "{\"k\":\"v\"}"));
    static const char header[] = "{\"__metadata__\":{\"k\":\"v\"},"
                                 "\"u\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[4,5]},"
                                 "\"f\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
    size_t bytes, length = (sizeof header - 1 + 7) / 8 * 8;
    char *file = slurp(path, &bytes);
    ck_assert_uint_eq(bytes, 8 + length + 5);
    ck_assert_uint_eq(*(unsigned char *)file, length);
    ck_assert_mem_eq(file + 8, header, sizeof header - 1);
    for (size_t i = sizeof header - 1; i < length; i++)
        ck_assert_int_eq(file[8 + i], ' ');
    free(file);
    am_tensor_release(u8);
    am_tensor_release(f32);
}
END_TEST

/* More than one chunk from a device whose memory the host can't read. */
START_TEST(test_save_large_from_device)
{
    const int64_t numel = (8 << 20) / 4 * 2 + 3;
    am_tensor *t = counting(AM_F32, 1, &numel, device_named("fence"));
    const char *path = folder_path("a.safetensors"), *name = "t";
    ck_ok(am_safetensors_save(path, 1, &name, &t, NULL));
    am_archive *a = open_file(path);
    am_tensor *back = get(a, "t", -1, 0);
    const float *x = am_tensor_data(back);
    for (int64_t i = 0; i < numel; i++)
        if (x[i] != (float)(i % 100) / 4)
            ck_abort_msg("element %lld is %g", (long long)i, (double)x[i]);
    am_tensor_release(back);
    am_tensor_release(t);
    am_archive_release(a);
}
END_TEST

/* A file can be written over while its tensors are in use, and from them. */
START_TEST(test_save_over_mapping)
{
    const int64_t shape = 1000;
    const char *path = folder_path("a.safetensors"), *name = "t";
    am_tensor *t = counting(AM_F32, 1, &shape, 0);
    ck_ok(am_safetensors_save(path, 1, &name, &t, NULL));
    am_tensor_release(t);
    am_archive *a = open_file(path);
    t = get(a, "t", -1, 0);
    am_archive_release(a);
    ((float *)am_tensor_data(t))[999] = -1;
    ck_ok(am_safetensors_save(path, 1, &name, &t, NULL));
    ck_assert(((float *)am_tensor_data(t))[1] == 0.25f);
    am_tensor_release(t);
    a = open_file(path);
    t = get(a, "t", -1, 0);
    ck_assert(((float *)am_tensor_data(t))[999] == -1);
    am_tensor_release(t);
    am_archive_release(a);
}
END_TEST

START_TEST(test_save_refused)
{
    const int64_t one = 1;
    am_tensor *t = counting(AM_F32, 1, &one, 0), *two[] = {t, t}, *gone[] = {NULL};
    const char *path = folder_path("a.safetensors");
    const char *a[] = {"a", "a"}, *bad[] = {"\xff"}, *metadata[] = {"__metadata__"};
    ck_assert_int_eq(am_safetensors_save(path, 2, a, two, NULL), AM_EINVAL);
    ck_message("a.safetensors");
    ck_message("\"a\" occurs twice");
    ck_assert_int_eq(am_safetensors_save(path, 1, bad, &t, NULL), AM_EINVAL);
    ck_message("not UTF-8");
    ck_assert_int_eq(am_safetensors_save(path, 1, metadata, &t, NULL), AM_EINVAL);
    ck_assert_int_eq(am_safetensors_save(path, 1, a, &t, "{\"a\":1}"), AM_EINVAL);
    ck_message("JSON object of strings");
    ck_assert_int_eq(am_safetensors_save(path, 1, a, &t, "{"), AM_EINVAL);
    ck_assert_int_eq(am_safetensors_save(path, 1, a, gone, NULL), AM_EINVAL);
    ck_assert_int_eq(am_safetensors_save(folder_path("absent/b"), 1, a, &t, NULL), AM_EIO);
    ck_message("absent/b");
    ck_assert_int_eq(folder_count(), 0);
    am_tensor_release(t);
}
END_TEST

static ssize_t full_disk(int fd, const void *data, size_t bytes)
{
    (void)fd, (void)data, (void)bytes;
    errno = ENOSPC;
    return -1;
}

START_TEST(test_save_disk_full)
{
    const int64_t shape = 100;
    am_tensor *t = counting(AM_F32, 1, &shape, 0);
    const char *path = folder_path("a.safetensors"), *name = "t";
    ck_ok(am_file_save(path, "old", 3));
    am_file_system.write = full_disk;
    ck_assert_int_eq(am_safetensors_save(path, 1, &name, &t, NULL), AM_EIO);
    ck_message("504 bytes are needed"); /* 8 + 96 of header, 400 of data */
    ck_assert_int_eq(folder_count(), 1);
    size_t bytes;
    char *file = slurp(path, &bytes);
    ck_assert_uint_eq(bytes, 3);
    free(file);
    am_tensor_release(t);
}
END_TEST

START_TEST(test_save_without_memory)
{
    const int64_t shape[] = {3, 5}, swapped[] = {5, 3}, column[] = {1, 5};
    am_tensor *t = counting(AM_F32, 2, shape, 0), *view;
    ck_ok(am_tensor_as_strided(&view, t, 2, swapped, column, 0));
    const char *path = folder_path("a.safetensors"), *name = "t";
    int failures = 0;
    for (int64_t k = 1;; k++, failures++) {
        am_mem_fail_at(k);
        int rc = am_safetensors_save(path, 1, &name, &view, NULL);
        am_mem_fail_at(0);
        if (rc == AM_OK)
            break;
        ck_assert_int_eq(rc, AM_ENOMEM);
        ck_assert_int_eq(folder_count(), 0);
    }
    ck_assert_int_ge(failures, 8);
    am_tensor_release(view);
    am_tensor_release(t);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_types,
        test_type_the_engine_lacks,
        test_other_devices,
        test_shared,
        test_scope_owns,
        test_hostile_headers,
        test_lying_length,
        test_unaligned_and_bool,
        test_truncated_and_flipped,
        test_open_without_memory,
        test_save,
        test_save_layout,
        test_save_large_from_device,
        test_save_over_mapping,
        test_save_refused,
        test_save_disk_full,
        test_save_without_memory,
    };
    return run_suite("safetensors", tests, sizeof tests / sizeof *tests);
}
