/* faults.c — preloaded into amlua: what it asks of the system for files under a folder is written
 * to a log, and one call of them can be made to fail. Holds no judgement: tests/support/faults.lua
 * starts programs with it and reads the log, and the specs say what must be.
 *
 *   AM_FAULTS_UNDER=/folder   what concerns other files is passed on and forgotten
 *   AM_FAULTS_LOG=file        a line a call, "call \t path \t other path \t bytes", then the bytes
 * written AM_FAULTS_FAIL="write 3 28 0"   the 3rd write fails with errno 28, once; "… 1": and all
 * after it; errno 0: it reads or writes half of what was asked for */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FILES = 1024, GO_ON = 0, FAIL = -1, SHORT = 1 };

static char *names[FILES]; /* of open files under the folder */
static DIR *folders[FILES];
static int log_fd = -1, fail_errno, fail_forever;
static long fail_at, seen;
static char fail_call[32];
static const char *under;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void)
{
    const char *name = getenv("AM_FAULTS_LOG"), *fail = getenv("AM_FAULTS_FAIL");
    under = getenv("AM_FAULTS_UNDER");
    if (name)
        log_fd = (int)syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
                              0666);
    if (fail &&
        sscanf(fail, "%31s %ld %d %d", fail_call, &fail_at, &fail_errno, &fail_forever) != 4)
        abort();
}

static int ours(const char *path)
{
    return under && path && strncmp(path, under, strlen(under)) == 0;
}

static const char *name_of(int fd)
{
    return fd >= 0 && fd < FILES ? names[fd] : NULL;
}

/* Whether a call may go on. */
static int ask(const char *call, const char *path)
{
    if (!ours(path) || strcmp(call, fail_call) != 0 || ++seen < fail_at ||
        (seen > fail_at && !fail_forever))
        return GO_ON;
    if (fail_errno == 0)
        return SHORT;
    errno = fail_errno;
    return FAIL;
}

static void put(const void *data, size_t bytes)
{
    if (syscall(SYS_write, log_fd, data, bytes) != (long)bytes)
        abort();
}

/* Note a call; "!" behind its name says that it changed nothing. */
static void note(const char *call, const char *path, const char *other, const void *data,
                 size_t bytes)
{
    char line[8192];
    if (log_fd < 0 || !ours(path))
        return;
    int before = errno;
    pthread_mutex_lock(&one_at_a_time); /* a thread writes, too */
    put(line, (size_t)snprintf(line, sizeof line, "%s\t%s\t%s\t%zu\n", call, path, other, bytes));
    if (bytes > 0)
        put(data, bytes);
    pthread_mutex_unlock(&one_at_a_time);
    errno = before;
}

/* The system's own function. */
#define SYSTEM(name)                                                                               \
    static __typeof__(&name) system_##name;                                                        \
    if (!system_##name)                                                                            \
    *(void **)&system_##name = dlsym(RTLD_NEXT, #name)

int open(const char *path, int flags, ...)
{
    SYSTEM(open);
    va_list args;
    va_start(args, flags);
    int mode = va_arg(args, int);
    va_end(args);
    int fd = ask("open", path) == FAIL ? -1 : system_open(path, flags, mode);
    if (fd >= 0 && fd < FILES && ours(path))
        names[fd] = strdup(path);
    note(fd < 0                       ? "open!"
         : flags & (O_TRUNC | O_EXCL) ? "create"
         : flags & O_APPEND           ? "append"
                                      : "open",
         path, "", NULL, 0);
    return fd;
}

int close(int fd)
{
    SYSTEM(close);
    char *name = fd >= 0 && fd < FILES ? names[fd] : NULL;
    int refused = name && ask("close", name) == FAIL, code = errno;
    if (name) {
        note("close", name, "", NULL, 0);
        free(name);
        names[fd] = NULL;
    }
    int rc = system_close(fd);
    if (refused)
        errno = code;
    return refused ? -1 : rc;
}

ssize_t read(int fd, void *data, size_t bytes)
{
    SYSTEM(read);
    int go = ask("read", name_of(fd));
    note("read", name_of(fd), "", NULL, 0);
    return go == FAIL ? -1 : system_read(fd, data, go == SHORT ? (bytes + 1) / 2 : bytes);
}

ssize_t pread(int fd, void *data, size_t bytes, off_t offset)
{
    SYSTEM(pread);
    int go = ask("pread", name_of(fd));
    note("pread", name_of(fd), "", NULL, 0);
    return go == FAIL ? -1 : system_pread(fd, data, go == SHORT ? (bytes + 1) / 2 : bytes, offset);
}

ssize_t write(int fd, const void *data, size_t bytes)
{
    SYSTEM(write);
    int go = ask("write", name_of(fd));
    if (go == FAIL)
        return -1;
    ssize_t n = system_write(fd, data, go == SHORT ? (bytes + 1) / 2 : bytes);
    if (n > 0)
        note("write", name_of(fd), "", data, (size_t)n);
    return n;
}

/* Noted with where it goes in place of another path. */
ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
    SYSTEM(pwrite);
    char at[32];
    int go = ask("pwrite", name_of(fd));
    if (go == FAIL)
        return -1;
    ssize_t n = system_pwrite(fd, data, go == SHORT ? (bytes + 1) / 2 : bytes, offset);
    snprintf(at, sizeof at, "%lld", (long long)offset);
    if (n > 0)
        note("pwrite", name_of(fd), at, data, (size_t)n);
    return n;
}

