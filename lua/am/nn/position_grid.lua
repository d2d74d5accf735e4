-- Learned positions of a grid of patches for pictures of another size: the table resampled as PyTorch's
-- interpolate(mode="bicubic", align_corners=False, antialias=False) does. That is linear in the table, one matrix for
-- rows and one for columns, so ops give the gradient.

local ops = require("am.core.ops")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")

local M = {}

local A = -0.75 -- of the cubic convolution, PyTorch's

local function near(x) return ((A + 2) * x - (A + 3)) * x * x + 1 end
local function far(x) return ((A * x - 5 * A) * x + 8 * A) * x - 4 * A end

--- Weights of PyTorch's bicubic resampling of `from` numbers to `to`: `to` rows of `from` each, as a flat Lua array.
function M.bicubic(from, to)
    local w, scale = {}, from / to
    for i = 1, from * to do
        w[i] = 0
    end
    for i = 0, to - 1 do
        local at = scale * (i + 0.5) - 0.5
        local first = math.floor(at)
        local t = at - first
        for k, weight in ipairs { far(t + 1), near(t), near(1 - t), far(2 - t) } do
            local place = i * from + math.min(math.max(first + k - 2, 0), from - 1) + 1 -- edges are repeated
            w[place] = w[place] + weight
        end
    end
    return w
end

-- Matrices are kept by what they do: a run meets few sizes. Of the last ones only, as sizes may come from pictures.
local kept, order, MOST = {}, {}, 64

local function matrix(from, to, device)
    local key = from .. " " .. to .. " " .. device
    if not kept[key] then
        local t = tensor.tensor(M.bicubic(from, to), { dtype = "float32", device = device }):reshape(to, from)
        kept[key] = scope.escape(t:contiguous())
        order[#order + 1] = key
        if #order > MOST then
            kept[table.remove(order, 1)] = nil
        end
    end
    return kept[key]
end

--- table [rows columns, C] of a grid -> [to_rows to_columns, C] of another one. Computed in float32, rounded once.
function M.resample(positions, rows, columns, to_rows, to_columns)
    local c, device = positions:size(1), positions:device()
    local x = positions:to("float32"):reshape(rows, columns * c)
    x = ops.matmul(matrix(rows, to_rows, device), x):reshape(to_rows, columns, c)
    x = ops.matmul(matrix(columns, to_columns, device), x)
    return x:reshape(to_rows * to_columns, c):to(positions:dtype())
end

return M
