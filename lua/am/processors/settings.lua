-- Settings of processors: keys of preprocessor_config.json with their types, their classes' defaults and what a
-- caller sets instead. As in transformers, null takes the class's default away, and keys that a class does not know
-- are passed over. What a file says is untrusted: types and ranges are checked here, once.

local err = require("am.core.error")
local json = require("am.utils.json")
local strings = require("am.utils.strings")

local M = {}

local MAX_SIDE = 65536       -- of a picture, in pixels
local MAX_PIXELS = 2 ^ 31 - 1
local MAX_COUNT = 65536      -- tokens a picture stands for, crops, …

-- Sets of keys that a size may have.
local SIZES = { "height width", "shortest_edge", "longest_edge shortest_edge", "longest_edge", "max_height max_width",
                "max_pixels min_pixels" }

local FILTERS = { [0] = "nearest", [1] = "lanczos", [2] = "bilinear", [3] = "bicubic", [4] = "box" }

local function shown(value)
    if type(value) == "table" and value ~= json.null then
        local ok, text = pcall(json.encode, value)
        value = ok and text or "a table"
    end
    local text = tostring(value)
    return #text > 60 and text:sub(1, 57) .. "…" or text
end

-- ---- types: each gives the value as code wants it, or nil and what it should be -------------------

local types = {}

function types.boolean(value)
    if type(value) == "boolean" then
        return value
    end
    return nil, "true or false"
end

local function whole(value, least, most)
    return type(value) == "number" and value % 1 == 0 and value >= least and value <= most
end

function types.count(value)
    if whole(value, 0, MAX_COUNT) then
        return value
    end
    return nil, ("a whole number from 0 to %d"):format(MAX_COUNT)
end

function types.side(value)
    if whole(value, 1, MAX_SIDE) then
        return value
    end
    return nil, ("a whole number from 1 to %d"):format(MAX_SIDE)
end

function types.patch(value)
    if whole(value, 1, 256) then
        return value
    end
    return nil, "a whole number from 1 to 256"
end

function types.pixels(value)
    if whole(value, 1, MAX_PIXELS) then
        return value
    end
    return nil, ("a whole number from 1 to %d"):format(MAX_PIXELS)
end

function types.ratio(value)
    if type(value) == "number" and value > 0 and value < math.huge then
        return value
    end
    return nil, "a number above 0"
end

function types.text(value)
    if type(value) == "string" and value ~= "" then
        return value
    end
    return nil, "a text"
end

function types.filter(value)
    if type(value) == "number" and FILTERS[value] then
        return FILTERS[value]
    end
    return nil, "0 (nearest), 1 (Lanczos), 2 (bilinear), 3 (bicubic) or 4 (box)"
end

local function channels(value, fits, should)
    local list = type(value) == "number" and { value, value, value } or value
    local ok = type(list) == "table" and #list == 3
    for i = 1, ok and 3 or 0 do
        ok = ok and type(list[i]) == "number" and math.abs(list[i]) < 1e30 and fits(list[i]) -- NaN fails the comparison
    end
    if ok then
        return { list[1], list[2], list[3] }
    end
    return nil, should
end

function types.mean(value)
    return channels(value, function() return true end, "a number or three numbers")
end

function types.std(value)
    return channels(value, function(x) return math.abs(x) > 1e-30 end, "a number or three numbers, none of them 0")
end

-- A size from a number, a list { height, width } or an object. Sides are bounded; `of` is the type of its numbers.
local function size_of(value, number_is, of)
    if type(value) == "number" then
        value = number_is == "shortest_edge" and { shortest_edge = value } or { height = value, width = value }
    elseif json.is_array(value) and #value == 2 then
        value = { height = value[1], width = value[2] }
    end
    if type(value) ~= "table" or value == json.null or json.is_array(value) then
        return nil, "a number, [height, width] or an object"
    end
    local keys, out = {}, {}
    for key, number in pairs(value) do
        local n, should = of(number)
        if not n then
            return nil, ("made of numbers, each %s"):format(should)
        end
        keys[#keys + 1], out[key] = tostring(key), n
    end
    table.sort(keys)
    local found = table.concat(keys, " ")
    for _, allowed in ipairs(SIZES) do
        if found == allowed then
            return out
        end
    end
    return nil, "an object with height and width, shortest_edge, longest_edge, both edges, or max_height and max_width"
end

function types.square(value) return size_of(value, "square", types.side) end
function types.shortest(value) return size_of(value, "shortest_edge", types.side) end
function types.area(value) return size_of(value, "shortest_edge", types.pixels) end

-- ---- reading ------------------------------------------------------------------------------------

--- Keys that all image processors have, with their types; a family adds its own.
M.IMAGE = {
    do_resize = "boolean", do_center_crop = "boolean", do_rescale = "boolean", do_normalize = "boolean",
    do_convert_rgb = "boolean", do_pad = "boolean", size = "square", crop_size = "square", pad_size = "square",
    resample = "filter", rescale_factor = "ratio", image_mean = "mean", image_std = "std", image_seq_length = "count",
}

--- The settings of an object of a file: for every key of `kinds` (key -> type) what `overrides` has, else the
--- file, else `defaults`. Raises "format" naming the file and key, "usage" naming the override.
function M.read(object, where, kinds, defaults, overrides)
    local out = {}
    for key, kind in pairs(kinds) do
        local mine = overrides[key]
        local value = mine
        if value == nil then value = object[key] end
        if value == nil then value = defaults[key] end
        if value ~= nil and value ~= json.null then
            local read, should = types[kind](value)
            if read == nil then
                err.raise(mine ~= nil and "usage" or "format", "%s: %s is %s, not %s",
                    mine ~= nil and "processor" or where, key, shown(value), should)
            end
            out[key] = read
        end
    end
    return out
end

--- Raise "format" for keys of a list that null took away.
function M.need(values, where, keys)
    for _, key in ipairs(keys or {}) do
        if values[key] == nil then
            err.raise("format", "%s: %s is missing; set it in the file or as an option", where, key)
        end
    end
end

--- Raise "usage" for overrides that are in none of the tables of kinds.
function M.check_names(overrides, where, ...)
    local names = {}
    for _, kinds in ipairs { ... } do
        for key in pairs(kinds) do names[#names + 1] = key end
    end
    local known = {}
    for _, name in ipairs(names) do known[name] = true end
    for key in pairs(overrides) do
        if not known[key] then
            err.raise("usage", "processor: %s has no option \"%s\"%s", where, tostring(key),
                strings.did_you_mean(tostring(key), names))
        end
    end
end

return M
