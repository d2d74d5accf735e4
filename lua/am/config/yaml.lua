-- YAML text to ConfigNode, over lua-yaml's event stream: key order, line and quoting style of every
-- scalar survive, which messages and typing need.
-- Holds the composing only: what a scalar means is scalar.lua's, environment variables are env.lua's.
--
-- Files are not trusted. One document whose root is a map; plain data only (no tags beyond YAML's
-- core, so no objects); duplicate keys, recursive aliases and keys that are not scalars are refused;
-- size, depth and the number of nodes after alias expansion are capped.

local parser = require("yaml").parser
local err = require("am.core.error")
local nodes = require("am.config.node")
local scalar = require("am.config.scalar")

local M = {}

M.MAX_BYTES = 4 * 1024 * 1024
M.MAX_DEPTH = 64
M.MAX_NODES = 100000
M.MAX_KEY = 250 -- with every byte escaped still short enough for YAML's `key: value`

local CORE_TAG = "tag:yaml.org,2002:"

local function fail(p, mark, fmt, ...)
    err.raise("usage", "%s:%d:%d: %s", p.name, mark.line + 1, mark.column + 1, string.format(fmt, ...))
end

local function position(text, at)
    local line, line_start = 0, 1
    for newline in text:gmatch("()\n") do
        if newline >= at then
            break
        end
        line, line_start = line + 1, newline + 1
    end
    return { line = line, column = at - line_start }
end

-- Position of the first byte that is not UTF-8, or nil.
local function invalid_utf8(text)
    local at = text:find("[\128-\255]")
    while at do
        local stop = select(2, text:find("^[\194-\223][\128-\191]", at))
            or select(2, text:find("^\224[\160-\191][\128-\191]", at))
            or select(2, text:find("^[\225-\236\238\239][\128-\191][\128-\191]", at))
            or select(2, text:find("^\237[\128-\159][\128-\191]", at))
            or select(2, text:find("^\240[\144-\191][\128-\191][\128-\191]", at))
            or select(2, text:find("^[\241-\243][\128-\191][\128-\191][\128-\191]", at))
            or select(2, text:find("^\244[\128-\143][\128-\191][\128-\191]", at))
        if not stop then
            return at
        end
        at = text:find("[\128-\255]", stop + 1)
    end
    return nil
end

