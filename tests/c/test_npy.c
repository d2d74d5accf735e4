/* test_npy.c — .npy files written by NumPy, hostile headers, and saving. */
#include "core/tensor.h"
#include "io_helpers.h"

static am_tensor *load(const char *path)
{
    am_tensor *t;
    ck_ok(am_npy_load(&t, path, 0));
    return t;
}

/* data/io/make.py: [2,3,4] of i / 8 - 0.5; the two-dim files hold its first [3,4]. */
static void check_counting(am_tensor *t, int n)
{
    am_tensor *f;
    ck_ok(am_tensor_new(&f, AM_F32, am_tensor_ndim(t), am_tensor_shape(t), 0));
    ck_ok(am_tensor_copy(f, t));
    ck_assert_int_eq((int)am_tensor_numel(t), n);
    ck_assert(am_tensor_is_contiguous(t));
    for (int i = 0; i < n; i++)
        ck_assert(((float *)am_tensor_data(f))[i] == (float)i / 8 - 0.5f);
    am_tensor_release(f);
}

START_TEST(test_load)
{
    static const struct {
        const char *path;
        int dtype, ndim, n;
    } cases[] = {{DATA("f4.npy"), AM_F32, 3, 24},
                 {DATA("f4_fortran.npy"), AM_F32, 3, 24},
                 {DATA("f8.npy"), AM_F64, 2, 12},
                 {DATA("f2.npy"), AM_F16, 2, 12},
                 {DATA("version2.npy"), AM_F32, 2, 12}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        am_tensor *t = load(cases[i].path);
        ck_assert_int_eq(am_tensor_dtype(t), cases[i].dtype);
        ck_assert_int_eq(am_tensor_ndim(t), cases[i].ndim);
        ck_assert_int_eq((int)am_tensor_shape(t)[cases[i].ndim - 1], 4);
        check_counting(t, cases[i].n);
        am_tensor_release(t);
    }
    am_tensor *i4 = load(DATA("i4.npy")), *i8 = load(DATA("i8.npy")), *u1 = load(DATA("u1.npy"));
    am_tensor *b1 = load(DATA("b1.npy")), *scalar = load(DATA("scalar.npy"));
    am_tensor *empty = load(DATA("empty.npy"));
    ck_assert_mem_eq(am_tensor_data(i4), ((int32_t[]){-1, 0, 2147483647}), 12);
    ck_assert_mem_eq(am_tensor_data(i8), ((int64_t[]){-1, 9007199254740993}), 16);
    ck_assert_mem_eq(am_tensor_data(u1), "\0\xff\7", 3);
    ck_assert_mem_eq(am_tensor_data(b1), "\1\0\1", 3);
    ck_assert_int_eq(am_tensor_dtype(b1), AM_BOOL);
    ck_assert_int_eq(am_tensor_ndim(scalar), 0);
    ck_assert(*(float *)am_tensor_data(scalar) == 2.5f);
    ck_assert_int_eq(am_tensor_ndim(empty), 3);
    ck_assert_int_eq((int)am_tensor_shape(empty)[2], 3);
    am_tensor *all[] = {i4, i8, u1, b1, scalar, empty};
    for (int i = 0; i < 6; i++)
        am_tensor_release(all[i]);
}
END_TEST

START_TEST(test_load_to_device)
{
    static const char *const paths[] = {DATA("f4.npy"), DATA("f4_fortran.npy")};
    int fence;
    ck_ok(am_device_find(&fence, "fence"));
    for (int i = 0; i < 2; i++) {
        am_tensor *t;
        float x[24];
        ck_ok(am_npy_load(&t, paths[i], fence));
        ck_ok(am_tensor_read(t, x, sizeof x));
        for (int k = 0; k < 24; k++)
            ck_assert(x[k] == (float)k / 8 - 0.5f);
        am_tensor_release(t);
    }
}
END_TEST

