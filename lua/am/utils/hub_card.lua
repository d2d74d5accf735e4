-- The README.md of a data set: which files its `configs:` name for which split. Holds reading only; which of
-- the files there are is hub_dataset.lua's. The text comes from anyone, so what is read is capped, and only
-- `configs` is looked at: the rest is skipped without being built.
--
--   configs:
--     - config_name: en
--       default: true
--       data_dir: en                                   (then default names are looked for below it)
--       data_files: "data/*.parquet"                   one pattern, a list of them, or
--         - split: train
--           path: "data/train-*"                       a pattern or a list of them

local parser = require("yaml").parser
local err = require("am.core.error")

local M = {}

local MAX_TEXT, MAX_DEPTH, MAX_NODES, MAX_PATTERNS = 4 * 1024 * 1024, 32, 400000, 100000

local function fail(where, fmt, ...)
    err.raise("format", "%s: %s", where, string.format(fmt, ...))
end

-- The block between the two lines of dashes that a README begins with, or nil.
local function front_matter(text)
    local block = text:gsub("^\239\187\191", ""):match("^%s*%-%-%-[ \t]*\r?\n(.*)$")
    if not block then
        return nil
    end
    block = "\n" .. block .. "\n"
    local stop = block:find("\n%-%-%-[ \t]*\r?\n")
    return stop and block:sub(2, stop)
end

-- ---------------------------------------------------------------- events to tables

local build

local function next_event(p)
    local ok, event = pcall(p.events)
    if not ok or not event then
        fail(p.where, "its YAML cannot be read: %s", (tostring(event):gsub("%s+", " ")))
    end
    p.count = p.count + 1
    if p.count > MAX_NODES then
        fail(p.where, "its YAML has more than %d parts", MAX_NODES)
    end
    return event
end

-- Read past the value that begins with `event`.
local function skip(p, event)
    local depth = 0
    while true do
        if event.type:find("_START$") then
            depth = depth + 1
        elseif event.type:find("_END$") then
            depth = depth - 1
        end
        if depth == 0 then
            return
        end
        event = next_event(p)
    end
end

local function build_map(p, depth)
    local out = {}
    while true do
        local event = next_event(p)
        if event.type == "MAPPING_END" then
            return out
        elseif event.type ~= "SCALAR" then
            fail(p.where, "a key of its YAML is no text (line %d)", event.start_mark.line + 2)
        end
        local key = event.value
        out[key] = build(p, next_event(p), depth + 1)
    end
end

local function build_list(p, depth)
    local out = { is_list = true }
    while true do
        local event = next_event(p)
        if event.type == "SEQUENCE_END" then
            return out
        end
        out[#out + 1] = build(p, event, depth + 1)
    end
end

-- Scalars stay text: names and patterns are nothing else, whatever they look like.
function build(p, event, depth)
    if depth > MAX_DEPTH then
        fail(p.where, "its YAML is nested more than %d deep", MAX_DEPTH)
    end
    local value
    if event.type == "ALIAS" then
        value = p.anchors[event.anchor]
        if value == nil then
            fail(p.where, "its YAML refers to *%s, which is not there", tostring(event.anchor))
        end
        return value
    elseif event.type == "MAPPING_START" then
        value = build_map(p, depth)
    elseif event.type == "SEQUENCE_START" then
        value = build_list(p, depth)
    else
        value = event.value
    end
    if event.anchor then
        p.anchors[event.anchor] = value
    end
    return value
end

-- The value of the outermost key `configs`, or nil.
local function read_configs(text, where)
    local p = { events = parser(text), where = where, anchors = {}, count = 0 }
    repeat
        local event = next_event(p)
        if event.type == "SCALAR" or event.type == "SEQUENCE_START" or event.type == "STREAM_END" then
            return nil -- no map
        end
    until event.type == "MAPPING_START"
    local found
    while true do
        local key = next_event(p)
        if key.type == "MAPPING_END" then
            return found
        elseif key.type == "SCALAR" and key.value == "configs" then
            found = build(p, next_event(p), 1)
        else
            skip(p, key)
            skip(p, next_event(p))
        end
    end
end

-- ---------------------------------------------------------------- what it means

local function texts(value, where, out)
    local list = type(value) == "table" and value.is_list and value or { value }
    for _, one in ipairs(list) do
        if type(one) ~= "string" then
            fail(where, "data_files must name files by texts, or lists of `split` and `path`")
        elseif #out >= MAX_PATTERNS then
            fail(where, "data_files names more than %d files", MAX_PATTERNS)
        end
        out[#out + 1] = one
    end
    return out
end

-- { { split = "train", patterns = { … } }, … } of a data_files, as datasets.data_files.sanitize_patterns.
local function splits_of(value, where)
    if type(value) == "table" and value.is_list and type(value[1]) == "table" then
        local out, seen, count = {}, {}, 0
        for _, one in ipairs(value) do
            local name = type(one) == "table" and one.split
            if type(name) ~= "string" or not name:find("^[%w_.\128-\255]+$") or one.path == nil then
                fail(where, "each of data_files must have a `split` (letters, digits, _ and .) and a `path`")
            elseif seen[name] then
                fail(where, 'data_files names the split "%s" twice', name)
            end
            seen[name] = true
            local patterns = texts(one.path, where, {})
            count = count + #patterns
            if count > MAX_PATTERNS then
                fail(where, "data_files names more than %d files", MAX_PATTERNS)
            end
            out[#out + 1] = { split = name, patterns = patterns }
        end
        return out
    end
    return { { split = "train", patterns = texts(value, where, {}) } }
end

--- The configurations that a README's text declares, in order: { { name, default, data_dir, splits }, … },
--- where splits is { { split, patterns }, … } or nil. Empty when it declares none. `where` names the file in
--- errors ("format").
function M.configs(text, where)
    if #text > MAX_TEXT then
        fail(where, "larger than %d bytes", MAX_TEXT)
    end
    local block = front_matter(text)
    if not block then
        return {}
    elseif block:find("%z") then
        fail(where, "its YAML holds a NUL byte")
    end
    local list, out = read_configs(block, where), {}
    if list == nil or list == "" then
        return out
    elseif type(list) ~= "table" or not list.is_list then
        fail(where, "configs must be a list")
    end
    for i, one in ipairs(list) do
        if type(one) ~= "table" or type(one.config_name) ~= "string" then
            fail(where, "number %d of configs has no config_name", i)
        elseif one.data_dir ~= nil and type(one.data_dir) ~= "string" then
            fail(where, 'data_dir of "%s" must be a text', one.config_name)
        end
        out[i] = {
            name = one.config_name,
            default = one.default == "true" or one.default == "True" or one.default == "yes",
            data_dir = one.data_dir,
            splits = one.data_files ~= nil and splits_of(one.data_files, where) or nil,
        }
    end
    return out
end

return M
