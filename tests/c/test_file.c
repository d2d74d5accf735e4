/* test_file.c — whole-file reading, mapping, and replacing files when calls of the operating
 * system fail one by one. */
#include <fcntl.h>

#include "core/mem.h"
#include "io_helpers.h"

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    fputs(text, f);
    fclose(f);
}

static void expect(const char *path, const char *text)
{
    size_t bytes;
    char *data = slurp(path, &bytes);
    ck_assert_uint_eq(bytes, strlen(text));
    ck_assert_mem_eq(data, text, bytes);
    free(data);
}

/* ---- reading ----------------------------------------------------------------------------- */

START_TEST(test_read)
{
    char *data;
    size_t bytes;
    put(folder_path("a"), "hello");
    ck_ok(am_file_read(&data, &bytes, folder_path("a"), 5));
    ck_assert_uint_eq(bytes, 5);
    ck_assert_str_eq(data, "hello");
    am_free(data);
    put(folder_path("empty"), "");
    ck_ok(am_file_read(&data, &bytes, folder_path("empty"), 0));
    ck_assert_uint_eq(bytes, 0);
    ck_assert_str_eq(data, "");
    am_free(data);
    ck_assert_int_eq(am_file_read(&data, &bytes, folder_path("a"), 4), AM_EFORMAT);
    ck_message("5 bytes, more than the 4");
    ck_assert_int_eq(am_file_read(&data, &bytes, folder_path("absent"), 9), AM_EIO);
    ck_message("absent");
    ck_assert_int_eq(am_file_read(&data, &bytes, test_folder, 9), AM_EIO);
    ck_message("is a folder");
}
END_TEST

START_TEST(test_read_pipe)
{
    char *data;
    size_t bytes;
    ck_assert_int_eq(mkfifo(folder_path("pipe"), 0600), 0);
    ck_assert_int_eq(am_file_read(&data, &bytes, folder_path("pipe"), 9), AM_EIO); /* at once */
    ck_message("pipe");
}
END_TEST

static int reads;
static ssize_t slow_read(int fd, void *data, size_t bytes)
{
    if (reads++ % 2 == 0) {
        errno = EINTR;
        return -1;
    }
    return read(fd, data, bytes > 2 ? 2 : bytes);
}
static ssize_t no_read(int fd, void *data, size_t bytes)
{
    (void)fd, (void)data, (void)bytes;
    return 0;
}

START_TEST(test_read_faults)
{
    char *data;
    size_t bytes;
    put(folder_path("a"), "hello");
    am_file_system.read = slow_read;
    ck_ok(am_file_read(&data, &bytes, folder_path("a"), 9));
    ck_assert_str_eq(data, "hello");
    am_free(data);
    am_file_system.read = no_read;
    ck_assert_int_eq(am_file_read(&data, &bytes, folder_path("a"), 9), AM_EIO);
    ck_message("became shorter");
}
END_TEST

START_TEST(test_mapping)
{
    am_mapping *m;
    put(folder_path("a"), "hello");
    ck_ok(am_mapping_open(&m, folder_path("a")));
    ck_assert_uint_eq(m->bytes, 5);
    am_mapping_prefetch(m, 1, 4);
    m->data[0] = 'J';
    expect(folder_path("a"), "hello"); /* copy-on-write */
    am_mapping_retain(m);
    am_mapping_release(m);
    ck_assert_int_eq(m->data[0], 'J');
    am_mapping_release(m);
    put(folder_path("empty"), "");
    ck_ok(am_mapping_open(&m, folder_path("empty")));
    ck_assert_ptr_null(m->data);
    am_mapping_release(m);
    ck_assert_int_eq(am_mapping_open(&m, folder_path("absent")), AM_EIO);
    ck_assert_int_eq(am_mapping_open(&m, test_folder), AM_EIO);
}
END_TEST

/* ---- replacing --------------------------------------------------------------------------- */

START_TEST(test_save)
{
    const char *path = folder_path("a");
    ck_ok(am_file_save(path, "one", 3));
    expect(path, "one");
    ck_ok(am_file_save(path, "twotwo", 6));
    expect(path, "twotwo");
    ck_ok(am_file_save(path, NULL, 0));
    expect(path, "");
    ck_assert_int_eq(folder_count(), 1);
    ck_assert_int_eq(chdir(test_folder), 0); /* a bare name is in "." */
    ck_ok(am_file_save("bare", "x", 1));
    expect(path = folder_path("bare"), "x");
    ck_assert_int_eq(folder_count(), 2);
}
END_TEST

START_TEST(test_save_refused)
{
    ck_assert_int_eq(am_file_save(folder_path(""), "x", 1), AM_EINVAL);
    ck_assert_int_eq(am_file_save(folder_path("absent/a"), "x", 1), AM_EIO);
    ck_message("absent/a");
    ck_assert_int_eq(am_file_save(test_folder, "x", 1), AM_EIO); /* over a folder */
    ck_message("in place");
    ck_assert_int_eq(folder_count(), 0);
    ck_assert_int_eq(am_file_sync_dir(folder_path("absent")), AM_EIO);
    ck_ok(am_file_sync_dir(test_folder));
}
END_TEST

START_TEST(test_save_replaces_link)
{
    put(folder_path("blob"), "shared");
    ck_assert_int_eq(symlink("blob", folder_path("link")), 0);
    ck_ok(am_file_save(folder_path("link"), "own", 3));
    expect(folder_path("link"), "own");
    expect(folder_path("blob"), "shared");
}
END_TEST

