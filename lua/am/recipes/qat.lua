-- Training that knows of later quantisation, in a recipe: from which step on the section `qat` counts. Methods of the
-- recipes for language models (llm.lua); what is rounded how is am.quantization.qat's.

local config = require("am.config")
local err = require("am.core.error")
local quantization = require("am.quantization")

local Methods = {}

--- Have a model's maps take part as the section `qat` says; nil without one. It begins with fake_quantize.
function Methods:apply_qat(model)
    if not self.cfg:get("qat.enabled") then
        return nil
    end
    local section = self.cfg:child("qat.quantizer") or self.cfg:child("qat.qat_config") or config.from_table {}
    local ok, result = pcall(function()
        return quantization.qat.apply(model, config.instantiate(section, self.ctx, {},
                                                                { default_target = "am.quantization.QATConfig" }))
    end)
    if not ok then
        error(err.within(result, "qat, " .. self.cfg:where("qat")), 0)
    end
    return result
end

--- Round as it is due in a step, or in the validation behind it.
function Methods:fake_quantize(step)
    if not self.qat then
        return
    end
    local on = step >= (self.cfg:get("qat.fake_quant_after_n_steps") or 0)
    if on and not self.qat.on then
        self.log:info("qat: rounding is on from step %d", step)
    end
    self.qat.on = on
end

return Methods
