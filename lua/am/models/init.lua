-- Models by architecture: the registry, AutoConfig and AutoModelForCausalLM. An architecture is one
-- file beside this one; see llama.lua for what it returns.

local err = require("am.core.error")
local io_core = require("am.core.io")
local tensor = require("am.core.tensor")
local path = require("am.utils.path")
local hub = require("am.utils.hub")
local causal_lm = require("am.models.causal_lm")
local config = require("am.models.config")
local generation = require("am.models.generation")
local weights = require("am.models.weights")

local M = {}

local architectures = { LlamaForCausalLM = "am.models.llama" }

--- Add an architecture: what config.json's "architectures" names -> a module path, or the table
--- that such a module returns ({new = function(config), gguf = ...}).
function M.register(name, implementation)
    architectures[name] = implementation
end

local function implementation(c)
    local name = type(c.architectures) == "table" and c.architectures[1] or nil
    local found = name and architectures[name]
    if not found then
        local known = {}
        for k in pairs(architectures) do
            known[#known + 1] = k
        end
        table.sort(known)
        err.raise("unsupported", "%s: architecture %s is not supported; supported are %s",
                  c._name_or_path or "config.json", tostring(name), table.concat(known, ", "))
    end
    return type(found) == "string" and require(found) or found
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

local function build(c, opts)
    c:override(opts.config_overrides or {}):check()
    local impl = implementation(c)
    local model = causal_lm.extend(impl.new(c))
    model.model.activation_checkpointing = opts.activation_checkpointing
    return model, impl
end

local function trainable(model)
    for _, t in model:named_parameters() do
        t.requires_grad = true
    end
    return model:eval()
end

M.AutoConfig = {}

--- config.json of a directory, a hub name in the local cache, or a GGUF file.
function M.AutoConfig.from_pretrained(name)
    local where = hub.resolve(name)
    if path.is_file(where) and not where:match("%.json$") then
        local archive = io_core.open(where)
        return config.from_gguf(archive)
    end
    return config.from_pretrained(where)
end

M.AutoModelForCausalLM = {}

--- A model with a checkpoint's weights, in eval mode, all floating parameters requiring grad.
---@param name string a Hugging Face directory, a GGUF file, or a hub name found in the local cache
---@param opts? {torch_dtype: string?, device: string?, config_overrides: table?,
---  activation_checkpointing: boolean|"selective"?}
function M.AutoModelForCausalLM.from_pretrained(name, opts)
    opts = opts or {}
    local where = hub.resolve(name)
    local model
    if path.is_file(where) then
        local archive = io_core.open(where)
        if archive.kind ~= "gguf" then
            err.raise("unsupported", "%s is a single safetensors file; give the directory that holds "
                      .. "it with its config.json", where)
        end
        local c = config.from_gguf(archive)
        local impl
        model, impl = build(c, opts)
        weights.from_gguf(model, archive, impl.gguf, { dtype = M.weight_dtype(opts.torch_dtype), device = opts.device })
    else
        local c = config.from_pretrained(where)
        model = build(c, opts)
        weights.from_directory(model, where, { dtype = M.weight_dtype(opts.torch_dtype), device = opts.device })
        model.generation_config = config.generation_config(where)
    end
    model.name_or_path = name
    model.resolved_path = where
    return trainable(model)
end

--- A model with random weights from a configuration (AutoConfig's, or a table of its fields).
function M.AutoModelForCausalLM.from_config(c, opts)
    opts = opts or {}
    c = config.new(c)
    local model = build(c, opts)
    weights.initialize(model, { dtype = M.weight_dtype(opts.torch_dtype) or c.torch_dtype or "float32",
                                device = opts.device })
    return trainable(model)
end

M.PretrainedConfig = config.new
M.position_limit = generation.position_limit

return M
