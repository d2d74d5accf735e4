-- RMSNorm (Zhang & Sennrich 2019).

local ops = require("am.core.ops")
local Module = require("am.nn.module")

local RMSNorm = Module.class("RMSNorm")

--- A norm over a last dim of `size`, its weight all ones.
function RMSNorm.new(size, eps)
    local self = Module.init(RMSNorm)
    self.size, self.eps = size, eps
    self:declare("weight", { size }, "ones")
    return self
end

--- x [..., size] -> the same shape
function RMSNorm:forward(x)
    return ops.rms_norm(x, self.weight, self.eps)
end

--- What repr shows in brackets.
function RMSNorm:extra_repr()
    return string.format("%d, eps=%g", self.size, self.eps)
end

return RMSNorm
