/* test_parquet.c — the Parquet reader on hostile bytes: cut off, changed, lying about themselves;
 * its encodings alone; and memory that runs out. What rows it gives is tested from Lua
 * (tests/lua/datasets/parquet_rows_spec.lua), whose files are used here. */
#include <glob.h>
#include <time.h>

#include "core/mem.h"
#include "io/parquet.h"
#include "io_helpers.h"

#define GOLDEN(name) AM_TEST_DIR "/lua/datasets/parquet/" name

/* Read everything in what is served; the sanitizer sees each value used. */
static int read_all(const void *data, size_t bytes)
{
    static volatile uint64_t sink;
    am_parquet *p = NULL;
    const am_parquet_value *v;
    int64_t n;
    serve(data, bytes);
    int rc = am_parquet_open(&p, "served");
    if (rc != AM_OK) {
        ck_assert_ptr_null(p);
        return rc;
    }
    int first = AM_OK;
    int64_t rows = am_parquet_rows(p);
    for (int64_t i = 0; i < rows && i < 200; i++) {
        rc = am_parquet_row(p, i * 7 % rows, &v, &n);
        if (rc != AM_OK) {
            ck_message("served row");
            first = first == AM_OK ? rc : first;
            continue;
        }
        for (int64_t k = 0; k < n; k++)
            for (int32_t b = 0; v[k].kind == AM_PARQUET_TEXT && b < v[k].count; b++)
                sink += (uint64_t)v[k].text[b];
    }
    am_parquet_release(p);
    return first;
}

static void torture(const char *path, size_t step)
{
    size_t bytes;
    char *data = slurp(path, &bytes);
    ck_ok(read_all(data, bytes));
    for (size_t n = 0; n < bytes; n += step)
        ck_assert_msg(read_all(data, n) == AM_EFORMAT, "%s: %zu bytes of %zu", path, n, bytes);
    static const unsigned char flips[] = {1, 16, 128, 255};
    for (size_t i = 0; i < bytes; i += step)
        for (size_t k = 0; k < sizeof flips; k++) {
            data[i] = (char)(data[i] ^ flips[k]);
            read_all(data, bytes);
            data[i] = (char)(data[i] ^ flips[k]);
        }
    free(data);
}

START_TEST(test_every_byte_of_a_small_file)
{
    torture(GOLDEN("legacy.parquet"), 1);
    torture(GOLDEN("uuid.parquet"), 7);
}
END_TEST

START_TEST(test_bytes_of_every_file)
{
    static const char *const names[] = {
        GOLDEN("types.parquet"),           GOLDEN("delta.parquet"),
        GOLDEN("squad.parquet"),           GOLDEN("chat.parquet"),
        GOLDEN("pages_none_v1.parquet"),   GOLDEN("pages_none_v2.parquet"),
        GOLDEN("pages_snappy_v1.parquet"), GOLDEN("pages_gzip_v2.parquet"),
        GOLDEN("pages_zstd_v1.parquet")};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        torture(names[i], 251 + i);
}
END_TEST

START_TEST(test_lies)
{
    glob_t found;
    ck_assert_int_eq(glob(GOLDEN("lies/*.parquet"), 0, NULL, &found), 0);
    ck_assert_uint_ge(found.gl_pathc, 30);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        size_t bytes;
        char *data = slurp(found.gl_pathv[i], &bytes);
        int rc = read_all(data, bytes);
        ck_assert_msg(rc == AM_EFORMAT || rc == AM_EUNSUP, "%s: %d", found.gl_pathv[i], rc);
        free(data);
    }
    globfree(&found);
}
END_TEST

/* ---- encodings --------------------------------------------------------------------------- */

/* Bytes of exact size, so that reading behind them is seen. */
static uint8_t *exactly(const uint8_t *data, size_t bytes)
{
    uint8_t *copy = malloc(bytes);
    memcpy(copy, data, bytes);
    return copy;
}

START_TEST(test_runs)
{
    /* 3 times 5; then 0 to 7 in three bits each; then only what two bytes hold of a run of 24 */
    static const uint8_t bytes[] = {6, 5, 3, 0x88, 0xc6, 0xfa, 7, 0x88, 0xc6};
    static const uint32_t wanted[] = {5, 5, 5, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4};
    uint8_t *data = exactly(bytes, sizeof bytes);
    am_pq_runs r;
    uint32_t value;
    am_pq_runs_begin(&r, data, sizeof bytes, 3);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        ck_assert_ptr_null(am_pq_runs_next(&r, &value));
        ck_assert_uint_eq(value, wanted[i]);
    }
    ck_assert_ptr_nonnull(am_pq_runs_next(&r, &value));
    free(data);
}
END_TEST

START_TEST(test_runs_of_the_highest_bit_first)
{
    static const uint8_t bytes[] = {0x05, 0x39, 0x77}; /* Encodings.md's example: 0 to 7 */
    uint8_t *data = exactly(bytes, sizeof bytes);
    am_pq_runs r;
    uint32_t value;
    am_pq_runs_begin_packed(&r, data, sizeof bytes, 3);
    for (uint32_t i = 0; i < 8; i++) {
        ck_assert_ptr_null(am_pq_runs_next(&r, &value));
        ck_assert_uint_eq(value, i);
    }
    ck_assert_ptr_nonnull(am_pq_runs_next(&r, &value));
    free(data);
}
END_TEST

