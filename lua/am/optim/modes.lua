-- Products of a tensor with a matrix along each of its dims, and what preconditioners gather of gradients: the
-- arithmetic that SOAP and Shampoo share. Dims are taken in turn by moving the first one to the end, as
-- torch.tensordot over dim 0 does. Holds no optimizer.

local ops = require("am.core.ops")
local scope = require("am.core.scope")

local M = {}

-- x as a matrix of its first dim, which has d elements, and the rest.
local function unfold(x, d)
    return x:reshape(d, x:numel() / d)
end

--- x of `shape` with dim k multiplied by mats[k] [d, d] (y_j = sum_i x_i m_ij), or left alone where that is false;
--- `back` multiplies by the transpose.
function M.product(x, shape, mats, back)
    local y = x
    for k, d in ipairs(shape) do
        local rows = unfold(y, d):t()
        y = mats[k] and (back and ops.linear(rows, mats[k]) or rows:matmul(mats[k])) or rows:contiguous()
    end
    return y:reshape(x:size())
end

--- fn(k, gram) for each dim k for which mats[k] is not false: gram [d, d] is x's products along that dim, summed
--- over all others.
function M.each_gram(x, shape, mats, fn)
    local y = x
    for k, d in ipairs(shape) do
        local rows = unfold(y, d)
        if mats[k] then
            scope.scope(function() fn(k, ops.linear(rows, rows)) end)
        end
        y = k < #shape and rows:t():contiguous()
    end
end

--- Which dims of `shape` have a preconditioner: those of at most `limit` elements, in a tensor of one dim only with
--- `vectors`. An array of booleans.
function M.wanted(shape, limit, vectors)
    local out = {}
    for k, d in ipairs(shape) do
        out[k] = d > 0 and d <= limit and (#shape > 1 or vectors)
    end
    return out
end

--- Numbers in square matrices for the dims that `wanted` says.
function M.matrices_numel(shape, wanted)
    local n = 0
    for k, d in ipairs(shape) do
        n = n + (wanted[k] and d * d or 0)
    end
    return n
end

return M
