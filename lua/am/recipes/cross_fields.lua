-- What must hold between keys of a configuration, seen before anything is loaded. Types, bounds and names are
-- the schema's (am.config.schema); what depends on data or weights is said where these are known.

local config = require("am.config")
local err = require("am.core.error")
local fp8 = require("am.recipes.fp8")
local names = require("am.recipes.names")
local sections = require("am.recipes.sections")
local training = require("am.training")

local M = {}

-- A number of the configuration, or nil.
local function number(cfg, path)
    local value = cfg:get(path)
    return type(value) == "number" and value or nil
end

local function is_on(cfg, path)
    local value = cfg:get(path)
    return value ~= nil and value ~= false
end

-- ---- mistakes -------------------------------------------------------------------------------

local function batch_sizes(cfg, add)
    local own, older = number(cfg, "step_scheduler.local_batch_size"), number(cfg, "dataloader.batch_size")
    if own and older and own ~= older then
        add("dataloader.batch_size", "%d, and step_scheduler.local_batch_size is %d (%s): they are the same thing; "
            .. "keep one", older, own, cfg:where("step_scheduler.local_batch_size"))
        return
    end
    local rows, key = own or older or 1, own and "step_scheduler.local_batch_size" or "dataloader.batch_size"
    local all, windows = number(cfg, "step_scheduler.global_batch_size"), number(cfg, "step_scheduler.grad_acc_steps")
    if all and windows and all ~= windows * rows then
        add("step_scheduler.global_batch_size", "%d is not grad_acc_steps (%d) x local_batch_size (%d); keep one of "
            .. "global_batch_size and grad_acc_steps", all, windows, rows)
    elseif not windows and (all or 32) % rows ~= 0 then
        add(all and "step_scheduler.global_batch_size" or key, "global_batch_size (%d%s) must be divisible by "
            .. "local_batch_size (%d), the rows that fit at a time", all or 32, all and "" or ", the default", rows)
    end
end

-- The schedule's own checks, with the places of their keys.
local function schedule(cfg, add)
    local warmup, decay = number(cfg, "lr_scheduler.lr_warmup_steps"), number(cfg, "lr_scheduler.lr_decay_steps")
    local total = number(cfg, "step_scheduler.max_steps")
    local stop = decay or total and total + 1 -- the last step may be the first with the whole rate
    local constant = cfg:get("lr_scheduler.lr_decay_style") == "constant" -- a run may end before the warm-up does
    if warmup and stop and warmup >= stop and warmup > 0 and (decay or not constant) then
        add("lr_scheduler.lr_warmup_steps", "%d must be %s %s (%d)%s", warmup, decay and "less than" or "at most",
            decay and "lr_scheduler.lr_decay_steps" or "step_scheduler.max_steps", decay or total,
            decay and "" or ", or the learning rate never gets to its value")
    end
    local top = number(cfg, "lr_scheduler.max_lr") or number(cfg, "optimizer.lr")
    for _, key in ipairs { "min_lr", "init_lr" } do
        local value = number(cfg, "lr_scheduler." .. key)
        if value and top and value > top then
            add("lr_scheduler." .. key, "%g must be at most %s (%g)", value,
                cfg:has("lr_scheduler.max_lr") and "lr_scheduler.max_lr" or "optimizer.lr", top)
        end
    end
    local first, last = number(cfg, "lr_scheduler.start_wd"), number(cfg, "lr_scheduler.end_wd")
    if first and last and last < first then
        add("lr_scheduler.end_wd", "%g must be at least start_wd (%g)", last, first)
    end
    if cfg:get("lr_scheduler.lr_decay_style") == "WSD" then
        for key, meaning in pairs { wsd_decay_steps = "the steps of its decay", lr_wsd_decay_style = "its curve" } do
            if not cfg:has("lr_scheduler." .. key) then
                add("lr_scheduler.lr_decay_style", "WSD needs lr_scheduler.%s, %s", key, meaning)
            end
        end
    end
    if is_on(cfg, "lr_scheduler.override_opt_param_scheduler")
        and is_on(cfg, "lr_scheduler.use_checkpoint_opt_param_scheduler") then
        add("lr_scheduler.override_opt_param_scheduler", "the configuration's values or the checkpoint's "
            .. "(use_checkpoint_opt_param_scheduler): set only one of them to true")
    end
end

local function adapters(cfg, add)
    if not cfg:has("peft") then
        return
    end
    for _, pair in ipairs { { "target_modules", "exclude_modules" }, { "match_all_linear", "target_modules" },
                            { "match_all_linear", "exclude_modules" } } do
        local first, second = "peft." .. pair[1], "peft." .. pair[2]
        local function given(path)
            local value = cfg:get(path)
            return type(value) == "table" and #value > 0 or type(value) == "string" or value == true
        end
        if given(first) and given(second) then
            add(second, "%s says which modules are adapted already (%s); keep one of them", pair[1], cfg:where(first))
        end
    end
end

