-- Makes the rows of a source, in several processes where there are many. Holds no tokenizer and no files:
-- token_rows.lua says what becomes of rows.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local utils = require("am.datasets.utils")
local workers = require("am.datasets.workers")

local C = edge.C
local M = {}

-- A row as the engine takes it, in arrays that are used again for the next one.
local Buffer = {}
Buffer.__index = Buffer

local function new_buffer()
    local capacity = 1024
    return setmetatable({ capacity = capacity, data = ffi.new("int32_t[?]", 4 * capacity),
                          row = ffi.new("am_token_row") }, Buffer)
end

local keys = { "input_ids", "labels", "attention_mask", "position_ids" }

-- Fill it; returns the tokens that are no padding. label_tokens may be 0.
function Buffer:fill(row)
    utils.fold_loss_mask(row)
    local n, out = #row.input_ids, self.row
    if n > self.capacity then
        self.capacity = 2 * n
        self.data = ffi.new("int32_t[?]", 4 * self.capacity)
    end
    for a, key in ipairs(keys) do
        local values, into = row[key], self.data + (a - 1) * self.capacity
        out[key] = values and into or nil
        for k = 1, values and n or 0 do
            into[k - 1] = values[k]
        end
    end
    local tokens = row.attention_mask and 0 or n
    for k = 1, row.attention_mask and n or 0 do
        tokens = tokens + row.attention_mask[k]
    end
    out.n, out.label_tokens = n, utils.count_labels(row.labels)
    return tokens
end

-- Row i of a source: keep(row, tokens, truncated) or leave(file, number, reason). The buffer holds the row.
local function each_row(rows, i, buffer, keep, leave)
    local row, reason = rows:row(i)
    local file, number = rows:place(i)
    local tokens = row and buffer:fill(row)
    if not row or (buffer.row.label_tokens == 0 and not rows.keep_all) then
        leave(file, number, reason or "no label left")
    else
        buffer.row.file, buffer.row.number = file, number
        keep(buffer.row, tokens, row.truncated or false)
    end
end

-- ---- in several processes: a block of rows as bytes. A row is HEAD doubles, then its arrays, or the text
-- that says why it is left out, to a multiple of 8 bytes.

local BLOCK, ENOUGH = 64, 2048 -- rows in a block; rows for which a process is worth its start
local HEAD = 9

local Packet = {}
Packet.__index = Packet

local function new_packet()
    return setmetatable({ used = 0, capacity = 8192, data = ffi.new("double[?]", 8192) }, Packet)
end

-- Room for a row with that many bytes behind its head; returns the head, and where the bytes go.
function Packet:room(bytes)
    local words = HEAD + math.ceil(bytes / 8)
    if self.used + words > self.capacity then
        self.capacity = 2 * (self.used + words)
        local data = ffi.new("double[?]", self.capacity)
        ffi.copy(data, self.data, 8 * self.used)
        self.data = data
    end
    local at = self.data + self.used
    self.used = self.used + words
    return at, at + HEAD
end

function Packet:put_row(row, tokens, truncated)
    local bytes = 4 * tonumber(row.n)
    local arrays = 2 + (row.attention_mask ~= nil and 1 or 0) + (row.position_ids ~= nil and 1 or 0)
    local at, into = self:room(arrays * bytes)
    at[0], at[1], at[2], at[3], at[4] = 1, tonumber(row.file), tonumber(row.number), tonumber(row.n), tokens
    at[5] = tonumber(row.label_tokens)
    at[6], at[7] = row.attention_mask ~= nil and 1 or 0, row.position_ids ~= nil and 1 or 0
    at[8] = truncated and 1 or 0
    into = ffi.cast("uint8_t *", into)
    for _, key in ipairs(keys) do
        if row[key] ~= nil then
            ffi.copy(into, row[key], bytes)
            into = into + bytes
        end
    end
end

function Packet:put_left(file, number, reason)
    local at, into = self:room(#reason)
    at[0], at[1], at[2], at[3] = 0, file, number, #reason
    ffi.copy(into, reason, #reason)
end

-- What was put, in order: keep(row, tokens, truncated), leave(file, number, reason).
local function each_put(data, bytes, row, keep, leave)
    local words, at = bytes / 8, 0
    while at < words do
        local head, n = data + at, data[at + 3]
        if head[0] == 0 then
            leave(head[1], head[2], ffi.string(head + HEAD, n))
            at = at + HEAD + math.ceil(n / 8)
        else
            local arrays = ffi.cast("int32_t *", head + HEAD)
            row.file, row.number, row.n, row.label_tokens = head[1], head[2], n, head[5]
            row.input_ids, row.labels = arrays, arrays + n
            row.attention_mask = head[6] == 1 and arrays + 2 * n or nil
            row.position_ids = head[7] == 1 and arrays + (2 + head[6]) * n or nil
            keep(row, head[4], head[8] == 1)
            at = at + HEAD + math.ceil((2 + head[6] + head[7]) * n / 2)
        end
    end
end

--- The rows of a source in order, each made once: keep(row, tokens, truncated) with an am_token_row, good until
--- it returns, the tokens in it that are no padding, and whether the source had cut it; leave(file, number,
--- reason) for rows that are left out. `rows`: see token_rows.open; rows.enough: how many are worth the start
--- of a process, where they are large. Many rows are made in up to as many processes as the engine has
--- threads, which changes nothing but the time. Raises what rows:row raises first, and "interrupted" at the
--- prompt.
function M.each(rows, keep, leave)
    local n, buffer, packet, row = rows:len(), new_buffer(), new_packet(), ffi.new("am_token_row")
    local function put_row(r, tokens, truncated) packet:put_row(r, tokens, truncated) end
    local function put_left(file, number, reason) packet:put_left(file, number, reason) end
    local function make(b)
        packet.used = 0
        for i = BLOCK * (b - 1) + 1, math.min(BLOCK * b, n) do
            each_row(rows, i, buffer, put_row, put_left)
        end
        return packet.data, 8 * packet.used
    end
    local function take(data, bytes) each_put(data, bytes, row, keep, leave) end
    local count = math.min(C.am_threads(), math.floor(n / (rows.enough or ENOUGH)))
    if count > 1 and not rows.keep_all and workers.each(math.ceil(n / BLOCK), count, make, take) then
        return
    end
    for i = 1, n do
        edge.check(C.am_signals_check())
        each_row(rows, i, buffer, keep, leave)
    end
end

return M
