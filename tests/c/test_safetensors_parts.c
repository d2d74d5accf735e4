/* test_safetensors_parts.c — safetensors files written in parts: by several who know nothing of one
 * another, later, beside the program, onto a full disk. */
#include "core/tensor.h"
#include "io/archive.h"
#include "io_helpers.h"

enum { N = 6 };
static const char *const names[N] = {"half", "double", "matrix", "scalar", "flags", "empty"};
static const int dtypes[N] = {AM_BF16, AM_F64, AM_F32, AM_F32, AM_BOOL, AM_F32};
static const int ndims[N] = {1, 2, 2, 0, 1, 2};
static const int64_t shapes[N][2] = {{7}, {5, 3}, {9, 4}, {0}, {11}, {0, 4}};

static void fill_specs(am_parts_spec *specs)
{
    memset(specs, 0, N * sizeof *specs);
    for (int i = 0; i < N; i++) {
        specs[i] = (am_parts_spec){.name = names[i], .dtype = dtypes[i], .ndim = ndims[i]};
        memcpy(specs[i].shape, shapes[i], sizeof shapes[i]);
    }
}

static void make_tensors(am_tensor **tensors)
{
    for (int i = 0; i < N; i++) {
        ck_ok(am_tensor_make(&tensors[i], dtypes[i], ndims[i], shapes[i], 0));
        uint8_t *bytes = am_tensor_data(tensors[i]);
        for (int64_t k = 0; k < am_tensor_bytes(tensors[i]); k++)
            bytes[k] = (uint8_t)(dtypes[i] == AM_BOOL ? k % 2 : k * 7 + i);
    }
}

static void release_all(am_tensor **tensors)
{
    for (int i = 0; i < N; i++)
        am_tensor_release(tensors[i]);
}

/* Rows [first, first + n) as a view. */
static am_tensor *rows(am_tensor *t, int64_t first, int64_t n)
{
    int64_t shape[AM_MAX_DIMS];
    am_tensor *view;
    memcpy(shape, t->shape, sizeof shape);
    shape[0] = n;
    ck_ok(am_tensor_view(&view, t, t->ndim, shape, t->stride, first * t->stride[0]));
    return view;
}

/* The k-th of `count` puts its rows, as a rank does; scalars are the first one's. */
static void put_share(am_parts *p, am_tensor **tensors, int k, int count)
{
    for (int i = 0; i < N; i++) {
        if (ndims[i] == 0) {
            if (k == 0)
                ck_ok(am_parts_put(p, i, 0, tensors[i]));
            continue;
        }
        int64_t size = shapes[i][0], chunk = (size + count - 1) / count, first = k * chunk;
        first = first < size ? first : size;
        am_tensor *part = rows(tensors[i], first, size - first < chunk ? size - first : chunk);
        ck_ok(am_parts_put(p, i, first, part));
        am_tensor_release(part);
    }
}

static void same_files(const char *a, const char *b)
{
    size_t na, nb;
    char *x = slurp(a, &na), *y = slurp(b, &nb);
    ck_assert_uint_eq(na, nb);
    ck_assert_mem_eq(x, y, na);
    free(x);
    free(y);
}

static void save_whole(const char *path, am_tensor **tensors)
{
    ck_ok(am_safetensors_save(path, N, names, tensors, "{\"format\":\"pt\",\"x\":\"y\"}"));
}

static am_parts *open_with(const char *path, int flags)
{
    am_parts_spec specs[N];
    am_parts *p;
    fill_specs(specs);
    ck_ok(am_parts_open(&p, path, N, specs, "{\"format\":\"pt\",\"x\":\"y\"}", flags));
    return p;
}

/* One, three and twenty writers make the bytes that am_safetensors_save makes. */
START_TEST(test_same_bytes)
{
    am_tensor *tensors[N];
    make_tensors(tensors);
    char whole[512], path[512];
    snprintf(whole, sizeof whole, "%s", folder_path("whole"));
    snprintf(path, sizeof path, "%s", folder_path("parts"));
    save_whole(whole, tensors);
    static const int counts[] = {1, 3, 20};
    for (int c = 0; c < 3; c++)
        for (int later = 0; later <= AM_PARTS_LATER; later += AM_PARTS_LATER) {
            am_parts *p[20];
            for (int k = 0; k < counts[c]; k++)
                p[k] = open_with(path, (k == 0 ? AM_PARTS_MAKE : 0) | later);
            for (int k = counts[c] - 1; k >= 0; k--)
                put_share(p[k], tensors, k, counts[c]);
            size_t bytes;
            free(slurp(path, &bytes));
            ck_assert_int_eq((int64_t)bytes, am_parts_size(p[0]));
            for (int k = 0; k < counts[c]; k++) {
                ck_ok(am_parts_finish(p[k], NULL));
                am_parts_release(p[k]);
            }
            same_files(whole, path);
            unlink(path);
        }
    release_all(tensors);
}
END_TEST

