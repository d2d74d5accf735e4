-- The engine's tokenizer (am.h, "tokenizer") as an object: ids, offsets, text, look-ups. What stands around it,
-- special tokens by name, chat templates and files, is tokenizer.lua's.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")

local C, check = edge.C, edge.check
local M = {}

local ids_box, n_box = ffi.new("const int32_t *[1]"), ffi.new("int64_t[1]")
local offsets_box = ffi.new("const int64_t *[1]")
local text_box, bytes_box = ffi.new("const char *[1]"), ffi.new("size_t[1]")

---@class am.tokenizers.Engine the C object behind a tokenizer
local Engine = {}
Engine.__index = Engine

-- What one of the C constructors makes of its arguments.
local function made_by(constructor, ...)
    local box = edge.box("am_tokenizer")
    edge.check_retry(constructor, box, ...)
    return setmetatable({ handle = ffi.gc(box[0], C.am_tokenizer_release) }, Engine)
end

--- From the text of a tokenizer.json.
function M.engine_from_json(text)
    return made_by(C.am_tokenizer_from_json, text, #text)
end

--- From the bytes of a SentencePiece model.
function M.engine_from_sentencepiece(bytes)
    return made_by(C.am_tokenizer_from_sentencepiece, bytes, #bytes)
end

--- From the text of a tiktoken file; `cut` names the encoding, as am.h says.
function M.engine_from_tiktoken(text, cut)
    return made_by(C.am_tokenizer_from_tiktoken, text, #text, cut)
end

--- From the text of a tekken.json.
function M.engine_from_tekken(text)
    return made_by(C.am_tokenizer_from_tekken, text, #text)
end

--- From an open GGUF archive (am.core.io).
function M.engine_from_gguf(archive)
    return made_by(C.am_tokenizer_from_gguf, archive.handle)
end

function Engine:size()
    return tonumber(C.am_tokenizer_size(self.handle))
end

--- Id of a token, or nil.
function Engine:id(token)
    if type(token) ~= "string" or token:find("%z") then
        return nil
    end
    local id = tonumber(C.am_tokenizer_id(self.handle, token))
    return id >= 0 and id or nil
end

--- Token of an id, or nil.
function Engine:token(id)
    if id % 1 ~= 0 or id < 0 or id >= self:size() then
        return nil
    end
    local text = C.am_tokenizer_token(self.handle, id)
    return text ~= nil and ffi.string(text) or nil
end

function Engine:is_special(id)
    return C.am_tokenizer_is_special(self.handle, id) == 1
end

--- Ids of a text. `with_offsets`: so that offsets() can be asked next, while the text is still there.
function Engine:encode(text, add_special_tokens, with_offsets)
    check(C.am_tokenizer_encode(self.handle, text, #text, (add_special_tokens and C.AM_ENCODE_SPECIAL or 0)
        + (with_offsets and C.AM_ENCODE_OFFSETS or 0), ids_box, n_box))
    local list, ids = {}, ids_box[0]
    for i = 1, tonumber(n_box[0]) do
        list[i] = ids[i - 1]
    end
    return list
end

--- Ids of many texts, encoded on all threads: an array of arrays.
function Engine:encode_batch(texts, add_special_tokens)
    local n = #texts
    local pointers, sizes = ffi.new("const char *[?]", n), ffi.new("size_t[?]", n)
    for i, text in ipairs(texts) do
        pointers[i - 1], sizes[i - 1] = text, #text
    end
    check(C.am_tokenizer_encode_batch(self.handle, pointers, sizes, n, add_special_tokens and C.AM_ENCODE_SPECIAL or 0,
        ids_box, offsets_box))
    local ids, rows, out = ids_box[0], offsets_box[0], {}
    for i = 1, n do
        local first, last, row = tonumber(rows[i - 1]), tonumber(rows[i]) - 1, {}
        for k = first, last do
            row[k - first + 1] = ids[k]
        end
        out[i] = row
    end
    return out
end

--- What the file says about truncation and padding.
function Engine:limits()
    local box = ffi.new("am_tokenizer_limits")
    check(C.am_tokenizer_limits_get(self.handle, box))
    return {
        max_length = box.max_length >= 0 and tonumber(box.max_length) or nil,
        truncation_side = box.truncate_left ~= 0 and "left" or "right",
        padding = box.padding ~= 0, padding_side = box.pad_left ~= 0 and "left" or "right",
        pad_length = box.pad_length >= 0 and tonumber(box.pad_length) or nil,
        pad_to_multiple_of = box.pad_to_multiple_of > 0 and tonumber(box.pad_to_multiple_of) or nil,
        pad_id = tonumber(box.pad_id),
    }
end

-- Ranges of the last encode: two arrays, bytes counted from 0, the end excluded.
function Engine:offsets()
    check(C.am_tokenizer_offsets(self.handle, offsets_box, n_box))
    local starts, ends, offsets = {}, {}, offsets_box[0]
    for i = 1, tonumber(n_box[0]) do
        starts[i], ends[i] = tonumber(offsets[2 * i - 2]), tonumber(offsets[2 * i - 1])
    end
    return starts, ends
end

function Engine:decode(ids, flags)
    local n, size = 0, self:size()
    local list = ffi.new("int32_t[?]", #ids)
    for i, id in ipairs(ids) do
        if type(id) ~= "number" or id % 1 ~= 0 or id < 0 or id >= 2 ^ 31 then
            err.raise("data", "decode: ids[%d] is %s, not a token id", i, tostring(id))
        elseif id < size then
            list[n], n = id, n + 1
        end
    end
    check(C.am_tokenizer_decode(self.handle, list, n, flags, text_box, bytes_box))
    return ffi.string(text_box[0], bytes_box[0])
end

function Engine:json()
    check(C.am_tokenizer_to_json(self.handle, text_box, bytes_box))
    return ffi.string(text_box[0], bytes_box[0])
end

return M
