-- Adam and AdamW, and the optimizers of other libraries that are one of the two kept in another way: in 8 bits
-- (bitsandbytes, torchao), with compressed masters (flashoptim) or fused (Transformer Engine). The arithmetic is
-- the engine's (engine/train/optim.c), which has torch.optim's numbers.

local err = require("am.core.error")
local family = require("am.optim.family")

local M = {}

local function moments(opts)
    return opts.amsgrad and 3 or 2
end

local function kind(name, weight_decay)
    return family.elementwise_kind(name, { lr = 1e-3, weight_decay = weight_decay }, moments)
end

M.kinds = { adam = kind("adam", 0), adamw = kind("adamw", 0.01) }

local fields = {
    betas = family.betas_field(0.9, 0.999),
    eps = { type = "number", default = 1e-8, min = 0, doc = "added to the denominator" },
    amsgrad = { type = "boolean", default = false, doc = "divide by the root of the largest second moment so far" },
    state_dtype = family.state_dtype_field,
}

-- torch's Adam has a switch that makes an AdamW of it.
local adam_fields = family.merged(fields, {
    decoupled_weight_decay = { type = "boolean", default = false, doc = "decay weights beside the step, as AdamW" },
})

local function adam_or_adamw(args)
    local decoupled = args.decoupled_weight_decay
    args.decoupled_weight_decay = nil
    return decoupled and "adamw" or "adam"
end

-- ---- in 8 bits ---------------------------------------------------------------------------------

local eight_bit_fields = family.merged(fields, {
    state_dtype = family.merged(family.state_dtype_field, { default = "int8" }),
    min_8bit_size = { type = "integer", no_effect = "moments of every size have 8 bits" },
    optim_bits = { type = "integer", no_effect = "state_dtype says it" },
    percentile_clipping = { type = "integer", enum = { 100 }, doc = "not there" },
    block_wise = { type = "boolean", enum = { true }, doc = "always" },
    is_paged = { type = "boolean", no_effect = "everything is in the host's memory" },
    block_size = { type = "integer", no_effect = "blocks have 256 elements" },
    bf16_stochastic_round = { type = "boolean", enum = { false }, doc = "not there: masters keep what is lost" },
    amsgrad = { type = "boolean", enum = { false }, doc = "not there in 8 bits" },
})

local function eight_bit(name, base, weight_decay)
    local lower = name:lower()
    return family.target {
        name = name, kind = base,
        aliases = { "bitsandbytes.optim." .. name, "bitsandbytes.optim." .. base .. "." .. name,
                    "bitsandbytes.optim.Paged" .. name, "bitsandbytes.optim." .. base .. ".Paged" .. name,
                    "torchao.optim." .. name, "torchao.optim.adam." .. name,
                    "torchao.prototype.low_bit_optim." .. name, lower },
        doc = name:gsub("8bit$", "") .. " with moments of 8 bits",
        fields = eight_bit_fields, defaults = { lr = 1e-3, weight_decay = weight_decay },
    }
end

-- ---- Transformer Engine's and flashoptim's -------------------------------------------------------

local fused_fields = family.merged(fields, {
    adam_w_mode = { type = "boolean", default = true, doc = "true: AdamW, false: Adam" },
    bias_correction = { type = "boolean", default = true, doc = "divide moments by 1 - beta^t" },
    master_weight_dtype = { type = "string", doc = "float32" },
    exp_avg_dtype = { type = "string", doc = "of the first moment; must be that of the second" },
    exp_avg_sq_dtype = { type = "string", doc = "of the second moment" },
    store_param_remainders = { type = "boolean", no_effect = "masters have 32 bits" },
    use_decoupled_grad = { type = "boolean", enum = { false }, doc = "not there" },
    set_grad_none = { type = "boolean", no_effect = "gradients are emptied" },
})

local function plain_dtype(name)
    return name and (name:gsub("^torch%.", ""))
end

