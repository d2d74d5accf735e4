-- Fine-tune a causal language model: full SFT, or LoRA with a `peft` section. The whole run is here:
-- setup builds the parts that the configuration names, train is the loop, step is one optimizer step.
--
--   amlua recipes/llm_finetune.lua config.yaml [--section.key value]
--
-- The build_* methods and the model's side of checkpoints are in lua/am/recipes/llm.lua, the rest of
-- them in base.lua. Each can be replaced by a recipe that extends this one: see examples/custom/.

local am = require("am")
local console = require("am.loggers.console")
local devices = require("am.recipes.devices")
local edge = require("am.core.ffi")
local flops = require("am.recipes.flops")
local llm = require("am.recipes.llm")
local training = require("am.training")

local Recipe = llm:extend("llm_finetune")
Recipe.doc = "Fine-tune a causal language model, fully or with LoRA."

-- ---- setup ----------------------------------------------------------------------------------

function Recipe:setup()
    self:claim_folder()
    self.seed = self:choose_seed()
    self.rng = self:track("rng/rng_dp_rank_RANK.json", training.StatefulRNG { seed = self.seed })
    self.ctx.device = devices.of(self)
    self:check_ranks()
    self.model = self.world:together(self.build_model, self)
    self.world:together(self.parallelize, self)
    self:share_data()
    self:check_memory()
    self.optimizer = self:build_optimizer()
    self.grad_scaler = self:build_grad_scaler()
    self.sync = self:build_sync()
    self.graphs = self:build_graphs()
    self.rng:spread(self.cfg:get("rng.ranked", true) and self.mesh:rank("loss") or 0)
    self.scheduler = self:track("step_scheduler.json", self:build_step_scheduler())
    self:track("optim/optimizer.json", self.optimizer)
    self.lr_schedule = self:track("optim/lr_scheduler.json", self:build_lr_schedule())
    self:build_timers()
    self.hooks = self:build_hooks()
    self.restored = self:load_checkpoint()
    self:fake_quantize(self.scheduler.step)
    self.seed = tonumber(self.world:from_main(tostring(self.rng.seed)))
    self:open_logs(self.scheduler.step, self.scheduler.step - (self.scheduler.validation_due and 1 or 0))
    self:log_summary()
    devices.watch(self)
    self.hooks:call("setup", self)
end

-- ---- the loop -------------------------------------------------------------------------------

function Recipe:train()
    local scheduler = self.scheduler
    local first_step = scheduler.step
    self:catch_up()
    for epoch in scheduler:epochs() do
        for window in self:timed_windows() do
            local metrics = self:timed_rank(self.step, self, window)
            self:log_step(epoch, metrics)
            devices.watch(self)
            local losses = { train_loss = metrics.loss }
            if #self.validation_sets > 0 and scheduler:is_val_step() then
                self:evaluate(epoch, scheduler.step, losses)
            end
            if scheduler:is_ckpt_step() then
                self:save_checkpoint(epoch, scheduler.step, losses, scheduler:is_last_step())
            end
            if scheduler:is_gc_step() then
                collectgarbage()
            end
        end
    end
    if scheduler.step == first_step and not scheduler.stopped then
        self.log:info("the run is complete at step %d; raise step_scheduler.max_steps or num_epochs to go on",
                      first_step)
    end
    self:finish_saving()
end

--- Validate the last step of the run before, if a signal kept it from that, and save it again with the
--- result.
function Recipe:catch_up()
    local step, epoch = self.scheduler:take_due_validation()
    local losses = { train_loss = self:saved_losses().train_loss }
    if step and #self.validation_sets > 0 and self:evaluate(epoch, step, losses) then
        self:save_checkpoint(epoch, step, losses, step + 1 >= self.scheduler:total_steps())
    end
end

