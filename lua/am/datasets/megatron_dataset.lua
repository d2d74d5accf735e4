-- MegatronPretraining: rows for pretraining from Megatron's .bin and .idx files, one pair of them or a blend
-- of several, a split of each. What this file holds is which documents and how many samples that means; the
-- rows are gpt_dataset.lua's and blended_dataset.lua's, and equal the original's in order and content.

local err = require("am.core.error")
local glob = require("am.utils.glob")
local json = require("am.utils.json")
local path = require("am.utils.path")
local strings = require("am.utils.strings")
local blended_dataset = require("am.datasets.blended_dataset")
local gpt_dataset = require("am.datasets.gpt_dataset")
local indexed_dataset = require("am.datasets.indexed_dataset")

local M = {}

local SPLITS = { "train", "validation", "test" }
local SAMPLES = { train = "num_train_samples", validation = "num_val_samples", test = "num_test_samples" }
local SURPLUS = 0.005 -- a dataset of a blend is built with so much more than its share
local MAX_BLEND_BYTES = 16 * 1048576

--- What the `dataset` section may hold for this dataset.
M.fields = {
    paths = { type = "string|list|table", required = true,
              doc = "a prefix of .bin and .idx files, a pattern of their names, a JSON file with a blend, a list of "
                  .. "prefixes or of weights and prefixes in turn, or a section of such lists for each split" },
    seq_length = { type = "integer", min = 1, max = 2 ^ 24, default = 2048, doc = "tokens in a row" },
    split = { type = "string|list", default = "900,50,50", null = true,
              doc = "shares of train, validation and test; not for `paths` by split" },
    splits_to_build = { type = "string|list", doc = "which split this is: train, validation or test (train)" },
    seed = { type = "integer", min = 0, max = 2 ^ 32 - 1, default = 1234, doc = "of the order" },
    num_train_samples = { type = "integer", min = 1, doc = "rows of train: max_steps x batch, or an epoch" },
    num_val_samples = { type = "integer", min = 1, doc = "rows of validation: as many as the run's validations take" },
    num_test_samples = { type = "integer", min = 1, doc = "rows of test (an epoch)" },
    index_mapping_dir = { type = "string", doc = "keep indices in this folder, for later runs" },
    tokenizer = { target = true, default_target = "am.AutoTokenizer.from_pretrained", required = true,
                  doc = "the model's, unless a section here says otherwise; its pad and eos tokens count" },
    reset_position_ids = { type = "boolean", default = false, doc = "positions restart behind each eos" },
    reset_attention_mask = { type = "boolean", default = false, doc = "documents do not see one another" },
    eod_mask_loss = { type = "boolean", default = false, doc = "what follows an eos is not learnt" },
    trainer_limit_val_batches = { type = "number", above = 0, default = 1, doc = "batches of one validation" },
    global_batch_size = { type = "integer", min = 1, default = 8, doc = "given by the recipe" },
    trainer_max_steps = { type = "integer", min = -1, doc = "given by the recipe: step_scheduler.max_steps" },
    trainer_val_check_interval = { type = "integer", min = 1, default = 1000, null = true,
                                   doc = "given by the recipe: step_scheduler.val_every_steps" },
    vocab_size = { type = "integer", min = 1, doc = "refuse ids from here on (the model's)" },
    micro_batch_size = { type = "integer", min = 1, no_effect = "the step scheduler's counts" },
    trainer_limit_test_batches = { type = "number", min = 0, no_effect = "num_test_samples says how many" },
    create_attention_mask = { type = "boolean", no_effect = "attention is causal without a mask" },
    mmap_bin_files = { type = "boolean", no_effect = "tokens are read where they are needed" },
    object_storage_config = { type = "any", doc = "data in S3 is not read here" },
    num_dataset_builder_threads = { type = "integer", min = 1, no_effect = "indices are made by one" },
}

-- ---------------------------------------------------------------- which files, with which weights

local aliases = { valid = "validation", val = "validation", dev = "validation" }

local function number_of(x)
    return type(x) == "number" and x or type(x) == "string" and tonumber(strings.trim(x)) or nil
end

