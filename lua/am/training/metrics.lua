-- What validation measures beside the loss. A metric is an object with a `name`, update(hidden, labels, ctx),
-- which gets what the loss gets (lua/am/loss/init.lua), once for each batch, and value(), a number that goes
-- into validation.jsonl as val_NAME. A new one is made for each validation set. With several ranks, each of which sees
-- some batches, also totals(), a list of numbers that add up over ranks, and set_totals(list) with the sums.

local ops = require("am.core.ops")
local scope = require("am.core.scope")

local M = {}

local CHUNK = 2 * 1024 * 1024 -- logits at a time

local TokenAccuracy = { name = "token_accuracy" }
TokenAccuracy.__index = TokenAccuracy

--- Share of the label tokens that are the model's first choice.
function M.TokenAccuracy()
    return setmetatable({ right = 0, count = 0 }, TokenAccuracy)
end

function TokenAccuracy:update(hidden, labels, ctx)
    local n = hidden:size(0)
    local rows = math.max(1, math.floor(CHUNK / ctx.vocab_size))
    for first = 0, n - 1, rows do
        local count = math.min(rows, n - first)
        self.right = self.right + scope.scope(function()
            local chosen = ctx.head(hidden:narrow(0, first, count)):argmax(-1):to("int32")
            return ops.eq(chosen, labels:narrow(0, first, count)):to("float32"):sum():item()
        end)
        self.count = self.count + count
    end
end

function TokenAccuracy:totals() return { self.right, self.count } end

function TokenAccuracy:set_totals(list) self.right, self.count = list[1], list[2] end

function TokenAccuracy:value()
    return self.right / math.max(self.count, 1)
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.metrics.TokenAccuracy",
    doc = "share of label tokens that are the model's first choice",
    fields = {},
    build = M.TokenAccuracy,
} }

return M
