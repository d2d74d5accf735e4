-- A metric of one's own: how often the right token is among the model's first five.
--   metrics:
--     - _target_: metric.lua:top5

local M = {}

--- A new one for each validation: update() for each batch, with what a loss gets, and value() at the end,
--- which becomes val_top5 in validation.jsonl.
function M.top5()
    local metric = { name = "top5", right = 0, count = 0 }

    function metric:update(hidden, labels, ctx)
        local logits = ctx.head(hidden):to("float32")
        local own = logits:gather(-1, labels:reshape(labels:numel(), 1):to("int64")) -- [N, 1]
        local better = logits:gt(own):to("float32"):sum(-1) -- how many are likelier
        self.right = self.right + better:lt(5):to("float32"):sum():item()
        self.count = self.count + labels:numel()
    end

    function metric:value() return self.right / math.max(self.count, 1) end

    return metric
end

return M
