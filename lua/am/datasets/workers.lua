-- Work that is cut into blocks, done by copies of this process and taken in order. Knows nothing of what
-- the work is.
--
-- A copy has all that this process has loaded, so it runs the same code on the same data and raises the
-- same errors; neither LuaJIT nor the engine would let threads do that. Block b is made by copy
-- (b - 1) % count + 1 and comes through its pipe, which also keeps a copy from running far ahead.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local posix = require("am.utils.posix")
local processes = require("am.utils.processes")

local M = {}

-- Before each block: its bytes, or less than 0 for an error's text.
local head = ffi.new("double[1]")

local function send(file, data, bytes, kind)
    head[0] = kind * bytes
    return posix.write(file, head, 8) and posix.write(file, data, bytes)
end

local function error_text(e)
    return err.is(e) and e.code .. "\0" .. tostring(e) or "\0" .. tostring(e)
end

-- In a copy: blocks first, first + count, …
local function make_blocks(file, first, n, count, make)
    for b = first, n, count do
        local ok, data, bytes = pcall(make, b)
        if not ok then
            local text = error_text(data)
            send(file, text, #text, -1)
            return
        elseif not send(file, data, bytes, 1) then
            return
        end
    end
end

local function ended(process)
    local signal = processes.wait(process)
    process.waited = true
    err.raise(signal == 9 and "memory" or "internal", "a process that tokenises rows was ended %s",
        signal == 9 and "by signal 9; is there too little memory? --threads sets how many there are"
            or signal and "by signal " .. signal or "early")
end

-- Raise the error that a copy sent.
local function raise(text)
    local code, msg = text:match("^(%Z*)%z(.*)$")
    error(code ~= "" and err.new(code, msg) or msg, 0)
end

local function take_blocks(running, n, take)
    local room, data = 65536, ffi.new("double[?]", 8192)
    for b = 1, n do
        edge.check(edge.C.am_signals_check())
        local process = running[(b - 1) % #running + 1]
        if posix.read_next(process.file, head, 8) ~= 8 then
            ended(process)
        end
        local bytes, is_error = math.abs(head[0]), head[0] < 0
        if bytes > room then
            room = 2 * bytes
            data = ffi.new("double[?]", math.ceil(room / 8))
        end
        if posix.read_next(process.file, data, bytes) ~= bytes then
            ended(process)
        elseif is_error then
            raise(ffi.string(data, bytes))
        end
        take(data, bytes)
    end
end

--- Have `count` copies of this process make blocks 1 to n, and take them here in order.
---   make(b)            in a copy: a C array and its bytes, good until the next call; it must run no kernels
---   take(data, bytes)  here: a C array of doubles, good until it returns
--- Raises what make or take raise first in the order of blocks, and "interrupted" at the prompt. Returns
--- false, with nothing done, when the system lets this process have no copies.
function M.each(n, count, make, take)
    collectgarbage() -- what is garbage now must not be released in a copy too
    collectgarbage()
    local running = {}
    local ok, e = pcall(function()
        for w = 1, math.min(count, n) do
            local process = processes.fork(function(file) make_blocks(file, w, n, math.min(count, n), make) end)
            if not process then
                return false
            end
            running[w] = process
        end
        take_blocks(running, n, take)
        return true
    end)
    for _, process in ipairs(running) do
        if not process.waited then
            processes.kill(process)
            processes.wait(process)
        end
        posix.close(process.file)
    end
    if not ok then
        error(e, 0)
    end
    return e
end

return M
