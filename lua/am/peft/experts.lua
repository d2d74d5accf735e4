-- LoRA of a stack of experts' maps (nn.moe.GroupedLinear): A [E, r, in] and B [E, out, r], one pair for each expert,
-- trained in grouped products. Also what such adapters are called in files: a pair for each expert where the
-- checkpoint has a matrix for each ("….experts.3.w1.lora_A.weight", as PEFT wrote with transformers 4 and vLLM reads),
-- or PEFT's of a whole parameter ("….experts.base_layer.lora_A.weight"), which reads both.

local ops = require("am.core.ops")
local autograd = require("am.core.autograd")
local err = require("am.core.error")
local lora = require("am.peft.lora")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")
local Module = require("am.nn.module")
local moe = require("am.nn.moe")
local strings = require("am.utils.strings")

local M = {}

local GroupedLinearLoRA = Module.class("GroupedLinearLoRA")
M.GroupedLinearLoRA = GroupedLinearLoRA

--- Wrap a GroupedLinear; its weight keeps its name.
---@param opts {dim: integer, alpha: number, use_rslora: boolean?, use_dora: boolean?, dropout: number?,
---  dropout_position: string?}
function GroupedLinearLoRA.new(base, opts)
    if opts.use_dora then
        err.raise("unsupported", "peft.use_dora: experts in stacks have no DoRA, here nor in PEFT; leave them out with "
                  .. "target_modules or exclude_modules")
    end
    local self = Module.init(GroupedLinearLoRA)
    self.num_experts, self.in_features, self.out_features = base.num_experts, base.in_features, base.out_features
    self._parameters, self.weight = base._parameters, base.weight
    self.dim, self.alpha, self.scale = opts.dim, opts.alpha, lora.scale(opts)
    self.dropout, self.dropout_position = opts.dropout or 0, opts.dropout_position or "post"
    local function stack(from, to)
        return moe.GroupedLinear.new { num_experts = base.num_experts, in_features = from, out_features = to }
    end
    self:add("lora_A", stack(base.in_features, opts.dim))
    self:add("lora_B", stack(opts.dim, base.out_features))
    return self
end

GroupedLinearLoRA.tensor_names = lora.LinearLoRA.tensor_names

--- x [N, in], rows sorted by expert; offsets int32 [E + 1] -> [N, out]. A and B of another dtype are rounded to the
--- weight's.
function GroupedLinearLoRA:forward(x, offsets)
    local dtype, p = self.weight:dtype(), self.training and self.dropout or 0
    local before = p > 0 and self.dropout_position == "pre" and ops.dropout(x, p, true) or x
    local inner = ops.grouped_linear(before, self.lora_A.weight:to(dtype), offsets)
    -- the scale goes to B, which is small: times it, all rows would be kept for backward
    local delta = ops.grouped_linear(inner, self.lora_B.weight:to(dtype) * self.scale, offsets)
    if p > 0 and self.dropout_position == "post" then
        delta = ops.dropout(delta, p, true)
    end
    return ops.grouped_linear(x, self.weight, offsets) + delta
end

function GroupedLinearLoRA:extra_repr()
    return string.format("%s, r=%d, scale=%g", moe.GroupedLinear.extra_repr(self), self.dim, self.scale)
end

--- Give A and B storage: A by an initializer's name, B zero.
function GroupedLinearLoRA:initialize(init, dtype)
    local opts, n = { dtype = dtype or self.weight:dtype(), device = self.weight:device() }, self.num_experts
    self.lora_A.weight = scope.escape(tensor.empty({ n, self.dim, self.in_features }, opts))
    lora.initializers[init](self.lora_A.weight, self.dim, self.in_features)
    self.lora_B.weight = scope.escape(tensor.zeros({ n, self.out_features, self.dim }, opts))
end

