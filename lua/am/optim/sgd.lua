-- SGD with momentum, as torch.optim has it. The arithmetic is the engine's (engine/train/optim.c).

local family = require("am.optim.family")

local M = {}

M.kinds = {
    sgd = family.elementwise_kind("sgd", { lr = 1e-3, weight_decay = 0 }, function(opts)
        return (opts.momentum or 0) > 0 and 1 or 0
    end),
}

M.targets = {
    family.target {
        name = "SGD", kind = "sgd", aliases = { "torch.optim.SGD", "torch.optim.sgd.SGD" },
        doc = "SGD as torch.optim has it", defaults = { weight_decay = 0 },
        fields = {
            momentum = { type = "number", default = 0, min = 0, doc = "momentum" },
            dampening = { type = "number", default = 0, doc = "dampening of momentum" },
            nesterov = { type = "boolean", default = false, doc = "Nesterov momentum" },
            state_dtype = family.state_dtype_field,
        },
    },
}

return M
