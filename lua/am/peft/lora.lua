-- LoRA (Hu et al. 2021) of a linear map: y = x W^T + b + (alpha / dim) B A x, with W frozen; with use_dora
-- also scaled (dora.lua). Puts adapters of any kind into a model.

local ops = require("am.core.ops")
local err = require("am.core.error")
local packed = require("am.core.packed")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")
local dora = require("am.peft.dora")
local Conv1D = require("am.nn.conv1d")
local Linear = require("am.nn.linear")
local Module = require("am.nn.module")

local M = {}

--- The scale of B A for a PeftConfig.
function M.scale(config)
    return config.alpha / (config.use_rslora and math.sqrt(config.dim) or config.dim)
end

local LinearLoRA = Module.class("LinearLoRA")
M.LinearLoRA = LinearLoRA

--- Wrap a Linear or a Conv1D; its weight keeps its name, "lora_A.weight" and "lora_B.weight" come beside it, with
--- use_dora also "lora_magnitude_vector.weight".
---@param base am.nn.Linear
---@param opts {dim: integer, alpha: number, use_rslora: boolean?, use_dora: boolean?, dropout: number?,
---  dropout_position: string?}
function LinearLoRA.new(base, opts)
    local self = Module.init(LinearLoRA)
    self.in_features, self.out_features = base.in_features, base.out_features
    self._parameters, self.weight, self.bias = base._parameters, base.weight, base.bias
    self.fan_in_fan_out = base.class_name == "Conv1D" -- as PEFT calls a weight [in, out]
    self.dim, self.alpha, self.scale = opts.dim, opts.alpha, M.scale(opts)
    self.dropout, self.dropout_position = opts.dropout or 0, opts.dropout_position or "post"
    self:add("lora_A", Linear.new(base.in_features, opts.dim))
    self:add("lora_B", Linear.new(opts.dim, base.out_features))
    self.takes_fp8 = not (self.fan_in_fan_out or opts.use_dora)
    if opts.use_dora then
        if packed.is(self.weight) then
            err.raise("unsupported", "use_dora needs the norms of rows, which weights in few bits do not have at hand; "
                      .. "leave it out, or load them as they are")
        end
        dora.attach(self, base.out_features)
    end
    return self
end

-- The names of an adapter's tensors in PEFT's files, behind the module's path, and whose weight each is.
LinearLoRA.tensor_names = { ["lora_A.weight"] = "lora_A", ["lora_B.weight"] = "lora_B",
                            lora_magnitude_vector = "lora_magnitude_vector" }

-- A weight as [out, in], or such a one as the base keeps it.
local function turned(self, weight)
    return self.fan_in_fan_out and weight:transpose(0, 1) or weight
end

--- W [out, in], A [r, in] and B [out, r], A and B in W's dtype.
function LinearLoRA:matrices()
    local dtype = self.weight:dtype()
    return turned(self, self.weight), self.lora_A.weight:to(dtype), self.lora_B.weight:to(dtype)
end

-- The frozen weight's products in 8 bits (nn.Linear's `fp8`), those of A and B as they are.
local function in_fp8(self, x, weight, a, b)
    local p, pre = self.training and self.dropout or 0, self.dropout_position == "pre"
    local y, inside = ops.fp8_linear(x, weight, self.fp8), p > 0 and pre and ops.dropout(x, p, true) or x
    local z = ops.linear(ops.linear(inside, a) * self.scale, b)
    if p > 0 and not pre then
        z = ops.dropout(z, p, true)
    end
    return (self.bias and y + self.bias or y) + z
end

--- x [..., in] -> [..., out]. A and B of another dtype are rounded to the weight's.
function LinearLoRA:forward(x)
    local weight, a, b = self:matrices()
    if self.lora_magnitude_vector then
        return dora.linear(self, x, weight, a, b)
    elseif self.fp8 then
        return in_fp8(self, x, weight, a, b)
    end
    return ops.lora_linear(x, weight, self.bias, a, b, {
        scale = self.scale,
        dropout = self.training and self.dropout or 0,
        position = self.dropout_position,
    })
end

function LinearLoRA:extra_repr()
    return string.format("in_features=%d, out_features=%d, r=%d, scale=%g%s%s", self.in_features, self.out_features,
                         self.dim, self.scale, self.lora_magnitude_vector and ", dora" or "",
                         self.fp8 and ", fp8=" .. self.fp8 or "")
