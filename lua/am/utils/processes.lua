-- Copies of this process that compute something beside it, and other programs that it starts and waits for.
-- Holds no policy: which program, and what becomes of its signals, is the caller's to say.

local bit = require("bit")
local ffi = require("ffi")
local posix = require("am.utils.posix")

ffi.cdef [[
struct am_posix_sigset { unsigned long bits[16]; };
int sigemptyset(struct am_posix_sigset *set);
int sigaddset(struct am_posix_sigset *set, int signal);
int sigprocmask(int how, const struct am_posix_sigset *set, struct am_posix_sigset *old);
int sigwait(const struct am_posix_sigset *set, int *signal);
int setpgid(int pid, int group);
int setenv(const char *name, const char *value, int replace);
int unsetenv(const char *name);
int dup2(int from, int to);
int execvp(const char *file, char *const argv[]);
int geteuid(void);
]]

local C = ffi.C
local M = {}

local CLOEXEC, EINTR, ECHILD, PR_SET_PDEATHSIG, WNOHANG = 0x80000, 4, 10, 1, 1
local SIG_BLOCK, SIG_SETMASK, SIGCHLD = 0, 2, 17

--- Signals by name, those that a run may be sent.
M.signals = { SIGHUP = 1, SIGINT = 2, SIGKILL = 9, SIGUSR1 = 10, SIGUSR2 = 12, SIGTERM = 15, SIGXCPU = 24 }

local function failed(what)
    local number = ffi.errno()
    return nil, what .. ": " .. ffi.string(C.strerror(number)), number
end

-- ---- copies of this process -----------------------------------------------------------------

--- Run fn(write end of a pipe) in a copy of this process, which ends with it, or when this one does.
--- Nothing is flushed or collected at its end. Returns { pid, file }, the file being the pipe's other
--- end. A copy has one thread: it must not run kernels.
function M.fork(fn)
    local ends, parent = ffi.new("int[2]"), C.getpid()
    if C.pipe2(ends, CLOEXEC) ~= 0 then
        return failed("pipe")
    end
    local file, out = posix.adopt(ends[0]), posix.adopt(ends[1])
    local pid = C.fork()
    if pid < 0 then
        return failed("fork")
    elseif pid == 0 then
        C.prctl(PR_SET_PDEATHSIG, ffi.cast("unsigned long", M.signals.SIGKILL))
        if C.getppid() ~= parent then -- it ended before the line above
            C._exit(1)
        end
        C._exit(pcall(fn, out) and 0 or 1)
    end
    posix.close(out)
    return { pid = pid, file = file }
end

--- End a process that `fork` began, unless it has ended.
function M.kill(process)
    C.kill(process.pid, M.signals.SIGKILL)
end

--- Wait for the end of a process that `fork` began; the signal that ended it, or nil.
function M.wait(process)
    local status = ffi.new("int[1]")
    repeat
        local rc = C.waitpid(process.pid, status, 0)
    until rc >= 0 or ffi.errno() ~= EINTR
    local signal = bit.band(status[0], 0x7f)
    return signal ~= 0 and signal or nil
end

-- ---- other programs -------------------------------------------------------------------------

--- Whether this process has root's rights.
function M.is_root()
    return C.geteuid() == 0
end

--- The path of this process's program.
function M.program()
    return posix.readlink("/proc/self/exe")
end

--- Where a program's name is found in PATH, or nil.
function M.find(name)
    for folder in (os.getenv("PATH") or ""):gmatch("[^:]+") do
        local file = folder .. "/" .. name
        local found = posix.stat(file)
        if found and found.type == "file" then
            return file
        end
    end
    return nil
end

--- Send a signal to a process; true when there was one.
function M.signal(pid, number)
    return C.kill(pid, number) == 0
end

