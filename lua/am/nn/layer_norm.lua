-- LayerNorm (Ba et al. 2016).

local ops = require("am.core.ops")
local Module = require("am.nn.module")

local LayerNorm = Module.class("LayerNorm")
LayerNorm.kernel = "layer_norm" -- nn/kernels.lua

--- A norm over a last dim of `size`: with weight and bias, unless these are false, and an offset that is added to
--- the weight (1 in Nemotron).
---@param opts? {weight: boolean?, bias: boolean?, offset: number?}
function LayerNorm.new(size, eps, opts)
    opts = opts or {}
    local self = Module.init(LayerNorm)
    self.size, self.eps, self.offset = size, eps, opts.offset or 0
    if opts.weight ~= false then
        self:declare("weight", { size }, "ones")
    end
    if opts.bias ~= false then
        self:declare("bias", { size }, "zeros")
    end
    return self
end

--- x [..., size] -> the same shape. self.composed: of elementwise ops.
function LayerNorm:forward(x)
    if not self.composed then
        return ops.layer_norm(x, self.weight, self.bias, self.eps, self.offset)
    end
    local wide = x:dtype() == "float64" and x or x:to("float32")
    local centred = wide - wide:mean(-1, true)
    local y = centred * ((centred * centred):mean(-1, true) + self.eps):rsqrt()
    if self.weight then
        y = y * (self.weight:to(y:dtype()) + self.offset)
    end
    return (self.bias and y + self.bias:to(y:dtype()) or y):to(x:dtype())
end

--- What repr shows in brackets.
function LayerNorm:extra_repr()
    return string.format("%d, eps=%g", self.size, self.eps)
end

return LayerNorm
