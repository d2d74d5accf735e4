-- What a row calls an image, as a source that a processor takes: { path = … } or { data = its bytes, name = … }.
-- Opens nothing but what a URL names. A value may be
--   a path, relative to the folder that goes with the data; "data:image/png;base64,…"; an http(s) URL
--   { bytes =, path = }, as the Image feature of Hugging Face's datasets has it in Parquet files
--   { path = }, { url = } or { base64 = }, as transformers' conversations have it
-- What is such a value but damaged (no base64, an empty name) is a broken picture: `here` raises it, `of` does not,
-- so that its row is treated as one whose file is broken.

local base64 = require("am.utils.base64")
local err = require("am.core.error")
local image_source = require("am.utils.image_source")
local json = require("am.utils.json")
local path = require("am.utils.path")

local M = {}

local EMBEDDED = "an embedded picture" -- what messages, which name the row, call one that has no name

local function has(value)
    return value ~= nil and value ~= json.null
end

local function encoded(text)
    local bytes = base64.decode(text)
    return bytes and { data = bytes, name = EMBEDDED } or { problem = "an image that should be base64 is none" }
end

local function of_text(text, base)
    local source, why = image_source.of(text)
    if not source then
        return { problem = why }
    elseif source.path then
        source.path = path.join(base, source.path)
    elseif source.data then
        source.name = EMBEDDED
    end
    return source
end

--- The source of a value. `base`: the folder that relative paths are seen from; `name` is what messages call the
--- row. A URL becomes { url = … }, which `here` brings, a damaged value { problem = what is wrong }. Raises "data" for
--- a value that cannot name an image.
function M.of(value, base, name)
    if type(value) == "string" then
        return of_text(value, base)
    elseif type(value) ~= "table" or value == json.null or json.is_array(value) then
        err.raise("data", "%s: an image is a path, a URL, base64 or bytes, not %s", name,
            type(value) == "table" and (value == json.null and "null" or "a list") or "a " .. type(value))
    end
    local shown = type(value.path) == "string" and value.path or nil
    if has(value.bytes) then
        return type(value.bytes) == "string" and { data = value.bytes, name = shown or EMBEDDED }
            or err.raise("data", "%s: an image's bytes are no bytes", name)
    elseif has(value.base64) then
        return type(value.base64) == "string" and encoded(value.base64)
            or err.raise("data", "%s: an image's base64 is no text", name)
    end
    local text = has(value.path) and value.path or value.url
    if not has(text) then
        return { problem = "an image has neither path nor url, base64 or bytes" }
    end
    return type(text) == "string" and of_text(text, base)
        or err.raise("data", "%s: an image's path or url is no text", name)
end

--- The source itself, or the file that its URL was brought to. Raises "io" naming the URL where that does not work,
--- and "data" for a damaged value.
function M.here(source)
    if source.problem then
        err.raise("data", "%s", source.problem)
    elseif not source.url then
        return source
    end
    local file, shown = image_source.fetch(source.url)
    return { path = file, name = shown }
end

return M
