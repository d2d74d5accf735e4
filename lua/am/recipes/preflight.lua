-- What a run would do and need, before it does: `--dry-run`. Looks at the model's config.json, at the data and
-- at the machine; loads no weights and trains nothing. What is not at hand it names, and goes on.
--
-- Memory is memory.expected's; time is the FLOPs of a step by the rate at which this machine multiplies
-- matrices of the model's shapes, and the share of it that steps reach; disk is what a checkpoint holds.

local config = require("am.config")
local datasets = require("am.datasets")
local distributed = require("am.distributed")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local flops = require("am.recipes.flops")
local memory = require("am.recipes.memory")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local skeleton = require("am.recipes.skeleton")
local training = require("am.training")

local M = {}

-- Steps reach so much of the rate of their products (docs/performance.md).
local SHARE = { float32 = 0.85, float64 = 0.85, bfloat16 = 0.6, float16 = 0.6 }
local ROWS = 512        -- of the products that are timed
local LOOKED_AT = 256   -- rows of a dataset that does not count them
local ASSUMED = 512     -- tokens of a row, where neither data nor configuration says it

local function out(fmt, ...)
    io.write(string.format(fmt, ...), "\n")
end

local function gib(bytes)
    return string.format("%.2f GiB", bytes / 2 ^ 30)
end

--- Seconds in words: "3 s", "12 min", "2 h 05 min".
function M.duration(seconds)
    if seconds < 90 then
        return string.format("%.3g s", seconds)
    elseif seconds < 5400 then
        return string.format("%.0f min", seconds / 60)
    end
    local minutes = math.floor(seconds / 60 + 0.5)
    return string.format("%d h %02d min", math.floor(minutes / 60), minutes % 60)
end

-- fn(...), or nil and why not where something is not at hand. Everything else is a mistake, and is raised.
local function at_hand(fn, ...)
    local result = { pcall(fn, ...) }
    if result[1] then
        return unpack(result, 2)
    elseif err.is(result[2]) and (result[2].code == "io" or result[2].code == "unsupported") then
        return nil, tostring(result[2])
    end
    error(result[2], 0)
end

-- ---- parts ----------------------------------------------------------------------------------

local function look_at_model(recipe)
    local model, why = at_hand(skeleton.of, recipe)
    if not model then
        out("model      not looked at: %s", why)
        return nil
    end
    local total, trained = 0, 0
    for _, t in model:named_parameters() do
        total, trained = total + t:numel(), trained + (t.requires_grad and t:numel() or 0)
    end
    if recipe.trains and trained == 0 then
        err.raise("usage", "nothing is trainable: every parameter is frozen")
    end
    out("model      %s: %s, %.1f million parameters, %s%s", model.name_or_path or "(new)", model.class_name,
        total / 1e6, recipe.trains and string.format("%.1f of them trained, ", trained / 1e6) or "", model:dtype())
    return model
end

-- nil where there is none, too.
local function look_at_teacher(recipe)
    local teacher, why = at_hand(skeleton.teacher, recipe)
    if teacher then
        out("teacher    %s: %s, %s of weights", teacher.name_or_path or "(new)", teacher.class_name,
            gib(memory.weight_bytes(teacher)))
    elseif why then
        out("teacher    not looked at, nor counted: %s", why)
    end
    return teacher
end

-- A file that a dataset section names and that is not there, or nil.
local function missing_file(section)
    for _, key in ipairs { "path_or_dataset_id", "path_or_dataset", "paths" } do
        local value = section:get(key)
        for _, name in ipairs(type(value) == "table" and value or { value }) do
            local is_file = type(name) == "string" and name:find("%.%w+$") and not name:find("[*?[]")
            if is_file and not path.exists(name) then
                return name
            end
        end
    end
    return nil
end

-- { mean, longest, name } of the rows' lengths in tokens. A dataset that does not count its rows is looked
-- into, as far as LOOKED_AT.
local function lengths_of(recipe, dataset)
    local stats = dataset.stats and dataset:stats()
    if stats then
        return { mean = stats.tokens / stats.rows, longest = stats.longest.length, name = stats.longest.name }
    end
    local found, sum, n = { longest = 0 }, 0, math.min(LOOKED_AT, dataset:len())
    for i = 1, n do
        local length = recipe:collate({ dataset:get(i) }).T
        sum = sum + length
        if length > found.longest then
            found.longest, found.name = length, dataset.name and dataset:name(i) or "row " .. i
        end
    end
    found.mean = sum / n
    return found
end

