-- A step and validation where a model is in stages (am.distributed.pipeline): the micro-batches of a window go through
-- them together, and the loss is the last stage's. Methods of the recipes for language models (llm.lua).

local am = require("am")
local err = require("am.core.error")

local Methods = {}

--- Raise "usage" for what does not go with stages.
function Methods:check_stages()
    for _, key in ipairs { "samples", "neftune" } do
        if self.cfg:has(key) and key == "samples" then
            err.raise("usage", "%s: samples: a model in stages does not generate; leave the section out, or set "
                      .. "distributed.pp_size: 1", self.cfg:where(key))
        end
    end
end

-- A model's hidden states of a batch, as far as this stage has them.
local function states(self, batch)
    local model = self.model
    local inputs = self:inputs(batch, function(array, shape)
        return am.from_buffer(array, shape, { dtype = "int32", device = model:device() })
    end)
    inputs.logits_to_keep = false
    return (model.states or model.forward)(model, inputs).hidden_states -- a classifier's forward has its head in it
end

--- Gradients of a window's loss, summed over its micro-batches times `scale`. Returns the loss: this rank's part of
--- the sum over all.
function Methods:staged_gradients(window, scale)
    local loss = 0
    self.aux_loss = self.model.config.output_router_logits and 0 or nil
    self.pipeline:run(window, {
        states = function(batch) return states(self, batch) end,
        loss = function(batch)
            local sum = self:objective(batch)
            loss = loss + sum:item()
            return sum * scale
        end,
        before_last = function() self.sync:begin() end,
    })
    return loss
end

--- The loss of a validation batch: 0 where it is another stage's. see: as Recipe:loss has it.
function Methods:staged_loss(batch, see)
    local loss = am.scope(function()
        local sum = self.pipeline:forward(batch, {
            states = function(b) return states(self, b) end,
            loss = function(b) return self:loss(b, see) end,
        })
        return sum and sum:item()
    end)
    return loss or 0
end

return Methods