--- The GroupedLinear that this comes to, with a weight of its own: W + scale B A of each expert, computed in f32 (f64
--- for f64 weights) and rounded once.
function GroupedLinearLoRA:merged()
    local plain = moe.GroupedLinear.new { num_experts = self.num_experts, in_features = self.in_features,
                                          out_features = self.out_features }
    local wide = self.weight:dtype() == "float64" and "float64" or "float32"
    plain._parameters = self._parameters
    plain.weight = scope.escape(self.weight:detach():clone())
    for e = 0, self.num_experts - 1 do
        scope.scope(function()
            local function of(weight) return weight:detach():select(0, e):to(wide) end
            local delta = ops.matmul(of(self.lora_B.weight), of(self.lora_A.weight)) * self.scale
            plain.weight:select(0, e):copy_(of(self.weight) + delta)
        end)
    end
    return plain
end

-- ---- names in files ---------------------------------------------------------------------------

-- The parent of a path and its last name.
local function split(path)
    return path:match("^(.*)%.([^.]+)$")
end

-- Is the module an adapter (or a base) whose checkpoint has a matrix for each expert?
local function is_parted(module)
    return module._parameters[1].each
end

--- The path of one expert's map in files.
local function path_of(path, e)
    local stem, leaf = split(path)
    return string.format("%s.%d.%s", stem, e, leaf)
end

--- Paths that an adapted module has in files, as PEFT's target_modules names them; of stacks that a checkpoint holds
--- whole, none.
function M.targets(path, module)
    if not module.num_experts then
        return { path }
    end
    local list = {}
    for e = 1, is_parted(module) and module.num_experts or 0 do
        list[e] = path_of(path, e - 1)
    end
    return list
end