-- libyaml names no place for bytes it cannot read, so they are looked for first.
local function check_bytes(p, text)
    if #text > M.MAX_BYTES then
        err.raise("usage", "%s: %d bytes; a configuration has at most %d", p.name, #text, M.MAX_BYTES)
    end
    local at = invalid_utf8(text)
    if at then
        fail(p, position(text, at), "byte 0x%02x is not UTF-8", text:byte(at))
    end
    at = text:find("[%z\1-\8\11\12\14-\31\127]") or text:find("\194[\128-\132\134-\159]")
    if at then
        fail(p, position(text, at), "control character 0x%02x", text:byte(at + (text:byte(at) == 194 and 1 or 0)))
    end
end

-- Where a line and column (from 1) are in the text, when nothing but ASCII stands before on that line.
local function offset(text, line, column)
    local at = 1
    for _ = 2, line do
        at = (text:find("\n", at, true) or #text) + 1
    end
    return at + column - 1
end

-- libyaml words its errors "what at document: 1, line: 2, column: 3\nwhile … at line: 1, column: 4".
local function syntax_error(p, message)
    local what, rest = tostring(message):match("^%s*(.-)%s+at document: %d+(.*)$")
    local line, column = (rest or ""):match("^, line: (%d+), column: (%d+)")
    local context, context_line = tostring(message):match("\n(while .-) at line: (%d+)")
    what = what or tostring(message)
    if line and what:find("cannot start any token", 1, true)
        and p.text:find("^\t", offset(p.text, tonumber(line), tonumber(column))) then
        what = "found a tab; indent with spaces"
    elseif what:find("tab character", 1, true) then
        what = what .. "; indent with spaces"
    end
    if context then
        what = string.format("%s (%s that starts at line %s)", what, context, context_line)
    end
    if line then
        err.raise("usage", "%s:%s:%s: %s", p.name, line, column, what)
    end
    err.raise("usage", "%s: %s", p.name, what)
end

local function next_event(p)
    local ok, event = pcall(p.events)
    if not ok then
        syntax_error(p, event)
    end
    return event
end

local function count_node(p, mark)
    p.count = p.count + 1
    if p.count > M.MAX_NODES then
        fail(p, mark, "more than %d values, aliases expanded", M.MAX_NODES)
    end
end

local function origin_of(p, event)
    return { file = p.name, line = event.start_mark.line + 1 }
end

-- Count a subtree that is about to be used once more, before copying it.
local function count_tree(p, mark, node)
    count_node(p, mark)
    if node.kind == "map" then
        for _, child in pairs(node.children) do
            count_tree(p, mark, child)
        end
    elseif node.kind == "list" then
        for _, child in ipairs(node.children) do
            count_tree(p, mark, child)
        end
    end
end

local function height(node)
    local tallest = 0
    for _, child in pairs(node.children or {}) do
        tallest = math.max(tallest, height(child))
    end
    return tallest + 1
end

-- ---------------------------------------------------------------- scalars

local function core_tag(p, event)
    local tag = event.tag
    if not tag then
        return nil
    elseif tag == "!" then
        return "str"
    end
    local name = tag:sub(1, #CORE_TAG) == CORE_TAG and tag:sub(#CORE_TAG + 1)
    local allowed = event.type == "SCALAR" and { str = 1, int = 1, float = 1, bool = 1, null = 1 }
        or event.type == "MAPPING_START" and { map = 1 } or { seq = 1 }
    if not name or not allowed[name] then
        fail(p, event.start_mark, 'tag "%s" is not allowed: configurations hold plain data only', tag)
    end
    return name
end

-- The characters from one mark to another (marks count characters, not bytes).
local function source_between(p, first, last)
    p.offsets = p.offsets or {}
    if #p.offsets == 0 then
        for at in p.text:gmatch("()[%z\1-\127\194-\244]") do
            p.offsets[#p.offsets + 1] = at
        end
    end
    return p.text:sub(p.offsets[first.index + 1], (p.offsets[last.index + 1] or #p.text + 1) - 1)
end

-- lua-yaml cuts a scalar at a NUL without a word, so an escaped one is looked for in the source.
local function check_nul(p, event)
    if p.may_hold_nul and event.style == "DOUBLE_QUOTED" then
        local source = source_between(p, event.start_mark, event.end_mark):gsub("\\\\", "")
        if source:find("\\0") or source:find("\\x00") or source:find("\\u0000") or source:find("\\U00000000") then
            fail(p, event.start_mark, "NUL in a string")
        end
    end
end

local function compose_scalar(p, event)
    check_nul(p, event)
    local text, tag = event.value, core_tag(p, event)
    local origin = origin_of(p, event)
    local parsed
    if tag and tag ~= "str" then
        parsed = scalar.resolve_tagged(tag, text)
        if not parsed then
            fail(p, event.start_mark, '"%s" is not a !!%s', text, tag)
        end
    elseif not tag and event.style == "PLAIN" then
        parsed = scalar.resolve_plain(text)
    end
    local node
    if parsed then
        node = nodes.from_parsed(parsed, origin)
    elseif text:find("$", 1, true) then
        node = nodes.leaf(text, origin) -- env.lua substitutes and translates it
        node.template = text
    else
        node = nodes.from_parsed(scalar.translate(text), origin)
        count_tree(p, event.start_mark, node)
    end
    node.text = text
    return node
end

-- ---------------------------------------------------------------- collections

local compose

local function compose_sequence(p, event, depth)
    core_tag(p, event)
    local node = nodes.list(origin_of(p, event))
    if event.anchor then
        p.anchors[event.anchor] = false -- known, not yet complete
    end
    local i = 0
    while true do
        local item = next_event(p)
        if item.type == "SEQUENCE_END" then
            return node
        end
        i = i + 1
        node:attach(i, compose(p, item, depth + 1))
    end
end

-- Keys of `<<`: a map, or a list of maps of which the first wins; the last's keys stand first.
local function merge_into(p, mark, node, value)
    local sources = value.kind == "list" and value.children or { value }
    for i = #sources, 1, -1 do
        if sources[i].kind ~= "map" then
            fail(p, mark, "<< takes a map or a list of maps")
        end
        for _, key in ipairs(sources[i].order) do
            node:attach(key, sources[i].children[key]:copy())
        end
    end
end

local function read_key(p, event)
    if event.type ~= "SCALAR" then
        fail(p, event.start_mark, "a key must be plain text, not %s",
            event.type == "ALIAS" and "an alias" or "a list or a map")
    end
    core_tag(p, event)
    check_nul(p, event)
    if event.value == "" then
        fail(p, event.start_mark, "empty key")
    elseif #event.value > M.MAX_KEY then
        fail(p, event.start_mark, "key of %d bytes; at most %d", #event.value, M.MAX_KEY)
    end
    return event.value, event.value == "<<" and event.style == "PLAIN" and not event.tag
end

local function compose_mapping(p, event, depth)
    core_tag(p, event)
    local own, lines, merged, merge_mark = nodes.map(origin_of(p, event)), {}, nil, nil
    if event.anchor then
        p.anchors[event.anchor] = false
    end
    while true do
        local key_event = next_event(p)
        if key_event.type == "MAPPING_END" then
            break
        end
        local key, is_merge = read_key(p, key_event)
        if lines[key] then
            fail(p, key_event.start_mark, 'key "%s" is there already, at line %d', key, lines[key])
        end
        lines[key] = key_event.start_mark.line + 1
        if key_event.anchor then
            p.anchors[key_event.anchor] = compose_scalar(p, key_event)
        end
        local value = compose(p, next_event(p), depth + 1)
        if is_merge then
            merged, merge_mark = value, key_event.start_mark
        else
            -- The key's line is where a reader looks: a block value starts one line below.
            value.origin = { file = p.name, line = lines[key] }
            own:attach(key, value)
        end
    end
    if not merged then
        return own
    end
    -- PyYAML's order: merged keys first, with the values of the map's own keys.
    local node = nodes.map(own.origin)
    merge_into(p, merge_mark, node, merged)
    for _, key in ipairs(own.order) do
        node:attach(key, own.children[key])
    end
    return node
end

local function compose_alias(p, event, depth)
    local node = p.anchors[event.anchor]
    if node == nil then
        fail(p, event.start_mark, "no anchor &%s before this alias", event.anchor)
    elseif node == false then
        fail(p, event.start_mark, "alias *%s is inside what it names", event.anchor)
    elseif depth + height(node) > M.MAX_DEPTH then
        fail(p, event.start_mark, "nested more than %d deep", M.MAX_DEPTH)
    end
    count_tree(p, event.start_mark, node)
    return node:copy()
end

function compose(p, event, depth)
    if depth > M.MAX_DEPTH then
        fail(p, event.start_mark, "nested more than %d deep", M.MAX_DEPTH)
    end
    if event.type == "ALIAS" then
        return compose_alias(p, event, depth)
    end
    count_node(p, event.start_mark)
    local node
    if event.type == "SCALAR" then
        node = compose_scalar(p, event)
    elseif event.type == "SEQUENCE_START" then
        node = compose_sequence(p, event, depth)
    else
        node = compose_mapping(p, event, depth)
    end
    if event.anchor then
        p.anchors[event.anchor] = node
    end
    return node
end

--- The root map of YAML `text`; `name` is what messages call it. Raises "usage" with file, line and
--- column. Text with environment variables is left as it is, marked for env.lua.
function M.parse(text, name)
    text = text:gsub("^\239\187\191", "") -- a byte order mark
    local p = { name = name, text = text, anchors = {}, count = 0 }
    check_bytes(p, text)
    p.may_hold_nul = text:find("\\0", 1, true) or text:find("\\[xuU]00")
    p.events = parser(text)
    next_event(p) -- STREAM_START
    local event = next_event(p)
    if event.type == "STREAM_END" then
        return nodes.map({ file = name, line = 1 })
    end
    event = next_event(p)
    if event.type == "SCALAR" and event.value == "" then
        return nodes.map({ file = name, line = 1 })
    elseif event.type ~= "MAPPING_START" then
        fail(p, event.start_mark, "a configuration is a map of sections, not a %s",
            event.type == "SEQUENCE_START" and "list" or "single value")
    end
    local root = compose(p, event, 1)
    next_event(p) -- DOCUMENT_END
    event = next_event(p)
    if event.type ~= "STREAM_END" then
        fail(p, event.start_mark, "a second document; a configuration is one")
    end
    return root
end

return M