-- A dataset section's rows, their number, packed if that is asked for, and their lengths; of a stream, which
-- is only read in order, the first alone.
local function rows_of(recipe, key, for_training)
    local section = recipe.cfg:child(key)
    local missing = missing_file(section)
    if missing then
        err.raise("io", "there is no %s", missing)
    end
    local dataset = recipe:build_dataset(section)
    if dataset.is_iterable then
        return dataset
    end
    local size = for_training and recipe:pack_size() or 0
    local lengths = lengths_of(recipe, dataset)
    if size == 0 or lengths.longest <= size then -- as when it trains
        recipe:check_length(lengths.longest, lengths.name)
    end
    if size == 0 then
        return dataset, dataset:len(), lengths
    end
    local packs = recipe:pack(dataset)
    return dataset, packs:len(), { mean = size, longest = size, packs = packs.stats and packs:stats() }
end

-- What is known of the training rows (of those for validation, where nothing is trained): { rows, mean, longest },
-- tokens; rows nil where the data is not at hand.
local function look_at_data(recipe, model)
    local cfg = recipe.cfg
    local size = recipe:pack_size()
    local assumed = size > 0 and size or cfg:get("dataset.seq_length") or cfg:get("dataset.seq_len") or ASSUMED
    local found = { mean = assumed, longest = assumed }
    for _, key in ipairs(cfg:keys()) do
        local for_training = key == "dataset"
        if (for_training and recipe.trains) or key:find("^validation_dataset") then
            local dataset, rows, lengths
            local missing = not model and missing_file(cfg:child(key))
            local why = missing and "there is no " .. missing
                or not model and "the model's tokenizer is not at hand" or nil
            if model then
                dataset, rows, lengths = at_hand(rows_of, recipe, key, for_training)
                why = not dataset and rows or nil
            end
            local stats = dataset and dataset.stats and dataset:stats()
            if why then
                out("%-10s not looked at: %s", for_training and "data" or "validation", why)
            else
                out("%-10s %s", for_training and "data" or "validation", stats and datasets.describe(stats)
                    or rows and dataset:len() .. " rows" or "a stream of rows")
                if lengths and lengths.packs then
                    out("           packed: %s", datasets.describe(lengths.packs))
                end
                for _, line in ipairs(for_training and recipe:audit(dataset) or {}) do
                    out("           %s", line)
                end
            end
            local counts = for_training or (not recipe.trains and lengths
                                            and (not found.rows or lengths.longest > found.longest))
            if dataset and rows and counts then
                found = { rows = rows, mean = lengths.mean, longest = lengths.longest }
            end
        end
    end
    return found
end

-- Steps of the run, or nil where that depends on data that is not at hand.
local function plan_steps(recipe, sizes, data)
    if data.rows then
        local drop = recipe.cfg:get("dataloader.drop_last")
        local batches = (drop and math.floor or math.ceil)(data.rows / sizes.local_batch_size)
        recipe.loader = { len = function() return batches end }
        local scheduler = recipe:build_step_scheduler()
        local max_steps = recipe.cfg:get("step_scheduler.max_steps")
        local steps = scheduler:total_steps()
        out("steps      %d, of %d rows each (%d at a time); an epoch has %d%s", steps, sizes.global_batch_size,
            sizes.local_batch_size, scheduler.epoch_len, max_steps and max_steps > steps and string.format(
                "; step_scheduler.num_epochs ends the run before max_steps (%d)", max_steps) or "")
        return steps, scheduler.epoch_len
    end
    local steps = recipe.cfg:get("step_scheduler.max_steps")
    out("steps      %s, of %d rows each (%d at a time)", steps and "at most " .. steps
        or "not known without the data", sizes.global_batch_size, sizes.local_batch_size)
    return steps
end

local TOO_LITTLE = ", which is too little: see step_scheduler.local_batch_size, dataset.seq_length, "
    .. "model.activation_checkpointing, model.torch_dtype, a peft section, optimizer.state_dtype"

