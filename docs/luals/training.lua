---@meta am.training
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.training
local am_training = {}

--- Seed the engine with opts.seed, plus opts.rank (process number) when opts.ranked.
---@return am.StatefulRNG
function am_training.StatefulRNG(opts) end

--- Run fn(...) under its own seed (default 95050; opts as StatefulRNG's) and restore the state, also
--- when it raises. Returns what fn returns.
function am_training.scoped_rng(opts, fn, ...) end

--- Watch from now on. opts.preemption_signal: the configuration's value, a name, number or list; nil
--- for none: then nothing is watched and signals end the process at once. Ctrl-C, SIGTERM and SIGHUP are
--- watched with any.
---@return am.Signals
function am_training.watch_signals(opts) end

--- Batch sizes from the configuration: local_batch_size (rows a micro-batch), grad_acc_steps
--- (micro-batches a step on each of dp_size processes) and global_batch_size (rows a step).
--- `opts` is the step_scheduler section; `loader_batch_size` is dataloader.batch_size, the older
--- spelling of local_batch_size, as grad_acc_steps is that of global_batch_size.
function am_training.batch_sizes(opts, loader_batch_size, dp_size) end

--- A new scheduler. `opts` holds the keys of the configuration (see `fields`) and
---   batches_per_epoch   micro-batches this process sees in an epoch; nil for a stream of unknown
---                       length, which needs max_steps
---   loader_batch_size   dataloader.batch_size of the configuration, if any
---   dp_size             processes that share a step (default 1)
---   stop_requested      function: true once the run was asked to end (SIGTERM, Ctrl-C); asked at most
---                       once a step. That step is checkpointed, not validated, and is the last.
--- An absent key is null to this function: ckpt_every_steps once an epoch, num_epochs 10, or as many
--- as it takes when max_steps is given, also to a run that goes on with epochs of another length.
---@return am.StepScheduler
function am_training.StepScheduler(opts) end

---@class am.StepScheduler
local am_StepScheduler = {}

--- Optimizer steps of the whole run, counted from step 0, as the configuration plans it.
function am_StepScheduler:total_steps() end

--- Iterator over the epochs still to do, the current one (which may be half done) first.
function am_StepScheduler:epochs() end

--- Iterator over what is left of the current epoch: arrays of grad_acc_steps micro-batches, the last
--- of an epoch possibly shorter.
function am_StepScheduler:windows(loader) end

--- The next window whatever epoch it is in, for steps taken by hand; nil at the end of the run.
function am_StepScheduler:next_window(loader) end

--- True in the last step of the run: max_steps reached, or the last epoch's last window.
function am_StepScheduler:is_last_step() end

--- True when this step is to be checkpointed: every ckpt_every_steps, at the end of an epoch (unless
--- save_checkpoint_every_epoch is false) and of the run, and when a stop was asked for.
function am_StepScheduler:is_ckpt_step() end

--- True when this step is to be validated: every val_every_steps, and at checkpoints (unless
--- validate_on_checkpoint is false). When a stop was asked for it is not; the state then says that it
--- is due, for the run that goes on.
function am_StepScheduler:is_val_step() end

--- How many checkpoints and validations the rest of the run has by the same rules, this step's included.
function am_StepScheduler:to_come() end

--- Make this step the last one of the run, as if it had been planned so.
function am_StepScheduler:stop() end

--- The validation of this step was left because a stop was asked for: it is due, and the step is the
--- last.
function am_StepScheduler:leave_validation() end

--- The number and epoch of the last step done, when its validation is due; nil otherwise. From here on
--- it counts as done.
function am_StepScheduler:take_due_validation() end

--- True when the recipe should run the Lua collector.
function am_StepScheduler:is_gc_step() end

--- True when trackers get this step's numbers: every log_remote_every_steps.
function am_StepScheduler:is_remote_logging_step() end

--- { step, epoch, validation_due } to go on from. Within a window its step counts as done: save after
--- the update.
function am_StepScheduler:state_dict() end

--- Go on from a saved state. The run's end is the configuration's, so raising max_steps or
--- num_epochs continues a finished run.
function am_StepScheduler:load_state_dict(state) end

---@class am.StatefulRNG
local am_StatefulRNG = {}

--- From here on, have other numbers than other ranks, which are made alike up to here: weights are, dropout is not.
function am_StatefulRNG:spread(rank) end

--- { seed, stream } of the engine's generator, as decimal text.
function am_StatefulRNG:state_dict() end

--- Go on from a saved state. Returns notes: another seed than this run was given.
function am_StatefulRNG:load_state_dict(state) end

---@class am.Signals
local am_Signals = {}

--- Number and name of the signal that came, or nil.
function am_Signals:pending() end

--- Exit status of a run that ended well: 0, also after SIGTERM, or 130 after Ctrl-C.
function am_Signals:exit_status() end

--- Give signals back to the system's default; what came stays pending.
function am_Signals:unwatch() end

return am_training
