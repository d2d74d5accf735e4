-- The rows of a source once they are tokenised: each is made once, goes to a file, and is read from
-- there, mapped, as often as it is needed. Holds no tokenizer; the file's format is the engine's
-- (engine/data/token_rows.c).
--
-- Without a cache the file has no name and ends with the process. With `cache_dir` it is named after a
-- digest of all that the rows depend on: the content of the source's files, the tokenizer, the options,
-- and the versions of what computes them. A file there is used when it is whole and has that digest in
-- it, and made anew otherwise. Files are published by renaming, so two runs may make one at once.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local json = require("am.utils.json")
local log = require("am.utils.log").get("am.datasets")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local file_rows = require("am.datasets.file_rows")
local tokenise = require("am.datasets.tokenise")
local utils = require("am.datasets.utils")
local hex = require("am.utils.digest").hex

local C, check = edge.C, edge.check
local M = {}

--- The field of a `dataset` section that goes with it.
M.cache_dir = { type = "string", doc = "keep tokenised rows in this folder, for later runs" }

local FORMAT = 2 -- of the metadata, and of how rows are made; another number makes all caches anew
local STALE_SECONDS = 86400

local rows_box, row_box = edge.box("am_token_rows"), ffi.new("am_token_row")
local bytes_box = ffi.new("size_t[1]")
local keys = { "input_ids", "labels", "attention_mask", "position_ids" } -- of rows

-- ---------------------------------------------------------------- what rows depend on

local function library(name)
    local version = C.am_library_version(name)
    return version ~= nil and ffi.string(version) or ""
end

