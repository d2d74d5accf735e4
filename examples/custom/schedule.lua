-- A learning rate schedule of one's own: up for a part of the run, then down to nothing along a root (1 - sqrt).
--   lr_scheduler:
--     _target_: schedule.lua:up_and_down
--     rise: 0.1

local M = {}

-- What the section may hold, so that a mistyped key is found before anything is loaded.
M.fields = {
    up_and_down = {
        rise = { type = "number", default = 0.1, above = 0, below = 1, doc = "part of the run in which lr rises" },
        override_opt_param_scheduler = { type = "boolean", doc = "resume with another rise than before" },
    },
}

--- Called with the section's keys; returns a function of n, the updates before this one, and the run: its lr
--- (optimizer.lr) and total_steps. It keeps nothing, so a resumed run goes on along the same curve.
function M.up_and_down(args)
    return function(n, run)
        local top = args.rise * run.total_steps
        if n < top then
            return run.lr * (n + 1) / (top + 1)
        end
        return run.lr * (1 - math.sqrt(math.min(1, (n - top) / (run.total_steps - top))))
    end
end

return M
