/* file.c — whole files: read, map, replace. Knows nothing of formats. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../core/error.h"
#include "../core/mem.h"

/* ---- the system -------------------------------------------------------------------------- */

static int system_open(const char *path, int flags, mode_t mode)
{
    return open(path, flags, mode);
}

/* NORESERVE: a model larger than memory and swap must still be mappable. */
static void *system_map(int fd, size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    return p == MAP_FAILED ? NULL : p;
}

static int system_give_back(void *data, size_t bytes)
{
    return madvise(data, bytes, MADV_DONTNEED);
}

am_file_ops am_file_system = {
    .open = system_open,
    .close = close,
    .stat = fstat,
    .read = read,
    .write = write,
    .write_at = pwrite,
    .cut = ftruncate,
    .sync = fsync,
    .rename = rename,
    .remove = unlink,
    .map = system_map,
    .unmap = munmap,
    .give_back = system_give_back,
};

static int fail_errno(const char *path, const char *doing)
{
    int error = errno;
    return am_fail(AM_EIO, "%s: %s: %s", path, doing, strerror(error));
}

static int open_fd(int *fd, const char *path, int flags, mode_t mode)
{
    do
        *fd = am_file_system.open(path, flags | O_CLOEXEC, mode);
    while (*fd < 0 && errno == EINTR);
    return *fd < 0 ? -1 : 0;
}

/* Open a regular file for reading. NONBLOCK: a pipe must be refused, not waited for. */
static int open_regular(int *out, size_t *bytes, const char *path)
{
    int fd;
    struct stat st;
    if (open_fd(&fd, path, O_RDONLY | O_NONBLOCK, 0) < 0)
        return fail_errno(path, "cannot open");
    int rc = AM_OK;
    if (am_file_system.stat(fd, &st) < 0)
        rc = fail_errno(path, "cannot stat");
    else if (!S_ISREG(st.st_mode))
        rc = am_fail(AM_EIO, "%s: %s, not a file", path,
                     S_ISDIR(st.st_mode) ? "is a folder" : "is a device or pipe");
    else if ((uint64_t)st.st_size > SIZE_MAX / 2)
        rc = am_fail(AM_EFORMAT, "%s: too large", path);
    if (rc != AM_OK) {
        am_file_system.close(fd);
        return rc;
    }
    *out = fd;
    *bytes = (size_t)st.st_size;
    return AM_OK;
}

/* ---- reading ----------------------------------------------------------------------------- */

static int read_fully(int fd, char *data, size_t bytes, const char *path)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = am_file_system.read(fd, data + done, bytes - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(path, "cannot read");
        if (n == 0)
            return am_fail(AM_EIO, "%s: became shorter while it was read", path);
        done += (size_t)n;
    }
    return AM_OK;
}

int am_file_read(char **data, size_t *bytes, const char *path, size_t max_bytes)
{
    int fd = -1, rc;
    size_t size = 0;
    void *p = NULL;
    AM_TRY(open_regular(&fd, &size, path));
    if (size > max_bytes) {
        rc = am_fail(AM_EFORMAT, "%s: %zu bytes, more than the %zu expected at most", path, size,
                     max_bytes);
        goto out;
    }
    AM_TRY_OUT(am_alloc(&p, size + 1));
    AM_TRY_OUT(read_fully(fd, p, size, path));
    *data = p;
    *bytes = size;
out:
    am_file_system.close(fd);
    if (rc != AM_OK)
        am_free(p);
    return rc;
}

int am_file_scan(const char *path, int (*visit)(void *context, const void *data, size_t bytes),
                 void *context)
{
    enum { PIECE = 1 << 20 };
    int fd = -1, rc;
    size_t size;
    void *p = NULL;
    AM_TRY(open_regular(&fd, &size, path));
    AM_TRY_OUT(am_alloc(&p, PIECE));
    while (size > 0) {
        size_t part = size < PIECE ? size : PIECE;
        AM_TRY_OUT(am_signals_check());
        AM_TRY_OUT(read_fully(fd, p, part, path));
        AM_TRY_OUT(visit(context, p, part));
        size -= part;
    }
out:
    am_file_system.close(fd);
    am_free(p);
    return rc;
}

/* ---- mapping ----------------------------------------------------------------------------- */

/* Map `size` bytes of an open file, which may be closed afterwards. */
static int map_fd(am_mapping **out, int fd, size_t size, const char *path)
{
    void *p;
    AM_TRY(am_alloc(&p, sizeof(am_mapping)));
    am_mapping *m = p;
    m->refs = 1;
    m->bytes = size;
    if (size > 0) {
        m->data = am_file_system.map(fd, size);
        if (!m->data) {
            int rc = fail_errno(path, "cannot map");
            am_free(p);
            return rc;
        }
    }
    *out = m;
    return AM_OK;
}