START_TEST(test_strided_and_device)
{
    const int64_t shape[] = {4, 3}, swapped[] = {3, 4}, stride[] = {1, 3};
    am_tensor *t, *view, *other;
    int device;
    ck_ok(am_device_find(&device, "fence"));
    ck_ok(am_tensor_make(&t, AM_F32, 2, shape, 0));
    for (int i = 0; i < 12; i++)
        ((float *)am_tensor_data(t))[i] = (float)i;
    ck_ok(am_tensor_view(&view, t, 2, swapped, stride, 0));
    ck_ok(am_tensor_make(&other, AM_F32, 2, shape, device));
    ck_ok(am_tensor_copy(other, t));
    am_parts_spec specs[] = {{.name = "view", .dtype = AM_F32, .ndim = 2, .shape = {3, 4}},
                             {.name = "other", .dtype = AM_F32, .ndim = 2, .shape = {4, 3}}};
    const char *path = folder_path("a"), *two[] = {"view", "other"};
    am_parts *p;
    ck_ok(am_parts_open(&p, path, 2, specs, NULL, AM_PARTS_MAKE));
    ck_ok(am_parts_put(p, 0, 0, view));
    ck_ok(am_parts_put(p, 1, 0, other));
    ck_ok(am_parts_finish(p, NULL));
    ck_assert_int_eq(am_parts_put(p, 1, 0, other), AM_ESTATE);
    ck_message("written already");
    am_parts_release(p);
    const char *whole = folder_path("b");
    ck_ok(am_safetensors_save(whole, 2, two, (am_tensor *[]){view, other}, NULL));
    same_files(path, whole);
    ck_ok(am_parts_open(&p, path, 2, specs, NULL, AM_PARTS_LATER));
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(am_parts_put(p, i, 0, i ? other : view), AM_EINVAL);
        ck_message(two[i]);
        ck_message("dense, and in the host's memory");
    }
    am_parts_release(p);
    am_tensor_release(view);
    am_tensor_release(t);
    am_tensor_release(other);
}
END_TEST

/* In a thread, several files; what is kept outlives the tensors it came from. */
START_TEST(test_beside)
{
    am_tensor *tensors[N];
    make_tensors(tensors);
    char whole[512], path[512], second[512];
    snprintf(whole, sizeof whole, "%s", folder_path("whole"));
    snprintf(path, sizeof path, "%s", folder_path("a"));
    snprintf(second, sizeof second, "%s", folder_path("b"));
    save_whole(whole, tensors);
    am_parts *p[2];
    for (int k = 0; k < 2; k++) {
        p[k] = open_with(k ? second : path, AM_PARTS_MAKE | AM_PARTS_LATER | AM_PARTS_DIGEST);
        put_share(p[k], tensors, 0, 1);
    }
    release_all(tensors);
    am_writing *w;
    ck_ok(am_writing_begin(&w, 2, p, 2, (const char *[]){whole, test_folder}));
    ck_assert_int_eq(am_parts_finish(p[0], NULL), AM_ESTATE);
    ck_message("is being written");
    am_writing *lacking;
    ck_ok(am_writing_begin(&lacking, 0, NULL, 1, (const char *[]){"/nowhere/at all"}));
    ck_assert_int_eq(am_writing_wait(lacking), AM_EIO);
    ck_message("/nowhere/at all: cannot open");
    am_writing_release(lacking);
    am_writing *again;
    ck_assert_int_eq(am_writing_begin(&again, 1, p, 0, NULL), AM_ESTATE);
    while (!am_writing_done(w))
        usleep(100);
    ck_ok(am_writing_wait(w));
    ck_ok(am_writing_wait(w));
    for (int k = 0; k < 2; k++) {
        uint8_t digest[AM_HASH_BYTES], want[AM_HASH_BYTES];
        ck_ok(am_parts_finish(p[k], digest));
        ck_ok(am_hash_file(want, whole));
        ck_assert_mem_eq(digest, want, sizeof want);
        am_parts_release(p[k]);
    }
    am_writing_release(w);
    same_files(path, whole);
    same_files(second, whole);
}
END_TEST

static ssize_t full_disk(int fd, const void *data, size_t bytes, off_t at)
{
    (void)fd, (void)data, (void)bytes, (void)at;
    errno = ENOSPC;
    return -1;
}

static int too_large(int fd, off_t bytes)
{
    (void)fd, (void)bytes;
    errno = EFBIG;
    return -1;
}

