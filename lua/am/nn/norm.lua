-- RMSNorm (Zhang & Sennrich 2019).

local ops = require("am.core.ops")
local Module = require("am.nn.module")

local RMSNorm = Module.class("RMSNorm")
RMSNorm.kernel = "rms_norm" -- nn/kernels.lua

--- A norm over a last dim of `size`. Rows are multiplied by offset + weight, which is 1 at first: offset is 0, or
--- 1 as in Gemma.
function RMSNorm.new(size, eps, offset)
    local self = Module.init(RMSNorm)
    self.size, self.eps, self.offset = size, eps, offset or 0
    self:declare("weight", { size }, self.offset == 1 and "zeros" or "ones")
    return self
end

--- x [..., size] -> the same shape. self.composed: of elementwise ops.
function RMSNorm:forward(x)
    if not self.composed then
        return ops.rms_norm(x, self.weight, self.eps, self.offset)
    end
    local wide = x:dtype() == "float64" and x or x:to("float32")
    local root = ((wide * wide):mean(-1, true) + self.eps):rsqrt()
    return (wide * root * (self.weight:to(wide:dtype()) + self.offset)):to(x:dtype())
end

--- What repr shows in brackets.
function RMSNorm:extra_repr()
    return string.format("%d, eps=%g", self.size, self.eps)
end

return RMSNorm
