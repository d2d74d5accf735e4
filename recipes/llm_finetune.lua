-- Fine-tune a causal language model: full SFT, or LoRA with a `peft` section. The whole run is here:
-- setup builds the parts that the configuration names, train is the loop, step is one optimizer step.
--
--   amlua recipes/llm_finetune.lua config.yaml [--section.key value]
--
-- Every build_* method and step, evaluate, save_model can be replaced by a recipe that extends this
-- one: see examples/custom/.

local ffi = require("ffi")
local am = require("am")
local base = require("am.recipes.base")
local checkpoint = require("am.checkpoint")
local config = require("am.config")
local console = require("am.loggers.console")
local collate = require("am.datasets.collate")
local dataloader = require("am.datasets.dataloader")
local datasets = require("am.datasets.utils")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local memory = require("am.recipes.memory")
local packed = require("am.datasets.packed")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local rng = require("am.training.rng")
local schedule = require("am.optim.scheduler")
local step_scheduler = require("am.training.step_scheduler")
local weights = require("am.models.weights")

local Recipe = base.extend("llm_finetune")
Recipe.doc = "Fine-tune a causal language model, fully or with LoRA."

function Recipe.schema()
    local fields = base.schema()
    local loader = { target = true, default_target = "am.StatefulDataLoader", doc = "batches" }
    for key, spec in pairs {
        model = { target = true, required = true, doc = "the model" },
        peft = { target = true, default_target = "am.PeftConfig", doc = "LoRA; absent: full fine-tuning" },
        optimizer = { target = true, required = true, doc = "the optimizer" },
        lr_scheduler = { target = true, default_target = "am.optim.OptimizerParamScheduler",
                         doc = "absent: a constant learning rate" },
        loss_fn = { target = true, default_target = "am.loss.FusedLinearCrossEntropy", doc = "the loss" },
        dataset = { target = true, required = true, doc = "training data" },
        dataloader = loader,
        validation_dataset = { target = true, doc = "absent: no validation" },
        validation_dataloader = loader,
        packed_sequence = { fields = packed.fields, doc = "several samples in a row" },
        step_scheduler = { fields = step_scheduler.fields, doc = "batch sizes and length of the run" },
        clip_grad_norm = { fields = { max_norm = { type = "number", above = 0, null = true } },
                           doc = "max_norm 1.0; null: off" },
        tokenizer = { target = true, default_target = "am.AutoTokenizer.from_pretrained",
                      doc = "the model's by default" },
        rng = { target = true, default_target = "am.training.StatefulRNG", doc = "seed of the run" },
        device = { type = "string", default = "cpu", doc = "where to compute" },
        distributed = { type = "any", doc = "accepted for one process" },
        dist_env = { type = "any", doc = "accepted for one process" },
        wandb = { type = "any", doc = "accepted; training.jsonl holds the same numbers" },
    } do
        fields[key] = spec
    end
    return fields
end

-- ---- setup ----------------------------------------------------------------------------------

function Recipe:setup()
    local cfg, C = self.cfg, edge.C
    self.seed = cfg:get("rng.seed") or cfg:get("seed") or 42
    self.rng = self:track("rng/rng_dp_rank_0.json", rng.StatefulRNG { seed = self.seed, engine = C })
    self.ctx.device = cfg:get("device") or "cpu"
    self:check_one_process()
    self.model = self:build_model()
    self.ctx.vocab_size = self.model.config.vocab_size
    self.ctx.tokenizer = function() return self:get_tokenizer() end
    self.loss_fn = self:build_loss()
    self.loader = self:track("dataloader/dataloader_dp_rank_0.json", self:build_loader("", true))
    self.validation_loader = cfg:has("validation_dataset") and self:build_loader("validation_", false) or nil
    self.ctx.named_parameters = self.model:named_parameters()
    self:check_memory()
    self.optimizer = self:build_optimizer()
    self.scheduler = self:track("step_scheduler.json", self:build_step_scheduler())
    self.lr_schedule = self:build_lr_schedule()
    if self.lr_schedule then
        self:track("optim/lr_scheduler.json", self.lr_schedule)
    end
    self:track("optim/optimizer.json", self.optimizer)
    self.restored = self:load_checkpoint()
    self:open_logs(self.scheduler.step)
    self:log_summary()
end

