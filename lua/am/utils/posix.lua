-- POSIX calls by FFI: the one file beside core/ffi.lua that declares C functions.
-- Holds thin calls that return a value, or nil, message, errno. No policy: joining, walking and
-- atomic writing are path.lua's, and the engine's own functions are core/ffi.lua's.
-- Linux, 64 bits (x86-64, aarch64); statx is used because its layout is the same on all of them.

local ffi = require("ffi")

ffi.cdef [[
typedef struct am_posix_dir am_posix_dir;
struct am_posix_dirent {
    uint64_t ino;
    int64_t off;
    unsigned short reclen;
    unsigned char type;
    char name[256];
};
struct am_posix_timespec { long sec; long nsec; };
struct am_posix_statx_time { int64_t sec; uint32_t nsec; int32_t pad; };
struct am_posix_statx {
    uint32_t mask, blksize;
    uint64_t attributes;
    uint32_t nlink, uid, gid;
    uint16_t mode, pad0;
    uint64_t ino, size, blocks, attributes_mask;
    struct am_posix_statx_time atime, btime, ctime, mtime;
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
    uint64_t spare[14];
};
struct am_posix_statvfs {
    unsigned long bsize, frsize;
    uint64_t blocks, bfree, bavail, files, ffree, favail;
    unsigned long fsid, flag, namemax;
    int spare[6];
};
int statx(int dirfd, const char *path, int flags, unsigned mask, struct am_posix_statx *out);
int statvfs(const char *path, struct am_posix_statvfs *out);
int mkdir(const char *path, unsigned mode);
int rmdir(const char *path);
int unlink(const char *path);
int rename(const char *from, const char *to);
int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags);
int symlink(const char *target, const char *link);
int64_t readlink(const char *path, char *buf, size_t size);
char *realpath(const char *path, char *resolved);
char *getcwd(char *buf, size_t size);
am_posix_dir *opendir(const char *path);
struct am_posix_dirent *readdir(am_posix_dir *dir);
int closedir(am_posix_dir *dir);
int open(const char *path, int flags, ...);
int close(int fd);
int fsync(int fd);
int fileno(void *file);
int isatty(int fd);
int getpid(void);
int gethostname(char *name, size_t len);
int setenv(const char *name, const char *value, int overwrite);
int unsetenv(const char *name);
int clock_gettime(int clock, struct am_posix_timespec *out);
char *strerror(int errnum);
int snprintf(char *buf, size_t size, const char *format, ...);
]]

local C = ffi.C
local AT_FDCWD, AT_SYMLINK_NOFOLLOW = -100, 0x100
local RENAME_EXCHANGE = 2
local STATX_BASIC = 0x7ff
local S_IFMT, S_IFDIR, S_IFREG, S_IFLNK = 0xf000, 0x4000, 0x8000, 0xa000
local O_CREAT_EXCL = 0x40 + 0x80 + 1 -- to write
local PATH_MAX = 4096
local ENOENT, EEXIST, EINVAL = 2, 17, 22

local M = { ENOENT = ENOENT, EEXIST = EEXIST, ENOSPC = 28 }

local function failed(what)
    local errno = ffi.errno()
    return nil, string.format("%s: %s", what, ffi.string(C.strerror(errno))), errno
end

-- C strings end at the first NUL: a name that holds one would silently reach another file.
local function bad_name(path)
    if type(path) ~= "string" or path:find("\0", 1, true) then
        return true, nil, "file name holds a NUL byte: " .. string.format("%q", tostring(path)), EINVAL
    end
    return false
end

-- Wrap `int call(path)` so that it returns true, or nil, message, errno.
local function path_call(call)
    return function(path)
        local bad, _, msg, errno = bad_name(path)
        if bad then
            return nil, msg, errno
        end
        if call(path) ~= 0 then
            return failed(path)
        end
        return true
    end
end

--- Kind, size and times of what `path` names: { type = "dir"|"file"|"link"|"other", size, mtime
--- (seconds, fractional), ino, dev }. Links are followed unless `nofollow`.
function M.stat(path, nofollow)
    local bad, _, msg, errno = bad_name(path)
    if bad then
        return nil, msg, errno
    end
    local st = ffi.new("struct am_posix_statx")
    if C.statx(AT_FDCWD, path, nofollow and AT_SYMLINK_NOFOLLOW or 0, STATX_BASIC, st) ~= 0 then
        return failed(path)
    end
    local fmt = bit.band(st.mode, S_IFMT)
    return {
        type = fmt == S_IFDIR and "dir" or fmt == S_IFREG and "file" or fmt == S_IFLNK and "link" or "other",
        size = tonumber(st.size),
        mtime = tonumber(st.mtime.sec) + st.mtime.nsec * 1e-9,
        ino = tonumber(st.ino),
        dev = st.dev_major * 0x100000 + st.dev_minor,
    }
end

--- Bytes free for an unprivileged user on the file system that holds `path`, and its size.
function M.disk_free(path)
    local bad, _, msg, errno = bad_name(path)
    if bad then
        return nil, msg, errno
    end
    local st = ffi.new("struct am_posix_statvfs")
    if C.statvfs(path, st) ~= 0 then
        return failed(path)
    end
    return tonumber(st.bavail) * tonumber(st.frsize), tonumber(st.blocks) * tonumber(st.frsize)
end

M.mkdir = path_call(function(path) return C.mkdir(path, 0x1ff) end) -- 0777 less the umask
M.rmdir = path_call(function(path) return C.rmdir(path) end)
M.unlink = path_call(function(path) return C.unlink(path) end)

