-- adapter_config.json as HF PEFT has it: what of it is understood, what is refused, and what is written; and
-- automodel_peft_config.json, NeMo Automodel's, with the rest of a PeftConfig. Holds no weights.

local err = require("am.core.error")
local json = require("am.utils.json")
local path = require("am.utils.path")
local regex = require("am.core.pattern")
local whole = require("am.peft.whole")

local M = {}

local MAX_BYTES = 16 * 1024 * 1024

local task_types = {
    ForCausalLM = "CAUSAL_LM", ForSequenceClassification = "SEQ_CLS",
    ForTokenClassification = "TOKEN_CLS", ForQuestionAnswering = "QUESTION_ANS",
}

--- PEFT's name of a model's task, from the ending of its architecture; CAUSAL_LM for any other.
function M.task_type(model)
    local name = model.config and model.config.architectures and model.config.architectures[1] or ""
    for suffix, task in pairs(task_types) do
        if name:sub(-#suffix) == suffix then
            return task
        end
    end
    return "CAUSAL_LM"
end

-- ---- writing --------------------------------------------------------------------------------

local function list_or_null(list)
    return list and #list > 0 and json.array(list) or json.null
end

-- A table as a JSON object, empty too.
local function object(t)
    return json.object(t or {})
end

--- Write both files for a PeftConfig. what: target_modules, paths as PEFT has them; target_parameters, likewise;
--- rank, alpha of most modules; rank_pattern, alpha_pattern of the others by path; experts: some are adapted;
--- fan_in_fan_out: some weights are [in, out].
function M.write(model, dir, config, what)
    local base = model.name_or_path
    path.write_file(path.join(dir, "adapter_config.json"), json.encode({
        base_model_name_or_path = base and path.exists(base) and path.absolute(base) or base or json.null,
        bias = "none",
        alpha_pattern = next(what.alpha_pattern) and object(what.alpha_pattern) or nil,
        fan_in_fan_out = what.fan_in_fan_out or false,
        lora_alpha = what.alpha,
        lora_dropout = what.experts and 0 or config.dropout or 0, -- PEFT has none for experts and refuses another
        modules_to_save = list_or_null(config.modules_to_save),
        peft_type = "LORA",
        r = what.rank,
        rank_pattern = next(what.rank_pattern) and object(what.rank_pattern) or nil,
        target_modules = json.array(what.target_modules),
        target_parameters = list_or_null(what.target_parameters),
        task_type = M.task_type(model),
        use_dora = config.use_dora or false,
        use_rslora = config.use_rslora or false,
    }, { indent = 2, sort_keys = true }) .. "\n")
    local rest = {}
    for k, v in pairs(config) do
        if k ~= "dim" and k ~= "alpha" then
            rest[k] = v
        end
    end
    path.write_file(path.join(dir, "automodel_peft_config.json"),
                    json.encode(json.object(rest), { indent = 2, sort_keys = true }) .. "\n")
end

-- ---- reading --------------------------------------------------------------------------------

-- Settings that change what an adapter's numbers mean. Those that only say how they began, or which modules were
-- chosen, don't matter once there are numbers with names.
local not_understood = {
    "layer_replication", "trainable_token_indices", "lora_bias", "use_qalora",
    "use_bdlora", "alora_invocation_tokens", "arrow_config", "velora_config",
    "monteclora_config", "kasa_config", "ensure_weight_tying", "megatron_config",
}

-- How A and B began where that took something out of the base's weights, which the numbers rely on.
local function check_beginning(file, init)
    for _, name in ipairs { "pissa", "olora", "corda", "lora_ga", "loftq" } do
        if type(init) == "string" and init:lower():sub(1, #name) == name then
            err.raise("unsupported", "%s: \"init_lora_weights\" is \"%s\": the adapter is one of changed base weights. "
                      .. "In PEFT, save it with path_initial_model_for_weight_conversion first", file, init)
        end
    end
end

local function check_numbers(file, c)
    for _, key in ipairs { "r", "lora_alpha" } do
        if type(c[key]) ~= "number" or not (c[key] > 0 and c[key] < 2 ^ 31) then
            err.raise("format", "%s: \"%s\" must be a positive number", file, key)
        end
    end
    if c.r % 1 ~= 0 then
        err.raise("format", "%s: \"r\" must be a whole number, not %s", file, c.r)
    end
    local dropout = c.lora_dropout
    if dropout ~= nil and (type(dropout) ~= "number" or not (dropout >= 0 and dropout < 1)) then
        err.raise("format", "%s: \"lora_dropout\" must be a number from 0 to below 1", file)
    end
end

local function check_switches(file, c)
    for _, key in ipairs { "use_dora", "use_rslora" } do
        if c[key] ~= nil and c[key] ~= json.null and type(c[key]) ~= "boolean" then
            err.raise("format", "%s: \"%s\" must be true or false", file, key)
        end
    end
    for _, key in ipairs(not_understood) do
        local v = c[key]
        local off = v == nil or v == false or v == json.null or (type(v) == "table" and next(v) == nil)
        if not off then
            err.raise("unsupported", "%s: \"%s\" is set, which is not supported", file, key)
        end
    end
    if c.bias ~= nil and c.bias ~= "none" then
        err.raise("unsupported", "%s: bias \"%s\" is not supported; only \"none\" is", file, tostring(c.bias))
    end
end

-- Names of modules_to_save, or nil when there are none.
local function saved_names(file, c)
    local v = c.modules_to_save
    if v == nil or v == json.null then
        v = {}
    end
    local ok, names = pcall(whole.names, v, c.task_type)
    if type(v) ~= "table" or not ok then
        err.raise("format", "%s: \"modules_to_save\" must be a list of names", file)
    end
    return #names > 0 and names or nil
end

-- What NeMo Automodel's file says beside PEFT's; {} where it is missing.
local function own_settings(dir)
    local text = path.read_file(path.join(dir, "automodel_peft_config.json"), MAX_BYTES)
    local c = text and json.decode(text)
    return type(c) == "table" and c ~= json.null and c or {}
end

-- A function (path) -> the number that rank_pattern or alpha_pattern has for it, or nil: the first that matches, as
-- PEFT's get_pattern_key has it.
local function numbers_by_path(file, c, key)
    local patterns = c[key]
    if patterns == nil or patterns == json.null then
        return function() end
    elseif type(patterns) ~= "table" or json.is_array(patterns) and #patterns > 0 then
        err.raise("format", "%s: \"%s\" must be an object of numbers by pattern", file, key)
    end
    local list = {}
    for i, pattern in ipairs(json.keys(patterns)) do
        local value, ok, matches = patterns[pattern], pcall(regex.matcher, "(.*\\.)?(" .. pattern .. ")$")
        if not ok or type(value) ~= "number" or not (value > 0 and value < 2 ^ 31) then
            err.raise("format", "%s: \"%s\" has \"%s\": %s", file, key, pattern,
                      ok and "a number above 0 must stand there" or "this is no pattern")
        end
        list[i] = { matches, value }
    end
    return function(name)
        for _, item in ipairs(list) do
            if item[1](name) then
                return item[2]
            end
        end
    end
end

--- The PeftConfig that a directory's files say, with no target_modules yet; and a function of a path that says
--- which rank and alpha its module has.
function M.read(dir)
    local file = path.join(dir, "adapter_config.json")
    local text, why = path.read_file(file, MAX_BYTES)
    if not text then
        local inner = path.folder_with(dir, "adapter_config.json", { "model", "LATEST/model" })
        err.raise("io", "%s is no adapter directory: %s%s", dir, why,
            inner and "; the adapter is in " .. inner or "")
    end
    local c, msg = json.decode(text, { ordered = true })
    if type(c) ~= "table" or c == json.null or json.is_array(c) then
        err.raise("format", "%s: %s", file, msg or "not a JSON object")
    end
    if c.peft_type ~= "LORA" then
        err.raise("unsupported", "%s: peft_type %s is not supported; supported is LORA", file,
                  tostring(c.peft_type))
    end
    check_switches(file, c)
    check_beginning(file, c.init_lora_weights)
    check_numbers(file, c)
    local own = own_settings(dir)
    local config = {
        dim = c.r, alpha = c.lora_alpha, use_rslora = c.use_rslora == true or nil,
        use_dora = c.use_dora == true or nil, dropout = c.lora_dropout or 0,
        -- PEFT's own adapters do not say, and have it on the input
        dropout_position = own.dropout_position == "post" and "post" or "pre",
        modules_to_save = saved_names(file, c), target_modules = {},
    }
    if own.moe_rank_scaling == true then -- r is that of experts
        config.moe_rank_scaling = true
        for _, rank in pairs(type(c.rank_pattern) == "table" and c.rank_pattern or {}) do
            config.dim = type(rank) == "number" and math.max(config.dim, rank) or config.dim
        end
    end
    if type(own.dropout) == "number" and own.dropout >= 0 and own.dropout < 1 then
        config.dropout = own.dropout
    end
    local rank_of, alpha_of = numbers_by_path(file, c, "rank_pattern"), numbers_by_path(file, c, "alpha_pattern")
    return config, function(name)
        return { dim = rank_of(name) or c.r, alpha = alpha_of(name) or c.lora_alpha }
    end
end

return M
