-- Where images come from: files, bytes, URLs and data: URLs, made into what core/image.lua opens.

local err = require("am.core.error")
local image_source = require("am.utils.image_source")

local M = {}

local function of_text(text)
    local source, why = image_source.of(text)
    if not source then
        err.raise("data", "%s", why)
    elseif source.url then
        source.path, source.name = image_source.fetch(source.url)
    else
        source.name = source.path or "a data: URL"
    end
    return { path = source.path, data = source.data, name = source.name }
end

--- { path or data, name, max_pixels, background } of what a caller calls an image: a text, or a table with these
--- fields. `alpha`: "white" lays transparent pictures on white, "drop" leaves their alpha off.
function M.open(source, alpha)
    local opened
    if type(source) == "string" then
        opened = of_text(source)
    elseif type(source) == "table" and (type(source.path) == "string" or type(source.data) == "string") then
        opened = { path = source.path, data = not source.path and source.data or nil,
                   name = source.name or source.path or "image", max_pixels = source.max_pixels }
    else
        err.raise("data", "an image is a path, a URL or a table with path or data, not %s",
            type(source) == "table" and "a table without them" or tostring(source))
    end
    local most = opened.max_pixels
    if most ~= nil and not (type(most) == "number" and most >= 1 and most <= 2 ^ 53) then
        err.raise("usage", "max_pixels of an image is a number from 1 on, not %s", tostring(most))
    end
    opened.background = alpha == "drop" and -1 or 0xffffff
    return opened
end

return M