local function translate_fused(args)
    local m, v = plain_dtype(args.exp_avg_dtype), plain_dtype(args.exp_avg_sq_dtype)
    local master = plain_dtype(args.master_weight_dtype)
    if (m or "float32") ~= (v or "float32") then
        err.raise("usage", "optimizer.exp_avg_dtype is %s and exp_avg_sq_dtype %s: both moments have one dtype here",
                  m or "float32", v or "float32")
    elseif master and master ~= "float32" then
        err.raise("usage", "optimizer.master_weight_dtype must be float32, not %s", master)
    end
    args.state_dtype = args.state_dtype or m
    local decoupled = args.adam_w_mode ~= false
    args.exp_avg_dtype, args.exp_avg_sq_dtype, args.master_weight_dtype, args.adam_w_mode = nil, nil, nil, nil
    return decoupled and "adamw" or "adam"
end

local flash_fields = family.merged(fields, {
    quantize = { type = "boolean", default = true, doc = "moments of 8 bits" },
    master_weight_bits = { type = "integer", default = 24, enum = { 24, 32 }, null = true,
                           doc = "masters have 32 bits either way; null: none" },
    decouple_lr = { type = "boolean", enum = { false }, doc = "not there" },
    compress_state_dict = { type = "boolean", no_effect = "moments are saved as they are kept" },
    check_numerics = { type = "boolean", no_effect = "recipes check the loss and the gradient norm" },
    amsgrad = { type = "boolean", enum = { false }, doc = "not there in 8 bits" },
})

local function translate_flash(args)
    if args.quantize ~= false then
        args.state_dtype = args.state_dtype or "int8"
    end
    if args.master_weight_bits == nil then
        args.master_weights = false
    end
    args.quantize, args.master_weight_bits = nil, nil
    return "adamw"
end

local function nemo_or(short, name)
    local a, b = family.nemo(name)
    return { short, a, b }
end

local config_defaults = { lr = 1e-4, weight_decay = 0.01 }
local te = "transformer_engine.pytorch.optimizers."

M.targets = {
    family.target { name = "Adam", kind = "adam", aliases = { "torch.optim.Adam", "torch.optim.adam.Adam" },
                    doc = "Adam as torch.optim has it", fields = adam_fields, defaults = { weight_decay = 0 },
                    translate = adam_or_adamw },
    family.target { name = "AdamW", kind = "adamw", aliases = { "torch.optim.AdamW", "torch.optim.adamw.AdamW" },
                    doc = "AdamW as torch.optim has it", fields = fields, defaults = { weight_decay = 0.01 } },
    family.target { name = "AdamConfig", kind = "adam", aliases = nemo_or("adam", "AdamConfig"),
                    doc = "Adam with NeMo Automodel's defaults", fields = adam_fields, defaults = config_defaults,
                    translate = adam_or_adamw },
    family.target { name = "AdamWConfig", kind = "adamw", aliases = nemo_or("adamw", "AdamWConfig"),
                    doc = "AdamW with NeMo Automodel's defaults", fields = fields, defaults = config_defaults },
    family.target { name = "FusedAdam", kind = "adamw",
                    aliases = { te .. "FusedAdam", te .. "fused_adam.FusedAdam", "apex.optimizers.FusedAdam" },
                    doc = "AdamW or Adam under Transformer Engine's names", fields = fused_fields,
                    defaults = { weight_decay = 0 }, translate = translate_fused },
    family.target { name = "FusedAdamConfig", kind = "adamw", aliases = nemo_or("fused_adam", "FusedAdamConfig"),
                    doc = "FusedAdam with NeMo Automodel's defaults", fields = fused_fields,
                    defaults = config_defaults, translate = translate_fused },
    family.target { name = "FlashAdamW", kind = "adamw",
                    aliases = { "flashoptim.FlashAdamW", "flashoptim.optimizers.FlashAdamW" },
                    doc = "AdamW with moments of 8 bits under flashoptim's names", fields = flash_fields,
                    defaults = { weight_decay = 0.01 }, translate = translate_flash },
    family.target { name = "FlashAdamWConfig", kind = "adamw", aliases = nemo_or("flash_adamw", "FlashAdamWConfig"),
                    doc = "FlashAdamW with NeMo Automodel's defaults", fields = flash_fields,
                    defaults = config_defaults, translate = translate_flash },
    eight_bit("Adam8bit", "adam", 0),
    eight_bit("AdamW8bit", "adamw", 0.01),
}

return M