-- Weights in few bits are frozen: what trains is beside them.
local function few_bits(cfg, add, class)
    for _, key in ipairs { "quantization", "model.quantization_config" } do
        local asked = is_on(cfg, key .. ".load_in_4bit") and "load_in_4bit"
            or is_on(cfg, key .. ".load_in_8bit") and "load_in_8bit"
        if asked and not cfg:has("peft") and class and class.trains ~= false then
            add(key .. "." .. asked, "weights in few bits are frozen, so there must be something beside them that is "
                .. "trained: add a section peft, or take model.torch_dtype: bfloat16 in place of this")
        elseif asked and is_on(cfg, "peft.use_dora") then
            add("peft.use_dora", "it needs the norms of rows, which weights in few bits do not have at hand; leave it "
                .. "out, or %s", key)
        end
        if is_on(cfg, key .. ".load_in_4bit") and is_on(cfg, key .. ".load_in_8bit") then
            add(key .. ".load_in_8bit", "load_in_4bit is true, too; keep one of them")
        end
    end
    if cfg:has("quantization") and cfg:has("model.quantization_config") then
        add("model.quantization_config", "the section quantization says it, too; keep one of them")
    end
end

local function validation_names(cfg)
    local list = {}
    for _, key in ipairs(cfg:keys()) do
        list[#list + 1] = sections.validation_name(key)
    end
    return list
end

local function validation(cfg, add)
    local sets, known = validation_names(cfg), {}
    for _, name in ipairs(sets) do
        known[name] = true
        if not name:find("^[%w_-]+$") then -- it becomes part of a file's name
            add("validation_dataset_" .. name, "a name has letters, digits, - and _ only")
        end
    end
    if cfg:has("early_stopping") and #sets == 0 then
        add("early_stopping", "it goes by validation, and there is no validation_dataset section")
    end
    known.default = true -- the first one, where none is called so
    for _, key in ipairs { "checkpoint.best_metric_key", "early_stopping.validation" } do
        local wanted = cfg:get(key)
        if wanted and #sets > 0 and not known[wanted] then
            add(key, 'there is no validation set "%s"; there is %s', wanted, table.concat(sets, ", "))
        end
    end
end

-- Weights that are updated inside backward can't wait for what comes after it.
local function updates_inside_backward(cfg, add)
    if not is_on(cfg, "optimizer.fuse_backward") then
        return
    end
    local max_norm = sections.max_norm(cfg)
    if max_norm then
        add("optimizer.fuse_backward", "it updates weights before the norm of all gradients is known, so it can't go "
            .. "with clip_grad_norm.max_norm, which is %g%s. Set clip_grad_norm.max_norm: null, or "
            .. "optimizer.fuse_backward: false", max_norm,
            cfg:has("clip_grad_norm.max_norm") and "" or " by default")
    end
    local section = cfg:child("step_scheduler")
    local agree, sizes = pcall(training.batch_sizes, section and section:to_table() or {},
                               number(cfg, "dataloader.batch_size")) -- if not, batch_sizes above says so
    if agree and sizes.global_batch_size > sizes.local_batch_size then
        add("optimizer.fuse_backward", "it uses gradients up before the next micro-batch could add to them, so "
            .. "step_scheduler.global_batch_size (%d) must be no more than local_batch_size (%d). Make them equal, or "
            .. "set optimizer.fuse_backward: false", sizes.global_batch_size, sizes.local_batch_size)
    end
end

-- Rounded weights and what else changes linear maps.
local function quantisation(cfg, add)
    if not is_on(cfg, "qat.enabled") then
        return
    end
    if cfg:has("peft") then
        add("qat.enabled", "with a peft section weights are frozen, so there is nothing to train for their rounding "
            .. "(NeMo Automodel refuses it, too): leave out one of the two")
    end
    if is_on(cfg, "fp8.enabled") then
        add("qat.enabled", "the section fp8 (%s) changes the same products; leave out one of the two", cfg:where("fp8"))
    end
    if (number(cfg, "distributed.tp_size") or 1) > 1 then
        add("qat.enabled", "ranks that share matrices (distributed.tp_size) have parts of tokens and groups, whose "
            .. "scales would be others; shard with strategy: fsdp2 instead")
    end
    if cfg:has("qat.qat_config") and cfg:has("qat.quantizer") then
        add("qat.quantizer", "qat_config says it already (%s); keep one of them", cfg:where("qat.qat_config"))
    end
end

-- Products in 8 bits, and what else changes weights or has parts of what shares a scale.
local function products_in_8_bits(cfg, add)
    local section, key = fp8.fp8_section(cfg)
    if not section then
        return
    end
    for _, name in ipairs { "tp_size", "cp_size" } do
        if (number(cfg, "distributed." .. name) or 1) > 1 then
            add("distributed." .. name, "with %s (%s) a rank would see a part of what shares a scale, and numbers "
                .. "would be others than one rank's; share rows, weights or layers (dp_size, pp_size)", key,
                section:where())
        end
    end
    for _, asked in ipairs { "quantization.load_in_4bit", "quantization.load_in_8bit",
                             "model.quantization_config.load_in_4bit", "model.quantization_config.load_in_8bit" } do
        if is_on(cfg, asked) then
            add(asked, "weights that are kept in few bits can't be cast for %s (%s): leave out one of the two", key,
                section:where())
        end
    end
end

-- Is a recipe's class the one of that name, or does it extend it?
local function is_a(class, name)
    while class and class.name ~= name do
        class = class.parent
    end
    return class ~= nil
end

-- The configuration says for which recipe it is.
local function recipe(cfg, add, class)
    local wanted, named, not_yet = names.recipe(cfg:get("recipe"))
    if not_yet then
        err.raise("unsupported", "%s: recipe: %s is not there yet: %s", cfg:where("recipe"), named, not_yet)
    elseif wanted and class and class.name ~= "benchmark" and not is_a(class, wanted) then
        add("recipe", "%s is for recipes/%s.lua, and this is %s: run that one", named, wanted, class.name or "another")
    end
end

-- The model is of the kind that the recipe trains.
local function kind_of_model(cfg, add, class)
    local target, classifies, sees = cfg:get("model._target_"), is_a(class, "llm_seq_cls"), is_a(class, "vlm_finetune")
    local kind = type(target) == "string" and target:match("For(%u%w+)%.[%w_]+$")
    if kind == "SequenceClassification" and not classifies then
        add("model._target_", "a classifier of sequences: recipes/llm_seq_cls.lua trains and validates it, this recipe "
            .. "does not")
    elseif kind == "ImageTextToText" and not sees then
        add("model._target_", "a model of images and text: recipes/vlm_finetune.lua trains and validates it, this "
            .. "recipe does not")
    elseif kind == "CausalLM" and classifies then
        add("model._target_", "no classifier; take am.AutoModelForSequenceClassification.from_pretrained")
    elseif kind and kind ~= "ImageTextToText" and sees then
        add("model._target_", "it reads no images; take am.AutoModelForImageTextToText.from_pretrained")
    end
end

-- ---- what may not be meant --------------------------------------------------------------------

local function notes(cfg, note)
    local steps = number(cfg, "step_scheduler.max_steps")
    local validated = #validation_names(cfg) > 0
    for _, key in ipairs { "validation_dataloader", "step_scheduler.val_every_steps" } do
        if cfg:get(key) ~= nil and not validated then
            note(key, "there is no validation_dataset, so nothing is validated")
        end
    end
    local every = number(cfg, "step_scheduler.val_every_steps")
    if validated and steps and every and every > steps then
        note("step_scheduler.val_every_steps", "%d is beyond step_scheduler.max_steps (%d): only checkpoints are "
             .. "validated", every, steps)
    end
    local named, class = names.recipe(cfg:get("recipe"))
    if class and not named then
        note("recipe", "%s is none that is known, and changes nothing", class)
    end
    if cfg:get("checkpoint.model_save_format") == "torch_save" then
        note("checkpoint.model_save_format", "safetensors are written in place of torch_save%s",
             is_on(cfg, "checkpoint.save_consolidated") and ", and a consolidated directory as save_consolidated "
             .. "says" or "")
    end
    if cfg:has("peft") then
        local consolidated = cfg:get("checkpoint.save_consolidated")
        if consolidated == true or consolidated == "every" then
            note("checkpoint.save_consolidated", "with a peft section the adapter is saved; "
                 .. "recipes/merge_lora.lua makes a whole model of it")
        end
        if is_on(cfg, "freeze_config.freeze_embeddings") or is_on(cfg, "freeze_config.freeze_language_model") then
            note("freeze_config", "with a peft section everything but the adapter is frozen anyway")
        end
    end
    local length, pack = number(cfg, "dataset.seq_length"), number(cfg, "packed_sequence.packed_sequence_size") or 0
    if length and pack > 0 and length > pack then
        note("dataset.seq_length", "%d is more than packed_sequence.packed_sequence_size (%d): longer rows are %s",
             length, pack, is_on(cfg, "packed_sequence.split_across_pack") and "split"
             or cfg:get("packed_sequence.drop_long_samples") == false and "an error" or "dropped")
    end
end

--- Raise one "usage" error for everything in a valid configuration that contradicts itself, each with place
--- and key. Returns notes, an array of text: what is legal and may not be meant. `class` is the recipe.
function M.check(cfg, class)
    local problems, list = {}, {}
    local function say(to)
        return function(path, fmt, ...)
            to[#to + 1] = string.format("%s: %s: %s", cfg:where(path), path, string.format(fmt, ...))
        end
    end
    for _, rule in ipairs { batch_sizes, schedule, adapters, few_bits, validation, updates_inside_backward,
                           quantisation, products_in_8_bits, recipe, kind_of_model } do
        rule(cfg, say(problems), class)
    end
    config.raise(problems)
    notes(cfg, say(list))
    return list
end

return M
