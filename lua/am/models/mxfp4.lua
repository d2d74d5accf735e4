-- MXFP4 weights (OCP Microscaling Formats 1.0) of a checkpoint as a source of floating-point ones: GPT-OSS is
-- published so. Files hold NAME_blocks, uint8 [..., rows, groups, 16] with two numbers a byte, the lower half
-- first, and NAME_scales, uint8 [..., rows, groups], an exponent for each 32 numbers. As transformers' dequantising,
-- the matrices come out as [..., columns, rows]. Writes none.

local err = require("am.core.error")
local ops = require("am.core.ops")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")

local M = {}

local values = { 0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6 }

-- Both numbers of each byte [256, 2], and two to the power of each exponent [256, 1].
local function tables(device)
    local pairs_of, powers = {}, {}
    for byte = 0, 255 do
        pairs_of[byte + 1] = { values[byte % 16 + 1], values[math.floor(byte / 16) + 1] }
        powers[byte + 1] = { 2 ^ (byte - 127) }
    end
    local placed = { dtype = "float32", device = device }
    return tensor.tensor(pairs_of, placed), tensor.tensor(powers, placed)
end

-- One matrix of a stack: blocks [rows, groups, 16] and scales [rows, groups] -> [32 groups, rows].
local function matrix(blocks, scales, bytes, powers)
    local rows, groups = blocks:size(0), blocks:size(1)
    local numbers = ops.embedding(blocks:to("int32"), bytes):reshape(rows, groups, 32)
    return (numbers * ops.embedding(scales:to("int32"), powers)):reshape(rows, 32 * groups):transpose(0, 1)
end

local function dequantized(blocks, scales, name, where, dtype)
    local shape, coarse = blocks:size(), scales:size()
    local fits = #shape == 4 and #coarse == 3 and shape[4] == 16 and blocks:dtype() == "uint8"
        and scales:dtype() == "uint8"
    for i = 1, fits and 3 or 0 do
        fits = fits and shape[i] == coarse[i]
    end
    if not fits then
        err.raise("format", "%s: %s_blocks [%s] and %s_scales [%s] are no uint8 [E, rows, groups, 16] and [E, rows, "
                  .. "groups]", where, name, table.concat(shape, ", "), name, table.concat(coarse, ", "))
    end
    local bytes, powers = tables(blocks:device())
    local out = tensor.empty({ shape[1], 32 * shape[3], shape[2] }, { dtype = dtype or "bfloat16",
                                                                     device = blocks:device() })
    for e = 0, shape[1] - 1 do -- a matrix at a time: the whole in float32 would be gigabytes
        scope.scope(function()
            out:select(0, e):copy_(matrix(blocks:select(0, e), scales:select(0, e), bytes, powers):to(out:dtype()))
        end)
    end
    return out
end

--- A source (sources.lua) whose packed tensors are read as NAME, bfloat16 unless another dtype is asked for; the
--- source itself where it has none.
function M.unpacked(source)
    local names, packed = {}, false
    for name in pairs(source.names) do
        local base = name:match("^(.*)_blocks$") or name:match("^(.*)_scales$")
        local both = base and source.names[base .. "_blocks"] and source.names[base .. "_scales"]
        names[both and base or name] = true
        packed = packed or both ~= nil
    end
    if not packed then
        return source
    end
    return setmetatable({
        names = names,
        get = function(name, dtype)
            if names[name] and not source.names[name] then
                return dequantized(source.get(name .. "_blocks"), source.get(name .. "_scales"), name, source.where,
                                   dtype)
            end
            return source.get(name, dtype)
        end,
    }, { __index = source })
end

return M
