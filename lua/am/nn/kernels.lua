-- Which ops a model runs: fused ones, or compositions of elementwise ops and stored scores that check them.

local err = require("am.core.error")

local M = {}

-- Values of attn_implementation; all but eager are the op that never stores scores. For "library" that of a GPU may
-- compute it.
local attention = { flash_attention_2 = "library", flash_attention_3 = "library", sdpa = "fused",
                    flex_attention = "fused", eager = "eager" }

--- Raise "argument" unless it is a name that attn_implementation may have.
function M.check_attention(name)
    if name ~= nil and not attention[name] then
        err.raise("argument", "attn_implementation \"%s\" is not known; known are eager, flash_attention_2, "
                  .. "flash_attention_3, flex_attention and sdpa", tostring(name))
    end
end

--- Switch a live model's ops, and say which runs how: {attention = "fused" or "eager", rms_norm = "fused" or
--- "composed", layer_norm =, glu =}, for those that it has. Numbers stay the same but for rounding.
---@param model am.nn.Module
---@param opts? {attn_implementation: string?, use_liger_kernel: boolean?, use_sdpa_patching: boolean?,
---  sdpa_method: any} attn_implementation: eager stores the scores, any other is fused (sdpa by default), and for
---  flash_attention_2 and flash_attention_3 a GPU's library may compute it (docs/cuda.md); use_liger_kernel:
---  false composes norms and gated activations. The last two choose among kernels of which there is one, so they
---  change nothing.
function M.patch_model_with_kernel_optimizations(model, opts)
    opts = opts or {}
    if type(model) ~= "table" or not model.named_modules then
        err.raise("argument", "a model is needed, not a %s", type(model))
    end
    M.check_attention(opts.attn_implementation)
    local by = attention[opts.attn_implementation or "sdpa"]
    local composed = opts.use_liger_kernel == false
    local how = {}
    for _, module in model:named_modules() do
        if module.kernel == "attention" then
            module.eager, module.library = by == "eager", by == "library"
            how.attention = (module.eager or module.slopes) and "eager" or "fused" -- ALiBi knows no other
        elseif module.kernel then
            module.composed = composed
            how[module.kernel] = composed and "composed" or "fused"
        end
    end
    return how
end

return M
