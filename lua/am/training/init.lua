-- Step scheduler, random state, signals, metrics. This file is what the component offers; hooks are each
-- a file of their own (hooks.lua).

local grad_scaler = require("am.training.grad_scaler")
local metrics = require("am.training.metrics")
local rng = require("am.training.rng")
local signals = require("am.training.signals")
local step_scheduler = require("am.training.step_scheduler")

local M = {
    StepScheduler = step_scheduler.new,
    batch_sizes = step_scheduler.batch_sizes,
    step_scheduler_fields = step_scheduler.fields,
    GradScaler = grad_scaler.GradScaler,
    StatefulRNG = rng.StatefulRNG,
    scoped_rng = rng.scoped,
    watch_signals = signals.watch,
}

--- What a configuration may name with `_target_`. The step_scheduler section names none: it is always
--- the first of these.
M.targets = {
    {
        name = "am.training.StepScheduler",
        doc = "epochs, steps, and when to validate and save",
        fields = step_scheduler.fields,
        build = M.StepScheduler,
    },
    {
        name = "am.training.StatefulRNG",
        aliases = { "nemo_automodel.components.training.rng.StatefulRNG" },
        doc = "seeds, saves and restores the random numbers",
        fields = rng.fields,
        build = M.StatefulRNG,
    },
    {
        name = "am.training.GradScaler",
        aliases = { "torch.amp.GradScaler", "torch.amp.grad_scaler.GradScaler", "torch.cuda.amp.GradScaler" },
        doc = "the loss scale of float16",
        fields = grad_scaler.fields,
        build = M.GradScaler,
    },
    unpack(metrics.targets),
}

return M
