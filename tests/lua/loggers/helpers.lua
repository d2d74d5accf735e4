-- What the specs of trackers share: a folder of their own, readers of what is written, a server that is
-- a function, a clock that is set by hand.

local ffi = require("ffi")
local crc = require("am.loggers.crc")
local path = require("am.utils.path")

local M = {}

--- A new folder, and a function that removes it.
function M.folder()
    local dir = os.tmpname()
    os.remove(dir)
    path.mkdir_p(dir)
    return dir, function() path.remove_tree(dir) end
end

function M.read(name)
    return assert(path.read_file(name))
end

--- Bytes as hexadecimal digits.
function M.hex(text)
    return (text:gsub(".", function(c) return string.format("%02x", c:byte()) end))
end

local function uint(text, at, bytes)
    local n = 0
    for i = bytes - 1, 0, -1 do
        n = n * 256 + text:byte(at + i)
    end
    return n
end
M.uint = uint

--- The payloads of a file of TFRecords; every sum is checked.
function M.tfrecords(text)
    local out, at = {}, 1
    while at <= #text do
        local length = uint(text, at, 8)
        assert(uint(text, at + 8, 4) == crc.masked(crc.crc32c(text:sub(at, at + 7))), "sum of a length")
        local payload = text:sub(at + 12, at + 11 + length)
        assert(#payload == length, "a torn record")
        assert(uint(text, at + 12 + length, 4) == crc.masked(crc.crc32c(payload)), "sum of a record")
        out[#out + 1] = payload
        at = at + 16 + length
    end
    return out
end

--- The records of a W&B file; every sum is checked.
function M.wandb_records(text)
    assert(text:sub(1, 7) == ":W&B\225\190\0", "header")
    local out, at, open = {}, 8, nil
    while at <= #text do
        local room = 32768 - (at - 1) % 32768
        if room < 7 then
            assert(text:sub(at, at + room - 1) == ("\0"):rep(room), "padding")
            at = at + room
        else
            local length, kind = uint(text, at + 4, 2), text:byte(at + 6)
            local data = text:sub(at + 7, at + 6 + length)
            assert(#data == length and length + 7 <= room, "a torn record")
            assert(uint(text, at, 4) == crc.crc32(string.char(kind) .. data), "sum of a record")
            assert((kind == 1 or kind == 2) == (open == nil), "order of pieces")
            open = (open or "") .. data
            if kind == 1 or kind == 4 then
                out[#out + 1], open = open, nil
            end
            at = at + 7 + length
        end
    end
    assert(open == nil, "a record without an end")
    return out
end

--- A protocol buffer message as { [field] = array of values }; what is in a field of bytes is a string.
function M.message(text)
    local out, at = {}, 1
    local function varint()
        local n, scale = 0, 1
        repeat
            local byte = text:byte(at)
            n, scale, at = n + byte % 128 * scale, scale * 128, at + 1
        until byte < 128
        return n
    end
    local function number(ctype)
        local value = ffi.new(ctype .. "[1]")
        ffi.copy(value, text:sub(at), ffi.sizeof(ctype))
        at = at + ffi.sizeof(ctype)
        return tonumber(value[0])
    end
    while at <= #text do
        local key = varint()
        local field, kind = math.floor(key / 8), key % 8
        local value
        if kind == 0 then
            value = varint()
        elseif kind == 1 then
            value = number("double")
        elseif kind == 5 then
            value = number("float")
        else
            local length = varint()
            value = text:sub(at, at + length - 1)
            at = at + length
        end
        out[field] = out[field] or {}
        table.insert(out[field], value)
    end
    return out
end

--- A server: http.request calls answer(request), which returns a status and a table or a text, or nil and
--- a message. http.requests has all of them, bodies decoded.
function M.http(answer)
    local json = require("am.utils.json")
    local http = { requests = {} }
    function http.request(r)
        local seen = { method = r.method, url = r.url, headers = r.headers, timeout = r.timeout, body = r.body }
        seen.json = r.body and json.decode(r.body)
        http.requests[#http.requests + 1] = seen
        local status, body = answer(seen)
        if not status then
            return nil, body
        end
        return { status = status, headers = {}, body = type(body) == "table" and json.encode(body) or body or "" }
    end
    return http
end

--- A log that remembers: log.lines is an array of "level message".
function M.log()
    local log = { lines = {} }
    for _, level in ipairs { "debug", "info", "warning", "error" } do
        log[level] = function(_, fmt, ...)
            log.lines[#log.lines + 1] = level .. " " .. (select("#", ...) > 0 and fmt:format(...) or fmt)
        end
    end
    function log.text()
        return table.concat(log.lines, "\n")
    end
    return log
end

--- A clock: clock() tells it, clock:set(seconds) sets it.
function M.clock(seconds)
    local clock = { now = seconds or 0 }
    function clock:set(to) self.now = to end
    return setmetatable(clock, { __call = function(self) return self.now end })
end

return M
