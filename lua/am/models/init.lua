-- Models by architecture: AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification,
-- AutoModelForImageTextToText. Each architecture
-- is a file beside this one (architectures.lua has the list, decoder.lua says what is in them).

local err = require("am.core.error")
local io_core = require("am.core.io")
local packed = require("am.core.packed")
local tensor = require("am.core.tensor")
local json = require("am.utils.json")
local path = require("am.utils.path")
local strings = require("am.utils.strings")
local hub = require("am.utils.hub")
local causal_lm = require("am.models.causal_lm")
local classification = require("am.models.sequence_classification")
local config = require("am.models.config")
local generation = require("am.models.generation")
local gguf = require("am.models.gguf")
local kernels = require("am.nn.kernels")
local gguf_metadata = require("am.models.gguf_metadata")
local weights = require("am.models.weights")

local M = {}

local registry = require("am.models.architectures")
local architectures = registry.modules

--- Add an architecture: what config.json's "architectures" names -> a module path, or the table
--- that such a module returns (decoder.lua says what; image_text_to_text.lua of one that has `extend`).
function M.register(name, implementation)
    local sees = type(implementation) == "table" and implementation.extend
    local to = sees and registry.image_text_to_text.modules or architectures
    to[name] = implementation
end

local function module_of(found)
    return type(found) == "string" and require(found) or found
end

-- The class whose files say what this GGUF file says, and its implementation.
local function implementation_of_gguf(archive)
    local known = {}
    local arch, experts = gguf.architecture(archive)
    for _, name in ipairs(strings.sorted_keys(architectures)) do
        local impl = module_of(architectures[name])
        if impl.gguf then
            if gguf.reads(impl.gguf, arch, experts) then
                return name, impl
            end
            known[impl.gguf.architecture] = true
        end
    end
    err.raise("unsupported", "%s: GGUF architecture \"%s\" is not supported; supported are %s", archive.path, arch,
              table.concat(strings.sorted_keys(known), ", "))
end

-- What each kind of model is chosen from.
local kinds = {
    causal = registry,
    classifier = registry, -- made of the architecture's causal model
    image_text_to_text = registry.image_text_to_text,
    tower = registry.towers,
}

local function implementation(c, kind)
    local name = type(c.architectures) == "table" and c.architectures[1] or nil
    local modules, by_model_type = kinds[kind].modules, kinds[kind].by_model_type
    local found = name and modules[name]
    if kind == "classifier" and not found then
        for causal, at in pairs(modules) do
            found = classification.class_name(causal) == name and at or found
        end
    end
    if not found and (name == nil or tostring(name):find("Model$") and not tostring(name):find("LMHeadModel$")) then
        found = modules[by_model_type[c.model_type] or ""] -- the body alone, or no class at all
    end
    if not found then
        local sees = registry.image_text_to_text.modules[name or ""]
        err.raise("unsupported", "%s: architecture %s is not supported; supported are %s%s",
                  c._name_or_path or "config.json", tostring(name), table.concat(strings.sorted_keys(modules), ", "),
                  kind == "causal" and sees and ". It sees images: load it with AutoModelForImageTextToText" or "")
    end
    return module_of(found)
end

local weight_dtypes = { float32 = true, bfloat16 = true, float16 = true, float64 = true }

--- The dtype that torch_dtype names; nil for auto, which is the checkpoint's.
function M.weight_dtype(name)
    if name == nil or name == "auto" then
        return nil
    end
    local known, id = pcall(tensor.dtype_id, name)
    local dtype = known and tensor.dtype_name(id)
    if not weight_dtypes[dtype] then
        err.raise("argument", "torch_dtype \"%s\" is none that weights can have here; write auto, float32, bfloat16, "
                  .. "float16 or float64", tostring(name))
    end
    return dtype
end

