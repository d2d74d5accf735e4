-- What a row calls an image, as a source that a processor takes: { path = … } or { data = its bytes, name = … }.
-- Opens nothing but what a URL names. A value may be
--   a path, relative to the folder that goes with the data; "data:image/png;base64,…"; an http(s) URL
--   { bytes =, path = }, as the Image feature of Hugging Face's datasets has it in Parquet files
--   { path = }, { url = } or { base64 = }, as transformers' conversations have it

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

local function encoded(text, name)
    local bytes = base64.decode(text)
    if not bytes then
        err.raise("data", "%s: an image that should be base64 is none", name)
    end
    return { data = bytes, name = EMBEDDED }
end

local function of_text(text, base, name)
    local source, why = image_source.of(text)
    if not source then
        err.raise("data", "%s: %s", name, why)
    elseif source.path then
        source.path = path.join(base, source.path)
    elseif source.data then
        source.name = EMBEDDED
    end
    return source
end

--- The source of a value. `base`: the folder that relative paths are seen from; `name` is what messages call the
--- row. A URL becomes { url = … }, which `here` brings. Raises "data" for a value that names no image.
function M.of(value, base, name)
    if type(value) == "string" then
        return of_text(value, base, name)
    elseif type(value) ~= "table" or value == json.null or json.is_array(value) then
        err.raise("data", "%s: an image is a path, a URL, base64 or bytes, not %s", name,
            type(value) == "table" and (value == json.null and "null" or "a list") or "a " .. type(value))
    end
    local shown = type(value.path) == "string" and value.path or nil
    if has(value.bytes) then
        return type(value.bytes) == "string" and { data = value.bytes, name = shown or EMBEDDED }
            or err.raise("data", "%s: an image's bytes are no bytes", name)
    elseif has(value.base64) then
        return type(value.base64) == "string" and encoded(value.base64, name)
            or err.raise("data", "%s: an image's base64 is no text", name)
    end
    local text = has(value.path) and value.path or has(value.url) and value.url
    if type(text) ~= "string" then
        err.raise("data", "%s: an image has neither path nor url, base64 or bytes", name)
    end
    return of_text(text, base, name)
end

--- The source itself, or the file that its URL was brought to. Raises "io" naming the URL where that does not work.
function M.here(source)
    if not source.url then
        return source
    end
    local file, shown = image_source.fetch(source.url)
    return { path = file, name = shown }
end

return M