-- 32 bytes: the digest of everything that the rows depend on.
local function key_of(opts)
    local digest, files = ffi.new("uint8_t[?]", C.AM_HASH_BYTES), {}
    if opts.cache_dir then
        for i, name in ipairs(opts.files) do
            check(C.am_hash_file(digest, name))
            files[i] = hex(digest, C.AM_HASH_BYTES)
        end
        local text = json.encode({
            format = FORMAT, files = files, depends_on = opts.depends_on, amlua = ffi.string(C.am_version()),
            pcre2 = library "pcre2", utf8proc = library "utf8proc", -- what words and letters are
        }, { sort_keys = true })
        C.am_hash(digest, text, #text)
    end
    return digest
end

-- Size and time of each file, to see that none changed between its digest and its last row.
local function states_of(files)
    local states = {}
    for i, name in ipairs(files) do
        local st = posix.stat(name)
        states[i] = st and string.format("%d %.9f", st.size, st.mtime) or "gone"
    end
    return states
end

local function check_unchanged(files, states)
    for i, now in ipairs(states_of(files)) do
        if now ~= states[i] then
            err.raise("data", "%s changed while its rows were read for the cache; start again", files[i])
        end
    end
end

-- ---------------------------------------------------------------- the dataset

local TokenRows = {}
TokenRows.__index = TokenRows

local function place_name(files, place)
    return file_rows.row_name(files[place.file], place.number)
end

-- The stats of utils.lua from what the file says; nil when it says something else.
local function read_stats(text, files, count)
    local function is_count(x)
        return type(x) == "number" and x % 1 == 0 and x >= 0
    end
    local function is_place(x)
        return type(x) == "table" and is_count(x.file) and files[x.file] and is_count(x.number)
    end
    local s = json.decode(text)
    if type(s) ~= "table" or not is_place(s.longest) or type(s.skipped_rows) ~= "table" or s.rows ~= count then
        return nil
    end
    for _, x in ipairs { s.rows, s.tokens or -1, s.label_tokens or -1, s.truncated or -1, s.skipped or -1,
                        s.longest.length or -1 } do
        if not is_count(x) then
            return nil
        end
    end
    local stats = { rows = s.rows, tokens = s.tokens, label_tokens = s.label_tokens, truncated = s.truncated,
                    skipped = s.skipped, skipped_names = {},
                    longest = { length = s.longest.length, name = place_name(files, s.longest) } }
    for i, row in ipairs(s.skipped_rows) do
        if not is_place(row) or type(row.reason) ~= "string" then
            return nil
        end
        stats.skipped_names[i] = string.format("%s (%s)", place_name(files, row), row.reason)
    end
    return stats
end

-- A dataset of an open file, whose handle it takes over; nil where the metadata is not ours.
local function new(handle, files)
    local self = setmetatable({ handle = ffi.gc(handle, C.am_token_rows_release), files = files,
                                count = tonumber(C.am_token_rows_count(handle)) }, TokenRows)
    local text = C.am_token_rows_metadata(handle, bytes_box)
    self.counts = read_stats(ffi.string(text, bytes_box[0]), files, self.count)
    return self.counts and self or nil
end

function TokenRows:len()
    return self.count
end

local function get(self, i)
    check(C.am_token_rows_get(row_box, self.handle, i - 1))
    return row_box
end

local function array(self, i, values, n)
    local out = {}
    for k = 1, n do
        local x = values[k - 1]
        if x < 0 and x ~= utils.IGNORE then
            err.raise("format", "%s: the tokenised row holds %d; remove its file from dataset.cache_dir",
                self:name(i), x)
        end
        out[k] = x
    end
    return out
end

--- Token row i (from 1).
function TokenRows:get(i)
    local row, out = get(self, i), {}
    for _, key in ipairs(keys) do
        out[key] = row[key] ~= nil and array(self, i, row[key], tonumber(row.n)) or nil
    end
    return out
end

--- Tokens of row i, its padding included.
function TokenRows:length(i)
    return tonumber(get(self, i).n)
end

--- Row i without the padding at its end, where it lies: its input_ids and labels, C arrays that begin at
--- 0, and its length. They are good until rows are released.
function TokenRows:sample(i)
    local row = get(self, i)
    local n, mask = tonumber(row.n), row.attention_mask
    while mask ~= nil and n > 0 and mask[n - 1] == 0 do
        n = n - 1
    end
    return row.input_ids, row.labels, n
end

--- What messages call row i.
function TokenRows:name(i)
    local row = get(self, i)
    return file_rows.row_name(self.files[tonumber(row.file)] or "row", tonumber(row.number))
end

function TokenRows:stats()
    return self.counts
end

-- ---------------------------------------------------------------- making a file

local function new_stats()
    return { rows = 0, tokens = 0, label_tokens = 0, truncated = 0, skipped = 0, skipped_rows = json.array(),
             longest = { length = 0, file = 1, number = 0 } }
end

local function skip(stats, file, number, reason)
    stats.skipped = stats.skipped + 1
    if stats.skipped <= 10 then
        stats.skipped_rows[stats.skipped] = { file = file, number = number, reason = reason }
    end
end

-- A sentence about the first row that was left out; nothing where there is none.
local function first_left_out(stats, files)
    local first = stats.skipped_rows[1]
    return first and string.format(" The first that was left out: %s row %d (%s)", files[first.file], first.number,
        first.reason) or ""
end

-- Raise the engine's error of writing the file unless rc is AM_OK; `file` is nil for one without a name.
local function check_write(rc, file)
    if rc ~= C.AM_OK then
        error(err.within(edge.error(rc), file and "dataset.cache_dir"
            or "tokenised rows; TMPDIR or dataset.cache_dir names another folder for them"), 0)
    end
end

-- Count a row that goes to the file.
local function count(stats, row, tokens, truncated)
    stats.rows = stats.rows + 1
    stats.truncated = stats.truncated + (truncated and 1 or 0)
    stats.tokens = stats.tokens + tokens
    stats.label_tokens = stats.label_tokens + tonumber(row.label_tokens)
    if tokens > stats.longest.length then
        stats.longest = { length = tokens, file = tonumber(row.file), number = tonumber(row.number) }
    end
end

local writer_box = edge.box("am_token_rows_writer")

local function create(name, key, unnamed)
    check(C.am_token_rows_create(writer_box, name, key, unnamed and 1 or 0))
    return ffi.gc(writer_box[0], C.am_token_rows_discard)
end

local function create_unnamed(key)
    local last
    for _, dir in ipairs(path.temporary_folders()) do
        local ok, writer = pcall(create, path.join(dir, "rows"), key, true)
        if ok then
            return writer
        end
        last = writer
    end
    error(last, 0)
end

-- What runs that were killed left behind.
local function clean(dir)
    for _, name in ipairs(path.list_dir(dir) or {}) do
        local file = path.join(dir, name)
        local st = name:find("^%.amlua%-%d+%-%d+%.tmp$") and posix.stat(file, true)
        if st and st.type == "file" and posix.time() - st.mtime > STALE_SECONDS then
            posix.unlink(file)
        end
    end
end

local function make(opts, key, file, states)
    local writer = file and create(file, key) or create_unnamed(key)
    local stats = new_stats()
    local ok, e = pcall(function()
        local rows, i = opts.open(), 0
        tokenise.each(rows, function(row, tokens, truncated)
            i = i + 1
            check_write(C.am_token_rows_add(writer, row), file)
            count(stats, row, tokens, truncated)
        end, function(place, number, reason)
            i = i + 1
            skip(stats, place, number, reason)
            if opts.on_skip then
                opts.on_skip(i, reason)
            end
        end)
        if stats.rows == 0 then
            err.raise("data", "%s: no row has a label to learn (%d rows read). Are prompts cut off before the answer "
                .. "(seq_length), or answers empty, or of one token (answer_boundary: prefix), or does the "
                .. "chat_template leave the messages out?%s", opts.files[1], rows:len(),
                first_left_out(stats, opts.files))
        end
        if states then
            check_unchanged(opts.files, states)
        end
        local text = json.encode(stats, { sort_keys = true })
        check_write(C.am_token_rows_finish(rows_box, writer, text, #text), file)
    end)
    C.am_token_rows_discard(ffi.gc(writer, nil))
    if not ok then
        error(e, 0)
    end
    return assert(new(rows_box[0], opts.files))
end

-- The rows that a file of the cache holds; nil when there is none that can be used.
local function from_cache(file, key, files)
    if not path.exists(file) then
        return nil
    end
    local rc = C.am_token_rows_open(rows_box, file, key)
    local found = rc == C.AM_OK and new(rows_box[0], files)
    if found then
        return found
    elseif rc ~= C.AM_OK and rc ~= C.AM_EFORMAT then
        check(rc)
    end
    log:warning("%s; the rows are tokenised anew", rc == C.AM_EFORMAT and edge.error(rc).msg
        or file .. ": its metadata is damaged")
    return nil
end

--- The rows of any dataset (len, get), each read once.
function M.copy(dataset)
    local rows = { keep_all = true }
    function rows.len() return dataset:len() end
    function rows.row(_, i) return dataset:get(i) end
    function rows.place(_, i) return 1, i end
    return make({ files = { "dataset" }, open = function() return rows end }, ffi.new("uint8_t[?]", C.AM_HASH_BYTES))
end

--- A dataset (len, get, length, sample, name, stats) of the rows of a source that can be trained on. Reads all
--- of them once, unless they are in the cache, so that a bad row is reported before training and the
--- length is known. opts:
---   files        names of the source's files
---   open         function that opens the source: an object with len(), row(i) -> row, or nil and why it
---                is left out, and place(i) -> which of the files, and the row's number there; with
---                keep_all also the rows that have nothing to learn are kept
---   on_skip      is called with the number and the reason of each row that is left out, in order (without a cache)
---   cache_dir    a folder, made when absent; nil: no cache
---   depends_on   what rows depend on beside the files' content: a table that JSON can hold
--- Raises "data" when no row has a label, and what `open` and `row` raise; with a cache
--- also when a file changes meanwhile.
function M.open(opts)
    local states = opts.cache_dir and states_of(opts.files)
    local key = key_of(opts)
    if not opts.cache_dir then
        return make(opts, key)
    end
    path.mkdir_p(opts.cache_dir)
    local file = path.join(opts.cache_dir, hex(key, C.AM_HASH_BYTES):sub(1, 32) .. ".rows")
    local found = from_cache(file, key, opts.files)
    if found then
        log:info("tokenised rows are read from %s", file)
        return found
    end
    clean(opts.cache_dir)
    found = make(opts, key, file, states)
    log:info("tokenised rows are kept in %s", file)
    return found
end

return M