--- Processes whose parent is `pid`.
function M.children(pid)
    local found = {}
    for _, name in ipairs(posix.readdir("/proc") or {}) do
        local stat = name:find("^%d+$") and io.open("/proc/" .. name .. "/stat")
        if stat then
            local text = stat:read("*a") or "" -- pid (name, which may hold anything) state parent …
            stat:close()
            if tonumber(text:match(".*%) %a (%d+)")) == pid then
                found[#found + 1] = tonumber(name)
            end
        end
    end
    return found
end

-- Whether SIGHUP is ignored, as under nohup. Other signals reach a run also where a shell had them ignored.
local function hangup_ignored()
    local file = io.open("/proc/self/status")
    local text = file and file:read("*a") or ""
    if file then
        file:close()
    end
    return tonumber(text:match("SigIgn:%s*%x*(%x)\n") or "0", 16) % 2 == 1
end

local function relayed_signals()
    local set, without_hangup = ffi.new("struct am_posix_sigset"), hangup_ignored()
    C.sigemptyset(set)
    C.sigaddset(set, SIGCHLD)
    for name, number in pairs(M.signals) do
        if name ~= "SIGKILL" and not (name == "SIGHUP" and without_hangup) then
            C.sigaddset(set, number)
        end
    end
    return set
end

-- What the copy does between fork and its end as another program; `opts` as for run.
local function become(argv, opts)
    C.setpgid(0, 0)
    C.prctl(PR_SET_PDEATHSIG, ffi.cast("unsigned long", M.signals.SIGTERM))
    for name, value in pairs(opts.env or {}) do
        if value then
            C.setenv(name, value, 1)
        else
            C.unsetenv(name)
        end
    end
    for fd, name in pairs { [1] = opts.stdout, [2] = opts.stderr } do
        local file = posix.open(name, "create")
        if not file or C.dup2(file.fd, fd) < 0 then
            C._exit(126)
        end
    end
    local list = ffi.new("const char *[?]", #argv + 1)
    for i, word in ipairs(argv) do
        list[i - 1] = word
    end
    C.execvp(argv[1], ffi.cast("char *const *", list))
    C._exit(127)
end

-- The status of a process that has ended, as a shell tells it; nil while it runs.
local function status_of(pid)
    local status = ffi.new("int[1]")
    local rc = C.waitpid(pid, status, WNOHANG)
    if rc == 0 then
        return nil
    elseif rc < 0 then
        return ffi.errno() == ECHILD and 1 or nil
    end
    local signal = bit.band(status[0], 0x7f)
    return signal ~= 0 and 128 + signal or bit.band(bit.rshift(status[0], 8), 0xff)
end

--- Run a program (argv[1], found in PATH) in a process group of its own until it ends; its exit status, 128 and
--- more for a signal, as a shell has it, or nil, message. It ends by SIGTERM when this process does.
--- opts.env: { NAME = value, or false to take it away }; opts.stdout, opts.stderr: files that are written.
--- opts.on_signal(number, pid): called for each signal of M.signals that this process gets meanwhile, which none
--- of them ends; without it they go to the program.
function M.run(argv, opts)
    opts = opts or {}
    local set, before, number = relayed_signals(), ffi.new("struct am_posix_sigset"), ffi.new("int[1]")
    io.stdout:flush()
    io.stderr:flush()
    C.sigprocmask(SIG_BLOCK, set, before)
    local pid = C.fork()
    if pid == 0 then
        C.sigprocmask(SIG_SETMASK, before, nil)
        pcall(become, argv, opts)
        C._exit(126)
    end
    local status, message
    if pid < 0 then
        status, message = failed("fork")
    else
        local on_signal = opts.on_signal or function(signal, child) M.signal(child, signal) end
        status = status_of(pid)
        while not status do
            if C.sigwait(set, number) == 0 and number[0] ~= SIGCHLD then
                on_signal(number[0], pid)
            end
            status = status_of(pid)
        end
    end
    C.sigprocmask(SIG_SETMASK, before, nil)
    return status, message
end

return M