START_TEST(test_full_disk)
{
    am_tensor *tensors[N];
    make_tensors(tensors);
    char path[512];
    snprintf(path, sizeof path, "%s", folder_path("a"));
    for (int later = 0; later <= AM_PARTS_LATER; later += AM_PARTS_LATER) {
        am_file_system = system_ops;
        am_parts *p = open_with(path, AM_PARTS_MAKE | later), *next = open_with(path, later);
        am_file_system.write_at = full_disk;
        int rc = am_parts_put(p, 2, 0, tensors[2]);
        if (later) {
            ck_assert_int_eq(rc, AM_OK);
            am_writing *w;
            ck_ok(am_writing_begin(&w, 2, (am_parts *[]){p, next}, 0, NULL));
            rc = am_writing_wait(w);
            ck_assert_int_eq(am_writing_wait(w), AM_EIO);
            am_writing_release(w);
        }
        ck_assert_int_eq(rc, AM_EIO);
        ck_message(path);
        ck_message("No space left on device: 144 bytes are needed");
        am_parts_release(p);
        am_parts_release(next);
    }
    am_file_system.cut = too_large;
    am_parts_spec specs[N];
    am_parts *p;
    fill_specs(specs);
    ck_assert_int_eq(am_parts_open(&p, path, N, specs, NULL, AM_PARTS_MAKE), AM_EIO);
    ck_message("File too large");
    release_all(tensors);
}
END_TEST

START_TEST(test_refused)
{
    am_tensor *tensors[N];
    make_tensors(tensors);
    am_parts_spec specs[N];
    am_parts *p;
    char path[512];
    snprintf(path, sizeof path, "%s", folder_path("a"));
    fill_specs(specs);
    ck_assert_int_eq(am_parts_open(&p, path, N, specs, NULL, 0), AM_EIO);
    ck_message("another process");
    ck_ok(am_file_save(path, "short", 5));
    ck_assert_int_eq(am_parts_open(&p, path, N, specs, NULL, 0), AM_EIO);
    ck_message("of 5 bytes");
    specs[1].shape[0] = INT64_MAX / 4;
    ck_assert_int_eq(am_parts_open(&p, path, N, specs, NULL, AM_PARTS_MAKE), AM_EINVAL);
    ck_message("\"double\": its shape is too large");
    specs[1].shape[0] = -1;
    ck_assert_int_eq(am_parts_open(&p, path, N, specs, NULL, AM_PARTS_MAKE), AM_EINVAL);
    specs[1].dtype = AM_DTYPE_COUNT;
    ck_assert_int_eq(am_parts_open(&p, path, N, specs, NULL, AM_PARTS_MAKE), AM_EINVAL);
    p = open_with(path, AM_PARTS_MAKE);
    ck_assert_int_eq(am_parts_put(p, 2, 1, tensors[2]), AM_ESHAPE); /* ends behind the last row */
    ck_message("\"matrix\" is float32 [9,4]; rows from 1 of float32 [9,4] are not");
    ck_assert_int_eq(am_parts_put(p, 2, -1, tensors[2]), AM_ESHAPE);
    ck_assert_int_eq(am_parts_put(p, 2, 0, tensors[1]), AM_ESHAPE);
    ck_assert_int_eq(am_parts_put(p, 3, 1, tensors[3]), AM_ESHAPE);
    ck_assert_int_eq(am_parts_put(p, N, 0, tensors[3]), AM_EINVAL);
    ck_assert_int_eq(am_parts_put(p, -1, 0, tensors[3]), AM_EINVAL);
    am_parts_release(p);
    am_parts_release(NULL);
    release_all(tensors);
}
END_TEST

START_TEST(test_without_memory)
{
    am_tensor *tensors[N];
    make_tensors(tensors);
    am_parts_spec specs[N];
    fill_specs(specs);
    char path[512];
    snprintf(path, sizeof path, "%s", folder_path("a"));
    const char *paths[] = {test_folder};
    int failures = 0;
    for (int64_t k = 1;; k++, failures++) {
        am_parts *p = NULL;
        am_writing *w = NULL;
        am_mem_fail_at(k);
        int rc = am_parts_open(&p, path, N, specs, NULL, AM_PARTS_MAKE | AM_PARTS_LATER);
        rc = rc == AM_OK ? am_parts_put(p, 2, 0, tensors[2]) : rc;
        rc = rc == AM_OK ? am_writing_begin(&w, 1, &p, 1, &paths[0]) : rc;
        am_mem_fail_at(0);
        am_writing_release(w);
        am_parts_release(p);
        if (rc == AM_OK)
            break;
        ck_assert_int_eq(rc, AM_ENOMEM);
    }
    ck_assert_int_ge(failures, 8);
    release_all(tensors);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_same_bytes, test_strided_and_device, test_beside, test_full_disk,
        test_refused,    test_without_memory,
    };
    return run_suite("safetensors_parts", tests, sizeof tests / sizeof *tests);
}
