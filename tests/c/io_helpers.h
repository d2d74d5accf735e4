/* io_helpers.h — for the tests of engine/io: a folder of a test's own, checks, and torture of an
 * archive's reader. */
#ifndef IO_HELPERS_H
#define IO_HELPERS_H

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "am.h"
#include "io/file.h"
#include "served_file.h"

#define DATA(name) AM_TEST_DIR "/c/data/io/" name

/* ---- a folder ---------------------------------------------------------------------------- */

static char test_folder[64];
static am_file_ops system_ops;

static inline void folder_make(void)
{
    system_ops = am_file_system;
    strcpy(test_folder, "/tmp/amlua-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(test_folder));
}

static inline const char *folder_path(const char *name)
{
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", test_folder, name);
    return path;
}

/* Number of files in the folder. */
static inline int folder_count(void)
{
    DIR *dir = opendir(test_folder);
    int n = 0;
    for (struct dirent *e; (e = readdir(dir));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(dir);
    return n;
}

static inline void folder_remove(void)
{
    am_file_system = system_ops;
    DIR *dir = opendir(test_folder);
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlink(folder_path(e->d_name));
    if (dir)
        closedir(dir);
    rmdir(test_folder);
}

/* ---- files ------------------------------------------------------------------------------- */

/* The bytes of a real file; freed by the caller with free. */
static inline char *slurp(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s: %s", path, strerror(errno));
    fseek(f, 0, SEEK_END);
    *bytes = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*bytes + 1);
    ck_assert_uint_eq(fread(data, 1, *bytes, f), *bytes);
    fclose(f);
    return data;
}

/* ---- checks ------------------------------------------------------------------------------ */

#define ck_ok(call) ck_assert_msg((call) == AM_OK, "%s: %s", #call, am_error_message())
#define ck_message(text)                                                                           \
    ck_assert_msg(strstr(am_error_message(), text), "\"%s\" lacks \"%s\"", am_error_message(), text)

/* Open what is served: AM_OK after using everything, or the error. */
static inline int archive_try(const void *data, size_t bytes)
{
    am_archive *a = NULL;
    serve(data, bytes);
    int rc = am_archive_open(&a, "served");
    if (rc != AM_OK) {
        ck_assert_ptr_null(a);
        return rc;
    }
    ck_assert_int_eq(archive_use(a), 0);
    am_archive_release(a);
    return AM_OK;
}

/* Every prefix of a file that lacks more than `slack` bytes is refused, and every byte of it
 * changed in several ways is survived. */
static inline void archive_torture(const char *path, size_t slack)
{
    size_t bytes;
    char *data = slurp(path, &bytes);
    ck_ok(archive_try(data, bytes));
    for (size_t n = 0; n < bytes - slack; n++) {
        ck_assert_msg(archive_try(data, n) == AM_EFORMAT, "%zu bytes of %zu", n, bytes);
        ck_message("served");
    }
    static const unsigned char flips[] = {1, 16, 128, 255};
    for (size_t i = 0; i < bytes; i++)
        for (size_t k = 0; k < sizeof flips; k++) {
            data[i] = (char)(data[i] ^ flips[k]);
            archive_try(data, bytes);
            data[i] = (char)(data[i] ^ flips[k]);
        }
    free(data);
}

static inline int run_suite(const char *name, const TTest *const *tests, size_t n)
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    tcase_add_checked_fixture(tcase, folder_make, folder_remove);
    tcase_set_timeout(tcase, 120);
    for (size_t i = 0; i < n; i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
