-- What a row calls an image, as a source that a processor takes: { path = … } or { data = its bytes, name = … }.
-- Opens nothing but what a URL names. A value may be
--   a path, relative to the folder that goes with the data; "data:image/png;base64,…"; an http(s) URL
--   { bytes =, path = }, as the Image feature of Hugging Face's datasets has it in Parquet files
--   { path = }, { url = } or { base64 = }, as transformers' conversations have it
-- What a URL names is brought once, into the folder amlua-images of the hub's cache.

local base64 = require("am.utils.base64")
local err = require("am.core.error")
local http = require("am.utils.http")
local hub = require("am.utils.hub")
local json = require("am.utils.json")
local path = require("am.utils.path")
local token_rows = require("am.datasets.token_rows")

local M = {}

local EMBEDDED = "an embedded picture" -- what messages, which name the row, call one that has no name
local MAX_BYTES = 256 * 1024 * 1024 -- of an image that a URL names

-- ---------------------------------------------------------------- URLs

local function fetched(url, name)
    local folder = path.join(hub.cache_dir(), "amlua-images")
    local file = path.join(folder, token_rows.digest(url))
    if path.is_file(file) then
        return file
    elseif hub.offline() then
        err.raise("io", "%s: %s is not in the cache, and HF_HUB_OFFLINE is set", name, http.shown(url))
    end
    path.mkdir_p(folder)
    local answer, message, kind = http.request { url = url, retries = 3, max_bytes = MAX_BYTES }
    if not answer then
        err.raise(kind == "interrupted" and "interrupted" or "io", "%s: %s", name, message)
    elseif answer.status ~= 200 then
        err.raise("io", "%s: %s: the server answers %d", name, http.shown(url), answer.status)
    end
    path.write_file(file, answer.body)
    return file
end

-- ---------------------------------------------------------------- values

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
    if text:find("^data:") then
        local body = text:match("^data:[^,]*;base64,(.*)$")
        return body and encoded(body, name)
            or err.raise("data", "%s: an image begins with \"data:\" and is not base64", name)
    elseif text:find("^https?://") then
        return { url = text }
    elseif text == "" or text:find("%z") then
        err.raise("data", "%s: an image has no file name", name)
    end
    return { path = path.join(base, text) }
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

--- The source itself, or the file that its URL was brought to. Raises "io" where that does not work.
function M.here(source, name)
    return source.url and { path = fetched(source.url, name), name = http.shown(source.url) } or source
end

return M