-- { prefixes, weights (nil where there are none) } of a list, or of one prefix.
local function blend_of(list)
    list = type(list) == "string" and { list } or list
    if type(list) ~= "table" or list == json.null or #list == 0 then
        err.raise("usage", "dataset.paths: expected a list of prefixes, or of weights and prefixes in turn")
    end
    local zipped, prefixes, weights = #list % 2 == 0 and number_of(list[1]) ~= nil, {}, {}
    for i, item in ipairs(list) do
        local weight = number_of(item)
        if zipped and i % 2 == 1 then
            weights[#weights + 1] = weight and weight > 0 and weight < math.huge and weight
                or err.raise("usage", "dataset.paths: entry %d should be a weight above 0, not %s", i, tostring(item))
        elseif type(item) ~= "string" or (not zipped and #list > 1 and weight) then
            err.raise("usage", "dataset.paths: entry %d should be a prefix, not %s; weights and prefixes come in turn",
                i, tostring(item))
        else
            prefixes[#prefixes + 1] = strings.trim(item)
        end
    end
    return { prefixes = prefixes, weights = zipped and #prefixes > 1 and weights or nil }
end

-- Prefixes that a pattern of file names stands for.
local function prefixes_of(pattern)
    local seen, list = {}, {}
    for _, name in ipairs(glob.files(pattern)) do
        local prefix = name:match("^(.*)%.bin$") or name:match("^(.*)%.idx$")
        if prefix and not seen[prefix] then
            seen[prefix], list[#list + 1] = true, prefix
        end
    end
    if #list == 0 then
        err.raise("data", "dataset.paths: no .bin or .idx file is called \"%s\"", pattern)
    end
    table.sort(list)
    return list
end

local function from_json(name)
    local text, msg = path.read_file(name, MAX_BLEND_BYTES)
    if not text then
        err.raise("data", "dataset.paths: %s", msg)
    end
    local found, why = json.decode(text)
    if type(found) ~= "table" or found == json.null then
        err.raise("data", "%s: %s", name, found == nil and why or "neither a list nor an object")
    end
    return found
end

-- The blend of a split, and whether it is that split's own (and not a share of one for all).
local function choose_blend(paths, split)
    if type(paths) == "string" and paths:lower():find("%.json$") then
        paths = from_json(paths)
    elseif type(paths) == "string" and glob.is_pattern(paths) then
        paths = prefixes_of(paths)
    end
    if type(paths) == "string" or json.is_array(paths) or #paths > 0 then
        return blend_of(paths), false
    end
    local by_split = {}
    for key, list in pairs(paths) do
        key = aliases[key] or key
        if not SAMPLES[key] then
            err.raise("usage", "dataset.paths: %s is no split; there are train, validation and test", tostring(key))
        end
        by_split[key] = list ~= json.null and list or nil
    end
    return by_split[split] and blend_of(by_split[split])
        or err.raise("usage", "dataset.paths has nothing for the split %s", split), true
end

-- ---------------------------------------------------------------- shares and sizes

-- Where split number `which` begins and ends, from 0 to 1, of shares such as "900,50,50".
local function borders(split, which)
    local words, shares, text = {}, {}, tostring(split or "")
    if type(split) == "table" then -- "900,50,50" in YAML is a list
        for i, word in ipairs(split) do
            words[i] = word
        end
        text = table.concat(words, ",")
    else
        for word in text:gmatch("[.%d]+") do
            words[#words + 1] = word
        end
    end
    for i, word in ipairs(words) do
        shares[i] = number_of(word)
        if not shares[i] or shares[i] < 0 or shares[i] == math.huge then
            err.raise("usage", "dataset.split: \"%s\" is no share", word)
        end
    end
    if #shares == 0 or #shares > 3 then
        err.raise("usage", "dataset.split: expected one to three shares as in \"900,50,50\", not \"%s\"", text)
    end
    for i = #shares + 1, 3 do
        shares[i] = 0
    end
    if shares[1] + shares[2] + shares[3] <= 0 then
        err.raise("usage", "dataset.split: \"%s\" gives nothing to any split", text)
    end
    shares = blended_dataset.normalize(shares)
    local first = 0
    for i = 1, which - 1 do
        first = first + shares[i]
    end
    if first + shares[which] <= first then
        err.raise("usage", "dataset.split: \"%s\" gives nothing to %s", text, SPLITS[which])
    end
    return first, first + shares[which]
end

-- To the nearest whole number, halves to the even one, as Python rounds.
local function round(x)
    local low = math.floor(x)
    local over = x - low
    return (over > 0.5 or (over == 0.5 and low % 2 == 1)) and low + 1 or low
end

-- Rows of the split: what is asked for, or what the run takes; nil for one epoch.
local function num_samples(opts, split, own_blend)
    local steps = opts.trainer_max_steps
    local train = steps and steps ~= -1 and steps * opts.global_batch_size or nil
    local asked = opts[SAMPLES[split]]
    if opts.num_train_samples then
        if train and opts.num_train_samples < train then
            err.raise("usage", "dataset.num_train_samples is %d, less than the %d that max_steps (%d) times "
                .. "global_batch_size (%d) take", opts.num_train_samples, train, steps, opts.global_batch_size)
        end
        train = opts.num_train_samples
        steps = math.floor(train / opts.global_batch_size)
    end
    local limit = opts.trainer_limit_val_batches
    if split == "train" then
        return train
    elseif split == "test" or asked then
        return asked
    elseif limit % 1 ~= 0 then
        if not own_blend then
            err.raise("usage", "dataset.trainer_limit_val_batches: a share (%g) needs `paths` by split", limit)
        end
        return nil
    elseif not steps or steps == -1 then
        return nil
    end
    local validations = math.floor(steps / (opts.trainer_val_check_interval or 1000))
    return validations > 0 and validations * limit * opts.global_batch_size
        or err.raise("usage", "dataset: a run of %d steps that validates every %d leaves no validation; set "
            .. "step_scheduler.val_every_steps or dataset.num_val_samples", steps,
            opts.trainer_val_check_interval or 1000)
end

-- ---------------------------------------------------------------- building

local function split_name(wanted)
    if type(wanted) == "table" and #wanted == 1 then
        wanted = wanted[1]
    end
    wanted = wanted or "train"
    if not SAMPLES[wanted] then
        err.raise("usage", "dataset.splits_to_build must be one of train, validation and test, not %s",
            type(wanted) == "table" and "a list of several" or tostring(wanted))
    end
    return wanted
end

-- The split of the files of one prefix.
local function build_one(opts, prefix, split, from, to, samples)
    local indexed = indexed_dataset.open(prefix)
    return gpt_dataset.new {
        indexed = indexed, first = round(from * indexed.count), stop = round(to * indexed.count), split = split,
        num_samples = samples, seq_length = opts.seq_length, seed = opts.seed, cache_dir = opts.index_mapping_dir,
        pad_token_id = opts.tokenizer.pad_token_id, eos_token_id = opts.tokenizer.eos_token_id,
        vocab_size = math.min(opts.vocab_size or 2 ^ 31, 2 ^ 31), reset_position_ids = opts.reset_position_ids,
        reset_attention_mask = opts.reset_attention_mask, eod_mask_loss = opts.eod_mask_loss,
    }
end

local function build_blend(opts, blend, split, from, to, samples)
    local datasets, weights, size = {}, blend.weights and blended_dataset.normalize(blend.weights), 0
    if weights and not samples then
        err.raise("usage", "dataset.paths: weights need a number of samples; set dataset.%s, or "
            .. "step_scheduler.max_steps", SAMPLES[split])
    end
    for d, prefix in ipairs(blend.prefixes) do
        local share = weights and math.ceil(samples * weights[d])
        datasets[d] = build_one(opts, prefix, split, from, to, share and math.ceil(share * (1 + SURPLUS)))
        size = size + (share or datasets[d]:len())
    end
    if weights then
        return blended_dataset.new(datasets, weights, size)
    end
    local lengths = {}
    for d, dataset in ipairs(datasets) do
        lengths[d] = dataset:len()
    end
    return blended_dataset.new(datasets, lengths, samples and math.min(samples, size))
end

--- The rows of one split; opts: the keys of `fields`. All of .idx is read and checked.
function M.MegatronPretraining(opts)
    local all = {}
    for key, field in pairs(M.fields) do
        all[key] = opts[key] == nil and field.default or opts[key]
    end
    if all.object_storage_config ~= nil then
        err.raise("unsupported", "dataset.object_storage_config: data in object storage is not read; copy the .bin and "
            .. ".idx files to a disk")
    end
    local split = split_name(all.splits_to_build)
    local blend, own_blend = choose_blend(all.paths, split)
    local from, to = 0, 1
    if not own_blend then
        for i, name in ipairs(SPLITS) do
            if name == split then
                from, to = borders(all.split, i)
            end
        end
    end
    local samples = num_samples(all, split, own_blend)
    if #blend.prefixes == 1 then
        return build_one(all, blend.prefixes[1], split, from, to, samples)
    end
    return build_blend(all, blend, split, from, to, samples)
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.MegatronPretraining",
    aliases = {
        "nemo_automodel.components.datasets.llm.megatron_dataset.MegatronPretraining",
        "nemo_automodel.components.datasets.llm.megatron_dataset.MegatronPretrainingConfig",
    },
    doc = "documents of Megatron's .bin and .idx files, or a blend of them, cut into rows",
    fields = M.fields,
    build = M.MegatronPretraining,
} }

return M
