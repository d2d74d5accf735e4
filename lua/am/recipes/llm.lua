-- What recipes for language models share: the sections of their configuration, building the parts that
-- those name, and guards. Data is llm_data.lua's, the model's side of a checkpoint llm_checkpoint.lua's; loops
-- are in recipes/.

local ffi = require("ffi")
local am = require("am")
local base = require("am.recipes.base")
local checkpoint = require("am.checkpoint")
local config = require("am.config")
local datasets = require("am.datasets")
local early_stopping = require("am.training.early_stopping")
local edge = require("am.core.ffi")
local ema = require("am.training.ema")
local err = require("am.core.error")
local flops = require("am.recipes.flops")
local hooks = require("am.training.hooks")
local json = require("am.utils.json")
local loggers = require("am.loggers")
local memory = require("am.recipes.memory")
local packed = require("am.core.packed")
local path = require("am.utils.path")
local own_schedule = require("am.optim.own_schedule")
local posix = require("am.utils.posix")
local qlora = require("am.quantization.qlora")
local rank_times = require("am.recipes.rank_times")
local samples = require("am.recipes.samples")
local schedule = require("am.optim.scheduler")
local sections = require("am.recipes.sections")
local trackers = require("am.recipes.trackers")
local training = require("am.training")
local weights = require("am.models.weights")

local Recipe = base.extend("llm")

function Recipe.schema()
    local fields = sections.with(base.schema(), sections.training(), loggers.schema)
    local loader = { target = true, default_target = "am.datasets.StatefulDataLoader", doc = "batches" }
    for key, spec in pairs {
        model = { target = true, required = true, of = "^am%.AutoModel", doc = "the model" },
        peft = { target = true, of = "^am%.PeftConfig$", default_target = "am.PeftConfig",
                 doc = "LoRA; absent: full fine-tuning" },
        optimizer = { target = true, required = true, of = "^am%.optim%.", doc = "the optimizer" },
        lr_scheduler = { target = true, default_target = "am.optim.OptimizerParamScheduler",
                         doc = "absent: a constant learning rate" },
        loss_fn = { target = true, of = "^am%.loss%.%w*CrossEntropy$",
                    default_target = "am.loss.FusedLinearCrossEntropy", doc = "the loss" },
        dataset = { target = true, required = true, of = "^am%.datasets%.", given = { "tokenizer" },
                    doc = "training data" },
        dataloader = loader,
        validation_dataset = { target = true, given = { "tokenizer" }, doc = "absent: no validation" },
        ["validation_dataset_*"] = { target = true, given = { "tokenizer" },
                                     doc = "further ones, each with a name" },
        validation_dataloader = sections.with({ fields = sections.validation_dataloader }, loader),
        ["validation_dataloader_*"] = sections.with({ fields = sections.validation_dataloader }, loader),
        metrics = { type = "list", items = { type = "object" }, doc = "what validation measures beside the loss" },
        ema = { fields = ema.fields, doc = "averages of the weights, which are validated and exported" },
        early_stopping = { fields = early_stopping.fields, doc = "end the run when validation gets no better" },
        samples = { fields = samples.fields, doc = "answers to fixed prompts, at every validation" },
        hooks = { type = "list", items = { type = "object" }, doc = "what else goes beside training" },
        packed_sequence = { fields = sections.with(datasets.packed_sequence_fields, sections.packed_sequence),
                            doc = "several samples in a row" },
        step_scheduler = { fields = training.step_scheduler_fields, doc = "batch sizes and length of the run" },
        grad_scaler = { target = true, default_target = "am.training.GradScaler", doc = "the loss scale of float16" },
        clip_grad_norm = { fields = { max_norm = { type = "number", above = 0, null = true } },
                           doc = "max_norm 1.0; null: off" },
        tokenizer = { target = true, default_target = "am.AutoTokenizer.from_pretrained",
                      doc = "the model's by default" },
        rng = { target = true, default_target = "am.training.StatefulRNG", doc = "seed of the run" },
        device = { type = "string", doc = "where to compute: cpu, cuda (this rank's GPU), cuda:0; a GPU where "
                       .. "there is one" },
        neftune = { fields = am.peft.neftune_fields, doc = "noise on embeddings while training" },
        timers = { fields = rank_times.timer_fields, doc = "where a step's time goes" },
        data_audit = { fields = { enabled = { type = "boolean", default = true, doc = "false: begin without it" } },
                       doc = "a look at the training data before the first step" },
        freeze_config = { fields = {
            freeze_embeddings = { type = "boolean", default = false, doc = "leave embeddings as they are" },
            freeze_language_model = { type = "boolean", default = false, doc = "leave all but the head" },
            freeze_vision_tower = { type = "boolean", no_effect = "there is none" },
            freeze_audio_tower = { type = "boolean", no_effect = "there is none" },
        }, doc = "parts that are not trained" },
    } do
        fields[key] = spec
    end
    return fields