function Recipe:check_one_process()
    local strategy = self.cfg:child("distributed")
    for _, key in ipairs { "dp_size", "tp_size", "cp_size", "pp_size", "ep_size", "dp_replicate_size" } do
        local n = strategy and strategy:get(key)
        if type(n) == "number" and n > 1 then
            err.raise("unsupported", "%s: distributed.%s is %d, but this run has one process", strategy:where(key),
                      key, n)
        end
    end
end

function Recipe:build_model()
    local model = config.instantiate(self.cfg:child("model"), self.ctx)
    if self.cfg:has("peft") then
        local wanted = config.instantiate(self.cfg:child("peft"), self.ctx, {}, { default_target = "am.PeftConfig" })
        self.peft_config = am.peft.apply(model, wanted)
    end
    return model
end

function Recipe:get_tokenizer()
    if not self.tokenizer then
        local section = self.cfg:child("tokenizer")
        self.tokenizer = section
            and config.instantiate(section, self.ctx, {}, { default_target = "am.AutoTokenizer.from_pretrained" })
            or am.AutoTokenizer.from_pretrained(self.model.name_or_path)
    end
    return self.tokenizer
end

function Recipe:build_loss()
    local section = self.cfg:child("loss_fn")
    if not section then
        return am.loss.MaskedCrossEntropy {}
    end
    return config.instantiate(section, self.ctx, {}, { default_target = "am.loss.FusedLinearCrossEntropy" })
end

-- prefix "" for training, "validation_" for validation, which is never packed, shuffled or cut.
function Recipe:build_loader(prefix, training)
    local cfg = self.cfg
    local dataset = config.instantiate(cfg:child(prefix .. "dataset"), self.ctx)
    local size = training and cfg:get("packed_sequence.packed_sequence_size") or 0
    if dataset.stats then
        self.log:info("%sdata: %s", prefix, datasets.describe(dataset:stats()))
    end
    if size > 0 then
        local options = cfg:child("packed_sequence"):to_table()
        options.padding_id = self:padding_id()
        dataset = packed.pack_dataset(dataset, options)
        self.log:info("packed into %d rows of %d tokens", dataset:len(), size)
    end
    local section = cfg:child(prefix .. "dataloader")
    local options = section and config.instantiate(section, self.ctx, {}, { default_target = "am.StatefulDataLoader" })
        or {}
    local pad = self:padding_id()
    local shuffle = training and options.shuffle
    if training and shuffle == nil then
        shuffle = true
    end
    local sizes = step_scheduler.batch_sizes(self:section("step_scheduler"), cfg:get("dataloader.batch_size"))
    return dataloader.StatefulDataLoader {
        dataset = dataset, seed = self.seed, shuffle = shuffle,
        batch_size = not training and options.batch_size or sizes.local_batch_size,
        drop_last = training and options.drop_last,
        collate_fn = options.collate_fn
            or function(rows) return collate.default_collater(rows, { pad_token_id = pad }) end,
    }
end

-- A section as a plain table; empty when absent.
function Recipe:section(name)
    local node = self.cfg:child(name)
    return node and node:to_table() or {}
end

-- Padding is never seen by attention nor learnt, so any id of the vocabulary does.
function Recipe:padding_id()
    local id = self.model.config.pad_token_id
    return type(id) == "number" and id >= 0 and id or 0
end

function Recipe:check_memory()
    local batch = self.loader.collate_fn { self.loader.dataset:get(1) }
    local options = self:section("optimizer")
    options.kind = (options._target_ or ""):match("[^.]+$"):lower()
    local size = self.scheduler and self.scheduler.local_batch_size or self.loader.batch_size
    local longest = self.loader.dataset.stats and self.loader.dataset:stats().longest
    local tokens = size * math.max(batch.T, longest and longest.length or 0)
    memory.check(memory.optimizer_bytes(self.model, options) + memory.activation_bytes(self.model, tokens), tokens,
                 string.format("%d rows", size))
end

function Recipe:build_optimizer()
    return config.instantiate(self.cfg:child("optimizer"), self.ctx)
end

function Recipe:build_step_scheduler()
    local options = self:section("step_scheduler")
    options.loader_batch_size = self.cfg:get("dataloader.batch_size")
    options.batches_per_epoch = self.loader:len()
    options.stop_requested = function() return self:stop_requested() end
    return step_scheduler.new(options)
end