int am_mapping_open(am_mapping **out, const char *path)
{
    int fd = -1;
    size_t size = 0;
    AM_TRY(open_regular(&fd, &size, path));
    int rc = map_fd(out, fd, size, path);
    am_file_system.close(fd);
    return rc;
}

void am_mapping_retain(am_mapping *m)
{
    m->refs++;
}

void am_mapping_release(void *mapping)
{
    am_mapping *m = mapping;
    if (!m || --m->refs > 0)
        return;
    if (m->data)
        am_file_system.unmap(m->data, m->bytes);
    am_free(m);
}

void am_mapping_prefetch(const am_mapping *m, size_t offset, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t start = offset & ~(page - 1);
    if (bytes > 0)
        (void)madvise(m->data + start, offset + bytes - start, MADV_WILLNEED); /* only a hint */
}

void am_mapping_give_back(const am_mapping *m, size_t offset, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t start = offset & ~(page - 1);
    if (bytes > 0)
        (void)am_file_system.give_back(m->data + start, offset + bytes - start); /* a hint */
}

/* ---- replacing --------------------------------------------------------------------------- */

/* The folder of a path: "." for a bare name, "/" for a file in the root. */
static int folder_of(char **out, const char *path)
{
    const char *slash = strrchr(path, '/');
    void *p;
    if (!slash)
        return am_strdup(out, ".");
    size_t bytes = slash == path ? 1 : (size_t)(slash - path);
    AM_TRY(am_alloc(&p, bytes + 1));
    memcpy(p, path, bytes);
    *out = p;
    return AM_OK;
}

int am_file_begin(am_file_writer *w, const char *path, uint64_t total)
{
    static unsigned serial;
    const char *slash = strrchr(path, '/');
    size_t folder = slash ? (size_t)(slash - path) + 1 : 0;
    memset(w, 0, sizeof *w);
    if (path[folder] == 0)
        return am_fail(AM_EINVAL, "\"%s\" is not the name of a file", path);
    void *p;
    AM_TRY(am_alloc(&p, folder + 64));
    memcpy(p, path, folder);
    int fd;
    do /* the name says nothing of the file's, so it is never too long */
        snprintf((char *)p + folder, 64, ".amlua-%ld-%u.tmp", (long)getpid(), serial++);
    while (open_fd(&fd, p, O_RDWR | O_CREAT | O_EXCL, 0666) < 0 && errno == EEXIST);
    if (fd < 0) {
        int rc = fail_errno(path, "cannot create a file beside it");
        am_free(p);
        return rc;
    }
    *w = (am_file_writer){.path = path, .temporary = p, .fd = fd, .total = total};
    return AM_OK;
}

int am_file_begin_unnamed(am_file_writer *w, const char *path, uint64_t total)
{
    AM_TRY(am_file_begin(w, path, total));
    if (am_file_system.remove(w->temporary) == 0)
        return AM_OK;
    int rc = fail_errno(path, "cannot take the name from the file beside it");
    am_file_discard(w);
    return rc;
}

int am_file_take(am_file_writer *w)
{
    int fd = w->fd;
    am_free(w->temporary);
    w->temporary = NULL;
    w->fd = -1;
    return fd;
}

static int fail_writing(am_file_writer *w)
{
    if (errno == ENOSPC || errno == EDQUOT)
        return am_fail(AM_EIO, "%s: %s: %llu bytes are needed; nothing was changed", w->path,
                       strerror(errno), (unsigned long long)w->total);
    return fail_errno(w->path, "cannot write");
}

int am_file_append(am_file_writer *w, const void *data, size_t bytes)
{
    const char *at = data;
    if (!w->temporary)
        return am_fail(AM_ESTATE, "am_file_append: no file is being written");
    while (bytes > 0) {
        ssize_t n = am_file_system.write(w->fd, at, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            if (n == 0)
                errno = EIO;
            int rc = fail_writing(w);
            am_file_discard(w);
            return rc;
        }
        at += n;
        bytes -= (size_t)n;
    }
    return AM_OK;
}

int am_file_map(am_mapping **out, const am_file_writer *w)
{
    struct stat st;
    if (!w->temporary)
        return am_fail(AM_ESTATE, "am_file_map: no file is being written");
    if (am_file_system.stat(w->fd, &st) < 0)
        return fail_errno(w->path, "cannot stat");
    return map_fd(out, w->fd, (size_t)st.st_size, w->path);
}

static int sync_fd(int fd)
{
    int rc;
    do
        rc = am_file_system.sync(fd);
    while (rc < 0 && errno == EINTR);
    return rc;
}

int am_file_commit(am_file_writer *w)
{
    int rc = AM_OK;
    char *folder = NULL;
    if (!w->temporary)
        return am_fail(AM_ESTATE, "am_file_commit: no file is being written");
    AM_TRY_OUT(folder_of(&folder, w->path));
    if (sync_fd(w->fd) < 0) {
        rc = fail_writing(w);
        goto out;
    }
    int fd = w->fd;
    w->fd = -1;
    if (am_file_system.close(fd) < 0 && errno != EINTR) { /* then it is closed all the same */
        rc = fail_writing(w);
        goto out;
    }
    if (am_file_system.rename(w->temporary, w->path) < 0) {
        rc = fail_errno(w->path, "cannot put the new file in place");
        goto out;
    }
    am_free(w->temporary);
    w->temporary = NULL;
    rc = am_file_sync_dir(folder);
out:
    am_file_discard(w);
    am_free(folder);
    return rc;
}

