-- Training by products in 8 bits (Micikevicius et al. 2022): which maps of a model compute so, and the keys that say
-- it, as NeMo Automodel's FP8Config has them. How operands are scaled is the op's (fp8_linear); weights, gradients and
-- optimizer states keep their dtype.

local log = require("am.utils.log").get("am.quantization")

local M = {}

local MULTIPLE = 16 -- of both dims of a weight, as the hardware wants them

--- What the `fp8` section may hold.
M.fields = {
    enabled = { type = "boolean", default = false, doc = "without it the section says nothing" },
    recipe_name = { type = "string", enum = { "tensorwise", "rowwise", "rowwise_with_gw_hp" }, null = true,
                    doc = "what shares a scale: a tensor (the default), a row, or a row with the weight's gradient "
                        .. "in its own dtype" },
    filter_fqns = { type = "list", items = { type = "string" }, null = true,
                    doc = "maps to leave out: parts of their names" },
    emulate = { type = "boolean", default = false,
                doc = "a CPU always emulates; true keeps it from saying so" },
    enable_fsdp_float8_all_gather = { type = "boolean", no_effect = "weights are gathered in their dtype, and the "
                                      .. "numbers are the same" },
    precompute_float8_dynamic_scale_for_fsdp = { type = "boolean", no_effect = "scales are made where they are used, "
                                                 .. "and the numbers are the same" },
    force_recompute_fp8_weight_in_bwd = { type = "boolean", no_effect = "backward always casts weights anew" },
}

--- Does a section ask for it? One that names its class need not say `enabled`, as in the first versions.
function M.is_on(section)
    if section.enabled == nil then
        return section._target_ ~= nil
    end
    return section.enabled
end

local function is_filtered(path, filters)
    for _, part in ipairs(filters) do
        if path:find(part, 1, true) then
            return true
        end
    end
    return false
end

--- Let a model's maps multiply in 8 bits, but those whose name holds one of filter_fqns and those with a dim that is no
--- multiple of 16. Only modules that have `takes_fp8` can: nn.Linear, and LoRA's with the weight below it, whose A and
--- B stay as they are. To be called when adapters are in place. Returns how many, and how many maps there are.
---@param config table the keys of `fields`
function M.apply(model, config)
    local recipe, filters = config.recipe_name or "tensorwise", config.filter_fqns or {}
    local count, all = 0, 0
    local function walk(module, path)
        if module.takes_fp8 == nil then
            for _, child in ipairs(module._children) do
                walk(child.module, path == "" and child.name or path .. "." .. child.name)
            end
            return
        end
        all = all + 1
        if module.takes_fp8 and not is_filtered(path, filters) then
            if module.in_features % MULTIPLE == 0 and module.out_features % MULTIPLE == 0 then
                module.fp8, count = recipe, count + 1
            else
                log:info("fp8: %s [%d, %d] stays as it is: its dims are no multiples of %d", path,
                         module.out_features, module.in_features, MULTIPLE)
            end
        end
    end
    walk(model, "")
    return count, all
end

M.targets = { {
    name = "am.quantization.FP8Config",
    aliases = { "nemo_automodel.components.quantization.fp8.FP8Config",
                "nemo_automodel.components.quantization.fp8.build_fp8_config" },
    doc = "products in 8 bits",
    fields = M.fields,
    build = function(args) return args end,
} }

return M