--- Atomic within one file system; an existing file at `to` is replaced.
function M.rename(from, to)
    if bad_name(from) or bad_name(to) then
        return nil, "file name holds a NUL byte", EINVAL
    end
    if C.rename(from, to) ~= 0 then
        return failed(from .. " -> " .. to)
    end
    return true
end

--- Swap what two names stand for, in one step. Not every file system can.
function M.exchange(a, b)
    if bad_name(a) or bad_name(b) then
        return nil, "file name holds a NUL byte", EINVAL
    end
    if C.renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) ~= 0 then
        return failed(a .. " <-> " .. b)
    end
    return true
end

--- Make `link` point at `target`, which is stored as written.
function M.symlink(target, link)
    if bad_name(target) or bad_name(link) then
        return nil, "file name holds a NUL byte", EINVAL
    end
    if C.symlink(target, link) ~= 0 then
        return failed(link)
    end
    return true
end

--- What a symbolic link points at, as stored.
function M.readlink(path)
    local bad, _, msg, errno = bad_name(path)
    if bad then
        return nil, msg, errno
    end
    local buf = ffi.new("char[?]", PATH_MAX)
    local n = tonumber(C.readlink(path, buf, PATH_MAX))
    if n < 0 then
        return failed(path)
    end
    return ffi.string(buf, n)
end

--- Absolute path with links, "." and ".." resolved; what it names must exist.
function M.realpath(path)
    local bad, _, msg, errno = bad_name(path)
    if bad then
        return nil, msg, errno
    end
    local buf = ffi.new("char[?]", PATH_MAX + 1)
    if C.realpath(path, buf) == nil then
        return failed(path)
    end
    return ffi.string(buf)
end

--- The current folder.
function M.getcwd()
    local buf = ffi.new("char[?]", PATH_MAX)
    if C.getcwd(buf, PATH_MAX) == nil then
        return failed("current folder")
    end
    return ffi.string(buf)
end

--- Names in a folder, unsorted, without "." and "..".
function M.readdir(path)
    local bad, _, msg, errno = bad_name(path)
    if bad then
        return nil, msg, errno
    end
    local dir = C.opendir(path)
    if dir == nil then
        return failed(path)
    end
    local names = {}
    while true do
        local entry = C.readdir(dir)
        if entry == nil then
            break
        end
        local name = ffi.string(entry.name)
        if name ~= "." and name ~= ".." then
            names[#names + 1] = name
        end
    end
    C.closedir(dir)
    return names
end

--- Flush what was written to a Lua file handle to the disk itself.
function M.fsync_file(file)
    file:flush()
    if C.fsync(C.fileno(file)) ~= 0 then
        return failed("fsync")
    end
    return true
end

--- Flush a file or folder by name; a folder, so that a rename in it survives a power cut.
function M.fsync_path(path)
    local bad, _, msg, errno = bad_name(path)
    if bad then
        return nil, msg, errno
    end
    local fd = C.open(path, 0)
    if fd < 0 then
        return failed(path)
    end
    local rc = C.fsync(fd)
    local errno_sync = ffi.errno()
    C.close(fd)
    if rc ~= 0 and errno_sync ~= EINVAL then -- some network file systems cannot sync a folder
        return nil, string.format("%s: %s", path, ffi.string(C.strerror(errno_sync))), errno_sync
    end
    return true
end

--- Make an empty file that only its owner may read and write. Fails when the name is taken.
function M.create_private(path)
    local bad, _, msg, errno = bad_name(path)
    if bad then
        return nil, msg, errno
    end
    local fd = C.open(path, O_CREAT_EXCL, ffi.cast("unsigned", 0x180)) -- 0600
    if fd < 0 then
        return failed(path)
    end
    C.close(fd)
    return true
end

--- True when a Lua file handle (io.stdout, …) is a terminal.
function M.isatty(file)
    return C.isatty(C.fileno(file)) == 1
end

function M.getpid()
    return C.getpid()
end

function M.hostname()
    local buf = ffi.new("char[256]")
    if C.gethostname(buf, 255) ~= 0 then
        return failed("hostname")
    end
    return ffi.string(buf)
end

--- Set an environment variable of this process, or remove it with nil.
function M.setenv(name, value)
    if bad_name(name) or (value ~= nil and bad_name(value)) then
        return nil, "environment variable holds a NUL byte", EINVAL
    end
    local rc
    if value == nil then
        rc = C.unsetenv(name)
    else
        rc = C.setenv(name, value, 1)
    end
    if rc ~= 0 then
        return failed(name)
    end
    return true
end

local digits = ffi.new("char[400]") -- the longest double has 309 digits before the point

local function c_format(format, precision, x)
    local n = C.snprintf(digits, 400, format, ffi.cast("int", precision), ffi.cast("double", x))
    return ffi.string(digits, math.min(n, 399))
end

--- `%.<precision>e` of a number by the C library: LuaJIT's own formatter rounds ties up, C and
--- Python round them to even.
function M.scientific(x, precision)
    return c_format("%.*e", precision, x)
end

--- `%.<precision>f`, the same way.
function M.fixed(x, precision)
    return c_format("%.*f", precision, x)
end

local timespec = ffi.new("struct am_posix_timespec")

local function clock(id)
    C.clock_gettime(id, timespec)
    return tonumber(timespec.sec) + tonumber(timespec.nsec) * 1e-9
end

--- Seconds since 1970 (UTC), fractional.
function M.time()
    return clock(0)
end

--- Seconds of a clock that never jumps; for measuring.
function M.monotonic()
    return clock(1)
end

return M