START_TEST(test_scope_owns)
{
    ck_ok(am_scope_push());
    am_tensor *t = load(DATA("f4.npy"));
    ck_ok(am_scope_pop());
    ck_assert(!am_tensor_alive(t));
    am_tensor_release(t);
}
END_TEST

/* ---- hostile files ------------------------------------------------------------------------ */

static int try_npy(const void *data, size_t bytes)
{
    am_tensor *t;
    serve(data, bytes);
    int rc = am_npy_load(&t, "served", 0);
    if (rc == AM_OK)
        am_tensor_release(t);
    else
        ck_message("served");
    return rc;
}

/* A version 1 file with this dictionary and zeros as elements. */
static int try_dictionary(const char *dictionary, size_t elements)
{
    size_t n = strlen(dictionary);
    char *file = calloc(1, 10 + n + elements);
    memcpy(file, "\x93NUMPY\1\0", 8);
    file[8] = (char)(n & 0xff);
    file[9] = (char)(n >> 8);
    memcpy(file + 10, dictionary, n);
    int rc = try_npy(file, 10 + n + elements);
    free(file);
    return rc;
}

START_TEST(test_dictionaries)
{
    static const struct {
        const char *dictionary;
        size_t elements;
        int code;
        const char *message;
    } cases[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", 8, AM_OK, ""},
        {"{\"shape\":(2 , 1),\"fortran_order\":True,\"descr\":\"<f4\"}", 8, AM_OK, ""},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 7, AM_EFORMAT, "7 bytes"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 9, AM_EFORMAT, "9 bytes"},
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (2,)}", 8, AM_EUNSUP, "big endian"},
        {"{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}", 8, AM_EUNSUP, "'<c8'"},
        {"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", 8, AM_EUNSUP, "'|O'"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", 4, AM_EFORMAT,
         "expected a string"},
        {"{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)}", 8, AM_EFORMAT, "fortran_order"},
        {"{'descr': '<f4', 'fortran_order': False}", 8, AM_EFORMAT, "missing"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'shape': (1,)}", 4, AM_EFORMAT,
         "repeated"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}", 4, AM_EFORMAT,
         "unknown"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", 4, AM_EFORMAT, "a size"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1}", 4, AM_EFORMAT, "in the shape"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': 1}", 4, AM_EFORMAT, "'('"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}", 4,
         AM_EFORMAT, "too large"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}", 0,
         AM_EFORMAT, "too large"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}", 4, AM_EFORMAT,
         "more than 8"},
        {"{'descr': '<f4<f4<f4<f4<f4<f4<f4<f4", 4, AM_EFORMAT, "too long"},
        {"'descr'", 4, AM_EFORMAT, "'{'"},
        {"", 4, AM_EFORMAT, "'{'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int rc = try_dictionary(cases[i].dictionary, cases[i].elements);
        ck_assert_msg(rc == cases[i].code, "%s: %d, %s", cases[i].dictionary, rc,
                      am_error_message());
        if (rc != AM_OK)
            ck_message(cases[i].message);
    }
}
END_TEST

START_TEST(test_not_npy)
{
    ck_assert_int_eq(try_npy("", 0), AM_EFORMAT);
    ck_assert_int_eq(try_npy("\x93NUMPX\1\0\0\0", 10), AM_EFORMAT);
    ck_message("not an npy file");
    ck_assert_int_eq(try_npy("\x93NUMPY\3\0\0\0\0\0", 12), AM_EUNSUP);
    ck_message("version 3");
    ck_assert_int_eq(try_npy("\x93NUMPY\2\0\0\0\0", 11), AM_EFORMAT);
    ck_message("cut off");
    ck_assert_int_eq(try_npy("\x93NUMPY\2\0\xff\xff\xff\xff", 12), AM_EFORMAT);
    ck_message("cut off");
}
END_TEST

