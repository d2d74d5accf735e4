-- Parameter-efficient fine-tuning: PeftConfig, applying it, adapters from and to files, merging, NEFTune.

local err = require("am.core.error")
local adapter = require("am.peft.adapter")
local adapter_config = require("am.peft.adapter_config")
local lora = require("am.peft.lora")
local matcher = require("am.peft.matcher")
local merging = require("am.peft.merging")
local whole = require("am.peft.whole")
local log = require("am.utils.log").get("am.peft")
local strings = require("am.utils.strings")

local M = {
    save_adapter = adapter.save,
    load_adapter = adapter.load,
    restore_adapter = adapter.restore,
    lora_modules = adapter.modules,
    adapters = adapter.list,
    merge = merging.merge,
    merge_checked = merging.merge_checked,
}

local NAME = { type = "string", required = true } -- of a module, or a wildcard

-- What a new adapter has where nothing is given; one from adapter_path has its own.
local new_defaults = { dim = 8, alpha = 32, dropout = 0, dropout_position = "post" }

--- Fields of a configuration's `peft` section.
M.fields = {
    target_modules = { type = "string|list", items = NAME, doc = "names, wildcards or regular expressions of modules "
                           .. "to adapt (*_proj); an embedding must be named" },
    exclude_modules = { type = "string|list", items = NAME, doc = "all linear maps but these, lm_head with them" },
    match_all_linear = { type = "boolean", default = false, doc = "every linear map, lm_head with them" },
    modules_to_save = { type = "string|list", items = NAME, doc = "names of modules that are trained whole and saved "
                            .. "with the adapter; a classifier's head always is" },
    dim = { type = "integer", min = 1, doc = "rank r (8)" },
    alpha = { type = "number", above = 0, doc = "numerator of the scale alpha / dim (32)" },
    use_rslora = { type = "boolean", doc = "scale by alpha / sqrt(dim) instead" },
    dropout = { type = "number", min = 0, below = 1, doc = "probability (0)" },
    dropout_position = { type = "string", enum = { "post", "pre" },
                         doc = "on the adapter's output (post, the default), or on its input as HF PEFT does "
                             .. "(pre)" },
    lora_A_init = { type = "string", enum = lora.initializer_names, default = "xavier",
                    doc = "how A begins; kaiming and uniform are the same. PEFT's pissa, olora and eva, which look "
                        .. "at the weights or the data first, are not there" },
    lora_dtype = { type = "string", doc = "dtype that A and B are kept in; that of the weight by default" },
    adapter_path = { type = "string", doc = "directory of an adapter to start from, whose dim, alpha, use_rslora, "
                         .. "use_dora, modules and, if not given here, dropout are taken" },
    use_dora = { type = "boolean", doc = "train the norms of the adapted rows too (DoRA)" },
    moe_rank_scaling = { type = "boolean", doc = "divide experts' dim by the number of them that see a token" },
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
    for _, key in ipairs { "dim", "alpha", "use_rslora", "use_dora" } do
        local own = loaded[key] or false
        if given[key] ~= nil and given[key] ~= own then
            err.raise("usage", "peft.%s is %s, but %s in the adapter of %s; leave it out to take the adapter's", key,
                      tostring(given[key]), tostring(own), given.adapter_path)
        end
    end
    local key = (given.target_modules and "target_modules") or (given.exclude_modules and "exclude_modules")
        or (given.match_all_linear and "match_all_linear")
    local has = {} -- path -> who alone has it
    for _, item in ipairs(key and lora.find(model, matcher.new(given, model)) or {}) do
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

-- A warning that an adapter has the head in it that nobody named.
local function warn_of_head(model, config)
    local head = model:get_output_embeddings()
    for path, module in adapter.modules(model) do
        if module == head and matcher.by_exclusion(config) then
            log:warning('%s is adapted too, which vLLM and other programs refuse; leave it out with exclude_modules: '
                        .. '["*%s"], or name the modules with target_modules', path, path)
        end
    end
end

-- A warning that experts stay as they are which no module of their own can be adapted in.
local function warn_of_experts(model, config)
    for path, module in model:named_modules() do
        local slot = module._parameters[1]
        if slot and #slot.shape == 3 and not module.in_features and matcher.names_experts(config, path, slot.name) then
            log:warning("%s and the like are frozen: the experts of %s cannot be adapted", path, model.class_name)
            return
        end
    end
end

-- A new adapter by the config's patterns. Returns the adapted paths.
local function apply_new(model, config)
    if matcher.is_default(config) then
        log:warning('peft names no modules: "*_proj" is adapted; name some with target_modules or exclude_modules')
    end
    local names = whole.names(config.modules_to_save, adapter_config.task_type(model))
    whole.check(model, config.modules_to_save)
    local is_whole, matches = whole.covers(names), matcher.new(config, model)
    local paths = lora.apply(model, function(path, module)
        return not is_whole(path) and matches(path, module)
    end, function(_, base)
        local wrapped = adapter.wrap(base, config, model.config.num_experts_per_tok)
        wrapped:initialize(config.lora_A_init, config.lora_dtype)
        return wrapped
    end)
    for _, pattern in ipairs(matcher.unused(config.target_modules, paths)) do
        log:warning('peft.target_modules: no module is "%s", so it adapts nothing', pattern)
    end
    whole.train(model, names)
    config.modules_to_save = #names > 0 and names or nil
    warn_of_head(model, config)
    warn_of_experts(model, config)
    return paths
end

--- Adapt a model: by the config's patterns, or from its adapter_path. Everything else is frozen, but for what
--- modules_to_save names. Returns the config in force and the adapted paths.
function M.apply(model, config)
    config = M.PeftConfig(config)
    local taken = adapter.modules(model)()
    if taken then
        err.raise("usage", "peft: %s has an adapter already; merge it first (am.peft.merge), or go on with it by "
                  .. "adapter_path on the plain model", taken)
    end
    if not config.adapter_path then
        return config, apply_new(model, config)
    end
    local loaded = adapter.load(model, config.adapter_path, {
        dtype = config.lora_dtype, dropout = config.dropout, dropout_position = config.dropout_position,
        check = function(found) check_agreement(model, config, found) end,
    })
    for key, value in pairs(loaded) do
        config[key] = key ~= "target_modules" and value or config[key]
    end
    return config, loaded.target_modules
end

--- Fields of a configuration's `neftune` section.
M.neftune_fields = { noise_alpha = { type = "number", min = 0, default = 5, doc = "size of the noise; 0: none" } }

--- NEFTune: while the model trains, its input embeddings get uniform noise of at most noise_alpha / sqrt(T C), see
--- am.nn.embedding. 0 ends it. Adapters and merging keep it. Nothing in files tells of it.
function M.neftune(model, noise_alpha)
    if type(noise_alpha) ~= "number" or not (noise_alpha >= 0 and noise_alpha < math.huge) then
        err.raise("usage", "neftune.noise_alpha must be a number from 0, not %s", tostring(noise_alpha))
    end
    for _, module in model:named_modules() do
        if module.add_noise or module.class_name == "EmbeddingLoRA" then
            module.noise_alpha = noise_alpha
            return
        end
    end
    err.raise("usage", "neftune: the model has no embedding to add noise to")
end

return M