end

-- ---- building -------------------------------------------------------------------------------

-- A few numbers of every matrix in one: two checkpoints of one shape are told apart.
local function fingerprint(model)
    local sum = 0
    for _, t in model:named_parameters() do
        t = packed.is(t) and t.bytes or t
        local row = t:detach():reshape(t:numel()):narrow(0, 0, math.min(t:numel(), 16))
        local values, n = row:to("float64"):to_buffer()
        for i = 0, n - 1 do
            sum = (sum * 1.25 + values[i]) % 1024
        end
    end
    return sum == sum and sum or -1
end

--- The seed of everything: `seed`, or that of an rng section.
function Recipe:choose_seed()
    local seed, other = self.cfg:get("seed"), self.cfg:get("rng.seed")
    if seed and other and seed ~= other then
        self.log:warning("rng.seed is %s and seed is %s: rng.seed counts", other, seed)
    end
    return other or seed or 42
end

--- Can several ranks share what the recipe does?
Recipe.takes_ranks = true

--- Raise "usage" where there are other ranks than the recipe takes, or than the distributed section speaks of; else
--- self.mesh is how they share the run.
function Recipe:check_ranks()
    if self.world.size > 1 and not self.takes_ranks then
        err.raise("usage", "%s runs in one process, and %s started %d", self.name, self.world.place.by, self.world.size)
    end
    self.world:check_equal("amlua", am.version)
    self.world:check_equal("the configuration", config.print(self.cfg)) -- what follows is then alike on all
    self.mesh = self.world:together(self.build_mesh, self)
    if self.mesh:size("pp") > 1 then
        self.world:together(self.prepare_stages, self)
    end
    self:check_folder()
end

--- Raise "usage" unless all ranks train the same weights.
function Recipe:check_replicas()
    if self.world.size > 1 then
        self.world:check_equal("the model", ("base weights %s, norm %.17g")
            :format(self.base_weights, self.optimizer:param_norm()))
        self:check_copies()
    end
end

--- The norm that gradients are cut to; nil: they are not.
function Recipe:max_norm()
    return sections.max_norm(self.cfg)
end

--- What the model's section is built with: self.ctx, and what the section `quantization` asks for.
function Recipe:model_context()
    return setmetatable({ quantize = qlora.new(self:section("quantization")) }, { __index = self.ctx })
end

function Recipe:build_model()
    local before = am.memory(self.ctx.device).live_bytes
    local model = config.instantiate(self.cfg:child("model"), self:model_context())
    -- weights that were converted are in memory from now on; others are still in their file
    self.model_allocated = am.memory(self.ctx.device).live_bytes - before
    self.base_weights = model.resolved_path and am.scope(fingerprint, model) or nil
    self.stored_dtype = model:dtype() -- strategies may compute in another
    self:freeze(model)
    if self.cfg:has("neftune") then
        am.peft.neftune(model, self.cfg:get("neftune.noise_alpha", 5))
    end
    model.model.activation_checkpointing = sections.activation_checkpointing(self.cfg)
        or model.model.activation_checkpointing
    if self.cfg:has("peft") then
        local wanted = config.instantiate(self.cfg:child("peft"), self.ctx, {}, { default_target = "am.PeftConfig" })
        local ok, applied = pcall(am.peft.apply, model, wanted)
        if not ok then
            error(err.within(applied, "peft, " .. self.cfg:child("peft"):where()), 0)
        end
        self.peft_config = applied
    end
    self.qat = self:apply_qat(model)
    self:apply_fp8(model)
    return model
end

-- The parts that freeze_config names: tables that tokens and positions are looked up in (a tied head is frozen with
-- them), or the whole body.
function Recipe:freeze(model)
    local embeddings = self.cfg:get("freeze_config.freeze_embeddings")
    local body = self.cfg:get("freeze_config.freeze_language_model")
    for _, module in model.model:named_modules() do
        local frozen = body or embeddings and module.class_name == "Embedding"
        for _, slot in ipairs(frozen and module._parameters or {}) do
            module[slot.name].requires_grad = false
        end
    end