START_TEST(test_truncated_and_flipped)
{
    static const char *const paths[] = {DATA("f4_fortran.npy"), DATA("version2.npy"),
                                        DATA("b1.npy")};
    for (size_t p = 0; p < 3; p++) {
        size_t bytes;
        char *data = slurp(paths[p], &bytes);
        for (size_t n = 0; n < bytes; n++)
            ck_assert_int_eq(try_npy(data, n), AM_EFORMAT);
        for (size_t i = 0; i < bytes; i++)
            for (int bit = 0; bit < 8; bit++) {
                data[i] = (char)(data[i] ^ 1 << bit);
                try_npy(data, bytes);
                data[i] = (char)(data[i] ^ 1 << bit);
            }
        free(data);
    }
}
END_TEST

/* ---- saving -------------------------------------------------------------------------------- */

/* The very bytes NumPy writes, for shapes of every kind. */
START_TEST(test_save_as_numpy)
{
    static const char *const paths[] = {DATA("f4.npy"), DATA("f8.npy"),     DATA("f2.npy"),
                                        DATA("i4.npy"), DATA("i8.npy"),     DATA("u1.npy"),
                                        DATA("b1.npy"), DATA("scalar.npy"), DATA("empty.npy")};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        am_tensor *t = load(paths[i]);
        ck_ok(am_npy_save(folder_path("t.npy"), t));
        am_tensor_release(t);
        size_t bytes, expected_bytes;
        char *got = slurp(folder_path("t.npy"), &bytes);
        char *expected = slurp(paths[i], &expected_bytes);
        ck_assert_uint_eq(bytes, expected_bytes);
        ck_assert_msg(memcmp(got, expected, bytes) == 0, "%s", paths[i]);
        free(got);
        free(expected);
    }
}
END_TEST

START_TEST(test_save_strided_and_refused)
{
    const int64_t swapped[] = {4, 3}, column[] = {1, 4}, one = 1;
    am_tensor *t = load(DATA("f4.npy")), *view, *back, *bf16;
    ck_ok(am_tensor_as_strided(&view, t, 2, swapped, column, 0));
    ck_ok(am_npy_save(folder_path("t.npy"), view));
    back = load(folder_path("t.npy"));
    ck_assert(am_shape_equal(back, view));
    ck_assert(((float *)am_tensor_data(back))[1] == 0.0f); /* element 4 of t */
    ck_ok(am_tensor_new(&bf16, AM_BF16, 1, &one, 0));
    ck_assert_int_eq(am_npy_save(folder_path("u.npy"), bf16), AM_EUNSUP);
    ck_message("bfloat16");
    ck_assert_int_eq(am_npy_save(folder_path("absent/u.npy"), t), AM_EIO);
    ck_assert_int_eq(am_npy_save(folder_path("u.npy"), NULL), AM_EINVAL);
    ck_assert_int_eq(folder_count(), 1);
    am_tensor *all[] = {t, view, back, bf16};
    for (int i = 0; i < 4; i++)
        am_tensor_release(all[i]);
}
END_TEST

START_TEST(test_without_memory)
{
    int failures = 0;
    for (int64_t k = 1;; k++, failures++) {
        am_tensor *t = NULL;
        am_mem_fail_at(k);
        int rc = am_npy_load(&t, DATA("f4_fortran.npy"), 0);
        if (rc == AM_OK)
            rc = am_npy_save(folder_path("t.npy"), t);
        am_mem_fail_at(0);
        am_tensor_release(t);
        if (rc == AM_OK)
            break;
        ck_assert_int_eq(rc, AM_ENOMEM);
        ck_assert_int_eq(folder_count(), 0);
    }
    ck_assert_int_ge(failures, 6);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_load,          test_load_to_device, test_scope_owns,
        test_dictionaries,  test_not_npy,        test_truncated_and_flipped,
        test_save_as_numpy, test_without_memory, test_save_strided_and_refused,
    };
    return run_suite("npy", tests, sizeof tests / sizeof *tests);
}