function Recipe:build_lr_schedule()
    if not self.cfg:has("lr_scheduler") then
        return nil
    end
    local options = config.instantiate(self.cfg:child("lr_scheduler"), self.ctx, {},
                                       { default_target = "am.optim.OptimizerParamScheduler" })
    local group = self.optimizer.param_groups[1]
    return schedule.from_config(options, { lr = group.lr, weight_decay = group.weight_decay,
                                           total_steps = self.scheduler:total_steps(), optimizer = self.optimizer })
end

function Recipe:log_summary()
    local total, trainable = self.model:num_parameters()
    self.log:info("amlua %s on %s, %d threads, %s; seed %d", am.version, posix.hostname(), edge.C.am_threads(),
                  ffi.string(edge.C.am_cpu_isa()), self.seed)
    self.log:info("model %s: %s, %s", self.model.name_or_path or "(new)", self.model.class_name, self.model:dtype())
    self.log:info("Trainable parameters %d / Total %d (%.2f %%) | Param L2 norm %.4f", trainable, total,
                  100 * trainable / total, self.optimizer:param_norm())
end

-- ---- the loop -------------------------------------------------------------------------------

function Recipe:train()
    local scheduler = self.scheduler
    if scheduler.step >= scheduler:total_steps() then
        self.log:info("the run is complete at step %d; raise step_scheduler.max_steps or num_epochs to go on",
                      scheduler.step)
    end
    self.model:train()
    for epoch in scheduler:epochs() do
        for window in scheduler:windows(self.loader) do
            local metrics = self:step(window)
            self:log_step(epoch, metrics)
            local losses = { train_loss = metrics.loss }
            if self.validation_loader and scheduler:is_val_step() then
                losses.val_loss = self:evaluate(epoch)
            end
            if scheduler:is_ckpt_step() then
                self:save_checkpoint(epoch, scheduler.step, losses, scheduler:is_last_step())
            end
        end
    end
end

--- One optimizer step over a window of micro-batches. Returns loss, grad_norm and token counts.
function Recipe:step(window)
    local started, label_tokens, tokens, loss = edge.C.am_clock(), 0, 0, 0
    for _, batch in ipairs(window) do
        self:check_batch(batch)
        label_tokens, tokens = label_tokens + batch.num_label_tokens, tokens + batch.num_tokens
    end
    local scale = 1 / math.max(label_tokens, 1)
    for _, batch in ipairs(window) do
        loss = loss + am.scope(function()
            local sum = self:loss(batch)
            local value = sum:item()
            if value ~= value or value == math.huge then
                self:not_finite("loss", value)
            end
            (sum * scale):backward()
            return value
        end)
    end
    local max_norm = self.cfg:get("clip_grad_norm.max_norm", not self.cfg:has("clip_grad_norm.max_norm") and 1.0 or nil)
    local grad_norm, factor = self.optimizer:clip_grad_norm(max_norm)
    if grad_norm ~= grad_norm or grad_norm == math.huge then
        self:not_finite("gradient norm", grad_norm)
    end
    self.optimizer:step(factor)
    self.optimizer:zero_grad()
    if self.lr_schedule then
        self.lr_schedule:step(1)
    end
    return { loss = loss * scale, grad_norm = grad_norm, num_label_tokens = label_tokens, num_tokens = tokens,
             seconds = edge.C.am_clock() - started }
end

--- Sum of the loss over a batch's label tokens.
function Recipe:loss(batch)
    local device, n = self.model:device(), batch.B * batch.T
    local function int32(array, shape)
        return am.from_buffer(array, shape, { dtype = "int32", device = device })
    end
    local out = self.model:forward {
        input_ids = int32(batch.input_ids, { batch.B, batch.T }),
        position_ids = int32(batch.position_ids, { batch.B, batch.T }),
        bounds = int32(batch.bounds, { batch.B, batch.T, 2 }),
        logits_to_keep = false,
    }
    local hidden = out.hidden_states
    return self.loss_fn(hidden:reshape(n, hidden:size(2)), int32(batch.labels, { n }), {
        head = function(h) return self.model:head(h) end,
        head_weight = self.model:head_weight(),
        num_label_tokens = batch.num_label_tokens,
    })
end

