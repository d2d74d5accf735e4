-- Conv1D as transformers' pytorch_utils.py has it: a linear map whose weight lies the other way round, [in, out].

local ops = require("am.core.ops")
local Module = require("am.nn.module")

local Conv1D = Module.class("Conv1D")

---@param in_features integer
---@param out_features integer
---@param init number? of the weight (Module:declare)
function Conv1D.new(in_features, out_features, init)
    local self = Module.init(Conv1D)
    self.in_features, self.out_features = in_features, out_features
    self:declare("weight", { in_features, out_features }, init)
    self:declare("bias", { out_features }, "zeros")
    return self
end

--- x [..., in] -> [..., out]
function Conv1D:forward(x)
    return ops.linear(x, self.weight:transpose(0, 1), self.bias)
end

--- What repr shows in brackets.
function Conv1D:extra_repr()
    return string.format("in_features=%d, out_features=%d", self.in_features, self.out_features)
end

return Conv1D