int ftruncate(int fd, off_t bytes)
{
    SYSTEM(ftruncate);
    char size[32];
    snprintf(size, sizeof size, "%lld", (long long)bytes);
    int rc = ask("ftruncate", name_of(fd)) == FAIL ? -1 : system_ftruncate(fd, bytes);
    note(rc == 0 ? "ftruncate" : "ftruncate!", name_of(fd), size, NULL, 0);
    return rc;
}

void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    SYSTEM(mmap);
    note("mmap", name_of(fd), "", NULL, 0);
    return ask("mmap", name_of(fd)) == FAIL ? MAP_FAILED
                                            : system_mmap(at, bytes, protection, flags, fd, offset);
}

/* A call on one path, or on an open file's, that returns 0 when it went well. */
#define CALL(name, path, other, parameters, arguments)                                             \
    int name parameters                                                                            \
    {                                                                                              \
        SYSTEM(name);                                                                              \
        int rc = ask(#name, path) == FAIL ? -1 : system_##name arguments;                          \
        note(rc == 0 ? #name : #name "!", path, other, NULL, 0);                                   \
        return rc;                                                                                 \
    }
CALL(fsync, name_of(fd), "", (int fd), (fd))
CALL(fstat, name_of(fd), "", (int fd, struct stat *st), (fd, st))
CALL(mkdir, path, "", (const char *path, mode_t mode), (path, mode))
CALL(rmdir, path, "", (const char *path), (path))
CALL(unlink, path, "", (const char *path), (path))
CALL(rename, from, to, (const char *from, const char *to), (from, to))
CALL(symlink, link, target, (const char *target, const char *link), (target, link))
CALL(renameat2, from, to, (int a, const char *from, int b, const char *to, unsigned flags),
     (a, from, b, to, flags))
CALL(statx, path, "",
     (int dir, const char *restrict path, int flags, unsigned mask, struct statx *restrict st),
     (dir, path, flags, mask, st))

ssize_t readlink(const char *restrict path, char *restrict text, size_t bytes)
{
    SYSTEM(readlink);
    note("readlink", path, "", NULL, 0);
    return ask("readlink", path) == FAIL ? -1 : system_readlink(path, text, bytes);
}

DIR *opendir(const char *path)
{
    SYSTEM(opendir);
    note("opendir", path, "", NULL, 0);
    DIR *folder = ask("opendir", path) == FAIL ? NULL : system_opendir(path);
    int fd = folder ? dirfd(folder) : -1;
    if (fd >= 0 && fd < FILES)
        folders[fd] = ours(path) ? folder : NULL;
    return folder;
}

struct dirent *readdir(DIR *folder)
{
    SYSTEM(readdir);
    int fd = dirfd(folder);
    const char *name = fd >= 0 && fd < FILES && folders[fd] == folder ? under : NULL;
    note("readdir", name, "", NULL, 0);
    return ask("readdir", name) == FAIL ? NULL : system_readdir(folder);
}
