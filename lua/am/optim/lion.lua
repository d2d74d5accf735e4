-- Lion (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms"), with the numbers of the package
-- lion-pytorch. The arithmetic is the engine's (engine/train/optim.c).

local err = require("am.core.error")
local family = require("am.optim.family")

local M = {}

M.kinds = {
    lion = family.elementwise_kind("lion", { lr = 1e-4, weight_decay = 0 }, function() return 1 end),
}

local fields = {
    betas = family.betas_field(0.9, 0.99),
    state_dtype = family.state_dtype_field,
}

-- lion-pytorch's weights shrink by lr / (first lr) times the decay with this switch.
local function translate(args)
    if args.decoupled_weight_decay then
        if args.lr <= 0 then
            err.raise("usage", "optimizer.decoupled_weight_decay: lr must be more than 0, and is %g", args.lr)
        end
        args.weight_decay = args.weight_decay / args.lr
    end
    args.decoupled_weight_decay = nil
    return "lion"
end

M.targets = {
    family.target {
        name = "Lion", kind = "lion", doc = "Lion: the sign of a momentum, one moment",
        aliases = { "lion_pytorch.Lion", "lion_pytorch.lion_pytorch.Lion", "bitsandbytes.optim.Lion",
                    "pytorch_optimizer.Lion", "timm.optim.Lion", "lion" },
        fields = family.merged(fields, {
            decoupled_weight_decay = { type = "boolean", default = false,
                                       doc = "weight_decay is not multiplied by the first learning rate" },
            use_triton = { type = "boolean", no_effect = "updates are always fused" },
        }),
        defaults = { lr = 1e-4, weight_decay = 0 }, translate = translate,
    },
    family.target {
        name = "Lion8bit", kind = "lion", doc = "Lion with a moment of 8 bits",
        aliases = { "bitsandbytes.optim.Lion8bit", "bitsandbytes.optim.PagedLion8bit", "lion8bit" },
        fields = family.merged(fields, { state_dtype = family.merged(family.state_dtype_field, { default = "int8" }),
                                         min_8bit_size = { type = "integer",
                                                           no_effect = "moments of every size have 8 bits" } }),
        defaults = { lr = 1e-4, weight_decay = 0 },
    },
}

return M
