-- An optimizer of one's own: steps of one length against the sign of a momentum (signSGD, Bernstein et al. 2018).
--   optimizer:
--     _target_: optimizer.lua:sign_momentum
--     lr: 1.0e-4
--     momentum: 0.9

local am = require("am")

local M = {}

-- What the section may hold beside what every optimizer has: lr, weight_decay, param_group_overrides, …
local fields = {
    momentum = { type = "number", default = 0.9, min = 0, below = 1, doc = "share of the gradients before" },
}

--- Called with the section's keys; returns the rule. Clipping, schedules, groups, f32 masters of 16-bit weights,
--- fuse_backward and checkpoints come along.
M.sign_momentum = am.optim.custom("sign_momentum", fields, function(opts)
    return {
        -- what is kept for a parameter, zero at first: { name, shape, dtype }
        states = function(shape, dtype)
            return { { "momentum", shape, dtype } }
        end,
        -- changes the weight w and the states in place; s has lr, weight_decay and t, the steps with this one
        update = function(w, g, state, s)
            state.momentum:copy_(state.momentum * opts.momentum + g * (1 - opts.momentum))
            w:copy_(w * (1 - s.lr * s.weight_decay) - state.momentum:sign() * s.lr)
        end,
    }
end)

return M
