-- A loss of one's own: cross-entropy with label smoothing, composed of ops; autograd does the rest.
--   loss_fn:
--     _target_: loss.lua:label_smoothing
--     smoothing: 0.1

local am = require("am")

local M = {}

-- What the section may hold, so that a mistyped key is found before anything is loaded.
M.fields = {
    label_smoothing = {
        smoothing = { type = "number", min = 0, max = 1, default = 0.1, doc = "weight of all tokens alike" },
    },
}

--- Called with the section's keys; returns a function (hidden [N, C], labels [N], ctx) -> the SUM of
--- the loss over the label tokens, a scalar tensor. The recipe divides by their number.
function M.label_smoothing(args)
    local smoothing = args.smoothing
    return function(hidden, labels, ctx)
        local logits = ctx.head(hidden):to("float32")
        local hard = am.ops.cross_entropy(logits, labels)
        local counted = labels:ne(-100):to("float32")
        local soft = (logits:log_softmax(-1):mean(-1) * counted):sum() * -1
        return hard * (1 - smoothing) + soft * smoothing
    end
end

return M
