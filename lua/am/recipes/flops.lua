-- What a training step must compute, by a stated rule, and how fast this machine multiplies matrices of
-- the same shapes.
--
-- The rule: a multiply-add counts two. For each token a linear map of n weights costs 6 n when it is
-- trained (forward, gradient of its input, gradient of its weights) and 4 n when it is frozen; a pair of
-- query and key costs 12 times heads times head_dim (2 products forward, 4 backward). What an
-- implementation computes a second time does not count, nor does anything but matrix products.

local am = require("am")
local edge = require("am.core.ffi")
local ops = require("am.core.ops")

local M = {}

local MAX_ROWS = 2048 -- of a product in the measurement: more rows are not faster
local MOST_REPEATS = 3 -- in one turn, of a product that a step has as often

-- The matrices of a model: { n (out), k (in), trained, adapter, count }, one for each that differ.
local function matrices(model)
    local list, by_key = {}, {}
    for path, module in model:named_modules() do
        if module.class_name == "Linear" or module.class_name == "LinearLoRA" then
            local w = module.weight
            local adapter = path:match("%.lora_[%a_]*[AB]$") ~= nil
            local key = string.format("%d %d %s %s", w:size(0), w:size(1), tostring(w.requires_grad), tostring(adapter))
            if not by_key[key] then
                by_key[key] = { n = w:size(0), k = w:size(1), trained = w.requires_grad, adapter = adapter, count = 0 }
                list[#list + 1] = by_key[key]
            end
            by_key[key].count = by_key[key].count + 1
        end
    end
    return list
end

--- FLOPs of a step over `rows` rows of `length` tokens: of linear maps, of attention.
function M.of_step(model, rows, length)
    local linear, c = 0, model.config
    for _, m in ipairs(matrices(model)) do
        linear = linear + (m.trained and 6 or 4) * m.n * m.k * m.count
    end
    local width = c.num_attention_heads * (c.head_dim or c.hidden_size / c.num_attention_heads)
    return linear * rows * length, 12 * width * c.num_hidden_layers * rows * length * (length + 1) / 2
end

-- The products of one matrix over `rows` rows: x W^T, dy W, and dy^T x when it is trained.
local function products_of(m, rows, options)
    local x, w = am.randn({ rows, m.k }, options), am.randn({ m.n, m.k }, options)
    local dy = am.randn({ rows, m.n }, options)
    local list = { function() ops.linear(x, w) end, function() ops.matmul(dy, w) end }
    if m.trained then
        local dy_t = dy:transpose(0, 1):contiguous()
        list[3] = function() ops.matmul(dy_t, x) end
    end
    return list
end

-- Seconds of fn, the mean of some calls after one that warms the caches.
local function seconds_of(fn, calls)
    am.scope(fn)
    local start = edge.C.am_clock()
    for _ = 1, calls do
        am.scope(fn)
    end
    return (edge.C.am_clock() - start) / calls
end

--- The products that a step over `tokens` tokens needs, each alone, in the model's dtype and on random
--- operands, which are kept. An adapter's thin ones are left out. Returns a function that runs them once
--- more (up to MOST_REPEATS times) and says their FLOP/s.
function M.product_rate(model, tokens)
    local rows = math.min(tokens, MAX_ROWS)
    local options, list = { dtype = model:dtype(), device = model:device() }, {}
    for _, m in ipairs(matrices(model)) do
        if not m.adapter then
            for _, product in ipairs(products_of(m, rows, options)) do
                list[#list + 1] = { run = product, count = m.count, flops = 2 * rows * m.n * m.k }
            end
        end
    end
    return function()
        local flops, seconds = 0, 0
        am.no_grad(function()
            for _, p in ipairs(list) do
                flops = flops + p.flops * p.count
                seconds = seconds + seconds_of(p.run, math.min(p.count, MOST_REPEATS)) * p.count
            end
        end)
        return flops / seconds
    end
end

return M
