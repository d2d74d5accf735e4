-- Passwords and keys that trackers use, so that no message of theirs shows one.
-- Holds no configuration: what that prints is redacted by am.config.
--
--   secrets.hide(key)            from now on redact() replaces it
--   secrets.redact(text)         the text without hidden values, users and passwords of addresses
--   secrets.basic(user, password)  what the header Authorization says for them

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

local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(text)
    local out = {}
    for i = 1, #text, 3 do
        local a, b, c = text:byte(i, i + 2)
        local bits = a * 65536 + (b or 0) * 256 + (c or 0)
        for k = 3, 0, -1 do
            local digit = math.floor(bits / 64 ^ k) % 64 + 1
            out[#out + 1] = (k == 1 and not b or k == 0 and not c) and "=" or alphabet:sub(digit, digit)
        end
    end
    return table.concat(out)
end

function M.basic(user, password)
    return "Basic " .. M.hide(base64(user .. ":" .. M.hide(password)))
end

function M.redact(text)
    for value in pairs(hidden) do
        text = table.concat(strings.split(text, value), M.REDACTED)
    end
    return strings.redact_urls(text)
end

return M
