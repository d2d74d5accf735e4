-- Counts optimizer steps and epochs, cuts an epoch into windows of micro-batches, and says when to
-- validate, checkpoint and stop. Holds no data and no clock; the loader is handed in.
--
--   local sched = step_scheduler.new{ global_batch_size = 32, local_batch_size = 4, max_steps = 100,
--                                     batches_per_epoch = loader:len() }
--   for epoch in sched:epochs() do
--       for window in sched:windows(loader) do        -- an array of micro-batches, one optimizer step
--           …forward, backward, optimizer.step, log…
--           if sched:is_val_step() then … end
--           if sched:is_ckpt_step() then … sched:state_dict() … end
--       end
--   end
--
-- `step` counts optimizer steps from 0 and stays the same within a window. The last window of an
-- epoch may be shorter and is still a step. Order within a step: train, log, validate, checkpoint.
-- A loader has: next() -> micro-batch or nil at the epoch's end; set_epoch(e), which starts epoch e
-- unless it is the current one; remaining() -> micro-batches left in the epoch, or nil if unknown.

local err = require("am.core.error")

local M = {}

--- What the `step_scheduler` section of a configuration may hold.
M.fields = {
    global_batch_size = { type = "integer", min = 1, doc = "rows in an optimizer step (32)" },
    local_batch_size = { type = "integer", min = 1, doc = "rows in a micro-batch (1)" },
    grad_acc_steps = { type = "integer", min = 1, doc = "micro-batches in a step; older form of global_batch_size" },
    num_epochs = { type = "integer", min = 1, doc = "10, or what max_steps needs when that is given" },
    max_steps = { type = "integer", min = 1, doc = "optimizer steps of the whole run" },
    ckpt_every_steps = { type = "integer", min = 1, default = 100, null = true, doc = "null: once an epoch" },
    save_checkpoint_every_epoch = { type = "boolean", default = true, doc = "also at the end of every epoch" },
    val_every_steps = { type = "integer", min = 1, doc = "absent: only at checkpoints" },
    validate_on_checkpoint = { type = "boolean", default = true, doc = "validate at checkpoints too" },
    log_remote_every_steps = { type = "integer", min = 1, default = 1, doc = "how often trackers hear of a step" },
    loss_average_window_steps = { type = "integer", min = 1, no_effect = "losses are logged as they are" },
    gc_every_steps = { type = "integer", min = 1, doc = "how often to run the Lua collector" },
    start_step = { type = "integer", min = 0, default = 0, doc = "number of the first step" },
    start_epoch = { type = "integer", min = 0, default = 0, doc = "number of the first epoch" },
    preemption_signal = {
        type = "string|integer|list", default = "SIGTERM", null = true, doc = "saves and ends the run; null: none",
    },
}

local function check_integer(opts, key, least, fallback)
    local value = opts[key]
    if value == nil then
        return fallback
    end
    if type(value) ~= "number" or value % 1 ~= 0 or value < least or value > 2 ^ 53 then
        err.raise("usage", "step_scheduler.%s must be a whole number of at least %d, not %s",
            key, least, tostring(value))
    end
    return value
end

local function check_boolean(opts, key, fallback)
    local value = opts[key]
    if value == nil then
        return fallback
    elseif type(value) ~= "boolean" then
        err.raise("usage", "step_scheduler.%s must be true or false, not %s", key, tostring(value))
    end
    return value
end

--- Batch sizes from the configuration: local_batch_size (rows a micro-batch), grad_acc_steps
--- (micro-batches a step on each of dp_size processes) and global_batch_size (rows a step).
--- `opts` is the step_scheduler section; `loader_batch_size` is dataloader.batch_size, the older
--- spelling of local_batch_size, as grad_acc_steps is that of global_batch_size.
function M.batch_sizes(opts, loader_batch_size, dp_size)
    dp_size = dp_size or 1
    local local_size = check_integer(opts, "local_batch_size", 1)
    if loader_batch_size ~= nil then
        if type(loader_batch_size) ~= "number" or loader_batch_size % 1 ~= 0 or loader_batch_size < 1 then
            err.raise("usage", "dataloader.batch_size must be a whole number of at least 1, not %s",
                tostring(loader_batch_size))
        elseif local_size and local_size ~= loader_batch_size then
            err.raise("usage", "step_scheduler.local_batch_size (%d) and dataloader.batch_size (%d) differ: "
                .. "give only one of them", local_size, loader_batch_size)
        end
    end
    local_size = local_size or loader_batch_size or 1

    local grad_acc = check_integer(opts, "grad_acc_steps", 1)
    local global_size = check_integer(opts, "global_batch_size", 1)
    if grad_acc then
        local product = grad_acc * local_size * dp_size
        if global_size and global_size ~= product then
            err.raise("usage", "step_scheduler.global_batch_size (%d) is not grad_acc_steps (%d) x local batch "
                .. "size (%d) x processes (%d): give only one of them", global_size, grad_acc, local_size, dp_size)
        end
        return { local_batch_size = local_size, grad_acc_steps = grad_acc, global_batch_size = product }
    end
    global_size = global_size or 32
    if global_size % (local_size * dp_size) ~= 0 then
        err.raise("usage", "step_scheduler.global_batch_size (%d) must be divisible by the local batch size (%d) "
            .. "x processes (%d)", global_size, local_size, dp_size)
    end
    return {
        local_batch_size = local_size, global_batch_size = global_size,
        grad_acc_steps = global_size / (local_size * dp_size),
    }