-- Weights that are packed as GPT-OSS's are read as floating-point numbers, and saved so.
local function check_quantization(c)
    local q = c.quantization_config
    if type(q) == "table" and q.quant_method ~= "mxfp4" then
        c:unsupported("quantization_config", "weights quantised by " .. tostring(q.quant_method) .. " are not read; "
                      .. "take the checkpoint in bfloat16 or a GGUF file")
    end
    c.quantization_config = nil
end

-- The number of layers that config_overrides asks for, if it does: a file's layers above it are left out then, and so
-- is what the configuration says of them.
local function layers_asked(c, overrides)
    local asked = overrides.num_hidden_layers or overrides[c:spelling("num_hidden_layers")]
    for _, key in ipairs { "layer_types", "no_rope_layers" } do
        local list = c[key]
        if asked and type(list) == "table" and #list > asked and not overrides[key] then
            c[key] = json.array { unpack(list, 1, asked) }
        end
    end
    return asked
end

local function build(c, opts, kind)
    local impl, overrides = implementation(c, kind), opts.config_overrides or {}
    c = impl.own_config and impl.own_config(c) or c
    c:override(overrides):bind(impl):check()
    check_quantization(c)
    local asked
    if kind ~= "image_text_to_text" then
        c:integer("num_hidden_layers", nil, 10000)
        asked = layers_asked(c, overrides)
    end
    local model = (impl.extend or causal_lm.extend)(impl.new(c))
    if kind == "classifier" then
        c.num_labels = opts.num_labels or c.num_labels
        model = classification.extend(causal_lm.extend(classification.new(model, c)))
    else
        c.architectures = json.array { model.class_name }
    end
    model.layers_asked = asked
    local body = model.model or model
    body.activation_checkpointing = opts.activation_checkpointing
    kernels.patch_model_with_kernel_optimizations(model, opts)
    model.gguf_description = impl.gguf
    return model, impl
end

local function trainable(model)
    for _, t in model:named_parameters() do
        t.requires_grad = not packed.is(t)
    end
    return model:eval()
end

M.AutoConfig = {}

--- config.json of a directory, a hub name, or a GGUF file. opts.revision: of a hub name.
function M.AutoConfig.from_pretrained(name, opts)
    local where = hub.resolve(name, { part = "tokenizer", revision = opts and opts.revision })
    if path.is_file(where) and not where:match("%.json$") then
        local archive = io_core.open(where)
        local class, impl = implementation_of_gguf(archive)
        return gguf_metadata.read(archive, class, impl.gguf)
    end
    return config.from_pretrained(where)
end

-- What weights are packed by, or nil: a function (module, slot, tensor) -> am.Packed or nil.
local function packing(model, opts)
    local modules = opts.quantize and opts.quantize:modules(model)
    return modules and function(module, slot, t)
        return modules[module] and slot.name == "weight" and opts.quantize:pack(t) or nil
    end
end

local function from_pretrained(name, opts, kind)
    opts = opts or {}
    local where = hub.resolve(name, { revision = opts.revision })
    local model
    if path.is_file(where) then
        local archive = io_core.open(where)
        if archive.kind ~= "gguf" then
            err.raise("unsupported", "%s is a single file of tensors; give the directory that holds "
                      .. "it with its config.json", where)
        end
        local class, impl = implementation_of_gguf(archive)
        model = build(gguf_metadata.read(archive, class, impl.gguf), opts, kind)
        weights.from_gguf(model, archive, impl.gguf, { dtype = M.weight_dtype(opts.torch_dtype), device = opts.device,
                                                       pack = packing(model, opts) })
    else
        local c = config.from_pretrained(where)
        model = build(c, opts, kind)
        weights.from_directory(model, where, { dtype = M.weight_dtype(opts.torch_dtype), device = opts.device,
                                               pack = packing(model, opts) })
        model.generation_config = config.generation_config(where)
    end
    model.name_or_path = name
    model.resolved_path = where
    return trainable(model)
end

