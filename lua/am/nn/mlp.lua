-- Feed-forward blocks: gated, down(act(gate(x)) * up(x)) (Shazeer 2020), and plain, down(act(up(x))).

local ops = require("am.core.ops")
local Linear = require("am.nn.linear")
local Module = require("am.nn.module")

local GatedMLP = Module.class("GatedMLP")
GatedMLP.kernel = "glu" -- nn/kernels.lua

--- hidden_act is a name of ops.activations. With `fused`, gate and up are the halves of one map, gate_up_proj.
---@param opts {hidden_size: integer, intermediate_size: integer, hidden_act: string, bias: boolean?, fused: boolean?}
function GatedMLP.new(opts)
    local self = Module.init(GatedMLP)
    self.act, self.width = opts.hidden_act, opts.intermediate_size
    if opts.fused then
        self:add("gate_up_proj", Linear.new(opts.hidden_size, 2 * opts.intermediate_size, opts.bias))
    else
        self:add("gate_proj", Linear.new(opts.hidden_size, opts.intermediate_size, opts.bias))
        self:add("up_proj", Linear.new(opts.hidden_size, opts.intermediate_size, opts.bias))
    end
    self:add("down_proj", Linear.new(opts.intermediate_size, opts.hidden_size, opts.bias))
    return self
end

--- act(gate) * up in one op, or in two with self.composed.
function GatedMLP:gated(gate, up)
    if self.composed then
        return ops.activation(gate, self.act) * up
    end
    return ops.glu(gate, up, self.act)
end

--- x [..., hidden_size] -> the same shape
function GatedMLP:forward(x)
    if self.gate_up_proj then
        local both = self.gate_up_proj:forward(x)
        return self.down_proj:forward(self:gated(both:narrow(-1, 0, self.width),
                                                 both:narrow(-1, self.width, self.width)))
    end
    return self.down_proj:forward(self:gated(self.gate_proj:forward(x), self.up_proj:forward(x)))
end

local MLP = Module.class("MLP")

--- up and down are {name, module} pairs, maps from and to the hidden size; hidden_act is a name of
--- ops.activations.
---@param opts {up: table, down: table, hidden_act: string}
function MLP.new(opts)
    local self = Module.init(MLP)
    self.act = opts.hidden_act
    self.up_name, self.down_name = opts.up[1], opts.down[1]
    self:add(unpack(opts.up))
    self:add(unpack(opts.down))
    return self
end

--- x [..., hidden_size] -> the same shape
function MLP:forward(x)
    return self[self.down_name]:forward(ops.activation(self[self.up_name]:forward(x), self.act))
end

return { GatedMLP = GatedMLP, MLP = MLP }
