---@meta am.optim
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.optim
local am_optim = {}

--- What a file that a configuration names with file.lua:NAME returns under NAME. Groups, clipping, f32 masters,
--- updates inside backward, checkpoints and the keys of family.common_fields (lr, weight_decay, …) come along.
---@param kind string what a checkpoint calls the optimizer
---@param fields table further keys of the section, or other defaults of the common ones
---@param rule fun(opts: table): table the keys' values -> { states?, update } as tensorwise.lua describes them; called once for each parameter group
---@return {fields: table, build: fun(args: table, ctx: table): am.Optimizer}
function am_optim.custom(kind, fields, rule) end

--- An optimizer for the trainable parameters of an iterator such as model:named_parameters(): see optimizer.lua.
---@param kind string "adam", "adamw", "sgd", "lion", …
---@param named_parameters function iterator of (name, tensor)
---@param opts table what the target of that kind has as fields, without which its defaults count
---@param elsewhere table[]? { name, tensor } of what other ranks train
---@return am.Optimizer
function am_optim.new(kind, named_parameters, opts, elsewhere) end

--- Bytes of optimizer state, f32 master included, of a parameter of `shape` with weights of `size` bytes.
--- opts: an optimizer section's keys, with `_target_`; or those of M.new, with `kind`. An optimizer of the user's own
--- is taken for one with two moments.
function am_optim.state_bytes(opts, name, shape, size) end

---@class am.optim.scheduler
local am_optim_scheduler = {}

--- Learning rate of update n (from 0) under schedule `s` (a table of the fields), before a group's
--- lr_mult. `group` may hold its own max_lr and min_lr.
function am_optim_scheduler.lr_at(s, n, group) end

--- Weight decay of update n (from 0) under schedule `s`, before a group's wd_mult.
function am_optim_scheduler.wd_at(s, n) end

--- A schedule from all of its fields (see `fields`; wsd_decay_steps and lr_wsd_decay_style only for
--- WSD). Also in `opts`:
---   optimizer   table with `param_groups` (default: none; ask lr() and weight_decay() instead). A
---               group built with its own lr or weight_decay keeps its ratio to the first group,
---               noted as lr_mult and wd_mult; one with max_lr or min_lr has its own curve.
---   derived     set of the field names that were not written down but follow from the run's length
--- Starts at step 0, which sets the optimizer's values for the first update.
---@return am.Scheduler
function am_optim_scheduler.new(opts) end

--- A schedule from the `lr_scheduler` section `cfg`, or the constant one of a configuration without
--- that section (nil), or with nothing but a resume flag in it. `run`: lr and weight_decay of the optimizer,
--- total_steps planned, optimizer.
--- Derived where `cfg` is silent: init_lr = lr/10, max_lr = lr, min_lr = lr/100, style cosine,
--- lr_warmup_steps = min(1000, total/10), lr_decay_steps = wd_incr_steps = total, weight decay constant.
---@return am.Scheduler
function am_optim_scheduler.from_config(cfg, run) end

---@class am.Optimizer
---@field param_groups table[] { lr, weight_decay, lr_mult, wd_mult, max_lr?, min_lr?, names, num_parameters (other ranks' among them) }; step uses the lr and weight_decay that a group has then, and a schedule writes them
local am_Optimizer = {}

--- Are weights updated inside backward?
function am_Optimizer:is_fused() end

--- One update with each group's lr and weight_decay. Gradients are scaled by grad_scale (1).
function am_Optimizer:step(grad_scale) end

--- Mark all gradients as empty; the next backward overwrites them.
function am_Optimizer:zero_grad() end

--- The gradients in pieces of about `bytes`, the last parameters first, as backward comes to them: a list of
--- { first, count, numel, places }, places being { part, i, name } of its parameters. wanted(name), if given, says
--- which are asked for. See gradients.
function am_Optimizer:buckets(bytes, wanted) end

--- A parameter of a bucket.
function am_Optimizer.parameter(_, place) end

--- Has a parameter of a bucket no gradient?
function am_Optimizer.is_empty(_, place) end

--- Forget the gradient of a parameter.
function am_Optimizer.clear_grad(_, place) end

--- A bucket's gradients as one vector, a view: those that lack one get one of zeros.
function am_Optimizer.gradients(_, bucket) end

--- Have norms summed by fn(numbers by parameter's name): where the parameters are parts, of which other ranks have
--- the rest.
function am_Optimizer:sum_norms_by(fn) end

--- L2 norm of all gradients; with fuse_backward of those that the last step used.
function am_Optimizer:grad_norm() end

--- The sums of the squares of weights by name: of what this process has of them.
function am_Optimizer:weight_squares() end

--- L2 norm of all trainable weights.
function am_Optimizer:param_norm() end

--- Norm of the gradients, and the factor that brings it down to max_norm (1 when it is below, or
--- when max_norm is nil): torch.nn.utils.clip_grad_norm_'s arithmetic. Hand the factor to step. Gradients of a loss
--- that was multiplied by `scale` (1) are divided by it first: then hand factor / scale to step.
function am_Optimizer:clip_grad_norm(max_norm, scale) end

--- Does a rule see whole matrices, so that a part of one is not enough?
function am_Optimizer:needs_whole() end

--- How many numbers are trained.
function am_Optimizer:numel() end

--- Iterator over (parameter name, state name, tensor) of what a checkpoint must hold.
function am_Optimizer:state_tensors() end

--- Numbers that a checkpoint must hold beside the tensors.
function am_Optimizer:state_dict() end

--- Go on from a saved state. Raises "state" when it is another optimizer's or has other groups, "format" when it is
--- damaged; then nothing has changed.
function am_Optimizer:load_state_dict(state) end

--- After weights were loaded from outside: copy them into the f32 masters.
function am_Optimizer:sync_masters() end

--- Give the f32 masters of 16-bit weights the values that the weights were rounded from. get(name) is
--- a tensor of floats, or nil where there is none. Without this a run begins with rounded masters, up to
--- 2^-9 beside the checkpoint.
function am_Optimizer:load_masters(get) end

--- Free the flat buffers and moments now.
function am_Optimizer:close() end

---@class am.Scheduler
local am_Scheduler = {}

--- In words, for a log.
function am_Scheduler:describe() end

--- Learning rate of the next update (of a group with lr_mult 1 and no curve of its own).
function am_Scheduler:lr() end

--- Weight decay of the next update (of a group with wd_mult 1).
function am_Scheduler:weight_decay() end

--- Count `increment` updates and set every group's lr and weight_decay for the next one.
function am_Scheduler:step(increment) end

--- Every field of the schedule, and num_steps.
function am_Scheduler:state_dict() end

--- Go on from a saved state; the rules are at the head of this file. Fields that an older state
--- lacks keep the configuration's values. Raises "usage" when the schedules differ, "format" for a
--- damaged state; then nothing has changed. Returns an array of what the checkpoint changed, each a
--- clause for the log ("lr_decay_steps stays 100, not 200").
function am_Scheduler:load_state_dict(state) end

return am_optim