START_TEST(test_damaged_differences)
{
    static const struct {
        uint8_t bytes[16];
        size_t n;
    } cases[] = {
        {{0}, 0},                                     /* nothing */
        {{0x80, 1, 4, 2}, 4},                         /* no first value */
        {{0, 4, 2, 0}, 4},                            /* blocks of nothing */
        {{0x80, 1, 0, 2, 0}, 5},                      /* no miniblocks */
        {{0x80, 1, 3, 2, 0}, 5},                      /* a third of a block */
        {{0xff, 0xff, 0xff, 0xff, 0x7f, 1, 2, 0}, 8}, /* a block that is too large */
    };
    am_pq_delta d;
    uint64_t value;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t *data = exactly(cases[i].bytes, cases[i].n);
        ck_assert_ptr_nonnull(am_pq_delta_begin(&d, data, cases[i].n));
        free(data);
    }
    /* two values: the second one's block, its widths or its bits are missing */
    static const uint8_t cut[] = {0x80, 1, 4, 2, 0, 2, 64, 0, 0, 0, 1};
    for (size_t n = 5; n <= sizeof cut; n++) {
        uint8_t *data = exactly(cut, n);
        ck_assert_ptr_null(am_pq_delta_begin(&d, data, n));
        ck_assert_ptr_null(am_pq_delta_next(&d, &value));
        ck_assert_ptr_nonnull(am_pq_delta_next(&d, &value));
        free(data);
    }
}
END_TEST

/* 2^32 - 1 lengths that are all 0, in 256 blocks of two bytes, with a text behind them: beginning
 * must not take the time of that many values. */
START_TEST(test_many_differences)
{
    static const uint8_t head[] = {0x80, 0x80, 0x80, 8, 1, 0xff, 0xff, 0xff, 0xff, 0xf, 0};
    uint8_t bytes[sizeof head + 512 + 3] = {0};
    memcpy(bytes, head, sizeof head);
    memcpy(bytes + sizeof head + 512, "abc", 3);
    am_pq_values v = {0};
    am_pq_raw raw;
    clock_t begun = clock();
    for (size_t n = sizeof head + 510; n < sizeof bytes; n++) {
        const char *bad = am_pq_values_begin(&v, AM_PQ_DELTA_LENGTH_BYTE_ARRAY, AM_PQ_BYTE_ARRAY, 0,
                                             NULL, UINT32_MAX, bytes, n);
        ck_assert_msg((bad == NULL) == (n >= sizeof head + 512), "%zu bytes: %s", n, bad);
    }
    ck_assert_int_lt(clock() - begun, CLOCKS_PER_SEC);
    ck_assert_mem_eq(v.at, "abc", 3);
    ck_assert_ptr_null(am_pq_values_next(&v, &raw));
    ck_assert_uint_eq(raw.bytes, 0);
}
END_TEST

/* ---- memory ------------------------------------------------------------------------------ */

START_TEST(test_no_memory)
{
    size_t bytes;
    char *data = slurp(GOLDEN("pages_zstd_v1.parquet"), &bytes);
    serve(data, bytes);
    int failures = 0;
    for (int64_t k = 1;; k++) {
        am_parquet *p = NULL;
        const am_parquet_value *v;
        int64_t n;
        ck_ok(am_mem_fail_at(k));
        int rc = am_parquet_open(&p, "served");
        for (int64_t i = 0; rc == AM_OK && i < am_parquet_rows(p); i += 30)
            rc = am_parquet_row(p, i, &v, &n);
        ck_ok(am_mem_fail_at(0));
        if (p) {
            ck_ok(am_parquet_row(p, 50, &v, &n)); /* it goes on */
            am_parquet_release(p);
        }
        if (rc == AM_OK)
            break;
        ck_assert_int_eq(rc, AM_ENOMEM);
        failures++;
    }
    ck_assert_int_gt(failures, 20);
    free(data);
}
END_TEST

START_TEST(test_select)
{
    am_parquet *p;
    const am_parquet_value *v;
    int64_t n;
    ck_ok(am_parquet_open(&p, GOLDEN("squad.parquet")));
    ck_ok(am_parquet_select(p, (const uint8_t[]){0, 1, 0, 0, 0}, 5));
    ck_ok(am_parquet_row(p, 29, &v, &n));
    ck_assert_int_eq((int)n, 1);
    ck_assert_int_eq(v[0].count, 10);
    ck_assert_mem_eq(v[0].text, "Lighthouse", 10);
    ck_assert_int_eq(am_parquet_select(p, (const uint8_t[]){0, 0, 0, 0, 0}, 5), AM_EINVAL);
    ck_assert_int_eq(am_parquet_select(p, (const uint8_t[]){1}, 1), AM_EINVAL);
    ck_assert_int_eq(am_parquet_row(p, 30, &v, &n), AM_EINVAL);
    ck_assert_int_eq(am_parquet_row(p, -1, &v, &n), AM_EINVAL);
    am_parquet_rest(p);
    ck_ok(am_parquet_row(p, 0, &v, &n));
    ck_assert_int_eq((int)n, 1);
    am_parquet_release(p);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_every_byte_of_a_small_file,
        test_bytes_of_every_file,
        test_lies,
        test_runs,
        test_runs_of_the_highest_bit_first,
        test_damaged_differences,
        test_many_differences,
        test_no_memory,
        test_select,
    };
    return run_suite("parquet", tests, sizeof tests / sizeof *tests);
}