--- One optimizer step over a window of micro-batches; without one over the next, so that a run can be
--- driven by hand. Returns loss, grad_norm and token counts; the gradients stay to be looked at.
--- A recipe that extends this one may add `extra`, numbers that go into training.jsonl as they are.
function Recipe:step(window)
    window = window or self:next_window()
    self.model:train()
    self:fake_quantize(self.scheduler.step)
    self.optimizer:zero_grad() -- also what a step that failed has left
    local started, label_tokens, tokens, loss, grad_norm, aux_loss = edge.C.am_clock(), 0, 0, 0, 0, nil
    local loss_scale = self.grad_scaler and self:loss_scale()
    local work = self:counts_tokens() and 0 or nil
    for _, batch in ipairs(window) do
        self:check_batch(batch)
        label_tokens, tokens = label_tokens + batch.num_label_tokens, tokens + batch.num_tokens
        work = work and work + self:batch_flops(batch.B, batch.T, batch.num_label_tokens, flops.seen(batch), batch)
    end
    label_tokens, tokens, work = self:totals(label_tokens, tokens, work)
    if label_tokens > 0 then -- else there is nothing to learn, and decay and momentum change nothing either
        loss, grad_norm, aux_loss = self:learn(window, 1 / label_tokens)
    end
    self.window = nil
    self.lr_schedule:step(1)
    self.timers:timed("hooks", 2, self.hooks.call, self.hooks, "updated", self)
    return { loss = loss, grad_norm = grad_norm, aux_loss = aux_loss, num_label_tokens = label_tokens,
             num_tokens = tokens, loss_scale = loss_scale,
             flops = work, seconds = edge.C.am_clock() - started }
end

-- A micro-batch's loss and, with model.output_router_logits, router_aux_loss_coef times the one that balances its
-- experts (nn/moe.lua), for each label token. The latter is a function of the micro-batch, not a mean over tokens.
function Recipe:objective(batch)
    local sum, balance = self:loss(batch), self.balance
    self.balance = nil
    if not balance then
        return sum
    end
    self.aux_loss = (self.aux_loss or 0) + balance:item() * batch.num_label_tokens
    return sum + balance:to(sum:dtype()) * ((self.model.config.router_aux_loss_coef or 0) * batch.num_label_tokens)
end

-- Gradients of a window's loss, summed over its micro-batches times `scale`, and the update by them. Returns the
-- loss, the gradients' norm, and of a model with experts the mean of what balances them.
function Recipe:learn(window, scale)
    self.aux_loss = nil
    local loss = self:gradients(window, scale * self:loss_scale())
    if self.sync then
        self.timers:timed("sync", 1, self.sync.finish, self.sync)
        local all = self.mesh:reduce("loss", { loss, self.aux_loss or 0 })
        loss, self.aux_loss = all[1], self.aux_loss and all[2]
        self:check_number("loss", loss)
    end
    return loss * scale, self:update(loss), self.aux_loss and self.aux_loss * scale
end

-- The gradients of a micro-batch, added to those that there are. Returns its loss.
function Recipe:batch_gradients(batch, scale)
    local sum = self.timers:timed("forward", 1, self.objective, self, self:own_tokens(batch))
    local value = sum:item()
    if self.world.size == 1 then -- of several ranks all say it, see learn
        self:check_number("loss", value)
    end
    if sum.requires_grad then -- else no part that is trained was used: a projector alone, and no picture
        self.timers:timed("backward", 1, function() (sum * scale):backward() end)
    end
    return value
end

-- The gradients alone, of this rank's micro-batches. Returns their loss.
function Recipe:gradients(window, scale)
    if self.pipeline then
        return self:staged_gradients(window, scale)
    end
    local loss, work = 0, self.graphs and self.recorded_gradients or self.batch_gradients
    for i, batch in ipairs(window) do
        if self.sync and i == #window and not self.graphs then -- else behind the graph
            self.sync:begin()
        end
        loss = loss + am.scope(work, self, batch, scale)
    end
    return loss
end

--- Sum of the loss over a batch's label tokens. Only they go through the head, unless that multiplies in 8 bits: its
--- scales are of all rows. see(hidden, labels, ctx), if given, gets those with labels.
function Recipe:loss(batch, see)
    local head = self.model:get_output_embeddings()
    local hidden, labels = self:label_states(self.model, batch, head and head.fp8 ~= nil)
    local ctx = self.model:head_context() -- after forward: strategies gather the head for it
    ctx.num_label_tokens = batch.num_label_tokens
    if see and batch.num_label_tokens > 0 then
        local states, own = hidden, labels
        if ctx.fp8 then
            states, own = self:labelled(batch, hidden, labels)
        end
        see(states, own, ctx)
    end
    return self.loss_fn(hidden, labels, ctx)
end