function Recipe:check_batch(batch)
    local limit, longest = self.model.config.max_position_embeddings, 0
    for i = 0, batch.B * batch.T - 1 do
        longest = math.max(longest, batch.position_ids[i] + 1)
    end
    if limit and longest > limit and not self.model.config.rope_scaling then
        err.raise("data", "a row of %d tokens is longer than the %d positions of the model; set "
                  .. "dataset.seq_length to at most %d with truncation: true", longest, limit, limit)
    end
end

function Recipe:not_finite(what, value)
    local latest = checkpoint.resolve(self:checkpoint_dir())
    err.raise("state", "step %d: the %s is %s, so the run stops; a lower optimizer.lr or clip_grad_norm.max_norm "
              .. "may help. %s", self.scheduler.step, what, tostring(value), latest
              and "The last good state is " .. latest or "No checkpoint was written yet")
end

--- Mean loss over the validation set; every row counts by its label tokens.
function Recipe:evaluate(epoch)
    local sum, count = 0, 0
    self.model:eval()
    rng.scoped({ seed = 1, engine = edge.C }, am.no_grad, function()
        for batch in self.validation_loader:batches() do
            sum = sum + am.scope(function() return self:loss(batch):item() end)
            count = count + batch.num_label_tokens
        end
    end)
    self.model:train()
    local record = { step = self.scheduler.step, epoch = epoch or self.scheduler.epoch, val_loss = sum / math.max(count, 1),
                     lr = self.optimizer.param_groups[1].lr, num_label_tokens = count, mem = self:memory_gib() }
    self.log:info("%s", console.val_line("default", record))
    if self.validation_log then
        self.validation_log:write(record)
    end
    return record.val_loss
end

function Recipe:memory_gib()
    return am.memory(self.model:device()).peak_bytes / 2 ^ 30
end

function Recipe:log_step(epoch, metrics)
    local tps = metrics.num_tokens / metrics.seconds
    local record = { step = self.scheduler.step, epoch = epoch, loss = metrics.loss, grad_norm = metrics.grad_norm,
                     lr = self.optimizer.param_groups[1].lr, mem = self:memory_gib(), tps = tps, tps_per_gpu = tps,
                     num_tokens_per_step = metrics.num_tokens, num_label_tokens = metrics.num_label_tokens }
    self.log:info("%s", console.train_line(record))
    self.training_log:write(record)
end

-- ---- checkpoints ----------------------------------------------------------------------------

function Recipe:signature()
    local c = self.model.config
    return { architecture = self.model.class_name, hidden_size = c.hidden_size, vocab_size = c.vocab_size,
             num_hidden_layers = c.num_hidden_layers, dtype = self.model:dtype(), peft = self.peft_config ~= nil }
end

local function optimizer_tensors(optimizer)
    local list = {}
    for name, what, t in optimizer:state_tensors() do
        list[#list + 1] = { "state." .. name .. "." .. what, t }
    end
    return list
end

local function model_tensors(model)
    local list = {}
    for name, t in model:named_parameters() do
        list[#list + 1] = { name, t }
    end
    return list
end

local SHARD = "shard-00001-model-00001-of-00001.safetensors"

function Recipe:save_model(dir, is_last)
    local into = path.join(dir, "model")
    path.mkdir_p(into)
    if self.peft_config then
        am.peft.save_adapter(self.model, into, self.peft_config)
        self:save_tokenizer(into)
    else
        checkpoint.write_tensors(path.join(into, SHARD), model_tensors(self.model))
        local when = self:checkpoint_setting("save_consolidated")
        if when == true or when == "every" or (when == "final" and is_last) then
            local consolidated = path.join(into, "consolidated")
            weights.save(self.model, consolidated, { numbered = true })
            self:save_tokenizer(consolidated)
        end
    end
    checkpoint.write_tensors(path.join(dir, "optim", "optimizer.safetensors"), optimizer_tensors(self.optimizer))
end

function Recipe:save_tokenizer(dir)
    if self.tokenizer and self.tokenizer.save_pretrained then
        self.tokenizer:save_pretrained(dir)
    end
end

function Recipe:load_model(dir)
    if self.peft_config then
        am.peft.restore_adapter(self.model, path.join(dir, "model"))
    else
        checkpoint.read_tensors(path.join(dir, "model", SHARD), model_tensors(self.model))
    end
    checkpoint.read_tensors(path.join(dir, "optim", "optimizer.safetensors"), optimizer_tensors(self.optimizer))
end

return Recipe
