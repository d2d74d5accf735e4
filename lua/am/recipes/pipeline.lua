-- A step and validation of a model in stages (am.distributed.pipeline): a window's micro-batches go through them
-- together, and the loss is the last stage's. Methods of the recipes for language models (llm.lua).

local Methods = {}

-- What a stage does with a micro-batch; loss(batch): the last one.
local function work(self, loss)
    return {
        states = function(batch) return self:run_model(self.model, batch).hidden_states end,
        loss = loss,
        before_last = function() self.sync:begin() end,
    }
end

--- Gradients of a window's loss, summed over its micro-batches times `scale`. Returns the loss, 0 where it is another
--- stage's.
function Methods:staged_gradients(window, scale)
    local total = 0
    self.aux_loss = self.model.config.output_router_logits and 0 or nil
    self.timers:timed("pipeline", 1, self.pipeline.run, self.pipeline, window, work(self, function(batch)
        local sum = self:objective(batch)
        total = total + sum:item()
        return sum * scale
    end))
    return total
end

--- The loss of a batch without gradients, 0 where it is another stage's. see: as Recipe:loss has it.
function Methods:staged_loss(batch, see)
    local sum = self.pipeline:forward(batch, work(self, function() return self:loss(batch, see) end))
    return sum and sum:item() or 0
end

return Methods