end

local StepScheduler = {}
StepScheduler.__index = StepScheduler

--- A new scheduler. `opts` holds the keys of the configuration (see `fields`) and
---   batches_per_epoch   micro-batches this process sees in an epoch; nil for a stream of unknown
---                       length, which needs max_steps
---   loader_batch_size   dataloader.batch_size of the configuration, if any
---   dp_size             processes that share a step (default 1)
---   stop_requested      function: true once the run was asked to end (SIGTERM, Ctrl-C); asked at most
---                       once a step. That step is checkpointed, not validated, and is the last.
--- An absent key is null to this function: ckpt_every_steps once an epoch, num_epochs 10, or as many
--- as it takes when max_steps is given, also to a run that goes on with epochs of another length.
function M.new(opts)
    local self = setmetatable(M.batch_sizes(opts, opts.loader_batch_size, opts.dp_size), StepScheduler)
    local batches = opts.batches_per_epoch
    if batches ~= nil and batches < 1 then
        err.raise("usage", "the dataset gives no batch: it is empty, or smaller than a batch with drop_last")
    end
    self.epoch_len = batches and math.ceil(batches / self.grad_acc_steps) or nil
    self.step = check_integer(opts, "start_step", 0, 0)
    self.epoch = check_integer(opts, "start_epoch", 0, 0)

    self.max_steps = check_integer(opts, "max_steps", 1)
    self.num_epochs = check_integer(opts, "num_epochs", 1)
    if not self.max_steps and not self.epoch_len then
        err.raise("usage", "step_scheduler.max_steps is needed: the dataset is a stream that does not know its "
            .. "length, so num_epochs says nothing about the end of the run")
    elseif not self.num_epochs then
        self.num_epochs = self.max_steps and math.huge or 10
    end
    self.max_steps = self.max_steps or self.num_epochs * self.epoch_len

    self.ckpt_every_steps = check_integer(opts, "ckpt_every_steps", 1)
        or self.epoch_len or math.max(1, math.floor(self.max_steps / 2))
    self.val_every_steps = check_integer(opts, "val_every_steps", 1)
    self.gc_every_steps = check_integer(opts, "gc_every_steps", 1)
    self.log_remote_every_steps = check_integer(opts, "log_remote_every_steps", 1, 1)
    self.save_checkpoint_every_epoch = check_boolean(opts, "save_checkpoint_every_epoch", true)
    self.validate_on_checkpoint = check_boolean(opts, "validate_on_checkpoint", true)

    self.stop_requested = opts.stop_requested
    self.stopped = false     -- a stop was asked for; this step is the last
    self.ended = false       -- so it is, and nothing is left to do (stop)
    self.validation_due = false -- the last step done was to be validated, and was not because of a stop
    self.in_window = false   -- between a window and the next: the step is not counted yet
    self.epoch_done = false  -- the current window is the epoch's last
    return self
end

--- Optimizer steps of the whole run, counted from step 0, as the configuration plans it.
function StepScheduler:total_steps()
    if not self.epoch_len then
        return self.max_steps
    end
    return math.min(self.max_steps, self.num_epochs * self.epoch_len)
end

--- Iterator over the epochs still to do, the current one (which may be half done) first.
function StepScheduler:epochs()
    local next_epoch = self.epoch
    return function()
        if next_epoch >= self.num_epochs or self.step >= self.max_steps or self.stopped then
            return nil
        end
        self.epoch, next_epoch = next_epoch, next_epoch + 1
        return self.epoch
    end
end

