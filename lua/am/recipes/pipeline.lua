-- A step and validation of a model in stages (am.distributed.pipeline): a window's micro-batches go through them
-- together, and the loss is the last stage's. Methods of the recipes for language models (llm.lua).

local err = require("am.core.error")

local Methods = {}

--- What the configuration says of stages: `distributed.pipeline`, or `autopipeline` as it was called.
function Methods:stage_options()
    return self:section(self.cfg:has("distributed.pipeline") and "distributed.pipeline" or "autopipeline")
end

--- Before anything is loaded, with several stages: raise "usage" for what does not go with them, and take the rows of
--- their micro-batches for those that are computed at once.
function Methods:prepare_stages()
    local cfg, rows = self.cfg, self:stage_options().pp_microbatch_size
    if cfg:has("samples") then
        err.raise("usage", "%s: samples: a model in stages (distributed.pp_size %d) does not generate; leave the "
                  .. "section out", cfg:where("samples"), self.mesh:size("pp"))
    end
    local key = cfg:has("step_scheduler.local_batch_size") and "step_scheduler.local_batch_size"
        or "dataloader.batch_size"
    local said = cfg:get(key, 1)
    if not rows or rows == said then
        return
    elseif said % rows ~= 0 then
        err.raise("usage", "pp_microbatch_size: %d does not divide %s, which is %d", rows, key, said)
    end
    cfg:set(key, rows)
end

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
    local parts = {}
    for i, batch in ipairs(window) do
        parts[i] = self:own_tokens(batch)
    end
    self.timers:timed("pipeline", 1, self.pipeline.run, self.pipeline, parts, work(self, function(batch)
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
