-- Parameter-efficient fine-tuning: PeftConfig, applying it, adapters from and to files, merging.

local err = require("am.core.error")
local scope = require("am.core.scope")
local adapter = require("am.peft.adapter")
local lora = require("am.peft.lora")
local matcher = require("am.peft.matcher")
local log = require("am.utils.log").get("am.peft")
local Linear = require("am.nn.linear")
local strings = require("am.utils.strings")

local M = {
    save_adapter = adapter.save,
    load_adapter = adapter.load,
    restore_adapter = adapter.restore,
    lora_modules = adapter.modules,
}

local NAME = { type = "string", required = true } -- of a module, or a wildcard

-- What a new adapter has where nothing is given; one from adapter_path has its own.
local new_defaults = { dim = 8, alpha = 32, dropout = 0, dropout_position = "post" }

--- Fields of a configuration's `peft` section.
M.fields = {
    target_modules = { type = "string|list", items = NAME, doc = "names or wildcards of modules to adapt" },
    exclude_modules = { type = "string|list", items = NAME, doc = "all linear maps but these (and lm_head)" },
    match_all_linear = { type = "boolean", default = false, doc = "every linear map" },
    dim = { type = "integer", min = 1, doc = "rank r (8)" },
    alpha = { type = "number", doc = "numerator of the scale alpha / dim (32)" },
    use_rslora = { type = "boolean", doc = "scale by alpha / sqrt(dim) instead" },
    dropout = { type = "number", min = 0, below = 1, doc = "probability (0)" },
    dropout_position = { type = "string", enum = { "post", "pre" },
                         doc = "on the adapter's output (post, the default), or on its input as HF PEFT does "
                             .. "(pre)" },
    lora_A_init = { type = "string", enum = { "xavier", "kaiming" }, default = "xavier", doc = "how A begins" },
    lora_dtype = { type = "string", doc = "dtype that A and B are kept in; that of the weight by default" },
    adapter_path = { type = "string", doc = "directory of an adapter to start from, whose dim, alpha, use_rslora, "
                         .. "modules and, if not given here, dropout are taken" },
    use_dora = { type = "boolean", enum = { false }, doc = "not there yet" },
    moe_rank_scaling = { type = "boolean", enum = { false }, doc = "not there yet" },
    use_memory_efficient_lora = { type = "boolean", no_effect = "LoRA is one op" },
    use_triton = { type = "boolean", default = false, no_effect = "kernels are chosen by themselves" },
}

local function check_enum(key, value, enum)
    for _, allowed in ipairs(enum) do
        if value == allowed then
            return
        end
    end
    err.raise("usage", "peft.%s: got \"%s\"%s; expected one of %s", key, tostring(value),
              strings.did_you_mean(tostring(value), enum), table.concat(enum, ", "))
end

--- A PeftConfig from some of the fields; the rest get their defaults.
function M.PeftConfig(values)
    local config = {}
    for k, v in pairs(values or {}) do
        local spec = M.fields[k]
        if not spec then
            err.raise("usage", "PeftConfig has no field \"%s\"", tostring(k))
        elseif spec.enum then
            check_enum(k, v, spec.enum)
        end
        config[k] = v
    end
    for k, spec in pairs(M.fields) do
        if config[k] == nil then
            config[k] = spec.default
        end
    end
    for k, v in pairs(config.adapter_path and {} or new_defaults) do
        config[k] = config[k] == nil and v or config[k]
    end
    return config
end

-- Refuse a setting that was given and is not the adapter's: taking either would surprise someone.
local function check_agreement(model, given, loaded)
    for _, key in ipairs { "dim", "alpha", "use_rslora" } do
        local own = loaded[key] or false
        if given[key] ~= nil and given[key] ~= own then
            err.raise("usage", "peft.%s is %s, but %s in the adapter of %s; leave it out to take the adapter's", key,
                      tostring(given[key]), tostring(own), given.adapter_path)
        end
    end
    local key = (given.target_modules and "target_modules") or (given.exclude_modules and "exclude_modules")
        or (given.match_all_linear and "match_all_linear")
    local has = {} -- path -> who alone has it
    for _, item in ipairs(key and lora.find(model, matcher.new(given)) or {}) do
        has[item[1]] = "the setting's"
    end
    for _, path in ipairs(key and loaded.target_modules or {}) do
        has[path] = not has[path] and "the adapter's" or nil
    end
    local differing = strings.sorted_keys(has)[1]
    if differing then
        local value = given[key]
        err.raise("usage", "peft.%s (%s) and the adapter of %s have different modules: %s is %s alone; leave it out to "
                  .. "take the adapter's", key, type(value) == "table" and table.concat(value, ", ") or tostring(value),
                  given.adapter_path, differing, has[differing])
    end
end

--- Adapt a model: by the config's patterns, or from its adapter_path. Everything else is frozen.
--- Returns the config in force and the adapted paths.
function M.apply(model, config)
    config = M.PeftConfig(config)
    if config.adapter_path then
        local loaded = adapter.load(model, config.adapter_path, {
            dtype = config.lora_dtype, dropout = config.dropout, dropout_position = config.dropout_position,
            check = function(found) check_agreement(model, config, found) end,
        })
        config.dim, config.alpha, config.use_rslora = loaded.dim, loaded.alpha, loaded.use_rslora
        config.dropout, config.dropout_position = loaded.dropout, loaded.dropout_position
        return config, loaded.target_modules
    end
    if matcher.is_default(config) then
        log:warning('peft names no modules: "*_proj" is adapted; name some with target_modules or exclude_modules')
    end
    local paths = lora.apply(model, matcher.new(config), function(_, base)
        local wrapped = lora.LinearLoRA.new(base, config)
        wrapped:initialize(config.lora_A_init, config.lora_dtype)
        return wrapped
    end)
    if matcher.by_exclusion(config) and model:get("lm_head") and model:get("lm_head").class_name ~= "Linear" then
        log:warning("lm_head is adapted too, which vLLM and other programs refuse; leave it out with "
                    .. 'exclude_modules: ["*lm_head"], or name the modules with target_modules')
    end
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