/* Faults: the system call with this number from now fails with fault_errno; calls are logged. */
static int fault_at, fault_errno, calls;
static char call_log[64];
static am_file_ops real;

static int fault(char letter)
{
    size_t n = strlen(call_log);
    if (n + 1 < sizeof call_log)
        call_log[n] = letter;
    if (++calls != fault_at)
        return 0;
    errno = fault_errno;
    return 1;
}
static int faulty_open(const char *path, int flags, mode_t mode)
{
    return fault(flags & O_CREAT ? 'c' : 'o') ? -1 : real.open(path, flags, mode);
}
static int faulty_close(int fd)
{
    int rc = real.close(fd); /* the descriptor is gone even when close fails */
    return fault('x') ? -1 : rc;
}
static ssize_t faulty_write(int fd, const void *data, size_t bytes)
{
    return fault('w') ? -1 : real.write(fd, data, bytes > 3 ? 3 : bytes);
}
static int faulty_sync(int fd)
{
    return fault('s') ? -1 : real.sync(fd);
}
static int faulty_rename(const char *from, const char *to)
{
    return fault('r') ? -1 : real.rename(from, to);
}
static void start_faults(int at, int error)
{
    calls = 0;
    fault_at = at;
    fault_errno = error;
    memset(call_log, 0, sizeof call_log);
    real = am_file_system;
    am_file_system.open = faulty_open;
    am_file_system.close = faulty_close;
    am_file_system.write = faulty_write;
    am_file_system.sync = faulty_sync;
    am_file_system.rename = faulty_rename;
}
static void stop_faults(void)
{
    am_file_system = real;
}

/* create, write (short writes go on), sync, close, rename, then the folder */
START_TEST(test_save_order)
{
    start_faults(0, 0);
    ck_ok(am_file_save(folder_path("a"), "hello!!", 7));
    stop_faults();
    ck_assert_str_eq(call_log, "cwwwsxrosx");
    expect(folder_path("a"), "hello!!");
}
END_TEST

/* Whatever fails, the old file or the new one is there, whole, and nothing else. */
START_TEST(test_save_faults)
{
    const char *path = folder_path("a");
    static const int errors[] = {EIO, ENOSPC, EACCES};
    for (size_t e = 0; e < sizeof errors / sizeof *errors; e++)
        for (int at = 1; at <= 9; at++) {
            put(path, "old");
            start_faults(at, errors[e]);
            int rc = am_file_save(path, "hello!!", 7);
            stop_faults();
            int renamed = at > 7; /* the folder's open and sync come after */
            ck_assert_int_eq(rc, AM_EIO);
            ck_message(test_folder);
            expect(path, renamed ? "hello!!" : "old");
            ck_assert_int_eq(folder_count(), 1);
        }
}
END_TEST

START_TEST(test_disk_full)
{
    start_faults(3, ENOSPC);
    ck_assert_int_eq(am_file_save(folder_path("a"), "hello!!", 7), AM_EIO);
    stop_faults();
    ck_message("7 bytes are needed");
    ck_message(strerror(ENOSPC));
}
END_TEST

START_TEST(test_interrupted)
{
    for (int at = 1; at <= 9; at++) {
        if (at == 7) /* rename is not interrupted */
            continue;
        start_faults(at, EINTR);
        ck_ok(am_file_save(folder_path("a"), "hello!!", 7));
        stop_faults();
        expect(folder_path("a"), "hello!!");
    }
}
END_TEST

/* A temporary name that exists is passed over, not reused. */
START_TEST(test_name_taken)
{
    start_faults(1, EEXIST);
    ck_ok(am_file_save(folder_path("a"), "x", 1));
    stop_faults();
    ck_assert_str_eq(call_log, "ccwsxrosx");
}
END_TEST

START_TEST(test_filesystem_without_folder_sync)
{
    start_faults(7, EINVAL); /* c w s x r o s */
    ck_ok(am_file_save(folder_path("a"), "x", 1));
    stop_faults();
}
END_TEST

START_TEST(test_discard)
{
    am_file_writer w;
    put(folder_path("a"), "old");
    ck_ok(am_file_begin(&w, folder_path("a"), 3));
    ck_ok(am_file_append(&w, "new", 3));
    ck_assert_int_eq(folder_count(), 2);
    am_file_discard(&w);
    am_file_discard(&w);
    ck_assert_int_eq(am_file_append(&w, "x", 1), AM_ESTATE);
    ck_assert_int_eq(am_file_commit(&w), AM_ESTATE);
    expect(folder_path("a"), "old");
    ck_assert_int_eq(folder_count(), 1);
}
END_TEST

START_TEST(test_no_memory)
{
    for (int64_t k = 1;; k++) {
        am_mem_fail_at(k);
        int rc = am_file_save(folder_path("a"), "x", 1);
        am_mem_fail_at(0);
        if (rc == AM_OK)
            break;
        ck_assert_int_eq(rc, AM_ENOMEM);
        ck_assert_int_eq(folder_count(), 0);
    }
    expect(folder_path("a"), "x");
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_read,       test_read_pipe,   test_read_faults,
        test_mapping,    test_save,        test_save_refused,
        test_save_order, test_save_faults, test_save_replaces_link,
        test_disk_full,  test_interrupted, test_name_taken,
        test_discard,    test_no_memory,   test_filesystem_without_folder_sync,
    };
    return run_suite("file", tests, sizeof tests / sizeof *tests);
}
