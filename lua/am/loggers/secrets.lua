-- Passwords and keys that trackers use, so that no message of theirs shows one.
-- Holds no configuration: what that prints is redacted by am.config.
--
--   secrets.hide(key)            from now on redact() replaces it
--   secrets.redact(text)         the text without hidden values, users and passwords of addresses
--   secrets.basic(user, password)  what the header Authorization says for them

local base64 = require("am.utils.base64")
local strings = require("am.utils.strings")

local M = { REDACTED = "<redacted>" }

local hidden = {}

--- Remember a secret; short values are left out, since replacing them would garble every message.
function M.hide(value)
    if type(value) == "string" and #value >= 4 then
        hidden[value] = true
    end
    return value
end

function M.basic(user, password)
    return "Basic " .. M.hide(base64.encode(user .. ":" .. M.hide(password)))
end

function M.redact(text)
    for value in pairs(hidden) do
        text = table.concat(strings.split(text, value), M.REDACTED)
    end
    return strings.redact_urls(text)
end

return M
