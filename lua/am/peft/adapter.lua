-- Adapters as HF PEFT stores them: adapter_model.safetensors and adapter_config.json. Reads those
-- that PEFT wrote, writes those that it reads; automodel_peft_config.json keeps the rest.

local err = require("am.core.error")
local io_core = require("am.core.io")
local scope = require("am.core.scope")
local lora = require("am.peft.lora")
local json = require("am.utils.json")
local path = require("am.utils.path")

local M = {}

local PREFIX = "base_model.model."
local MAX_BYTES = 16 * 1024 * 1024

local task_types = {
    ForCausalLM = "CAUSAL_LM", ForSequenceClassification = "SEQ_CLS",
    ForTokenClassification = "TOKEN_CLS", ForQuestionAnswering = "QUESTION_ANS",
}

local function task_type(model)
    local name = model.config and model.config.architectures and model.config.architectures[1] or ""
    for suffix, task in pairs(task_types) do
        if name:sub(-#suffix) == suffix then
            return task
        end
    end
    return "CAUSAL_LM"
end

--- Iterator over (path, LinearLoRA) of a model.
function M.modules(model)
    local next_module = model:named_modules()
    return function()
        local name, module
        repeat
            name, module = next_module()
        until not name or module.class_name == "LinearLoRA"
        return name, module
    end
end

--- Write a model's adapter into a folder that exists. config is its PeftConfig.
function M.save(model, dir, config)
    local tensors, targets = {}, {}
    for name, module in M.modules(model) do
        targets[#targets + 1] = name
        tensors[#tensors + 1] = { PREFIX .. name .. ".lora_A.weight", module.lora_A.weight }
        tensors[#tensors + 1] = { PREFIX .. name .. ".lora_B.weight", module.lora_B.weight }
    end
    table.sort(targets)
    io_core.save_safetensors(path.join(dir, "adapter_model.safetensors"), tensors)
    local base = model.name_or_path
    path.write_file(path.join(dir, "adapter_config.json"), json.encode({
        base_model_name_or_path = base and path.exists(base) and path.absolute(base) or base or json.null,
        bias = "none",
        lora_alpha = config.alpha,
        lora_dropout = config.dropout or 0,
        peft_type = "LORA",
        r = config.dim,
        target_modules = json.array(targets),
        task_type = task_type(model),
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

local function read_config(dir)
    local file = path.join(dir, "adapter_config.json")
    local text, why = path.read_file(file, MAX_BYTES)
    if not text then
        err.raise("io", "%s is no adapter directory: %s", dir, why)
    end
    local c, msg = json.decode(text)
    if type(c) ~= "table" or c == json.null or json.is_array(c) then
        err.raise("format", "%s: %s", file, msg or "not a JSON object")
    end
    if c.peft_type ~= "LORA" then
        err.raise("unsupported", "%s: peft_type %s is not supported; supported is LORA", file,
                  tostring(c.peft_type))
    end
    for _, key in ipairs { "use_dora", "fan_in_fan_out", "modules_to_save", "rank_pattern",
                           "alpha_pattern", "layer_replication", "trainable_token_indices" } do
        local v = c[key]
        local off = v == nil or v == false or v == json.null or (type(v) == "table" and next(v) == nil)
        if not off then
            err.raise("unsupported", "%s: \"%s\" is set, which is not supported", file, key)
        end
    end
    if c.bias ~= nil and c.bias ~= "none" then
        err.raise("unsupported", "%s: bias \"%s\" is not supported; only \"none\" is", file, tostring(c.bias))
    end
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
    return c
end

-- Where the adapter's dropout stood; PEFT's own adapters do not say, and have it on the input.
local function dropout_position(dir)
    local text = path.read_file(path.join(dir, "automodel_peft_config.json"), MAX_BYTES)
    local c = text and json.decode(text)
    local position = type(c) == "table" and c.dropout_position
    return position == "post" and "post" or "pre"
end

-- {path -> {A = tensor, B = tensor}} of adapter_model.safetensors.
local function read_tensors(dir, device, dtype)
    local file = path.join(dir, "adapter_model.safetensors")
    local archive, found = io_core.open(file), {}
    for _, name in ipairs(archive:names()) do
        local module, side = name:match("^base_model%.model%.(.+)%.lora_([AB])%.weight$")
        if not module then
            module, side = name:match("^base_model%.model%.(.+)%.lora_([AB])%.default%.weight$")
        end
        if not module then
            err.raise("unsupported", "%s: tensor %s is no LoRA weight of a linear map", file, name)
        end
        found[module] = found[module] or {}
        found[module][side] = scope.escape(archive:get(name, dtype, device))
    end
    archive:close()
    return found, file
end

--- Put the adapter of a directory onto a model (freezing everything else). opts: dtype of A and B
--- (default: each weight's own), dropout, dropout_position (default: the adapter's), check, a function
--- of the PeftConfig that may refuse it while the model is as it was.
--- Returns the PeftConfig that it amounts to.
function M.load(model, dir, opts)
    opts = opts or {}
    local c = read_config(dir)
    local found, file = read_tensors(dir, model:device(), opts.dtype)
    local config = {
        dim = c.r, alpha = c.lora_alpha, use_rslora = c.use_rslora == true or nil,
        dropout = opts.dropout or c.lora_dropout or 0,
        dropout_position = opts.dropout_position or dropout_position(dir),
        target_modules = {},
    }
    for name in pairs(found) do
        config.target_modules[#config.target_modules + 1] = name
        local module = model:get(name)
        if not module or module.class_name ~= "Linear" then
            err.raise("format", "%s: the model has no linear map %s; the adapter belongs to another "
                      .. "model", file, name)
        end
    end
    table.sort(config.target_modules)
    if opts.check then
        opts.check(config)
    end
    lora.apply(model, function(name) return found[name] ~= nil end, function(name, base)
        local pair = found[name]
        if not pair.A or not pair.B then
            err.raise("format", "%s: %s has only one of lora_A and lora_B", file, name)
        end
        local wrapped = lora.LinearLoRA.new(base, config)
        for side, shape in pairs { A = { c.r, base.in_features }, B = { base.out_features, c.r } } do
            local t = pair[side]
            if t:dim() ~= 2 or t:size(0) ~= shape[1] or t:size(1) ~= shape[2] then
                err.raise("format", "%s: lora_%s of %s is [%s], but the model and r make it [%d, %d]",
                          file, side, name, table.concat(t:size(), ", "), shape[1], shape[2])
            end
            -- training writes to it, so it must not stay a view of the file
            wrapped["lora_" .. side].weight = scope.escape(
                t:to(opts.dtype or base.weight:dtype()):clone())
        end
        return wrapped
    end)
    return config
end

--- Overwrite the A and B of an adapted model with those of a directory (resume).
function M.restore(model, dir)
    local found, file = read_tensors(dir, model:device())
    for name, module in M.modules(model) do
        local pair = found[name]
        if not pair or not pair.A or not pair.B then
            err.raise("format", "%s lacks the adapter of %s", file, name)
        end
        for _, side in ipairs { "A", "B" } do
            local into = module["lora_" .. side].weight
            if table.concat(into:size(), ",") ~= table.concat(pair[side]:size(), ",") then
                err.raise("format", "%s: lora_%s of %s is [%s], but this run makes it [%s]", file, side,
                          name, table.concat(pair[side]:size(), ", "), table.concat(into:size(), ", "))
            end
            into:copy_(pair[side])
            pair[side]:release()
        end
        found[name] = nil
    end
    local extra = next(found)
    if extra then
        err.raise("format", "%s holds an adapter of %s, which this run does not adapt", file, extra)
    end
end

return M
