-- POSIX calls by FFI. It, processes.lua (programs) and core/ffi.lua (the engine) are where C functions are declared.
-- Holds thin calls that return a value, or nil, message, errno. No policy: joining, walking and
-- atomic writing are path.lua's, and the engine's own functions are core/ffi.lua's.
-- Linux, 64 bits (x86-64, aarch64); statx is used because its layout is the same on all of them.

local ffi = require("ffi")

ffi.cdef [[
typedef struct am_posix_dir am_posix_dir;
struct am_posix_file { int fd; };
struct am_posix_dirent {
    uint64_t ino;
    int64_t off;
    unsigned short reclen;
    unsigned char type;
    char name[256];
};
struct am_posix_timespec { long sec; long nsec; };
struct am_posix_statvfs { unsigned long bsize, frsize, blocks, bfree, bavail, rest[6]; int spare[6]; };
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
int statx(int dirfd, const char *path, int flags, unsigned mask, struct am_posix_statx *out);
int mkdir(const char *path, unsigned mode);
int rmdir(const char *path);
int unlink(const char *path);
int rename(const char *from, const char *to);
int truncate(const char *path, int64_t length);
int ioctl(int fd, unsigned long request, ...);
int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags);
int symlink(const char *target, const char *link);
int64_t readlink(const char *path, char *buf, size_t size);
char *getcwd(char *buf, size_t size);
am_posix_dir *opendir(const char *path);
struct am_posix_dirent *readdir(am_posix_dir *dir);
int closedir(am_posix_dir *dir);
int open(const char *path, int flags, ...);
int close(int fd);
int fsync(int fd);
int posix_fadvise(int fd, int64_t offset, int64_t bytes, int advice);
int flock(int fd, int operation);
int statvfs(const char *path, struct am_posix_statvfs *out);
int64_t read(int fd, void *data, size_t bytes);
int64_t pread(int fd, void *data, size_t bytes, int64_t offset);
int64_t write(int fd, const void *data, size_t bytes);
int64_t pwrite(int fd, const void *data, size_t bytes, int64_t offset);
int fileno(void *file);
int isatty(int fd);
int getpid(void);
int getppid(void);
int fork(void);
int pipe2(int ends[2], int flags);
int waitpid(int pid, int *status, int options);
int kill(int pid, int signal);
int prctl(int option, ...);
void _exit(int status);
int gethostname(char *name, size_t len);
int clock_gettime(int clock, struct am_posix_timespec *out);
int nanosleep(const struct am_posix_timespec *duration, struct am_posix_timespec *left);
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
local ENOENT, EINTR, EIO, EWOULDBLOCK, EEXIST, EINVAL = 2, 4, 5, 11, 17, 22
local LOCK_EXCLUSIVE_NOW, DONTNEED = 6, 4

local M = { ENOENT = ENOENT, EIO = EIO, EEXIST = EEXIST, ENOSPC = 28 }

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

--- Bytes that may still be written to the file system that `path` is on.
function M.free_bytes(path)
    local bad, _, msg, errno = bad_name(path)
    if bad then
        return nil, msg, errno
    end
    local st = ffi.new("struct am_posix_statvfs")
    if C.statvfs(path, st) ~= 0 then
        return failed(path)
    end
    return tonumber(st.bavail) * tonumber(st.frsize)
end

M.mkdir = path_call(function(path) return C.mkdir(path, 0x1ff) end) -- 0777 less the umask
M.rmdir = path_call(function(path) return C.rmdir(path) end)
M.unlink = path_call(function(path) return C.unlink(path) end)

--- Cut a file to its first `bytes`.
function M.truncate(path, bytes)
    local bad, _, msg, errno = bad_name(path)
    if bad then
        return nil, msg, errno
    end
    if C.truncate(path, bytes) ~= 0 then
        return failed(path)
    end
    return true
end

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
        ffi.errno(0) -- the end and an error return the same
        local entry = C.readdir(dir)
        if entry == nil then
            local code = ffi.errno()
            C.closedir(dir)
            if code ~= 0 then
                ffi.errno(code)
                return failed(path)
            end
            return names
        end
        local name = ffi.string(entry.name)
        if name ~= "." and name ~= ".." then
            names[#names + 1] = name
        end
    end
end

-- ---- open files -----------------------------------------------------------------------------
-- Lua's own files lose data when a signal interrupts a call; these go on. A file that is dropped is
-- closed by the collector.

-- O_RDONLY, O_WRONLY | O_CREAT | O_TRUNC, O_WRONLY | O_CREAT | O_APPEND, O_WRONLY | O_CREAT
local CLOEXEC, MODE = 0x80000, ffi.new("int", 0x1b6) -- 0666 less the umask
local CHUNK = 65536

local ways = { read = 0, create = 0x241, append = 0x441, keep = 0x41 }

-- The result of call(...), made again while a signal interrupts it.
local function retried(call, ...)
    local n
    repeat
        n = tonumber(call(...))
    until n >= 0 or ffi.errno() ~= EINTR
    return n
end

local function owned(fd)
    return ffi.gc(ffi.new("struct am_posix_file", fd), function(file) C.close(file.fd) end)
end

--- Open a file to "read" it, to "create" it (empty when there is one), to "append" to it, or to "keep"
--- what it holds.
function M.open(path, way)
    local bad, _, msg, errno = bad_name(path)
    if bad then
        return nil, msg, errno
    end
    local fd = retried(C.open, path, bit.bor(ways[way], CLOEXEC), MODE)
    if fd < 0 then
        return failed(path)
    end
    return owned(fd)
end

--- A file that the engine opened, given by its descriptor, which is taken over.
function M.adopt(fd)
    return owned(fd)
end

--- What comes next in a file, at most `limit` bytes of it; "" at its end.
function M.read(file, limit)
    local parts, left, data = {}, limit or math.huge, ffi.new("char[?]", CHUNK)
    while left > 0 do
        local n = retried(C.read, file.fd, data, math.min(left, CHUNK))
        if n < 0 then
            return failed("read")
        elseif n == 0 then
            break
        end
        parts[#parts + 1] = ffi.string(data, n)
        left = left - n
    end
    return table.concat(parts)
end

-- call(array, bytes wanted, bytes done) until `bytes` are done or it says that there are no more.
local function fill(data, bytes, call)
    local at, done = ffi.cast("uint8_t *", data), 0
    while done < bytes do
        local n = call(at + done, bytes - done, done)
        if n < 0 then
            return failed("read")
        elseif n == 0 then
            break
        end
        done = done + n
    end
    return done
end

--- Read the next `bytes` of a file or pipe into a C array; returns how many, fewer where it ends.
function M.read_next(file, data, bytes)
    return fill(data, bytes, function(at, left) return retried(C.read, file.fd, at, left) end)
end

--- Read `bytes` of a file from `offset` on into a C array; returns how many, fewer where the file ends.
function M.read_into(file, data, offset, bytes)
    return fill(data, bytes, function(at, left, done) return retried(C.pread, file.fd, at, left, offset + done) end)
end

--- The same as a string.
function M.read_at(file, offset, bytes)
    local data = ffi.new("char[?]", bytes)
    local n, msg, errno = M.read_into(file, data, offset, bytes)
    if not n then
        return nil, msg, errno
    end
    return ffi.string(data, n)
end

--- Write all of a text, or `bytes` of a C array.
function M.write(file, text, bytes)
    local data, done = ffi.cast("const char *", text), 0
    bytes = bytes or #text
    while done < bytes do
        local n = retried(C.write, file.fd, data + done, bytes - done)
        if n < 0 then
            return failed("write")
        end
        done = done + n
    end
    return true
end

--- Write all of a text over what a file holds from `offset` on.
function M.write_at(file, offset, text)
    local data, done = ffi.cast("const char *", text), 0
    while done < #text do
        local n = retried(C.pwrite, file.fd, data + done, #text - done, offset + done)
        if n < 0 then
            return failed("write")
        end
        done = done + n
    end
    return true
end

--- Flush what was written to the disk itself.
function M.fsync(file)
    if retried(C.fsync, file.fd) ~= 0 then
        return failed("fsync")
    end
    return true
end

--- Let go of what memory holds of a file that is on the disk: the next read comes from there, where the file system
--- can do so.
function M.forget(file)
    C.posix_fadvise(file.fd, 0, 0, DONTNEED)
end

--- Close a file; some file systems report only now that a write failed.
function M.close(file)
    local fd = ffi.gc(file, nil).fd
    file.fd = -1
    if C.close(fd) ~= 0 and ffi.errno() ~= EINTR then -- interrupted, it is closed all the same
        return failed("close")
    end
    return true
end

--- Flush a file or folder by name; a folder, so that a rename in it survives a power cut.
function M.fsync_path(path)
    local file, msg, errno = M.open(path, "read")
    if not file then
        return nil, msg, errno
    end
    local ok
    ok, msg, errno = M.fsync(file)
    M.close(file)
    if not ok and errno ~= EINVAL then -- some network file systems cannot sync a folder
        return nil, path .. ": " .. msg, errno
    end
    return true
end

--- Lock a file for this process, making it when absent, and write `holder` into it. Returns a file whose
--- closing unlocks, or nil, message, and true when another one holds the lock.
function M.lock_file(path, holder)
    local file, msg = M.open(path, "keep")
    if not file then
        return nil, msg
    elseif retried(C.flock, file.fd, LOCK_EXCLUSIVE_NOW) ~= 0 then
        local _, why, errno = failed(path)
        M.close(file)
        return nil, why, errno == EWOULDBLOCK
    end
    local note = M.open(path, "create")
    if note then -- without it, the lock holds all the same
        M.write(note, holder .. "\n")
        M.close(note)
    end
    return file
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

-- ---- terminals, this process, time ------------------------------------------------------------

--- True when a Lua file handle (io.stdout, …) is a terminal.
function M.isatty(file)
    return C.isatty(C.fileno(file)) == 1
end

local TIOCGWINSZ = 0x5413

--- Columns of the terminal that a Lua file handle is, or nil.
function M.terminal_width(file)
    local size = ffi.new("unsigned short[4]")
    if C.ioctl(C.fileno(file), TIOCGWINSZ, size) ~= 0 or size[1] == 0 then
        return nil
    end
    return size[1]
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

--- Seconds since 1970 (UTC), fractional.
function M.time()
    C.clock_gettime(0, timespec)
    return tonumber(timespec.sec) + tonumber(timespec.nsec) * 1e-9
end

--- Sleep for some seconds; a signal ends it.
function M.sleep(seconds)
    C.nanosleep(ffi.new("struct am_posix_timespec", math.floor(seconds), math.floor(seconds % 1 * 1e9)), nil)
end

return M
