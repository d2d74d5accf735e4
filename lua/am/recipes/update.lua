-- The second half of a step: from gradients to weights, with the loss scale of float16 where there is one
-- (am.training.grad_scaler). Methods of the recipes for language models (llm.lua).

local config = require("am.config")
local err = require("am.core.error")

local Methods = {}

--- The scale of the loss that the `grad_scaler` section describes; without one that of a model in float16. nil where
--- nothing is scaled.
function Methods:build_grad_scaler()
    local scaler = config.instantiate(self.cfg:child("grad_scaler") or config.from_table {}, self.ctx, {},
                                      { default_target = "am.training.GradScaler" })
    local half = self.model:dtype() == "float16"
    if not (scaler.enabled or half and scaler.enabled == nil) then
        if half then
            self.log:warning("grad_scaler.enabled is false: gradients of a model in float16 that are too small for it "
                             .. "count as 0")
        end
        return nil
    elseif self.optimizer:is_fused() then
        err.raise("usage", "%s: optimizer.fuse_backward updates weights before it is known whether all gradients are "
                  .. "finite, which %s asks for; set optimizer.fuse_backward: false%s",
                  self.cfg:where("optimizer.fuse_backward"), half and "float16" or "grad_scaler",
                  half and ", or take model.torch_dtype: bfloat16" or ", or grad_scaler.enabled: false")
    end
    self.log:info("loss scale %g at first, x %g after %d clean steps, x %g behind one that is skipped", scaler.scale,
                  scaler.growth_factor, scaler.growth_interval, scaler.backoff_factor)
    return self:track("optim/grad_scaler.json", scaler, true)
end

--- What the loss is multiplied by before backward.
function Methods:loss_scale()
    return self.grad_scaler and self.grad_scaler.scale or 1
end

--- Stop the run for a loss or a norm of gradients that is no finite number; with a loss scale its step is left out
--- instead, see update.
function Methods:check_number(what, value)
    if not self.grad_scaler and not self.is_finite(value) then
        self:not_finite(what, value, true)
    end
end

-- The next scale. `value`: the loss or the norm that made the step be left out, nil where it was not. All ranks know
-- the same of both, so they do the same.
local function next_scale(self, what, value)
    local scaler, before = self.grad_scaler, self.grad_scaler.scale
    scaler:update(what ~= nil)
    if not what then
        return
    elseif scaler:is_used_up() then
        err.raise("state", "step %d: the %s is still %s with a loss scale of %g, so it is not the scale: the model "
                  .. "itself leaves float16's range, or its weights went wrong before. Take model.torch_dtype: "
                  .. "bfloat16, or a lower optimizer.lr from an earlier checkpoint (checkpoint.restore_from)",
                  self.scheduler.step, what, tostring(value), before)
    end
    self.log:info("step %d is skipped: the %s is %s; loss scale %g -> %g", self.scheduler.step, what, tostring(value),
                  before, scaler.scale)
end

--- Update the weights by the gradients that there are, of a loss that was multiplied by loss_scale(). With a scaler a
--- step whose loss or gradients are no numbers changes nothing. Returns the gradients' norm.
function Methods:update(loss)
    local scale = self:loss_scale()
    local norm, factor = self.timers:timed("clip", 2, self.optimizer.clip_grad_norm, self.optimizer, self:max_norm(),
                                           scale)
    self:check_number("gradient norm", norm)
    local what = not self.is_finite(loss) and "loss" or not self.is_finite(norm) and "gradient norm" or nil
    if not what then
        self.timers:timed("optimizer", 1, self.optimizer.step, self.optimizer, factor / scale)
    end
    if self.grad_scaler then
        next_scale(self, what, what == "loss" and loss or norm)
    end
    return norm
end

return Methods
