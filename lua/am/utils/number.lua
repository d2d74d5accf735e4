-- Numbers as text, exactly as Python's repr prints them, so that files compare equal.
--
--   number.text(x)        repr of a Lua number; whole numbers up to 2^53 print as integers
--   number.float_text(x)  the same, always as a float: 1.0

local posix = require("am.utils.posix")

local M = {}

-- 17 digits always round-trip, and 15 are enough for every decimal of up to 15 except among the
-- denormals. At a power of two the gap below is half the gap above, so the nearest shorter
-- decimal may fail where the next one up still reads back as x.
local function shortest_digits(x)
    for precision = math.abs(x) < 2.3e-308 and 1 or 15, 16 do
        local text = posix.scientific(x, precision - 1)
        if tonumber(text) == x then
            return text
        end
        local mantissa, last, exponent = text:match("^(.*)(%d)(e.*)$")
        local up = last ~= "9" and mantissa .. (tonumber(last) + 1) .. exponent
        if up and tonumber(up) == x then
            return up
        end
    end
    return posix.scientific(x, 16)
end

--- repr of a finite float, always with a point or an exponent: 1.0, 1e-05, 1e+16.
function M.float_text(x)
    if x == 0 then
        return 1 / x < 0 and "-0.0" or "0.0"
    end
    local sign, lead, rest, exponent = shortest_digits(x):match("^(-?)(%d)%.?(%d*)e([-+]%d+)$")
    local digits = (lead .. rest):gsub("0+$", "")
    if digits == "" then
        digits = "0"
    end
    local e = tonumber(exponent)
    if e < -4 or e >= 16 then
        local mantissa = digits:sub(1, 1)
        if #digits > 1 then
            mantissa = mantissa .. "." .. digits:sub(2)
        end
        return string.format("%s%se%s%02d", sign, mantissa, e < 0 and "-" or "+", math.abs(e))
    elseif e < 0 then
        return sign .. "0." .. ("0"):rep(-e - 1) .. digits
    elseif #digits <= e + 1 then
        return sign .. digits .. ("0"):rep(e + 1 - #digits) .. ".0"
    end
    return sign .. digits:sub(1, e + 1) .. "." .. digits:sub(e + 2)
end

local function is_integral(x)
    return x % 1 == 0 and x >= -2 ^ 53 and x <= 2 ^ 53 and not (x == 0 and 1 / x < 0)
end

--- Python's repr of a Lua number: whole numbers up to 2^53 as integers; inf, -inf, nan.
function M.text(x)
    if x ~= x then
        return "nan"
    elseif x == math.huge then
        return "inf"
    elseif x == -math.huge then
        return "-inf"
    elseif is_integral(x) then
        return string.format("%.0f", x)
    end
    return M.float_text(x)
end

return M