end

function Recipe:get_tokenizer()
    if not self.tokenizer then
        local section = self.cfg:child("tokenizer")
        if not section and not self.model.name_or_path then
            err.raise("usage", "%s: a new model has no tokenizer: give a section tokenizer with "
                      .. "pretrained_model_name_or_path", self.cfg:where("model"))
        end
        self.tokenizer = section
            and config.instantiate(section, self.ctx, {}, { default_target = "am.AutoTokenizer.from_pretrained" })
            or am.AutoTokenizer.from_pretrained(self.model.name_or_path)
    end
    return self.tokenizer
end

--- The tokenizer, or nil where neither the configuration names one nor the model's folder holds one.
function Recipe:find_tokenizer()
    if self.tokenizer or self.cfg:has("tokenizer") or self.has_tokenizer(self.model) then
        return self:get_tokenizer()
    end
    return nil
end

--- Does what a model came from (or, of one that is only looked at, would come from) hold a tokenizer, too?
function Recipe.has_tokenizer(model)
    local from = model and (model.resolved_path or model.name_or_path)
    return from ~= nil and (path.is_file(from) or path.is_file(path.join(from, "tokenizer.json")))
end

function Recipe:build_loss()
    local section = self.cfg:child("loss_fn")
    if not section then
        return am.loss.MaskedCrossEntropy {}
    end
    return config.instantiate(section, self.ctx, {}, { default_target = "am.loss.FusedLinearCrossEntropy" })
end

-- What the entries of a list of sections with _target_ describe.
function Recipe:build_list(key)
    local node, out = self.cfg:child(key), {}
    for i, child in ipairs(node and node.children or {}) do
        out[i] = config.instantiate(child, self.ctx)
    end
    return out
end