local function from_config(c, opts, kind)
    opts = opts or {}
    c = config.new(c)
    local model = build(c, opts, kind)
    weights.initialize(model, { dtype = M.weight_dtype(opts.torch_dtype) or c.torch_dtype or "float32",
                                device = opts.device, pack = packing(model, opts) })
    return trainable(model)
end

M.AutoModelForCausalLM = {}

--- A model with a checkpoint's weights, in eval mode, all floating parameters requiring grad.
---@param name string a Hugging Face directory, a GGUF file, or a hub name (cached or downloaded: utils/hub.lua)
---@param opts? {torch_dtype: string?, device: string?, config_overrides: table?, revision: string?,
---  activation_checkpointing: boolean|"selective"?, attn_implementation: string?, use_liger_kernel: boolean?,
---  quantize: am.Quantizer?} attn_implementation, use_liger_kernel: nn/kernels.lua; quantize: what weights are packed
---  by as they are read, one after another (am.quantization.qlora.new)
function M.AutoModelForCausalLM.from_pretrained(name, opts)
    return from_pretrained(name, opts, "causal")
end

--- A model with random weights from a configuration (AutoConfig's, or a table of its fields).
function M.AutoModelForCausalLM.from_config(c, opts)
    return from_config(c, opts, "causal")
end

M.AutoModelForSequenceClassification = {}

--- The same with a head that classifies (sequence_classification.lua). opts.num_labels: classes, those of
--- config.json by default. The head of a checkpoint that has none begins with random numbers.
function M.AutoModelForSequenceClassification.from_pretrained(name, opts)
    return from_pretrained(name, opts, "classifier")
end

--- A classifier with random weights.
function M.AutoModelForSequenceClassification.from_config(c, opts)
    return from_config(c, opts, "classifier")
end

M.AutoModelForImageTextToText = {}

--- A model of images and text (image_text_to_text.lua) with a checkpoint's weights; opts as
--- AutoModelForCausalLM's.
function M.AutoModelForImageTextToText.from_pretrained(name, opts)
    return from_pretrained(name, opts, "image_text_to_text")
end

--- The same with random weights.
function M.AutoModelForImageTextToText.from_config(c, opts)
    return from_config(c, opts, "image_text_to_text")
end

--- Does a configuration (AutoConfig's) describe a model of images and text?
function M.sees_images(c)
    local sees = registry.image_text_to_text
    local name = type(c.architectures) == "table" and c.architectures[1] or sees.by_model_type[c.model_type or ""]
    return sees.modules[name or ""] ~= nil
end

M.AutoModel = {}

--- A vision tower (CLIP, SigLIP, DINOv2) with a checkpoint's weights, its own or those of a model of pictures and texts
--- that it is part of; opts as AutoModelForCausalLM's. What forward takes and gives: vision/tower.lua.
function M.AutoModel.from_pretrained(name, opts)
    return from_pretrained(name, opts, "tower")
end

--- The same with random weights.
function M.AutoModel.from_config(c, opts)
    return from_config(c, opts, "tower")
end

--- A model's modules without weights: the names and shapes of its parameters (Module:parameter_slots).
--- c, opts: as from_config's, with opts.kind: "causal" (the default), "classifier", "image_text_to_text" or "tower".
--- Raises "unsupported" for an architecture that is not there.
function M.structure(c, opts)
    opts = opts or {}
    return (build(config.new(c), opts, opts.kind or "causal"))
end

--- Write a LoRA adapter of a model as a GGUF file for llama.cpp. adapters: am.peft.adapters(model); opts: type
--- ("f32" by default; see save_gguf), name.
function M.save_gguf_adapter(file, model, adapters, opts)
    return require("am.models.gguf_adapter").save(file, model, adapters, opts or {})
end

--- Raise a "usage" error unless GGUF files are written with this type.
function M.check_gguf_type(name)
    require("am.models.gguf_export").type_named(name)
end

M.PretrainedConfig = config.new
M.position_limit = generation.position_limit

return M
