-- Mixtures of experts: a router picks some of many feed-forward blocks for each token (Shazeer et al. 2017). No
-- token is dropped: rows are sorted by expert, and each expert's rows go through its own maps in one grouped
-- product. Also the loss that balances the experts.

local ops = require("am.core.ops")
local tensor = require("am.core.tensor")
local GatedMLP = require("am.nn.mlp").GatedMLP
local Module = require("am.nn.module")

local M = {}

local GroupedLinear = Module.class("GroupedLinear")
M.GroupedLinear = GroupedLinear

--- A linear map for each expert, their weights [E, out, in] one tensor. Checkpoints hold one matrix for each expert,
--- whose number stands before this module's name; with `stacked` they hold the tensor as it is.
---@param opts {num_experts: integer, in_features: integer, out_features: integer, stacked: boolean?}
function GroupedLinear.new(opts)
    local self = Module.init(GroupedLinear)
    self.num_experts, self.in_features, self.out_features = opts.num_experts, opts.in_features, opts.out_features
    self:declare("weight", { opts.num_experts, opts.out_features, opts.in_features })
    self._parameters[1].each = not opts.stacked
    return self
end

--- x [N, in], rows sorted by expert; offsets int32 [E + 1]: where each expert's begin -> [N, out]
function GroupedLinear:forward(x, offsets)
    return ops.grouped_linear(x, self.weight, offsets)
end

--- What repr shows in brackets.
function GroupedLinear:extra_repr()
    return string.format("num_experts=%d, in_features=%d, out_features=%d", self.num_experts, self.in_features,
                         self.out_features)
end

local Experts = Module.class("Experts")
Experts.kernel, Experts.gated = GatedMLP.kernel, GatedMLP.gated
M.Experts = Experts

--- Gated feed-forward blocks, one for each expert. names: of the three maps, {"gate_proj", "up_proj", "down_proj"}.
---@param opts {num_experts: integer, hidden_size: integer, intermediate_size: integer, hidden_act: string,
---  names: table?}
function Experts.new(opts)
    local self = Module.init(Experts)
    self.act, self.names = opts.hidden_act, opts.names or { "gate_proj", "up_proj", "down_proj" }
    for i, name in ipairs(self.names) do
        local down = i == 3
        self:add(name, GroupedLinear.new {
            num_experts = opts.num_experts,
            in_features = down and opts.intermediate_size or opts.hidden_size,
            out_features = down and opts.hidden_size or opts.intermediate_size,
        })
    end
    return self
end

--- x [N, C], rows sorted by expert -> [N, C]
function Experts:forward(x, offsets)
    local gate, up, down = unpack(self.names)
    return self[down]:forward(self:gated(self[gate]:forward(x, offsets), self[up]:forward(x, offsets)), offsets)
end

local SparseMoE = Module.class("SparseMoE")
M.SparseMoE = SparseMoE

--- Give an instance of a class what SparseMoE.new's options say.
function SparseMoE.configure(class, opts)
    local self = Module.init(class)
    self.num_experts, self.top_k = opts.num_experts, opts.top_k
    self.softmax_after, self.normalize, self.jitter = opts.softmax_after, opts.normalize, opts.jitter or 0
    self.names = {}
    for _, role in ipairs { "router", "experts", "shared", "shared_gate" } do
        if opts[role] then
            self:add(unpack(opts[role]))
            self.names[role] = opts[role][1]
        end
    end
    return self
end

--- router and experts (and shared, an expert that sees all tokens, with shared_gate before it) are {name, module};
--- the router maps [N, C] to logits [N, num_experts].
---@param opts {router: table, experts: table, shared: table?, shared_gate: table?, num_experts: integer,
---  top_k: integer, softmax_after: boolean?, normalize: boolean?, jitter: number?} softmax_after: over the chosen
---  logits, not over all before the choice; normalize: the chosen probabilities are divided by their sum; jitter: in
---  training each number that comes in is multiplied by a draw from 1 - jitter to 1 + jitter
function SparseMoE.new(opts)
    return SparseMoE.configure(SparseMoE, opts)
