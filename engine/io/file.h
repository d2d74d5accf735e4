/* file.h — reading, mapping and safely replacing whole files.
 * Every call to the operating system goes through am_file_system, so that tests can make any of
 * them fail or record their order. */
#ifndef AM_FILE_H
#define AM_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include "../am.h"

/* The system's own functions; they return -1 (map: NULL) and set errno. Tests replace members. */
typedef struct am_file_ops {
    int (*open)(const char *path, int flags, mode_t mode);
    int (*close)(int fd);
    int (*stat)(int fd, struct stat *st);
    ssize_t (*read)(int fd, void *data, size_t bytes);
    ssize_t (*write)(int fd, const void *data, size_t bytes);
    ssize_t (*write_at)(int fd, const void *data, size_t bytes, off_t at);
    int (*cut)(int fd, off_t bytes); /* or make longer */
    int (*sync)(int fd);
    int (*rename)(const char *from, const char *to);
    int (*remove)(const char *path);
    void *(*map)(int fd, size_t bytes); /* private and writable: copy-on-write */
    int (*unmap)(void *data, size_t bytes);
    int (*give_back)(void *data, size_t bytes); /* mapped pages that were only read */
} am_file_ops;
extern am_file_ops am_file_system;

/* The whole file and a NUL after it, to be freed with am_free. AM_EIO when it can't be read or is
 * no regular file, AM_EFORMAT when it is larger than max_bytes. */
int am_file_read(char **data, size_t *bytes, const char *path, size_t max_bytes);

/* Hand a whole file to `visit` in pieces, in order; its error ends that and comes back. Fails as
 * am_file_read does, and with AM_EINTR when am_signals_check does. */
int am_file_scan(const char *path, int (*visit)(void *context, const void *data, size_t bytes),
                 void *context);

/* A counted mapping. Writing to its pages never changes the file. An empty file has data NULL.
 * Cutting the file short while it is mapped kills the process (SIGBUS): files are replaced by
 * renaming, never rewritten in place. */
typedef struct am_mapping {
    int refs;
    int in_place; /* tensors whose bytes are the mapping's, see archive.c */
    uint8_t *data;
    size_t bytes;
} am_mapping;
int am_mapping_open(am_mapping **out, const char *path);
void am_mapping_retain(am_mapping *m);
void am_mapping_release(void *mapping); /* void *: also a storage's release function */
/* A range that will be read soon: the system may start reading it. */
void am_mapping_prefetch(const am_mapping *m, size_t offset, size_t bytes);
/* A range that was only read need not stay in memory: the system reads it again when it must. */
void am_mapping_give_back(const am_mapping *m, size_t offset, size_t bytes);

/* Replace a file: begin, append in order, commit. What is written goes to a new file in the same
 * folder, which is synced and renamed over `path` by commit (a symbolic link is replaced, not
 * followed), and the folder is synced. After an error the new file is gone and `path` is as it
 * was; only when the folder can't be synced, `path` is new and AM_EIO says so. `total` is the size
 * expected, for the message of a full disk. */
typedef struct am_file_writer {
    const char *path; /* borrowed */
    char *temporary;  /* NULL once committed or discarded */
    int fd;
    uint64_t total;
} am_file_writer;
int am_file_begin(am_file_writer *w, const char *path, uint64_t total);
int am_file_append(am_file_writer *w, const void *data, size_t bytes);
int am_file_commit(am_file_writer *w);
/* Map what was appended so far, before the file gets its name. */
int am_file_map(am_mapping **out, const am_file_writer *w);
/* Begin a file that never gets a name, in the folder of `path`; the system removes it when its
 * mappings end. It is closed by am_file_discard. */
int am_file_begin_unnamed(am_file_writer *w, const char *path, uint64_t total);
/* The descriptor of such a file, which the caller closes; the writer is left empty. */
int am_file_take(am_file_writer *w);
void am_file_discard(am_file_writer *w); /* nothing when committed, discarded or zeroed */

/* A file that several write to, each its own bytes, under the name that it has: made, with `bytes`
 * as its size, or opened, when another process has made it; AM_EIO unless it has that size. Any
 * thread may write to it; none of these asks for signals. */
int am_file_make_sized(int *fd, const char *path, uint64_t bytes);
int am_file_open_sized(int *fd, const char *path, uint64_t bytes);
int am_file_write_at(int fd, const char *path, const void *data, size_t bytes, uint64_t at);
int am_file_sync_fd(int fd, const char *path);
int am_file_sync_path(const char *path); /* a file or a folder */
/* Hand all of it to `visit`, as am_file_scan does; it was not read before. */
int am_file_scan_fd(int fd, const char *path, uint64_t bytes,
                    int (*visit)(void *context, const void *data, size_t bytes), void *context);
int am_file_close_fd(int fd, const char *path);

#endif
