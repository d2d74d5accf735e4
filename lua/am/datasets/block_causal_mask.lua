-- The mask of packed samples as a tensor, for attention that takes one. What is trained here takes bounds
-- instead (collate.lua), which are linear in the tokens.

local ffi = require("ffi")
local err = require("am.core.error")
local tensor = require("am.core.tensor")

local M = {}

-- The sum of a row's lengths.
local function total(lengths, b)
    local sum = 0
    for _, length in ipairs(lengths) do
        if type(length) ~= "number" or length % 1 ~= 0 or length < 0 then
            err.raise("argument", "create_block_causal_mask: seq_lens of row %d has %s, not a length", b,
                tostring(length))
        end
        sum = sum + length
    end
    return sum
end

--- [B, 1, T, T] of bool: position q of row b sees position k when both are of one sample and k is not behind
--- q. seq_lens: an array for each row with the lengths of its samples, each row adding up to the same T, as
--- the original's create_block_causal_mask takes them.
function M.create_block_causal_mask(seq_lens)
    local B = #seq_lens
    local T = total(seq_lens[1] or err.raise("argument", "create_block_causal_mask: no row is given"), 1)
    local made, mask = pcall(ffi.new, "uint8_t[?]", B * T * T)
    if not made then
        err.raise("memory", "create_block_causal_mask: %d masks of %.0f x %.0f are too much", B, T, T)
    end
    for b, lengths in ipairs(seq_lens) do
        if total(lengths, b) ~= T then
            err.raise("argument", "create_block_causal_mask: seq_lens of row %d do not add up to %d, as those of the "
                .. "first do", b, T)
        end
        local start = 0
        for _, length in ipairs(lengths) do
            for q = start, start + length - 1 do
                ffi.fill(mask + ((b - 1) * T + q) * T + start, q - start + 1, 1)
            end
            start = start + length
        end
    end
    return tensor.from_buffer(mask, { B, 1, T, T }, { dtype = "bool" })
end

return M
