-- The data of the recipes for language models: datasets, packing, loaders, validation sets and metrics, the
-- audit, and guards over rows. Methods of llm.lua; formats and batches are am.datasets'.

local ffi = require("ffi")
local am = require("am")
local audit = require("am.datasets.audit")
local config = require("am.config")
local datasets = require("am.datasets")
local digest = require("am.utils.digest")
local err = require("am.core.error")
local log = require("am.utils.log")
local sections = require("am.recipes.sections")
local strings = require("am.utils.strings")
local training = require("am.training")

local Methods = {}

--- What a run learns and is validated on, and the loss.
function Methods:build_data()
    self.loss_fn = self:build_loss()
    self.loader = self:track("dataloader/dataloader_dp_rank_0.json", self:build_loader("dataset", "dataloader", true))
    self.validation_sets = self:build_validation_sets()
end

-- Do datasets keep rows or indices in a folder?
local function keeps_rows(cfg)
    for _, key in ipairs(cfg:keys()) do
        if (key == "dataset" or sections.validation_name(key))
            and (cfg:has(key .. ".cache_dir") or cfg:has(key .. ".index_mapping_dir")) then
            return true
        end
    end
    return false
end

-- Add the numbers of a row's lists to `list`. Its words are left out: hosts may have the same rows in other folders.
local function add_numbers(row, list)
    for _, key in ipairs(strings.sorted_keys(row)) do
        local value = row[key]
        if type(value) == "table" and type(value[1]) == "number" then
            list[#list + 1] = key .. " " .. table.concat(value, " ")
        end
    end
end

local ROWS_COMPARED = 8

-- What ranks that have the same rows say alike of a loader: how many there are, and a digest of some.
local function rows_text(loader)
    local dataset, n, list = loader.dataset, loader.num_rows, {}
    if not n then -- a stream
        add_numbers(loader:sample_row(), list)
    end
    for k = 0, n and not dataset.has_pictures and ROWS_COMPARED - 1 or -1 do
        add_numbers(dataset:get(1 + math.floor(k * (n - 1) / (ROWS_COMPARED - 1))), list)
    end
    return ("%s rows, digest %s"):format(n or "a stream of", digest.text(table.concat(list, "\n")):sub(1, 12))
end

-- Raise "usage" where a rank has other rows: each takes its part of what all must have.
local function check_rows(self)
    local lines = self.world:together(function()
        local lines = { "dataset: " .. rows_text(self.loader) }
        for i, set in ipairs(self.validation_sets) do
            lines[i + 1] = ("validation set %s: %s"):format(set.name, rows_text(set.loader))
        end
        return lines
    end)
    self.world:check_equal("the data", table.concat(lines, "\n"))
end

--- build_data on all ranks, where rows are kept on one of each host first.
function Methods:share_data()
    local world = self.world
    if keeps_rows(self.cfg) then
        world:first_of_host(self.build_data, self)
    else
        world:together(self.build_data, self)
    end
    if world.size > 1 then
        check_rows(self)
    end
end

-- Rows for a dataset section. The tokenizer and the vocabulary's size are handed to those that ask.
function Methods:build_dataset(section)
    local entry, given = self.ctx.registry:lookup(section:get("_target_") or ""), {}
    local fields = entry and entry.fields or { vocab_size = true }
    if not entry and not section:has("tokenizer") then -- a user's own dataset may ask for anything that there is
        given.tokenizer = self:find_tokenizer()
    elseif fields.tokenizer and fields.tokenizer.required and not section:has("tokenizer") then
        given.tokenizer = self:get_tokenizer()
    end
    if fields.vocab_size and not section:has("vocab_size") then
        given.vocab_size = self.model.config.vocab_size
    end
    if fields.trainer_max_steps then -- rows are counted by steps
        local sizes = training.batch_sizes(self:section("step_scheduler"), self.cfg:get("dataloader.batch_size"),
                                           self.mesh:size("dp"))
        local known = { global_batch_size = sizes.global_batch_size,
                        trainer_max_steps = self.cfg:get("step_scheduler.max_steps"),
                        trainer_val_check_interval = self.cfg:get("step_scheduler.val_every_steps") }
        for key, value in pairs(known) do
            if not section:has(key) then
                given[key] = value
            end
        end
    end
    return config.instantiate(section, self.ctx, given)
end

-- A loader from two sections: rows for validation are never packed, shuffled or cut.
function Methods:build_loader(dataset_key, loader_key, for_training)
    local cfg = self.cfg
    local dataset = self:build_dataset(cfg:child(dataset_key))
    local size = for_training and self:pack_size() or 0
    if for_training then
        for _, line in ipairs(self:audit(dataset, { color = log.colored() })) do
            self.log:info("%s", line)
        end
    end
    if dataset.stats then
        self.log:info("%s: %s", dataset_key:gsub("dataset", "data", 1), datasets.describe(dataset:stats()))
        local longest = dataset:stats().longest
        if size == 0 or longest.length <= size then -- longer ones are dropped or split by packing
            self:check_length(longest.length, longest.name)
        end
    end
    if size > 0 then
        dataset = self:pack(dataset)
        local stats = not cfg:get("packed_sequence.prepacked") and dataset:stats()
        local say = stats and stats.skipped > 0 and self.log.warning or self.log.info
        say(self.log, "packed into %d rows of %d tokens%s", dataset:len(), size,
            stats and ": " .. datasets.describe(stats) or "")
    end
    local section = cfg:child(loader_key)
    local sizes = training.batch_sizes(self:section("step_scheduler"), cfg:get("dataloader.batch_size"),
                                       self.mesh:size("dp"))
    local given = { dataset = dataset, seed = self.seed, batch_size = sizes.local_batch_size,
                    step_rows = sizes.global_batch_size, processor = self.processor,
                    rank = self.mesh:rank("dp"), ranks = self.mesh:size("dp") }
    if not section or not section:has("collate_fn") then
        given.collate_fn = function(rows) return self:collate(rows) end
    end
    if not for_training then
        given.shuffle, given.drop_last, given.group_by_length = false, false, false
        given.batch_size = section and section:get("batch_size") or sizes.local_batch_size
    end
    local loader = config.instantiate(section or config.from_table {}, self.ctx, given,
                                      { default_target = "am.datasets.StatefulDataLoader" })
    if dataset.is_iterable then
        self:check_length(#loader:sample_row().input_ids, "the first row")
    end
    return loader
end

--- Tokens of a pack, 0 where rows are not packed.
function Methods:pack_size()
    return self.cfg:get("packed_sequence.packed_sequence_size") or 0
end

--- A dataset packed as the `packed_sequence` section says.
function Methods:pack(dataset)
    local options = self:section("packed_sequence")
    options.padding_id = self:padding_id()
    return datasets.pack_dataset(dataset, options)
end

--- A loader's first row as a batch, for a look at it.
function Methods.sample_batch(_, loader)
    return loader.collate_fn { loader:sample_row() }
end

--- Rows to a batch, where a dataloader section names no collate_fn.
function Methods:collate(rows)
    return datasets.default_collater(rows, { pad_token_id = self:padding_id() })
end

--- Look at a few rows of the training data as they will be learnt, and say what is odd about them, in lines (opts:
--- those of a report's lines). Raises "data" where nothing is learnt. No lines where data_audit.enabled is false,
--- and of rows of ids without a tokenizer.
function Methods:audit(dataset, opts)
    if not self.cfg:get("data_audit.enabled", true) then
        return {}
    end
    local tokenizer = self:find_tokenizer()
    if not tokenizer or not tokenizer.decode then
        return {}
    end
    return audit.run(dataset, tokenizer, { rows = 200, check_end = self.learns_to_end }):lines(opts)
end

--- Do rows end in a token that ends a text? Recipes whose rows are cut out of a stream say no.
Methods.learns_to_end = true

--- The validation sets in the configuration's order, { name, loader }: validation_dataset is "default",
--- validation_dataset_NAME is NAME, with validation_dataloader_NAME if there is one.
function Methods:build_validation_sets()
    local sets = {}
    for _, key in ipairs(self.cfg:keys()) do
        local name = sections.validation_name(key)
        if name then
            local own = "validation_dataloader_" .. name
            sets[#sets + 1] = { name = name,
                                loader = self:build_loader(key, self.cfg:has(own) and own or "validation_dataloader") }
        end
    end
    return sets
end

function Methods:validation_names()
    local names = {}
    for i, set in ipairs(self.validation_sets or {}) do
        names[i] = set.name
    end
    return names
end

--- The numbers of a validation's record that a configuration may go by, as a set of keys.
function Methods:validation_keys()
    local keys = { val_loss = true }
    for _, metric in ipairs(self:build_metrics()) do
        keys["val_" .. metric.name] = true
    end
    return keys
end

--- New metrics, as the `metrics` section names them. Raises "usage" for one that can't be added up over ranks.
function Methods:build_metrics()
    local list = self:build_list("metrics")
    for _, metric in ipairs(self.world.size > 1 and list or {}) do
        if not (metric.totals and metric.set_totals) then
            err.raise("usage", "the metric %s has no totals and set_totals, which it needs with several ranks",
                      tostring(metric.name))
        end
    end
    return list
end

-- Padding is never seen by attention nor learnt, so any id of the vocabulary does.
function Methods:padding_id()
    local id = self.model.config.pad_token_id
    return type(id) == "number" and id >= 0 and id or 0
end

--- The validation sets, or an error that says how to have one.
function Methods:need_validation_set()
    self:need_setup()
    return #self.validation_sets > 0 and self.validation_sets
        or err.raise("state", "there is nothing to evaluate on: the configuration has no validation_dataset section")
end

-- The keys of a dataset's section that make rows shorter.
Methods.cut_by = { length = "seq_length", cut = "truncation" }

function Methods:check_length(length, name)
    local limit = am.models.position_limit(self.model.config)
    if length > limit then
        err.raise("data", "%s has %d tokens, more than the %d positions of the model; shorten it, or cut text with "
                  .. "dataset.%s of at most %d and %s: true", name, length, limit, self.cut_by.length, limit,
                  self.cut_by.cut)
    end
end

-- The highest position of a batch, plus 1, and the row that has it.
local function longest_of(batch)
    local longest, at = 0, 0
    for i = 0, batch.B * batch.T - 1 do
        if batch.position_ids[i] >= longest then
            longest, at = batch.position_ids[i] + 1, math.floor(i / batch.T)
        end
    end
    return longest, at
end

-- Datasets that count their rows were checked when they were built.
function Methods:check_batch(batch)
    local longest, at = longest_of(batch)
    self:check_length(longest, batch.names and batch.names[at + 1] or "a row")
end

--- What the model sees of a batch, forward's arguments. int32(array, shape): makes a tensor of a C array.
function Methods.inputs(_, batch, int32)
    return {
        longest = longest_of(batch),
        input_ids = int32(batch.input_ids, { batch.B, batch.T }),
        position_ids = int32(batch.position_ids, { batch.B, batch.T }),
        bounds = int32(batch.bounds, { batch.B, batch.T, 2 }),
        samples = batch.samples,
        part = batch.part, -- of rows that ranks share
    }
end

--- A function (array, shape) that makes a tensor on a device of a C array of int32.
function Methods.int32_on(device)
    return function(array, shape)
        return am.from_buffer(array, shape, { dtype = "int32", device = device })
    end
end

--- What a model's forward gives for a batch, without logits; and int32(array, shape), as inputs has it.
function Methods:run_model(model, batch)
    local int32 = Methods.int32_on(model:device())
    local inputs = self:inputs(batch, int32)
    inputs.logits_to_keep = false
    return model:forward(inputs), int32
end

--- A model's states after the last norm where a batch has labels [N, C], and these labels, int32 [N]. all: the states
--- and labels of all places.
function Methods:label_states(model, batch, all)
    local out, int32 = self:run_model(model, batch)
    local n = batch.B * batch.T
    if model == self.model and model.training then
        self.balance = out.aux_loss -- objective's
    end
    local hidden, labels = out.hidden_states, int32(batch.labels, { n })
    hidden = hidden:reshape(n, hidden:size(2))
    if all then
        return hidden, labels
    end
    return self:labelled(batch, hidden, labels)
end

--- Of states and labels of all places those where a batch has labels; all, where it has none.
function Methods:labelled(batch, hidden, labels)
    local n, count = batch.B * batch.T, batch.num_label_tokens
    if count == 0 or count == n then
        return hidden, labels
    end
    local rows = am.from_buffer(self.labelled_rows(batch), { count }, { dtype = "int32", device = hidden:device() })
    return hidden:index_select(0, rows), labels:index_select(0, rows)
end

--- Where a batch has labels: a C array of its num_label_tokens places in [B T].
function Methods.labelled_rows(batch)
    local rows, count = ffi.new("int32_t[?]", batch.num_label_tokens), 0
    for i = 0, batch.B * batch.T - 1 do
        if batch.labels[i] ~= datasets.IGNORE then
            rows[count] = i
            count = count + 1
        end
    end
    return rows
end

--- Windows of micro-batches, with the time that they take to come. Between them a checkpoint that is being written is
--- looked after.
function Methods:timed_windows()
    local next_window = self.scheduler:windows(self.loader)
    return function()
        self:poll_saving()
        return self:timed_rank(self.timers.timed, self.timers, "data", 1, next_window)
    end
end

return Methods