end

--- x [N, C], rows sorted by expert, offsets int32 [E + 1] -> [N, C]
function SparseMoE:run_experts(x, offsets)
    return self[self.names.experts]:forward(x, offsets)
end

-- logits [N, E] -> weights [N, k] and the experts' numbers [N, k].
local function choose(self, logits)
    local scores = logits:dtype() == "float64" and logits or logits:to("float32")
    if self.softmax_after then
        local best, index = ops.topk(scores, self.top_k)
        return best:softmax(-1), index
    end
    local best, index = ops.topk(scores:softmax(-1), self.top_k)
    return self.normalize and best / best:sum(-1, true) or best, index
end

--- x [B, T, C] -> the same shape, and the router's logits [B T, E].
function SparseMoE:forward(x)
    local rows = x:reshape(-1, x:size(2))
    if self.training and self.jitter > 0 then
        local noise = tensor.empty(rows:size(), { dtype = rows:dtype(), device = rows:device() })
        rows = rows * noise:uniform_(1 - self.jitter, 1 + self.jitter)
    end
    local logits = self[self.names.router]:forward(rows)
    return self:mix(rows, choose(self, logits)):reshape(x:size()), logits
end

--- What the chosen experts make of rows [N, C], and the one that sees all: weights and index [N, k] -> [N, C].
function SparseMoE:mix(rows, weights, index)
    local n, k = rows:size(0), self.top_k
    local order, offsets, tokens = ops.sort_by_expert(index, self.num_experts)
    local out = self:run_experts(rows:index_select(0, tokens), offsets)
    out = out * weights:reshape(n * k):index_select(0, order):unsqueeze(-1):to(out:dtype())
    local sum = tensor.zeros(rows:size(), { dtype = out:dtype(), device = out:device() }):index_add(0, tokens, out)
    if self.names.shared then
        local shared = self[self.names.shared]:forward(rows)
        local gate = self.names.shared_gate and self[self.names.shared_gate]:forward(rows):sigmoid()
        sum = sum + (gate and gate * shared or shared)
    end
    return sum
end

--- The loss that balances experts (Fedus et al. 2021, arXiv:2101.03961, equations 4 to 6), as transformers'
--- load_balancing_loss_func has it: the number of experts times the sum over them of the share of tokens that
--- they get (all k choices counted) times their mean probability, over all layers together. A scalar.
---@param logits table of the layers' router logits [N, E]
---@param mask? table a tensor [N], 1 for tokens that count
---@param sum? fun(t: table): table adds up what these and other tokens have, where there are others
function M.load_balancing_loss(logits, num_experts, top_k, mask, sum)
    local numbers, counts, probabilities = {}, nil, nil
    for e = 1, num_experts do
        numbers[e] = e - 1
    end
    local experts = tensor.tensor(numbers, { dtype = "int64", device = logits[1]:device() }):reshape(1, 1, num_experts)
    for _, z in ipairs(logits) do
        local p = z:to("float32"):softmax(-1)
        local _, index = ops.topk(p, top_k)
        local chosen = index:unsqueeze(-1):eq(experts):to("float32"):sum(1)
        if mask then
            p, chosen = p * mask:unsqueeze(-1), chosen * mask:unsqueeze(-1)
        end
        local count, probability = chosen:sum(0), p:sum(0)
        counts = counts and counts + count or count
        probabilities = probabilities and probabilities + probability or probability
    end
    local rows = #logits * (mask and mask:sum():item() or logits[1]:size(0))
    if sum then
        counts, probabilities = sum(counts), sum(probabilities)
        rows = sum(tensor.full({}, rows, { device = logits[1]:device() })):item()
    end
    return (counts * probabilities):sum() * (num_experts / math.max(rows * rows, 1))
end

return M
