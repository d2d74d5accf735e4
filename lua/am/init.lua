-- am: what `local am = require "am"` gives. Names are loaded when they are first used; components
-- meet only here and in recipes.

local core = require("am.core")

-- The folder of a model, or what is needed of it; from the hub where it is a name there.
local function resolve(name, part, opts)
    return require("am.utils.hub").resolve(name, { part = part, revision = (opts or {}).revision })
end

-- A tokenizer that renders chat templates.
local function load_tokenizer(folder, opts)
    opts = setmetatable({ chat = require("am.chat") }, { __index = opts or {} })
    return require("am.tokenizers").AutoTokenizer.from_pretrained(folder, opts)
end

local lazy = {
    AutoModelForCausalLM = function() return require("am.models").AutoModelForCausalLM end,
    AutoModelForSequenceClassification = function() return require("am.models").AutoModelForSequenceClassification end,
    AutoModelForImageTextToText = function() return require("am.models").AutoModelForImageTextToText end,
    AutoModel = function() return require("am.models").AutoModel end,
    AutoConfig = function() return require("am.models").AutoConfig end,
    AutoTokenizer = function()
        return {
            --- A tokenizer from a Hugging Face directory, a GGUF file, or a hub name. opts.revision: of a hub name.
            from_pretrained = function(name, opts)
                return load_tokenizer(resolve(name, "tokenizer", opts), opts)
            end,
        }
    end,
    AutoProcessor = function()
        return {
            --- A processor and its tokenizer, from a Hugging Face directory or a hub name. opts: backend, alpha,
            --- any key of the processor's files (processors.md), tokenizer (instead of the folder's); revision, of
            --- a hub name.
            from_pretrained = function(name, opts)
                local own = { load_tokenizer = load_tokenizer }
                for key, value in pairs(opts or {}) do own[key] = value end
                return require("am.processors").AutoProcessor.from_pretrained(resolve(name, "processor", opts), own)
            end,
        }
    end,
    AutoImageProcessor = function()
        return {
            --- An image processor alone, from a Hugging Face directory or a hub name; opts as AutoProcessor's.
            from_pretrained = function(name, opts)
                local folder = resolve(name, "processor", opts)
                return require("am.processors").AutoImageProcessor.from_pretrained(folder, opts)
            end,
        }
    end,
    PeftConfig = function() return require("am.peft").PeftConfig end,
    patch_model_with_kernel_optimizations = function()
        return require("am.nn.kernels").patch_model_with_kernel_optimizations
    end,
    models = function() return require("am.models") end,
    peft = function() return require("am.peft") end,
    quantization = function() return require("am.quantization") end,
    optim = function() return require("am.optim") end,
    loss = function() return require("am.loss") end,
    nn = function()
        return {
            Module = require("am.nn.module"), Linear = require("am.nn.linear"),
            Embedding = require("am.nn.embedding"), RMSNorm = require("am.nn.norm"),
            GatedMLP = require("am.nn.mlp").GatedMLP, Attention = require("am.nn.attention"),
            MLP = require("am.nn.mlp").MLP, LayerNorm = require("am.nn.layer_norm"), moe = require("am.nn.moe"),
            DecoderLayer = require("am.nn.decoder_layer").DecoderLayer,
            ParallelDecoderLayer = require("am.nn.decoder_layer").ParallelDecoderLayer,
            Cache = require("am.nn.cache"),
        }
    end,
    recipe = function() return require("am.recipes.base") end,
    load_safetensors = function() return require("am.core.io").load_safetensors end,
    save_safetensors = function() return require("am.core.io").save_safetensors end,
    load_npy = function() return require("am.core.io").load_npy end,
    save_npy = function() return require("am.core.io").save_npy end,
}

local args = require("am.core.args")
local edge = require("am.core.ffi")
local tensor = require("am.core.tensor")

args.did_you_mean = require("am.utils.strings").did_you_mean

local M = {}
for name, value in pairs(core) do
    M[name] = value
end

--- Seed the random generator with a whole number.
function M.manual_seed(seed) edge.check(edge.C.am_rng_seed(args.whole("manual_seed", "seed", seed))) end

M.set_default_device = tensor.set_default_device

--- {live_bytes, peak_bytes, cached_bytes, live_storages} of a device.
function M.memory(device)
    local ffi = require("ffi")
    local s = ffi.new("am_mem_stats")
    edge.check(edge.C.am_mem_get(tensor.device_id(device), s))
    return { live_bytes = tonumber(s.live_bytes), peak_bytes = tonumber(s.peak_bytes),
             cached_bytes = tonumber(s.cached_bytes), live_storages = tonumber(s.live_storages) }
end

M.version = require("ffi").string(edge.C.am_version())

return setmetatable(M, {
    lazy = lazy, -- for the prompt's completion
    __index = function(t, name)
        local load = lazy[name]
        if not load then
            return nil
        end
        local value = load()
        rawset(t, name, value)
        return value
    end,
})