--- What goes beside training: see lua/am/training/hooks.lua. Trackers stand first, since the others report to
--- them, and samples before averaged weights, which are taken out of the model again when validation ends.
function Recipe:build_hooks()
    local list = {}
    if self.cfg:has("ema") then
        list[#list + 1] = ema.new(self:section("ema"))
    end
    if self.cfg:has("early_stopping") then
        list[#list + 1] = early_stopping.new(self:section("early_stopping"))
    end
    if self.cfg:has("samples") and (self.world:is_main() or self:is_cut()) then -- all ranks that have parts of a model
        table.insert(list, 1, self:build_samples(function(...) self:log_sample(...) end))
    end
    for _, hook in ipairs(self:build_list("hooks")) do
        list[#list + 1] = hook
    end
    if self.world:is_main() then
        table.insert(list, 1, trackers.new(self.cfg))
    end
    return self:track("hooks.json", hooks.new(list))
end

--- The hook that the `samples` section describes. log: takes a record, see log_sample.
function Recipe:build_samples(log)
    return samples.new(self:section("samples"), self:get_tokenizer(), am.models.position_limit(self.model.config), log)
end

--- Note what the model answered to a prompt: { step, prompt, text }, of a row of data also row (its name) and truth.
--- images: its pictures as data: URIs.
function Recipe:log_sample(record, images)
    self.log:info("[sample] step %d | %s | %s", record.step, json.encode(record.prompt), json.encode(record.text))
    self:log_record("samples", record)
    self.hooks:call("sample", self, record, images)
end

--- End the run after this step, as if it had been planned so.
function Recipe:stop(reason)
    self.log:info("%s", reason)
    self.scheduler:stop()
end

-- A section as a plain table; empty when absent.
function Recipe:section(name)
    local node = self.cfg:child(name)
    return node and node:to_table() or {}
end

--- Does the recipe train? One that only measures says no.
Recipe.trains = true

--- The optimizer's section and its kind ("adamw", "sgd", …), as am.recipes.memory asks for them.
function Recipe:optimizer_options()
    local options = self:section("optimizer")
    options.kind = (options._target_ or ""):match("[^.]+$"):lower()
    options.share = self.fsdp and function(name, t) return self.layout:get(name).tensor:numel() / t:numel() end
    return options
end

--- What a second model is called, where there is one.
Recipe.other_model = "the teacher"

--- Bytes that a run has beside the model that it trains: of averages of its weights, and of a teacher in
--- micro-batches of `tokens` tokens.
function Recipe:bytes_beside(tokens)
    return self.cfg:has("ema") and memory.ema_bytes(self.model) or 0,
        self.teacher and memory.teacher_bytes(self.teacher, tokens) or 0
end

--- Was tokens_at_once (llm_finetune.lua) written with the loss and the batches in mind that this recipe has?
function Recipe:counts_tokens()
    local class = getmetatable(self)
    while class and not rawget(class, "tokens_at_once") do
        for _, method in ipairs { "collate", "build_loader", "loss" } do
            if rawget(class, method) then
                return false
            end
        end
        class = class.parent
    end
    return true
end

--- What a token costs, while the model is whole.
function Recipe:note_costs()
    self.costs = flops.costs(self.model)
end

--- FLOPs of forward and backward over `rows` rows of `length` tokens, as the model sees them, `labels` of which are
--- learnt. seen: see am.recipes.flops.of_rows. A fifth argument is their batch, where there is one already.
function Recipe:batch_flops(rows, length, labels, seen)
    if not self.costs then
        self:note_costs()
    end
    return flops.of_rows(self.costs, rows, length, labels, seen)
end

--- Numbers of a step, of all ranks together; the last may be nil.
function Recipe:totals(label_tokens, tokens, work)
    local all = self.mesh:reduce("dp", { label_tokens, tokens, work or 0 })
    return all[1], all[2], work and all[3]
end

--- Of a step, in percent of the rate at which the machine multiplies matrices of the model's shapes, which is
--- measured after the first step. nil where the recipe does not say what a step must compute.
function Recipe:share_of_peak(metrics)
    if not (metrics.flops and self:counts_tokens()) then
        return nil
    end
    local ranks = self.world.size -- each has a machine's rate, and a part of the step
    self.meter = self.meter or flops.meter(self.model, math.ceil(metrics.num_tokens / ranks))
    return 100 * self.meter(metrics.flops / ranks / metrics.seconds)
end

function Recipe:check_memory()
    if not self:counts_tokens() then
        return
    end
    local loader = self.loader
    local batch = self:sample_batch(loader)
    local count = loader.dataset.is_iterable and loader.batch_size or loader.dataset:len()
    local rows, mean, longest = math.min(loader.batch_size, count), batch.T, batch.T
    local stats = loader.dataset.stats and loader.dataset:stats()
    if stats then
        mean, longest = stats.tokens / stats.rows, math.max(batch.T, stats.longest.length)
    end
    local tokens = math.ceil(self:tokens_at_once(rows, longest) / self.mesh:size("cp"))
    local averages, teacher = self:bytes_beside(tokens)
    local staged = self:checkpoint_setting("is_async")
        and memory.staged_bytes(self.model, self:optimizer_options(), self.peft_config ~= nil) + averages or 0
    memory.check(memory.to_come(self.model, self:optimizer_options(), tokens,
                                memory.varied(rows, count, mean, longest),
                                self.model_allocated / (self.fsdp and self.mesh:size("shard") or 1))
                 + averages + teacher - (self.teacher_allocated or 0) + staged / self.mesh:size("stage"), tokens,
                 string.format("%d rows", rows), self.world.on_host)
end

-- Masters of weights that were rounded to 16 bits begin with what the checkpoint holds.
function Recipe:build_optimizer()
    local optimizer = config.instantiate(self.cfg:child("optimizer"), self.ctx)
    if self.model:dtype() == "bfloat16" or self.model:dtype() == "float16" then
        weights.with_stored(self.model, function(get)
            optimizer:load_masters(function(name)
                local whole = get(name)
                return whole and self.layout:part(name, whole)
            end)
        end)
    end
    return optimizer
end

function Recipe:build_step_scheduler()
    return config.instantiate(self.cfg:child("step_scheduler") or config.from_table {}, self.ctx, {
        loader_batch_size = self.cfg:get("dataloader.batch_size"),
        batches_per_epoch = self.loader:len(),
        stop_requested = function() return self:all_stop() end,
        dp_size = self.mesh:size("dp"),
    }, { default_target = "am.training.StepScheduler" })
end

function Recipe:build_lr_schedule()
    local section = self.cfg:child("lr_scheduler") -- without one lr is constant, and still part of the state
    local options = section and config.instantiate(section, self.ctx, {},
                                                   { default_target = "am.optim.OptimizerParamScheduler" })
    local group = self.optimizer.param_groups[1]
    local run = { lr = group.lr, weight_decay = group.weight_decay, total_steps = self.scheduler:total_steps(),
                  optimizer = self.optimizer }
    if type(options) == "function" then
        return own_schedule.new(options, section:to_table(), run)
    end
    return schedule.from_config(options, run)
end

--- The window that step() takes when it is given none: the next one, across epochs, or once more the
--- one whose step failed or was interrupted.
function Recipe:next_window()
    self:need_setup()
    self.window = self.window or self.scheduler:next_window(self.loader)
    if not self.window then
        err.raise("state", "the run is complete at step %d; raise step_scheduler.max_steps or num_epochs to go on",
                  self.scheduler.step)
    end
    return self.window
end

function Recipe:need_setup()
    if not self.scheduler then
        err.raise("state", "call setup() first: the model and the data are not loaded yet")
    end
end

-- A dtype, and what runs instead where the CPU has no instructions for it.
local function computed_dtype(model)
    local dtype, isa = model:dtype(), ffi.string(edge.C.am_cpu_isa())
    local native = dtype == "float32" or (dtype == "bfloat16" and (isa == "avx512_bf16" or isa == "amx"))
    if model:device() ~= "cpu" or native then
        return dtype
    end
    return dtype .. (dtype == "float64" and ", by the scalar kernels of one thread"
                     or ", multiplied as float32: " .. isa .. " has no instructions for it")
end

function Recipe:log_summary()
    local total, trainable = self.layout:num_parameters()
    self.log:info("amlua %s on %s, %s%d threads, %s; seed %d", am.version, posix.hostname(),
                  self.world.size > 1 and self.world.size .. " ranks, of which the first has " or "",
                  edge.C.am_threads(), ffi.string(edge.C.am_cpu_isa()), self.seed)
    self.log:info("model %s: %s, %s", self.model.name_or_path or "(new)", self.model.class_name,
                  computed_dtype(self.model))
    self.log:info("Trainable parameters %d / Total %d (%.2f %%) | Param L2 norm %.4f", trainable, total,
                  100 * trainable / total, self.optimizer:param_norm())
    if self.qat then
        self.log:info("qat: %s", self.qat.description)
    end
    self.log:info("optimizer %s | %s", self.optimizer.kind, self.lr_schedule:describe())
    local plan = self.scheduler
    self.log:info("%d steps of %d rows, %d at a time | %s", plan:total_steps(), plan.global_batch_size,
                  plan.local_batch_size, plan.epoch_len and plan.epoch_len .. " steps an epoch"
                  or "a stream has no known epoch")
    if plan.max_steps and plan.max_steps > plan:total_steps() then
        self.log:warning("step_scheduler.num_epochs (%d) ends the run before max_steps (%d)", plan.num_epochs,
                         plan.max_steps)
    end
end

-- ---- guards ---------------------------------------------------------------------------------

--- Stop the run for a number that is none. bad_state: it came of the weights that this step began
--- with, so a checkpoint of them is withdrawn.
function Recipe:not_finite(what, value, bad_state)
    local step, root = self.scheduler.step, self:checkpoint_dir()
    local latest
    if bad_state then
        latest = self:withdraw_checkpoint(step)
    elseif self:checkpoint_setting("enabled") then
        latest = checkpoint.resolve(root)
    end
    err.raise("state", "step %d: the %s is %s, so the run stops; a lower optimizer.lr or clip_grad_norm.max_norm "
              .. "may help. %s", step, what, tostring(value), latest
              and "The last good state is " .. latest or "No checkpoint was written yet")
end

--- False for NaN and both infinities.
function Recipe.is_finite(x)
    return x - x == 0
end

function Recipe:memory_gib()
    return am.memory(self.model:device()).peak_bytes / 2 ^ 30
end

for _, methods in ipairs { require("am.recipes.llm_data"), require("am.recipes.llm_checkpoint"),
                           require("am.recipes.fp8"), require("am.recipes.parallel"), require("am.recipes.pipeline"),
                           require("am.recipes.qat"), require("am.recipes.recorded"), require("am.recipes.update"),
                           rank_times } do
    for name, method in pairs(methods) do
        Recipe[name] = method
    end
end

return Recipe
