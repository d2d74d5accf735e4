-- Linear: y = x W^T + b.

local ops = require("am.core.ops")
local Module = require("am.nn.module")

local Linear = Module.class("Linear")

---@param in_features integer
---@param out_features integer
---@param bias boolean?
---@param bias_init string? how the bias begins (Module:declare), "zeros" by default
function Linear.new(in_features, out_features, bias, bias_init)
    local self = Module.init(Linear)
    self.in_features, self.out_features = in_features, out_features
    self:declare("weight", { out_features, in_features })
    if bias then
        self:declare("bias", { out_features }, bias_init or "zeros")
    end
    return self
end

Linear.takes_fp8 = true

--- x [..., in] -> [..., out]. With `fp8`, the name of a recipe (ops.fp8_linear), by products in 8 bits.
function Linear:forward(x)
    if self.fp8 then
        local y = ops.fp8_linear(x, self.weight, self.fp8)
        return self.bias and y + self.bias or y
    end
    return ops.linear(x, self.weight, self.bias)
end

--- What repr shows in brackets.
function Linear:extra_repr()
    return string.format("in_features=%d, out_features=%d, bias=%s%s", self.in_features, self.out_features,
                         tostring(self.bias ~= nil), self.fp8 and ", fp8=" .. self.fp8 or "")
end

return Linear
