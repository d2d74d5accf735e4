-- What a text calls an image: a path, an http(s) URL, or a data: URL with its bytes. What a URL names is brought once,
-- into the folder amlua-images of the hub's cache. Nothing is decoded here but a header.

local base64 = require("am.utils.base64")
local digest = require("am.utils.digest")
local err = require("am.core.error")
local http = require("am.utils.http")
local hub = require("am.utils.hub")
local image = require("am.core.image")
local path = require("am.utils.path")

local M = {}

local MAX_BYTES = 256 * 1024 * 1024 -- of an image that a URL names

--- { path = }, { url = }, or { data = its bytes } of a text; nil and what is wrong with it.
function M.of(text)
    if text:find("^https?://") then
        return { url = text }
    elseif text:find("^data:") then
        local body = text:match("^data:[^,]*;base64,(.*)$")
        local bytes = body and base64.decode(body)
        if not bytes then
            return nil, 'an image begins with "data:" and holds no base64'
        end
        return { data = bytes }
    elseif text == "" then
        return nil, "an image has no file name"
    elseif text:find("%z") then
        return nil, "an image's file name holds a zero byte (an image's own bytes come as { bytes = … })"
    end
    return { path = text }
end

--- The file that a URL was brought to, and the URL as messages show it. Raises "io" where that does not work, and
--- what core/image.lua's header raises of what is no image.
function M.fetch(url)
    local folder, shown = path.join(hub.cache_dir(), "amlua-images"), http.shown(url)
    local file = path.join(folder, digest.text(url))
    if path.is_file(file) then
        return file, shown
    elseif hub.offline() then
        err.raise("io", "%s is not in the cache, and HF_HUB_OFFLINE is set", shown)
    end
    path.mkdir_p(folder)
    local answer, message, kind = http.request { url = url, retries = 1, max_bytes = MAX_BYTES, connect_timeout = 10,
                                                 idle_timeout = 20 } -- of many rows, any may be dead
    if not answer then
        err.raise(kind == "interrupted" and "interrupted" or "io", "%s", message)
    elseif answer.status ~= 200 then
        err.raise("io", "%s: the server answers %d", shown, answer.status)
    end
    image.header { data = answer.body, name = shown } -- what is no image is not kept: the server may be mended
    path.write_file(file, answer.body)
    return file, shown
end

return M
