-- DoRA (Liu et al. 2024, arXiv:2402.09353) as HF PEFT computes it: an adapted weight V = W + s B A is scaled so
-- that its row i has the trained length m_i:
--
--   y = (m / |V|) * V x + b,  |V| the norms of V's rows, which count as constants in backward (section 4.3)
--
-- |V| is had without making V: |V|^2 = |W|^2 + 2 s (W A^T) . B + s^2 (B (A A^T)) . B, row by row; |W|^2, which
-- never changes, is kept. As in PEFT norms are rounded to W's dtype, so that a new adapter, whose m is |W|,
-- changes nothing at all. What it keeps for backward beside LoRA is its output before the scaling.
--
-- A module that has this gives `self:matrices()`: W [n, k], A [r, k] and B [n, r] in W's dtype; n rows are
-- scaled (an embedding's columns). Where W has a part of k only, whole_squares(squares [n]) makes the parts' squares
-- one sum. Holds no module; lora.lua and embedding.lua do.

local autograd = require("am.core.autograd")
local ops = require("am.core.ops")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")
local Module = require("am.nn.module")

local M = {}

local Magnitude = Module.class("LoraMagnitudeVector")
local CHUNK = 4 * 1024 * 1024 -- elements that are squared at once

local function wide(dtype)
    return dtype == "float64" and "float64" or "float32"
end

--- Give a module the parameter lora_magnitude_vector.weight [n].
function M.attach(module, n)
    local magnitude = Module.init(Magnitude)
    magnitude:declare("weight", { n }, "ones")
    module:add("lora_magnitude_vector", magnitude)
end

-- |W|^2 of each row, in f32 or f64.
local function squared_rows(w)
    local n, dtype = w:size(0), wide(w:dtype())
    local out = tensor.empty({ n }, { dtype = dtype, device = w:device() })
    local rows = math.max(1, math.floor(CHUNK / math.max(w:size(1), 1)))
    for at = 0, n - 1, rows do
        local count = math.min(rows, n - at)
        scope.scope(function()
            local part = w:narrow(0, at, count):to(dtype)
            out:narrow(0, at, count):copy_((part * part):sum(1))
        end)
    end
    return out
end

-- The norms of V's rows, rounded to W's dtype, as f32 or f64 [n].
local function weight_norm(module)
    return autograd.no_grad(scope.scope, function()
        local w, a, b = module:matrices()
        w, a, b = w:detach(), a:detach(), b:detach()
        local dtype, s = wide(w:dtype()), module.scale
        module.squared_rows = module.squared_rows or scope.escape(squared_rows(w))
        local cross = ops.matmul(w, a:transpose(0, 1)):to(dtype)
        a, b = a:to(dtype), b:to(dtype)
        local own = ops.matmul(b, ops.matmul(a, a:transpose(0, 1)))
        local squares = module.squared_rows + (cross * b):sum(1) * (2 * s) + (own * b):sum(1) * (s * s)
        squares = module.whole_squares and module:whole_squares(squares) or squares
        return ops.sqrt(ops.clamp(squares, 0)):to(w:dtype()):to(dtype)
    end)
end

--- Set m to |V|, in a dtype; A and B must be there.
function M.initialize(module, dtype)
    module.lora_magnitude_vector.weight = scope.escape(weight_norm(module):to(dtype))
end

--- m / |V| as f32 or f64 [n], with m's gradient. A row of zeros, which has no direction, is scaled by m.
function M.factor(module)
    local norm = weight_norm(module)
    return module.lora_magnitude_vector.weight:to(norm:dtype()) / ops.where(ops.eq(norm, 0), 1, norm)
end

--- z [..., n] times a factor [n], computed in the factor's dtype and rounded once to z's. Keeps z as it is,
--- where z * factor would keep a wider copy.
M.scale = autograd.custom {
    forward = function(ctx, z, factor)
        ctx.z, ctx.factor = z, factor
        return (z:to(factor:dtype()) * factor):to(z:dtype())
    end,
    backward = function(ctx, grad)
        local z, factor = ctx.z, ctx.factor
        grad = grad:to(factor:dtype())
        local by_row = (grad * z:to(factor:dtype())):reshape(-1, factor:size(0))
        return (grad * factor):to(z:dtype()), by_row:sum(0)
    end,
}

--- What DoRA makes of x [..., k] in a LinearLoRA with the weight w [n, k], a and b in its dtype. Dropout of the input
--- ("pre") drops it for V and not for W, as in PEFT; that of LoRA's output ("post") is NeMo Automodel's.
function M.linear(module, x, w, a, b)
    local p = module.training and module.dropout or 0
    local factor = M.factor(module)
    if p > 0 and module.dropout_position == "pre" then
        local dropped = ops.dropout(x, p, true)
        local scaled = M.scale(ops.lora_linear(dropped, w, nil, a, b, { scale = module.scale }), factor)
        return scaled + ops.linear(x - dropped, w, module.bias)
    end
    local z = ops.lora_linear(x, w, nil, a, b, { scale = module.scale, dropout = p, position = "post" })
    local y = M.scale(z, factor)
    return module.bias and y + module.bias or y
end

--- Free what is kept beside parameters.
function M.release(module)
    if module.squared_rows then
        module.squared_rows:release()
        module.squared_rows = nil
    end
end

return M
