/* test_token_rows.c — rows of token ids in a file: what is written is read, damaged files are
 * refused, hostile ones survived, and a failed call leaves nothing. */
#include "core/mem.h"
#include "data/token_rows.h"
#include "io/hash.h"
#include "io_helpers.h"

static const uint8_t key[AM_HASH_BYTES] = "a key", other_key[AM_HASH_BYTES] = "another key";

/* Row i: of i % 7 tokens, every third with a mask, every fifth with positions. */
enum { MOST = 7 };
static am_token_row row_of(int i)
{
    static int32_t values[4][MOST];
    int n = i % MOST;
    for (int k = 0; k < n; k++) {
        values[0][k] = 10 * i + k;
        values[1][k] = k % 2 ? 10 * i + k + 1 : -100;
        values[2][k] = k < 3;
        values[3][k] = k + i;
    }
    return (am_token_row){.input_ids = values[0],
                          .labels = values[1],
                          .attention_mask = i % 3 == 0 ? values[2] : NULL,
                          .position_ids = i % 5 == 0 ? values[3] : NULL,
                          .n = n,
                          .label_tokens = n / 2,
                          .file = i % 2,
                          .number = i + INT64_C(5000000000)};
}

static am_token_rows_writer *writer_of(const char *path, int rows, int unnamed)
{
    am_token_rows_writer *w;
    ck_ok(am_token_rows_create(&w, path, key, unnamed));
    for (int i = 0; i < rows; i++) {
        am_token_row row = row_of(i);
        ck_ok(am_token_rows_add(w, &row));
    }
    return w;
}

static am_token_rows *write_rows(const char *path, int rows, int unnamed)
{
    am_token_rows *r;
    am_token_rows_writer *w = writer_of(path, rows, unnamed);
    ck_ok(am_token_rows_finish(&r, w, "text", 4));
    am_token_rows_discard(w);
    return r;
}

static void same_array(const int32_t *got, const int32_t *wanted, int64_t n)
{
    ck_assert_int_eq(got != NULL, wanted != NULL);
    if (got && n > 0)
        ck_assert_mem_eq(got, wanted, (size_t)n * sizeof *got);
}

static void expect_rows(am_token_rows *r, int rows)
{
    size_t bytes;
    ck_assert_int_eq(am_token_rows_count(r), rows);
    ck_assert_mem_eq(am_token_rows_metadata(r, &bytes), "text", 4);
    ck_assert_uint_eq(bytes, 4);
    for (int i = rows - 1; i >= 0; i--) {
        am_token_row got, wanted = row_of(i);
        ck_ok(am_token_rows_get(&got, r, i));
        ck_assert_int_eq(got.n, wanted.n);
        ck_assert_int_eq(got.label_tokens, wanted.label_tokens);
        ck_assert_int_eq(got.file, wanted.file);
        ck_assert_int_eq(got.number, wanted.number);
        same_array(got.input_ids, wanted.input_ids, got.n);
        same_array(got.labels, wanted.labels, got.n);
        same_array(got.attention_mask, wanted.attention_mask, got.n);
        same_array(got.position_ids, wanted.position_ids, got.n);
    }
    am_token_row row;
    ck_assert_int_eq(am_token_rows_get(&row, r, rows), AM_EINVAL);
    ck_assert_int_eq(am_token_rows_get(&row, r, -1), AM_EINVAL);
}

/* None, some, a whole group, one more, several groups. */
START_TEST(test_write_and_read)
{
    static const int counts[] = {0, 1, 100, 1024, 1025, 5000};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        am_token_rows *r = write_rows(folder_path("a"), counts[i], 0);
        expect_rows(r, counts[i]);
        am_token_rows_release(r);
        ck_ok(am_token_rows_open(&r, folder_path("a"), key));
        expect_rows(r, counts[i]);
        am_token_rows_release(r);
    }
}
END_TEST

START_TEST(test_unnamed)
{
    am_token_rows_writer *w = writer_of(folder_path("a"), 3000, 1);
    ck_assert_int_eq(folder_count(), 0);
    am_token_rows *r;
    ck_ok(am_token_rows_finish(&r, w, "text", 4));
    am_token_rows_discard(w);
    ck_assert_int_eq(folder_count(), 0);
    expect_rows(r, 3000);
    am_token_rows_release(r);
    ck_assert_int_eq(am_token_rows_create(&w, folder_path("no/a"), key, 1), AM_EIO);
    ck_message("no/a");
}
END_TEST

START_TEST(test_bad_rows)
{
    am_token_rows_writer *w = writer_of(folder_path("a"), 3, 0);
    am_token_rows *r;
    for (int i = 0; i < 5; i++) {
        am_token_row row = row_of(4);
        row.n = i == 0 ? -1 : i == 1 ? INT64_C(1) << 31 : row.n;
        row.label_tokens = i == 2 ? row.n + 1 : row.label_tokens;
        row.number = i == 3 ? -1 : row.number;
        row.labels = i == 4 ? NULL : row.labels;
        ck_assert_int_eq(am_token_rows_add(w, &row), AM_EINVAL);
    }
    ck_ok(am_token_rows_finish(&r, w, "text", 4));
    expect_rows(r, 3);
    am_token_rows_release(r);
    am_token_row row = row_of(1);
    ck_assert_int_eq(am_token_rows_add(w, &row), AM_ESTATE);
    ck_assert_int_eq(am_token_rows_finish(&r, w, "", 0), AM_ESTATE);
    am_token_rows_discard(w);
}
END_TEST