--- Tokens that the model sees at once in a micro-batch of `rows` rows of the data, the longest of `length`
--- tokens. A recipe that makes batches or the loss in another way has its own: without one neither its memory nor
--- its time is said before it runs.
function Recipe.tokens_at_once(_, rows, length)
    return rows * length
end

-- The loss of a batch as a number, without gradients; of a model in stages this stage's part of it.
function Recipe:loss_alone(batch, see)
    return self.pipeline and self:staged_loss(batch, see) or self:loss(batch, see):item()
end

-- Mean loss of a validation set, in which every row counts by its label tokens, and the metrics: val_loss,
-- val_NAME, num_label_tokens. nil when the run is asked to end meanwhile.
function Recipe:evaluate_set(set)
    local sum, count, metrics = 0, 0, self:build_metrics()
    local function see(hidden, labels, ctx)
        for _, metric in ipairs(metrics) do
            metric:update(hidden, labels, ctx)
        end
    end
    for batch in set.loader:batches() do
        if self:all_stop() then
            return nil
        end
        sum = sum + am.scope(self.loss_alone, self, self:own_tokens(batch), see)
        count = count + batch.num_label_tokens
    end
    sum, count = self.mesh:reduce("loss", { sum })[1], self.mesh:reduce("dp", { count })[1]
    if not self.is_finite(sum) then
        self:not_finite("validation loss", sum)
    end
    local record = { val_loss = sum / math.max(count, 1), num_label_tokens = count }
    for _, metric in ipairs(metrics) do
        if self.world.size > 1 then
            metric:set_totals(self.mesh:reduce("loss", metric:totals()))
        end
        record["val_" .. metric.name] = metric:value()
    end
    return record
end

-- The records of all sets, in order, or nil when the run is asked to end meanwhile.
function Recipe:evaluate_sets()
    local records = {}
    for i, set in ipairs(self.validation_sets) do
        records[i] = self:evaluate_set(set)
        if not records[i] then
            return nil
        end
    end
    return records
end

--- Validate on every set; `epoch` and `step` go into the logs, and the losses into `losses` under the names
--- that losses.json has. Returns the first set's loss. When the run is asked to end, validation is left
--- early, with nil, and stays due.
function Recipe:evaluate(epoch, step, losses)
    self:need_validation_set()
    self.model:eval()
    self:fake_quantize(step or self.scheduler.step)
    self.hooks:call("before_validation", self)
    local ok, records = pcall(training.scoped_rng, { seed = 1 }, am.no_grad, function() return self:evaluate_sets() end)
    if not ok then -- what went wrong first is what is said
        pcall(self.release_weights, self)
        pcall(self.hooks.call, self.hooks, "after_validation", self)
        error(records, 0)
    end
    self:release_weights() -- hooks may change them
    self.hooks:call("after_validation", self, records and (step or self.scheduler.step))
    if not records then
        self.scheduler:leave_validation()
        return nil
    end
    for i, record in ipairs(records) do
        local name = self.validation_sets[i].name
        record.step, record.epoch = step or self.scheduler.step, epoch or self.scheduler.epoch
        record.lr, record.mem = self.optimizer.param_groups[1].lr, self:memory_gib()
        if losses then
            losses[self:loss_key(name)] = record.val_loss
        end
        self.log:info("%s", console.val_line(name, record))
        self:log_record("validation " .. name, record)
        self.hooks:call("validation", self, name, record)
    end
    return records[1].val_loss
end

function Recipe:log_step(epoch, metrics)
    local now = edge.C.am_clock() -- tps counts all that lay between two steps: data, validation, saving
    local tps = metrics.num_tokens / (now - (self.step_ended or now - metrics.seconds))
    self.step_ended = now
    local record = { step = self.scheduler.step, epoch = epoch, loss = metrics.loss, aux_loss = metrics.aux_loss,
                     grad_norm = metrics.grad_norm, loss_scale = metrics.loss_scale,
                     lr = self.optimizer.param_groups[1].lr, mem = self:memory_gib(), tps = tps,
                     tps_per_gpu = tps / self.world.size,
                     mfu = self:share_of_peak(metrics), num_tokens_per_step = metrics.num_tokens,
                     num_label_tokens = metrics.num_label_tokens }
    for key, value in pairs(metrics.extra or {}) do
        record[key] = value
    end
    self:log_record("training", record)
    self:compare_ranks()
    self.hooks:call("step", self, record)
    self.timers:log()
end

return Recipe
