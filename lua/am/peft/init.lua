-- Parameter-efficient fine-tuning: PeftConfig, applying it, adapters from and to files, merging.

local err = require("am.core.error")
local scope = require("am.core.scope")
local adapter = require("am.peft.adapter")
local lora = require("am.peft.lora")
local matcher = require("am.peft.matcher")
local Linear = require("am.nn.linear")

local M = {
    save_adapter = adapter.save,
    load_adapter = adapter.load,
    restore_adapter = adapter.restore,
    lora_modules = adapter.modules,
}

local NAME = { type = "string", required = true } -- of a module, or a wildcard

--- Fields of a configuration's `peft` section, with their defaults.
M.fields = {
    target_modules = { type = "string|list", items = NAME, doc = "names or wildcards of modules to adapt" },
    exclude_modules = { type = "string|list", items = NAME, doc = "all linear maps but these (and lm_head)" },
    match_all_linear = { type = "boolean", default = false, doc = "every linear map" },
    dim = { type = "integer", default = 8, min = 1, doc = "rank r" },
    alpha = { type = "number", default = 32, doc = "numerator of the scale alpha / dim" },
    use_rslora = { type = "boolean", doc = "scale by alpha / sqrt(dim) instead" },
    dropout = { type = "number", default = 0, min = 0, below = 1, doc = "probability" },
    dropout_position = { type = "string", enum = { "post", "pre" },
                         doc = "on the adapter's output (post, the default), or on its input as HF PEFT does "
                             .. "(pre, the default with adapter_path)" },
    lora_A_init = { type = "string", default = "xavier", doc = "xavier, or kaiming for the rest" },
    lora_dtype = { type = "string", doc = "dtype that A and B are kept in; that of the weight by default" },
    adapter_path = { type = "string", doc = "directory of an adapter to start from" },
    use_dora = { type = "boolean", enum = { false }, doc = "not there yet" },
    moe_rank_scaling = { type = "boolean", enum = { false }, doc = "not there yet" },
    use_memory_efficient_lora = { type = "boolean", no_effect = "LoRA is one op" },
    use_triton = { type = "boolean", default = false, no_effect = "kernels are chosen by themselves" },
}

--- A PeftConfig from some of the fields; the rest get their defaults.
function M.PeftConfig(values)
    local config = {}
    for k, v in pairs(values or {}) do
        if not M.fields[k] then
            err.raise("usage", "PeftConfig has no field \"%s\"", tostring(k))
        end
        config[k] = v
    end
    for k, spec in pairs(M.fields) do
        if config[k] == nil then
            config[k] = spec.default
        end
    end
    if not config.adapter_path then
        config.dropout_position = config.dropout_position or "post"
    end
    return config
end

--- Adapt a model: by the config's patterns, or from its adapter_path. Everything else is frozen.
--- Returns the config in force and the adapted paths.
function M.apply(model, config)
    config = M.PeftConfig(config)
    if config.adapter_path then
        local loaded = adapter.load(model, config.adapter_path, {
            dtype = config.lora_dtype, dropout = config.dropout > 0 and config.dropout or nil,
            dropout_position = config.dropout_position,
        })
        config.dim, config.alpha, config.use_rslora = loaded.dim, loaded.alpha, loaded.use_rslora
        config.dropout, config.dropout_position = loaded.dropout, loaded.dropout_position
        return config, loaded.target_modules
    end
    local paths = lora.apply(model, matcher.new(config), function(_, base)
        local wrapped = lora.LinearLoRA.new(base, config)
        wrapped:initialize(config.lora_A_init, config.lora_dtype)
        return wrapped
    end)
    return config, paths
end

--- Fold every adapter into its weight; the model is a plain one afterwards.
function M.merge(model)
    local list = {}
    for path, module in adapter.modules(model) do
        list[#list + 1] = { path, module }
    end
    for _, item in ipairs(list) do
        local path, module = item[1], item[2]
        local plain = Linear.new(module.in_features, module.out_features, module.bias ~= nil)
        plain._parameters = module._parameters
        plain.weight = scope.escape(module:merged_weight())
        plain.bias = module.bias
        for _, slot in ipairs(plain._parameters) do
            slot.shared = nil -- an adapted tied head is a matrix of its own now
        end
        model:get(path:match("^(.*)%.[^.]+$") or ""):replace(path:match("[^.]+$"), plain)
        if path == "lm_head" then
            model.tied, model.config.tie_word_embeddings = {}, false
        end
        module.lora_A.weight:release()
        module.lora_B.weight:release()
    end
    return #list
end

return M