-- The stacks of a block, in the order gate, up, down, or gate and up together, down: {path, module}.
local function stacks_of(block_path, block)
    local list = {}
    for path, module in block:named_modules(block_path) do
        if module.num_experts and module.in_features and not path:find("%.lora_[AB]$") then
            list[#list + 1] = { path, module }
        end
    end
    return list
end

--- The names that transformers 5 has for stacks that checkpoints hold whole: path of the module "experts" and of its
--- parameter.
local function parameter_of(path)
    local block, leaf = split(path)
    return block .. ".experts", leaf == "output_linear" and "down_proj" or "gate_up_proj"
end

--- PEFT's target_parameters of the adapted stacks that checkpoints hold whole, sorted.
function M.target_parameters(modules)
    local list = {}
    for path, module in modules do
        if module.num_experts and not is_parted(module) then
            local experts, parameter = parameter_of(path)
            list[#list + 1] = experts .. "." .. parameter
        end
    end
    table.sort(list)
    return list
end

--- {name in files, tensor} of an adapted stack. others: is the block's other stack adapted too?
function M.written(path, module, others)
    local list = {}
    for _, side in ipairs { "A", "B" } do
        local t, name = module["lora_" .. side].weight:detach(), ".lora_" .. side .. ".weight"
        if is_parted(module) then
            for e = 0, module.num_experts - 1 do
                list[#list + 1] = { path_of(path, e) .. name, t:select(0, e) }
            end
        else -- PEFT's ParamWrapper, of which the second is around the first
            local experts, parameter = parameter_of(path)
            local inner = others and parameter == "gate_up_proj" and ".base_layer" or ""
            local flat = side == "A" and t:reshape(-1, t:size(2)) or t:permute(1, 2, 0):reshape(t:size(1), -1)
            list[#list + 1] = { experts .. inner .. name, flat:contiguous() }
        end
    end
    return list
end

-- The block with experts in the layer that a path is in.
local function block_at(model, path)
    local layer_path = path:match("^(.-%.%d+)%.")
    local layer = layer_path and model:get(layer_path)
    for _, child in ipairs(layer and layer._children or {}) do
        if child.module.top_k then
            return layer_path .. "." .. child.name, child.module
        end
    end
end

--- Where an adapter of a file belongs whose path no module of the model has: a list of { path of a stack, expert (from
--- 0) or nil, row or nil where the stack's part of a fused one begins, its name for PEFT's patterns }. out_features:
--- rows of its B. nil: it is of no expert.
function M.places(model, path, out_features)
    local stem, e, leaf = path:match("^(.+)%.(%d+)%.([^.]+)$")
    local stack = stem and model:get(stem .. "." .. leaf)
    if stack and stack.num_experts and tonumber(e) < stack.num_experts then
        return { { stem .. "." .. leaf, expert = tonumber(e), name = path } }
    end
    local experts = path:match("^(.+%.experts)%.base_layer$") or path:match("^(.+%.experts)$")
    local block_path, block = block_at(model, path)
    if not (experts and block) then
        return nil
    end
    local stacks = stacks_of(block_path, block)
    local down = stacks[#stacks]
    if not down then
        return nil
    end
    if out_features == down[2].out_features then
        return { { down[1], name = experts .. ".down_proj" } }
    end
    local list, inner = {}, 0
    for i = 1, #stacks - 1 do
        list[i] = { stacks[i][1], row = inner, name = experts .. ".gate_up_proj" }
        inner = inner + stacks[i][2].out_features
    end
    return inner == out_features and list or nil
end

-- A [r E, in] or B [out, r E] of a whole parameter as [E, r, in] or [E, out, r].
local function unflattened(t, part, experts, row, rows)
    if part == "lora_A" then
        return t:reshape(experts, -1, t:size(1))
    end
    return t:reshape(t:size(0), -1, experts):permute(2, 0, 1):narrow(1, row or 0, rows):contiguous()
end

-- The tensors of single experts as one.
local function stacked(list, n, name, file)
    local first = list[0] or select(2, next(list))
    local whole = tensor.empty({ n, unpack(first:size()) }, { dtype = first:dtype(), device = first:device() })
    for e = 0, n - 1 do
        local t = list[e]
        if not t then
            err.raise("format", "%s has %s of some experts, but not of expert %d", file, name, e)
        elseif table.concat(t:size(), " ") ~= table.concat(first:size(), " ") then
            err.raise("format", "%s: %s of expert %d is [%s], that of another [%s]", file, name, e,
                      table.concat(t:size(), ", "), table.concat(first:size(), ", "))
        end
        whole:select(0, e):copy_(t)
        t:release()
    end
    return scope.escape(whole)
end

local function check_fused(file, path, t, part, experts)
    local shared = t:dim() == 2 and t:size(part == "lora_A" and 0 or 1)
    if not shared or shared == 0 or shared % experts ~= 0 then
        err.raise("format", "%s: %s of %s is [%s], which is not of %d experts", file, part, path,
                  table.concat(t:size(), ", "), experts)
    end
end

--- The same adapters, a router's under the block's own name: transformers 5 calls every block "mlp".
function M.renamed(model, adapters)
    for _, path in ipairs(strings.sorted_keys(adapters)) do
        local block, rest = block_at(model, path), path:match("^.-%.%d+%.[^.]+%.(.+)$")
        local own = block and rest and block .. "." .. rest
        if own and not model:get(path) and model:get(own) then
            adapters[own], adapters[path] = adapters[path], nil
        end
    end
    return adapters
end

--- Put the tensors of experts among a file's adapters {path -> {part -> tensor}} together, under the paths of the
--- model's stacks. Returns {path of a stack -> its name for PEFT's patterns}.
function M.gather(model, adapters, file)
    local parts, names = {}, {} -- path of a stack -> part -> {expert -> tensor}
    for path, tensors in pairs(M.renamed(model, adapters)) do
        local b = tensors.lora_B
        local places = not model:get(path) or model:get(path).class_name:find("Experts") -- "….experts" of PEFT's
        places = places and b and M.places(model, path, b:size(0))
        for _, place in ipairs(places or {}) do
            local stack = model:get(place[1])
            names[place[1]] = place.name
            for part, t in pairs(tensors) do
                parts[place[1]] = parts[place[1]] or {}
                parts[place[1]][part] = parts[place[1]][part] or {}
                if place.expert then
                    parts[place[1]][part][place.expert] = t
                else
                    check_fused(file, path, t, part, stack.num_experts)
                    parts[place[1]][part].whole = scope.escape(autograd.no_grad(scope.scope, function()
                        return unflattened(t, part, stack.num_experts, place.row, stack.out_features):clone()
                    end))
                end
            end
        end
        if places then
            adapters[path] = nil
        end
    end
    for path, of in pairs(parts) do
        adapters[path] = {}
        for part, list in pairs(of) do
            adapters[path][part] = list.whole or stacked(list, model:get(path).num_experts, path .. "." .. part, file)
        end
    end
    return names
end

return M