/* ---- files that are damaged -------------------------------------------------------------- */

static int open_served(const char *data, size_t bytes, const uint8_t *wanted)
{
    am_token_rows *r = NULL;
    serve(data, bytes);
    int rc = am_token_rows_open(&r, "served", wanted);
    am_token_rows_release(r);
    return rc;
}

START_TEST(test_damaged_files_are_refused)
{
    size_t bytes;
    am_token_rows_release(write_rows(folder_path("a"), 20, 0));
    char *data = slurp(folder_path("a"), &bytes);
    ck_ok(open_served(data, bytes, key));
    ck_assert_int_eq(open_served(data, bytes, other_key), AM_EFORMAT);
    ck_message("served: it is of other data");
    for (size_t n = 0; n < bytes; n++)
        ck_assert_int_eq(open_served(data, n, key), AM_EFORMAT);
    for (size_t i = 0; i < bytes; i++) {
        data[i] ^= 4;
        ck_assert_int_eq(open_served(data, bytes, key), AM_EFORMAT);
        ck_message("served: ");
        data[i] ^= 4;
    }
    data[8] = 2;
    ck_assert_int_eq(open_served(data, bytes, key), AM_EFORMAT);
    ck_message("version 2, not 1");
    free(data);
}
END_TEST

/* Files whose checksum somebody put right: no read outside, whatever they say. */
START_TEST(test_hostile_files_are_survived)
{
    static const unsigned char flips[] = {1, 16, 128, 255};
    size_t bytes;
    am_token_rows_release(write_rows(folder_path("a"), 20, 0));
    char *data = slurp(folder_path("a"), &bytes);
    volatile int32_t sink = 0;
    for (size_t i = 0; i < bytes; i++)
        for (size_t k = 0; k < sizeof flips; k++) {
            am_mapping *m;
            am_token_rows *r;
            data[i] = (char)(data[i] ^ flips[k]);
            serve(data, bytes);
            ck_ok(am_mapping_open(&m, "served"));
            if (am_token_rows_read(&r, m, NULL, 0) == AM_OK) {
                am_token_row row;
                for (int64_t j = 0; j < am_token_rows_count(r) && j < 100; j++)
                    if (am_token_rows_get(&row, r, j) == AM_OK)
                        for (int64_t t = 0; t < row.n; t++)
                            sink ^= row.input_ids[t] ^ row.labels[t] ^
                                    (row.attention_mask ? row.attention_mask[t] : 0) ^
                                    (row.position_ids ? row.position_ids[t] : 0);
                am_token_rows_release(r);
            }
            data[i] = (char)(data[i] ^ flips[k]);
        }
    free(data);
}
END_TEST

/* ---- calls that fail --------------------------------------------------------------------- */

START_TEST(test_no_memory)
{
    for (int64_t k = 1;; k++) {
        am_token_rows_writer *w = NULL;
        am_token_rows *r = NULL;
        am_mem_fail_at(k);
        int rc = am_token_rows_create(&w, folder_path("a"), key, 0);
        for (int i = 0; rc == AM_OK && i < 1100; i++) {
            am_token_row row = row_of(i);
            rc = am_token_rows_add(w, &row);
        }
        if (rc == AM_OK)
            rc = am_token_rows_finish(&r, w, "text", 4);
        am_mem_fail_at(0);
        am_token_rows_discard(w);
        if (rc == AM_OK) {
            expect_rows(r, 1100);
            am_token_rows_release(r);
            break;
        }
        ck_assert_int_eq(rc, AM_ENOMEM);
        ck_assert_int_eq(folder_count(), 0);
    }
}
END_TEST

static ssize_t full_disk(int fd, const void *data, size_t bytes)
{
    (void)fd, (void)data, (void)bytes;
    errno = ENOSPC;
    return -1;
}

START_TEST(test_full_disk)
{
    am_token_rows *r = write_rows(folder_path("a"), 10, 0);
    am_token_rows_release(r);
    am_token_rows_writer *w = writer_of(folder_path("a"), 20, 0);
    am_file_system.write = full_disk;
    ck_assert_int_eq(am_token_rows_finish(&r, w, "text", 4), AM_EIO);
    ck_message("bytes are needed");
    am_token_rows_discard(w);
    ck_assert_int_eq(folder_count(), 1);
    ck_ok(am_token_rows_open(&r, folder_path("a"), key));
    expect_rows(r, 10);
    am_token_rows_release(r);
}
END_TEST

/* Two writers of one file: each reads its own, and the last one stays. */
START_TEST(test_two_writers)
{
    am_token_rows_writer *a = writer_of(folder_path("a"), 10, 0),
                         *b = writer_of(folder_path("a"), 2000, 0);
    am_token_rows *first, *second, *third;
    ck_ok(am_token_rows_finish(&first, a, "text", 4));
    ck_ok(am_token_rows_finish(&second, b, "text", 4));
    am_token_rows_discard(a);
    am_token_rows_discard(b);
    ck_ok(am_token_rows_open(&third, folder_path("a"), key));
    expect_rows(first, 10);
    expect_rows(second, 2000);
    expect_rows(third, 2000);
    am_token_rows_release(first);
    am_token_rows_release(second);
    am_token_rows_release(third);
    ck_assert_int_eq(folder_count(), 1);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_write_and_read,
        test_unnamed,
        test_bad_rows,
        test_damaged_files_are_refused,
        test_hostile_files_are_survived,
        test_no_memory,
        test_full_disk,
        test_two_writers,
    };
    return run_suite("token_rows", tests, sizeof tests / sizeof *tests);
}