--- Iterator over what is left of the current epoch: arrays of grad_acc_steps micro-batches, the last
--- of an epoch possibly shorter.
function StepScheduler:windows(loader)
    loader:set_epoch(self.epoch)
    return function()
        if self.in_window then
            self.in_window = false
            self.step = self.step + 1
        end
        if self.step >= self.max_steps or self.stopped then
            return nil
        end
        local window = {}
        while #window < self.grad_acc_steps do
            local batch = loader:next()
            if batch == nil then
                break
            end
            window[#window + 1] = batch
        end
        if #window == 0 then
            return nil
        end
        self.epoch_done = loader:remaining() == 0
        self.in_window = true
        return window
    end
end

--- The next window whatever epoch it is in, for steps taken by hand; nil at the end of the run.
function StepScheduler:next_window(loader)
    for _ in self:epochs() do
        local window = self:windows(loader)()
        if window then
            return window
        end
    end
end

-- Asked once a step, so that a signal that arrives between two questions about the same step cannot
-- end the run without its checkpoint.
local function stopping(self)
    if self.stop_requested and not self.stopped and self.polled_step ~= self.step then
        self.polled_step = self.step
        self.stopped = self.stop_requested() and true or false
    end
    return self.stopped
end

--- True in the last step of the run: max_steps reached, or the last epoch's last window.
function StepScheduler:is_last_step()
    return self.ended or self.step + 1 >= self.max_steps or (self.epoch + 1 >= self.num_epochs and self.epoch_done)
end

local function planned_checkpoint(self)
    return self:is_last_step() or (self.step + 1) % self.ckpt_every_steps == 0
        or (self.save_checkpoint_every_epoch and self.epoch_done)
end

--- True when this step is to be checkpointed: every ckpt_every_steps, at the end of an epoch (unless
--- save_checkpoint_every_epoch is false) and of the run, and when a stop was asked for.
function StepScheduler:is_ckpt_step()
    return stopping(self) or planned_checkpoint(self)
end

--- True when this step is to be validated: every val_every_steps, and at checkpoints (unless
--- validate_on_checkpoint is false). When a stop was asked for it is not; the state then says that it
--- is due, for the run that goes on.
function StepScheduler:is_val_step()
    local planned = (self.val_every_steps ~= nil and (self.step + 1) % self.val_every_steps == 0)
        or (self.validate_on_checkpoint and planned_checkpoint(self))
    if planned and not self.ended and stopping(self) then
        self.validation_due = true
        return false
    end
    return planned
end

--- How many checkpoints and validations the rest of the run has by the same rules, this step's included.
function StepScheduler:to_come()
    local saves, validations, last = 0, 0, self:total_steps() - 1
    for step = self.step, last do
        local saved = step == last or (step + 1) % self.ckpt_every_steps == 0
            or (self.save_checkpoint_every_epoch and self.epoch_len and (step + 1) % self.epoch_len == 0)
        saves = saves + (saved and 1 or 0)
        if (self.val_every_steps and (step + 1) % self.val_every_steps == 0)
            or (self.validate_on_checkpoint and saved) then
            validations = validations + 1
        end
    end
    return saves, validations
end

--- Make this step the last one of the run, as if it had been planned so.
function StepScheduler:stop()
    self.stopped, self.ended = true, true
end

--- The validation of this step was left because a stop was asked for: it is due, and the step is the
--- last.
function StepScheduler:leave_validation()
    self.stopped, self.validation_due = true, true
end

--- The number and epoch of the last step done, when its validation is due; nil otherwise. From here on
--- it counts as done.
function StepScheduler:take_due_validation()
    if not self.validation_due then
        return nil
    end
    self.validation_due = false
    return self.step - 1, self.epoch
end

--- True when the recipe should run the Lua collector.
function StepScheduler:is_gc_step()
    return self.gc_every_steps ~= nil and self.step % self.gc_every_steps == 0
end

--- True when trackers get this step's numbers: every log_remote_every_steps.
function StepScheduler:is_remote_logging_step()
    return self.step % self.log_remote_every_steps == 0
end

--- { step, epoch, validation_due } to go on from. Within a window its step counts as done: save after
--- the update.
function StepScheduler:state_dict()
    return { step = self.step + (self.in_window and 1 or 0), epoch = self.epoch,
             validation_due = self.validation_due or nil }
end

--- Go on from a saved state. The run's end is the configuration's, so raising max_steps or
--- num_epochs continues a finished run.
function StepScheduler:load_state_dict(state)
    for _, key in ipairs { "step", "epoch" } do
        local value = state[key]
        if type(value) ~= "number" or value % 1 ~= 0 or value < 0 then
            err.raise("format", "step scheduler state: %s must be a whole number, not %s", key, tostring(value))
        end
    end
    self.step, self.epoch, self.validation_due = state.step, state.epoch, state.validation_due == true
    self.in_window, self.epoch_done, self.stopped, self.ended = false, false, false, false
    self.polled_step = nil
end

return M
