-- Where images come from: files, bytes, URLs and data: URLs, made into what core/image.lua opens.

local base64 = require("am.utils.base64")
local err = require("am.core.error")
local http = require("am.utils.http")

local M = {}

local MAX_BYTES = 256 * 1024 * 1024 -- of an answer

local function download(url)
    local answer, message = http.request { url = url, max_bytes = MAX_BYTES, retries = 2 }
    if not answer then
        err.raise("io", "%s: %s", http.shown(url), message)
    elseif answer.status ~= 200 then
        err.raise("io", "%s: the server answered %d", http.shown(url), answer.status)
    end
    return answer.body
end

-- A text: a URL, a data: URL or a path.
local function of_text(text)
    if text:find("^https?://") then
        return { data = download(text), name = http.shown(text) }
    elseif text:find("^data:image/") then
        local data = text:match("^data:image/[^,]*;base64,(.*)$")
        return { data = data and base64.decode(data) or err.raise("data", "a data: URL of an image holds no base64"),
                 name = "a data: URL" }
    end
    return { path = text, name = text }
end

--- { path or data, name, max_pixels, background } of what a caller calls an image: a text, or a table with these
--- fields. `alpha`: "white" lays transparent pictures on white, "drop" leaves their alpha off.
function M.open(source, alpha)
    local opened
    if type(source) == "string" and source ~= "" then
        opened = of_text(source)
    elseif type(source) == "table" and (type(source.path) == "string" or type(source.data) == "string") then
        opened = { path = source.path, data = not source.path and source.data or nil,
                   name = source.name or source.path or "image", max_pixels = source.max_pixels }
    else
        err.raise("data", "an image is a path, a URL or a table with path or data, not %s",
            type(source) == "table" and "a table without them" or tostring(source))
    end
    opened.background = alpha == "drop" and -1 or 0xffffff
    return opened
end

return M
