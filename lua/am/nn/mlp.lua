-- The gated feed-forward block: down(act(gate(x)) * up(x)) (Shazeer 2020).

local ops = require("am.core.ops")
local Linear = require("am.nn.linear")
local Module = require("am.nn.module")

local GatedMLP = Module.class("GatedMLP")

--- hidden_act is a name of ops.activations.
---@param opts {hidden_size: integer, intermediate_size: integer, hidden_act: string, bias: boolean?}
function GatedMLP.new(opts)
    local self = Module.init(GatedMLP)
    self.act = opts.hidden_act
    self:add("gate_proj", Linear.new(opts.hidden_size, opts.intermediate_size, opts.bias))
    self:add("up_proj", Linear.new(opts.hidden_size, opts.intermediate_size, opts.bias))
    self:add("down_proj", Linear.new(opts.intermediate_size, opts.hidden_size, opts.bias))
    return self
end

--- x [..., hidden_size] -> the same shape
function GatedMLP:forward(x)
    return self.down_proj:forward(ops.glu(self.gate_proj:forward(x), self.up_proj:forward(x), self.act))
end

return GatedMLP
