-- Products in 8 bits, in a recipe: which section asks for them, and putting them on a model that has its adapters.
-- Methods of the recipes for language models (llm.lua); what is done is am.quantization.fp8's.

local config = require("am.config")
local err = require("am.core.error")
local fp8 = require("am.quantization").fp8

local Methods = {}

--- The section of a configuration that asks for products in 8 bits, and its key: `fp8`, or the argument of the same in
--- the model's. nil without one.
function Methods.fp8_section(cfg)
    for _, key in ipairs { "fp8", "model.fp8_config" } do
        local section = cfg:child(key)
        if section and section.kind == "map" and fp8.is_on(section:to_table()) then
            return section, key
        end
    end
end

-- Does the loss multiply by the head's matrix itself, and not in 8 bits?
local function loss_is_fused(cfg)
    return cfg:has("loss_fn") and (cfg:get("loss_fn._target_") or "FusedLinear"):find("FusedLinear") ~= nil
end

--- Let a model multiply in 8 bits where the configuration says so. Raises "usage" where no map of it can. Then
--- model.logits_at_once says whether the loss makes those of a whole micro-batch (memory.lua).
function Methods:apply_fp8(model)
    local section, key = self.fp8_section(self.cfg)
    if not section then
        return
    end
    local wanted = config.instantiate(section, self.ctx, {}, { default_target = "am.quantization.FP8Config" })
    local count, all = fp8.apply(model, wanted)
    if count == 0 then
        err.raise("usage", "%s: %s: none of the model's %d linear maps can multiply in 8 bits: filter_fqns leaves them "
                  .. "out, their dims are no multiples of 16, or peft.use_dora scales them", section:where(), key, all)
    end
    local head = model:get_output_embeddings()
    model.logits_at_once = head.fp8 ~= nil and not loss_is_fused(self.cfg)
    local device = self.ctx.device or "cpu"
    local emulated = ""
    if not wanted.emulate and not device:match("^cuda") then
        emulated = ("; emulated, since device %s has no products in 8 bits: the numbers are the same, and it is "
                    .. "no faster"):format(device)
    end
    self.log:info("fp8: %d of %d linear maps, %s%s", count, all, wanted.recipe_name or "tensorwise", emulated)
end

return Methods
