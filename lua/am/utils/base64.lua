-- Base64 (RFC 4648, with padding). Holds no decoding: nothing here reads it.

local M = {}

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

--- A string of any bytes as base64.
function M.encode(text)
    local out = {}
    for i = 1, #text, 3 do
        local a, b, c = text:byte(i, i + 2)
        local bits = a * 65536 + (b or 0) * 256 + (c or 0)
        for k = 3, 0, -1 do
            local digit = math.floor(bits / 64 ^ k) % 64 + 1
            out[#out + 1] = (k == 1 and not b or k == 0 and not c) and "=" or ALPHABET:sub(digit, digit)
        end
    end
    return table.concat(out)
end

return M