void am_file_discard(am_file_writer *w)
{
    if (!w->temporary)
        return;
    if (w->fd >= 0)
        am_file_system.close(w->fd);
    am_file_system.remove(w->temporary);
    am_free(w->temporary);
    w->temporary = NULL;
    w->fd = -1;
}

int am_file_save(const char *path, const void *data, size_t bytes)
{
    am_file_writer w;
    AM_TRY(am_file_begin(&w, path, bytes));
    AM_TRY(am_file_append(&w, data, bytes));
    return am_file_commit(&w);
}

/* ---- parts of a file --------------------------------------------------------------------- */

static int fail_part(const char *path, const char *doing, uint64_t bytes)
{
    int error = errno;
    if (error == ENOSPC || error == EDQUOT || error == EFBIG)
        return am_fail(AM_EIO, "%s: %s: %llu bytes are needed", path, strerror(error),
                       (unsigned long long)bytes);
    return am_fail(AM_EIO, "%s: %s: %s", path, doing, strerror(error));
}

int am_file_make_sized(int *out, const char *path, uint64_t bytes)
{
    int fd, rc;
    if (open_fd(&fd, path, O_RDWR | O_CREAT | O_TRUNC, 0666) < 0)
        return fail_errno(path, "cannot create");
    do
        rc = am_file_system.cut(fd, (off_t)bytes);
    while (rc < 0 && errno == EINTR);
    if (rc < 0) {
        rc = fail_part(path, "cannot make it as large as it will be", bytes);
        am_file_system.close(fd);
        return rc;
    }
    *out = fd;
    return AM_OK;
}

int am_file_open_sized(int *out, const char *path, uint64_t bytes)
{
    int fd;
    struct stat st;
    if (open_fd(&fd, path, O_RDWR, 0) < 0)
        return fail_errno(path, "cannot open what another process has made");
    int rc = AM_OK;
    if (am_file_system.stat(fd, &st) < 0)
        rc = fail_errno(path, "cannot stat");
    else if ((uint64_t)st.st_size != bytes)
        rc = am_fail(AM_EIO, "%s: another process has made it of %lld bytes, not of %llu", path,
                     (long long)st.st_size, (unsigned long long)bytes);
    if (rc != AM_OK) {
        am_file_system.close(fd);
        return rc;
    }
    *out = fd;
    return AM_OK;
}

int am_file_write_at(int fd, const char *path, const void *data, size_t bytes, uint64_t at)
{
    const char *from = data;
    size_t left = bytes;
    while (left > 0) {
        ssize_t n = am_file_system.write_at(fd, from, left, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            if (n == 0)
                errno = EIO;
            return fail_part(path, "cannot write", bytes);
        }
        from += n;
        at += (uint64_t)n;
        left -= (size_t)n;
    }
    return AM_OK;
}

int am_file_sync_fd(int fd, const char *path)
{
    return sync_fd(fd) < 0 ? fail_part(path, "cannot sync", 0) : AM_OK;
}

int am_file_scan_fd(int fd, const char *path, uint64_t bytes,
                    int (*visit)(void *context, const void *data, size_t bytes), void *context)
{
    char piece[64 << 10]; /* am_alloc is the main thread's */
    while (bytes > 0) {
        size_t part = bytes < sizeof piece ? (size_t)bytes : sizeof piece;
        AM_TRY(read_fully(fd, piece, part, path));
        AM_TRY(visit(context, piece, part));
        bytes -= part;
    }
    return AM_OK;
}

int am_file_close_fd(int fd, const char *path)
{
    if (am_file_system.close(fd) < 0 && errno != EINTR)
        return fail_part(path, "cannot close", 0);
    return AM_OK;
}

static int sync_opened(const char *path, int flags, const char *what)
{
    int fd;
    if (open_fd(&fd, path, O_RDONLY | flags, 0) < 0)
        return am_fail(AM_EIO, "%s: cannot open the %s to sync it: %s", path, what,
                       strerror(errno));
    int rc = AM_OK;
    if (sync_fd(fd) < 0 && errno != EINVAL && errno != ENOTSUP) /* filesystems that don't need it */
        rc = am_fail(AM_EIO, "%s: cannot sync the %s: %s", path, what, strerror(errno));
    am_file_system.close(fd);
    return rc;
}

int am_file_sync_path(const char *path)
{
    return sync_opened(path, 0, "file");
}

int am_file_sync_dir(const char *dir)
{
    return sync_opened(dir, O_DIRECTORY, "folder");
}
