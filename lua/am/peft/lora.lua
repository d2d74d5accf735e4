-- LoRA (Hu et al. 2021): y = x W^T + b + (alpha / dim) B A x, with W frozen.

local ops = require("am.core.ops")
local err = require("am.core.error")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")
local Linear = require("am.nn.linear")
local Module = require("am.nn.module")

local LinearLoRA = Module.class("LinearLoRA")

--- Wrap a Linear; its weight keeps its name, "lora_A.weight" and "lora_B.weight" come beside it.
---@param base am.nn.Linear
---@param opts {dim: integer, alpha: number, use_rslora: boolean?, dropout: number?,
---  dropout_position: string?}
function LinearLoRA.new(base, opts)
    local self = Module.init(LinearLoRA)
    self.in_features, self.out_features = base.in_features, base.out_features
    self._parameters, self.weight, self.bias = base._parameters, base.weight, base.bias
    self.dim, self.scale = opts.dim, opts.alpha / (opts.use_rslora and math.sqrt(opts.dim) or opts.dim)
    self.dropout, self.dropout_position = opts.dropout or 0, opts.dropout_position or "post"
    self:add("lora_A", Linear.new(base.in_features, opts.dim))
    self:add("lora_B", Linear.new(opts.dim, base.out_features))
    return self
end

--- x [..., in] -> [..., out]. A and B of another dtype are rounded to the weight's.
function LinearLoRA:forward(x)
    local dtype = self.weight:dtype()
    return ops.lora_linear(x, self.weight, self.bias, self.lora_A.weight:to(dtype), self.lora_B.weight:to(dtype), {
        scale = self.scale,
        dropout = self.training and self.dropout or 0,
        position = self.dropout_position,
    })
end

function LinearLoRA:extra_repr()
    return string.format("in_features=%d, out_features=%d, r=%d, scale=%g", self.in_features,
                         self.out_features, self.dim, self.scale)
end

--- Give A and B storage: A by `init` ("xavier": normal with std sqrt(2 / (in + r)); "kaiming": uniform,
--- a = sqrt(5), so within 1/sqrt(in)), B zero.
function LinearLoRA:initialize(init, dtype)
    local opts = { dtype = dtype or self.weight:dtype(), device = self.weight:device() }
    local a = scope.escape(tensor.empty({ self.dim, self.in_features }, opts))
    if init == "xavier" then
        a:normal_(0, math.sqrt(2 / (self.in_features + self.dim)))
    else
        local bound = 1 / math.sqrt(self.in_features)
        a:uniform_(-bound, bound)
    end
    self.lora_A.weight = a
    self.lora_B.weight = scope.escape(tensor.zeros({ self.out_features, self.dim }, opts))
end

--- W + scale B A, computed in f32 (f64 for f64 weights) and rounded once to W's dtype.
function LinearLoRA:merged_weight()
    local wide = self.weight:dtype() == "float64" and "float64" or "float32"
    return scope.scope(function()
        local delta = ops.matmul(self.lora_B.weight:detach():to(wide),
                                 self.lora_A.weight:detach():to(wide)) * self.scale
        return (self.weight:detach():to(wide) + delta):to(self.weight:dtype())
    end)
end

local M = { LinearLoRA = LinearLoRA }

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

--- Put a LinearLoRA in place of each module that `matches(path, module)`; freezes everything else.
--- make(path, base) returns the LinearLoRA; when it fails, the model stays as it was. Returns the sorted
--- paths.
function M.apply(model, matches, make)
    local found = M.find(model, matches)
    if #found == 0 then
        local names = {}
        for path, module in model:named_modules() do
            if module.class_name == "Linear" and #names < 8 then
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
        local path, lora = item[1], made[i]
        local parent = model:get(path:match("^(.*)%.[^.]+$") or "")
        parent:replace(path:match("[^.]+$"), lora)
        lora.lora_A.weight.requires_grad = true
        lora.lora_B.weight.requires_grad = true
        paths[i] = path
    end
    table.sort(paths)
    return paths
end

return M
