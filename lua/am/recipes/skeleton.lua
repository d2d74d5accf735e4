-- The model that a configuration asks for without its weights: modules as they will be, adapted and frozen
-- as configured, with the shapes of tensors in place of tensors. Estimates need no more. Reads config.json
-- (or a GGUF file's metadata) and the names in an adapter only.

local am = require("am")
local adapter = require("am.peft.adapter")
local adapter_config = require("am.peft.adapter_config")
local config = require("am.config")
local lora = require("am.peft.lora")
local matcher = require("am.peft.matcher")
local models = require("am.models")
local peft = require("am.peft")
local sections = require("am.recipes.sections")
local whole = require("am.peft.whole")

local M = {}

-- What formulas ask a tensor.
local Shape = {}
Shape.__index = Shape

local function shape_of(dims, dtype)
    local n = 1
    for _, size in ipairs(dims) do
        n = n * size
    end
    return setmetatable({ dims = dims, count = n, type = dtype, requires_grad = true }, Shape)
end

function Shape:numel() return self.count end
function Shape:dtype() return self.type end
function Shape:dim() return #self.dims end
function Shape.device() return "cpu" end

--- Bytes, where the tensor is in few bits.
function Shape:nbytes() return self.few end

function Shape:size(d)
    return d and self.dims[d + 1] or self.dims
end

local function fill(model, dtype, quantize)
    local owners, few = {}, quantize and quantize:modules(model) or {}
    for name, module, slot in model:parameter_slots() do
        local owner = model.tied and model.tied[name]
        if owner then
            module:share(slot.name, owners[owner])
        else
            local shape = shape_of(slot.shape, dtype)
            if few[module] and slot.name == "weight" then
                shape.few, shape.requires_grad = quantize:bytes(slot.shape[1], slot.shape[2]), false
                shape.type = quantize.compute_dtype or dtype
            end
            owners[name], module[slot.name] = shape, shape
        end
    end
end

-- Have the modules of these names trained, as am.peft.whole does it to a model with weights.
local function train_whole(model, names)
    if whole.is_tied(model, names) then
        for name in pairs(model.tied) do
            local module, key = model:get(name:match("^(.*)%.")), name:match("[^.]+$")
            module[key] = shape_of(module[key].dims, module[key].type)
        end
        whole.untie(model)
    end
    for _, item in ipairs(whole.parameters(model, names)) do
        item[2][item[3].name].requires_grad = true
    end
end

-- The PeftConfig that counts, which modules it adapts (those of an adapter to start from, or those it names), names of
-- modules that are trained whole, and of an adapter to start from ranks by path.
local function wanted_modules(model, wanted)
    if wanted.adapter_path then
        local own, numbers = adapter.describe(wanted.adapter_path, model)
        own.lora_dtype = wanted.lora_dtype
        return own, function(path) return numbers[path] ~= nil end, own.modules_to_save or {}, numbers
    end
    local names = whole.names(wanted.modules_to_save, adapter_config.task_type(model))
    local is_whole, matches = whole.covers(names), matcher.new(wanted, model)
    whole.check(model, wanted.modules_to_save)
    return wanted, function(path, module) return not is_whole(path) and matches(path, module) end, names
end

local function adapt(model, wanted)
    local peft_config, matches, names, numbers = wanted_modules(model, wanted)
    local given = peft_config.lora_dtype and models.weight_dtype(peft_config.lora_dtype)
    lora.apply(model, matches, function(path, base)
        local wrapped = adapter.wrap(base, peft_config, model.config.num_experts_per_tok, numbers and numbers[path])
        for _, child in ipairs(wrapped._children) do
            child.module.weight = shape_of(child.module._parameters[1].shape, given or base.weight:dtype())
        end
        return wrapped
    end)
    train_whole(model, names)
end

-- The configuration that the model section names, and the name of the model, if it has one.
local function model_config(section, ctx)
    local name = section:get("pretrained_model_name_or_path")
    if name then
        return am.AutoConfig.from_pretrained(name), name
    end
    local node = section:child("config")
    if node and node.kind == "leaf" then
        return am.AutoConfig.from_pretrained(node.value), node.value
    elseif node:has("_target_") then
        return config.instantiate(node, ctx), node:get("pretrained_model_name_or_path")
    end
    return models.PretrainedConfig(node:to_table())
end

-- The model that a section describes, all of it trained.
local function plain(section, ctx)
    local c, name = model_config(section, ctx)
    local entry = ctx.registry:lookup(section:get("_target_") or "")
    local options = entry and entry.options and entry.options(section:to_table(), ctx) or {}
    local model = models.structure(c, options)
    fill(model, models.weight_dtype(options.torch_dtype) or c.torch_dtype or "float32", options.quantize)
    model.name_or_path = name
    return model
end

--- The skeleton of the model of a recipe object (its cfg, ctx and freeze). Raises as loading would where
--- config.json is not at hand ("io") or the architecture is not there ("unsupported").
function M.of(recipe)
    local model = plain(recipe.cfg:child("model"), recipe:model_context())
    recipe:freeze(model)
    model.model.activation_checkpointing = sections.activation_checkpointing(recipe.cfg)
        or model.model.activation_checkpointing
    if recipe.cfg:has("peft") then
        local wanted = config.instantiate(recipe.cfg:child("peft"), recipe.ctx, {},
                                          { default_target = "am.PeftConfig" })
        adapt(model, peft.PeftConfig(wanted))
    end
    recipe:apply_qat(model)
    recipe:apply_fp8(model)
    return model
end

--- The skeleton of a recipe's teacher_model, or nil where it has none. Raises as M.of.
function M.teacher(recipe)
    local section = recipe.cfg:child("teacher_model")
    return section and plain(section, recipe.ctx)
end

return M
