-- LayerScale (Touvron et al. 2021): a learned factor for each feature of what a block adds; and drop path (Huang et al.
-- 2016), which in training leaves the whole block out for some samples.

local tensor = require("am.core.tensor")
local Module = require("am.nn.module")

local LayerScale = Module.class("LayerScale")

--- value: of the factors at first; drop_path: the probability that a sample goes without.
function LayerScale.new(size, value, drop_path)
    local self = Module.init(LayerScale)
    self.size, self.drop_path = size, drop_path or 0
    self:declare("lambda1", { size }, { fill = value })
    return self
end

--- x [B, ..., size] -> the same shape
function LayerScale:forward(x)
    local y = x * self.lambda1
    if self.training and self.drop_path > 0 then
        local shape = { x:size(0) }
        for d = 2, x:dim() do
            shape[d] = 1
        end
        -- 0, or one over the probability to stay
        y = y * tensor.ones(shape, { dtype = x:dtype(), device = x:device() }):dropout(self.drop_path)
    end
    return y
end

--- What repr shows in brackets.
function LayerScale:extra_repr()
    return string.format("%d, drop_path=%g", self.size, self.drop_path)
end

return LayerScale