end

-- How A [r, in] may begin. std and bounds as PyTorch's and PEFT's functions of these names have them.
local initializers = {}

-- torch.nn.init.xavier_normal_
function initializers.xavier(a, dim, in_features) a:normal_(0, math.sqrt(2 / (in_features + dim))) end

-- torch.nn.init.kaiming_uniform_ with a = sqrt(5)
function initializers.kaiming(a, _, in_features)
    local bound = 1 / math.sqrt(in_features)
    a:uniform_(-bound, bound)
end

initializers.uniform = initializers.kaiming -- NeMo Automodel's name

function initializers.gaussian(a, dim) a:normal_(0, 1 / dim) end

--- Functions (A, dim, in_features) by the names that lora_A_init has.
M.initializers = initializers

--- These names, as an array.
M.initializer_names = { "xavier", "kaiming", "uniform", "gaussian" }

--- Give A and B storage: A by an initializer's name, B zero; then DoRA's magnitudes.
function LinearLoRA:initialize(init, dtype)
    local opts = { dtype = dtype or self.weight:dtype(), device = self.weight:device() }
    self.lora_A.weight = scope.escape(tensor.empty({ self.dim, self.in_features }, opts))
    initializers[init](self.lora_A.weight, self.dim, self.in_features)
    self.lora_B.weight = scope.escape(tensor.zeros({ self.out_features, self.dim }, opts))
    if self.lora_magnitude_vector then
        dora.initialize(self, opts.dtype)
    end
end

--- W + scale B A, with DoRA its rows scaled, computed in f32 (f64 for f64 weights) and rounded once to W's dtype; a
--- packed W is unpacked first, to the dtype that it had.
function LinearLoRA:merged_weight()
    local wide = self.weight:dtype() == "float64" and "float64" or "float32"
    return scope.scope(function()
        local delta = ops.matmul(self.lora_B.weight:detach():to(wide),
                                 self.lora_A.weight:detach():to(wide)) * self.scale
        local base = packed.unpacked(self.weight):detach()
        local merged = turned(self, base:to(wide)) + delta
        if self.lora_magnitude_vector then
            merged = merged * dora.factor(self):detach():unsqueeze(1)
        end
        return turned(self, merged:to(base:dtype())):contiguous()
    end)
end

--- The Linear or Conv1D that this comes to, with a weight of its own.
function LinearLoRA:merged()
    local plain = (self.fan_in_fan_out and Conv1D or Linear).new(self.in_features, self.out_features, self.bias ~= nil)
    plain._parameters, plain.bias = self._parameters, self.bias
    plain.weight = scope.escape(self:merged_weight())
    return plain
end

--- The modules that `matches(path, module)`, as an array of { path, module }.
function M.find(model, matches)
    local found = {}
    for path, module in model:named_modules() do
        if path ~= "" and matches(path, module) then
            found[#found + 1] = { path, module }
        end
    end
    return found
end

--- Put another module in place of the one at a path.
function M.replace(model, path, module)
    model:get(path:match("^(.*)%.[^.]+$") or ""):replace(path:match("[^.]+$"), module)
end

--- Put an adapter in place of each module that `matches(path, module)`; freezes everything else.
--- make(path, base) returns the adapter; when it fails, the model stays as it was. Returns the sorted
--- paths.
function M.apply(model, matches, make)
    local found = M.find(model, matches)
    if #found == 0 then
        local names = {}
        for path, module in model:named_modules() do
            if module.in_features and #names < 8 then
                names[#names + 1] = path
            end
        end
        err.raise("usage", "peft: no module matches; patterns cover the whole dotted name, as in "
                  .. "\"*q_proj\". The model has %s, …", table.concat(names, ", "))
    end
    local made, paths = {}, {}
    for i, item in ipairs(found) do
        made[i] = make(item[1], item[2])
    end
    for _, t in model:named_parameters() do
        t.requires_grad = false
    end
    for i, item in ipairs(found) do
        M.replace(model, item[1], made[i])
        for _, child in ipairs(made[i]._children) do
            child.module.weight.requires_grad = true
        end
        paths[i] = item[1]
    end
    table.sort(paths)
    return paths
end

return M
