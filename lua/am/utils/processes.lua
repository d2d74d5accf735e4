-- Copies of this process that compute something beside it, over the declarations of posix.lua.

local bit = require("bit")
local ffi = require("ffi")
local posix = require("am.utils.posix")

local C = ffi.C
local M = {}

local CLOEXEC, EINTR, SIGKILL, PR_SET_PDEATHSIG = 0x80000, 4, 9, 1

local function failed(what)
    local number = ffi.errno()
    return nil, what .. ": " .. ffi.string(C.strerror(number)), number
end

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
        C.prctl(PR_SET_PDEATHSIG, ffi.cast("unsigned long", SIGKILL))
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
    C.kill(process.pid, SIGKILL)
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

return M