-- Says what memory.expected and the recipe's bytes_beside come to.
local function look_at_memory(recipe, model, tokens, varied)
    local need = memory.expected(model, recipe.trains and recipe:optimizer_options() or nil, tokens, varied)
    local averages, teacher, words = 0, 0, { gib(need.weights) .. " of weights" }
    if recipe.trains then
        averages, teacher = recipe:bytes_beside(tokens)
    end
    for _, part in ipairs { { "of gradients", need.gradients }, { "of optimizer state", need.optimizer },
                            { "of averages", averages }, { "of " .. recipe.other_model, teacher } } do
        if part[2] > 0 then
            words[#words + 1] = gib(part[2]) .. " " .. part[1]
        end
    end
    local tokenizer = recipe.tokenizer and memory.tokenizer_bytes(model.config.vocab_size) or 0
    local total = need.total + averages + teacher + tokenizer
    local available = tonumber(edge.C.am_host_memory_available())
    local fits = available >= total
    out("memory     %s at most: %s, %s of activations for %d tokens at a time; %s %s available%s", gib(total),
        table.concat(words, ", "), gib(need.activations), tokens, gib(available), fits and "is" or "are",
        fits and "" or recipe.trains and TOO_LITTLE or ", which is too little: see "
            .. "validation_dataloader.batch_size, model.torch_dtype")
end

local function look_at_time(recipe, rows, at_once, data, steps)
    local model, tokens = recipe.model, recipe:tokens_at_once(rows, data.mean)
    local work = recipe:batch_flops(tokens / data.mean, data.mean, tokens)
    local rate = flops.product_rate(model, math.min(ROWS, at_once))()
    local seconds = work / (rate * (SHARE[model:dtype()] or 0.6))
    out("time       about %s a step (%.3g GFLOP, products at %.0f GFLOP/s)%s; the log says it better after ten steps",
        M.duration(seconds), work / 1e9, rate / 1e9,
        steps and ", " .. M.duration(seconds * steps) .. " in all, without validation and saving" or "")
end

--- Bytes of a checkpoint of a recipe's run, and of the consolidated model that may go with it.
function M.checkpoint_bytes(recipe, model)
    local optimizer = memory.kept(model, recipe:optimizer_options(), 0).optimizer
    local trained, all = 0, 0
    for _, t in model:named_parameters() do
        local bytes = t:numel() * ((t:dtype() == "float32" and 4) or (t:dtype() == "float64" and 8) or 2)
        all, trained = all + bytes, trained + (t.requires_grad and bytes or 0)
    end
    if recipe.cfg:has("peft") then
        return trained + optimizer, 0
    end
    return all + optimizer, all
end

-- How many checkpoints a run of `steps` writes, and how many stay.
local function checkpoint_count(recipe, steps, epoch_len)
    local section = recipe.cfg:child("step_scheduler")
    local every = not (section and section:has("ckpt_every_steps")) and 100 or section:get("ckpt_every_steps")
    local count = math.max(1, math.floor(steps / (every or epoch_len or steps)))
    if epoch_len and (not section or section:get("save_checkpoint_every_epoch") ~= false) then
        count = count + math.floor(steps / epoch_len)
    end
    local keep = recipe:checkpoint_setting("max_recent_checkpoints")
    return math.min(count, steps, keep and keep + 1 or math.huge)
end

local function look_at_disk(recipe, model, steps, epoch_len)
    if not recipe:checkpoint_setting("enabled") then
        out("disk       nothing is saved: checkpoint.enabled is false")
        return
    end
    local bytes, whole = M.checkpoint_bytes(recipe, model)
    local when = recipe:checkpoint_setting("save_consolidated")
    local each = bytes + ((when == true or when == "every") and whole or 0)
    local count = steps and checkpoint_count(recipe, steps, epoch_len) or 1
    local total = each * count + (when == "final" and whole or 0)
    local dir = recipe:checkpoint_dir()
    local there = path.absolute(dir)
    while not path.is_dir(there) do
        there = path.dirname(there)
    end
    local free = posix.free_bytes(there)
    out("disk       %s a checkpoint, up to %d of them in %s: %s; %s free%s", gib(each), count, dir, gib(total),
        free and gib(free) or "not known how much is", free and free < total and ", which is too little: see "
            .. "checkpoint.max_recent_checkpoints and step_scheduler.ckpt_every_steps" or "")
end

--- Print the resolved configuration and what a run of it would do and need, for a recipe object that is not
--- set up. Returns exit status 0; raises what would stop the run and can be seen already.
function M.run(recipe)
    io.write(config.print(recipe.cfg), "\n")
    recipe:find_checkpoint()
    recipe.seed = recipe:choose_seed()
    recipe.mesh = distributed.mesh(recipe.world) -- of this process alone
    recipe.ctx.device = "cpu"
    local sizes = training.batch_sizes(recipe:section("step_scheduler"), recipe.cfg:get("dataloader.batch_size"))
    local model = look_at_model(recipe)
    recipe.model = model
    recipe.teacher = look_at_teacher(recipe)
    local data = look_at_data(recipe, model)
    local function at_most(rows) return math.min(rows, data.rows or math.huge) end
    if not recipe.trains then
        local rows = recipe.cfg:get("validation_dataloader.batch_size") or sizes.local_batch_size
        if model then
            look_at_memory(recipe, model, at_most(rows) * data.longest)
        end
        return 0
    end
    local steps, epoch_len = plan_steps(recipe, sizes, data)
    if model then
        if recipe:counts_tokens() then
            local tokens = recipe:tokens_at_once(at_most(sizes.local_batch_size), data.longest)
            look_at_memory(recipe, model, tokens, memory.varied(sizes.local_batch_size, data.rows or 0, data.mean,
                                                                data.longest))
            look_at_time(recipe, at_most(sizes.global_batch_size), tokens, data, steps)
        else
            out("memory and time: not known for this recipe, which makes batches or the loss in its own way")
        end
        look_at_disk(recipe, model, steps, epoch_len)
    else
        out("memory, time and disk: not known without the model")
    end
    return 0
end

return M
