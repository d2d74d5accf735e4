/* served_file.h — files served from memory of exact size, so that a sanitizer sees every read
 * beyond the end; and a reader of everything in an archive. For C tests and fuzzers alike. */
#ifndef SERVED_FILE_H
#define SERVED_FILE_H

#include <stdlib.h>
#include <string.h>

#include "am.h"
#include "io/file.h"

enum { SERVED_FD = 1 << 20 };
static const void *served_data;
static size_t served_bytes;

static inline int served_open(const char *path, int flags, mode_t mode)
{
    (void)path, (void)flags, (void)mode;
    return SERVED_FD;
}
static inline int served_close(int fd)
{
    return fd == SERVED_FD ? 0 : -1;
}
static inline int served_stat(int fd, struct stat *st)
{
    (void)fd;
    memset(st, 0, sizeof *st);
    st->st_mode = S_IFREG;
    st->st_size = (off_t)served_bytes;
    return 0;
}
static inline void *served_map(int fd, size_t bytes)
{
    (void)fd;
    void *copy = malloc(bytes);
    memcpy(copy, served_data, bytes);
    return copy;
}
static inline int served_unmap(void *data, size_t bytes)
{
    (void)bytes;
    free(data);
    return 0;
}

static inline int served_give_back(void *data, size_t bytes)
{
    (void)data, (void)bytes;
    return 0;
}

/* Every file opened from now on has these bytes. */
static inline void serve(const void *data, size_t bytes)
{
    served_data = data;
    served_bytes = bytes;
    am_file_system.open = served_open;
    am_file_system.close = served_close;
    am_file_system.stat = served_stat;
    am_file_system.map = served_map;
    am_file_system.unmap = served_unmap;
    am_file_system.give_back = served_give_back;
}

/* Sum of a tensor's bytes: the sanitizer sees each of them used. */
static inline uint64_t tensor_sum(am_tensor *t)
{
    const uint8_t *data = am_tensor_data(t);
    int64_t bytes = am_tensor_numel(t) * am_dtype_size(am_tensor_dtype(t));
    uint64_t sum = 0;
    for (int64_t k = 0; k < bytes; k++)
        sum += data[k];
    return sum;
}

/* Look at everything in an archive; -1 when it contradicts itself. Tensors of types that cannot
 * be read are passed over. */
static inline int archive_use(am_archive *a)
{
    static volatile uint64_t sink;
    sink += strlen(am_archive_metadata(a));
    for (int64_t i = 0; i < am_archive_count(a); i++) {
        int dtype, ndim;
        const char *stored_as;
        int64_t shape[AM_MAX_DIMS];
        am_tensor *t;
        if (am_archive_info(a, i, &dtype, &stored_as, &ndim, shape) != AM_OK ||
            am_archive_find(a, am_archive_name(a, i)) != i)
            return -1;
        if (am_archive_tensor(&t, a, i, -1, 0) != AM_OK)
            continue;
        if (am_tensor_dtype(t) != dtype || am_tensor_ndim(t) != ndim)
            return -1;
        sink += tensor_sum(t);
        am_tensor_release(t);
    }
    return 0;
}

#endif
