-- What a training step must compute, by a stated rule, and how fast this machine multiplies matrices of
-- the same shapes.
--
-- The rule: a multiply-add counts two. For each token a linear map of n weights costs 6 n when it is
-- trained (forward, gradient of its input, gradient of its weights) and 4 n when it is frozen, so that LoRA
-- costs two thirds and its adapters; a pair of query and key costs 12 times heads times head_dim (2 products
-- forward, 4 backward), in layers with a window too. A forward pass alone is 2 n and 4 times heads times head_dim. Of
-- experts those count that a token goes through; what pictures cost is vision_costs.lua's. What an implementation
-- computes a second time does not count, nor does anything but matrix products.

local am = require("am")
local edge = require("am.core.ffi")
local ops = require("am.core.ops")
local vision_costs = require("am.recipes.vision_costs")

local M = {}

local MAX_ROWS = 2048 -- of a product in the measurement: more rows are not faster
local MOST_REPEATS = 3 -- in one turn, of a product that a step has as often
local QUICK_ROWS, QUICK_WEIGHTS = 256, 2 ^ 20 -- of a product of quick_rate
local QUICK_SECONDS = 0.1
local REMEASURED = 3

-- The matrices of a module, as a list of { out, in, weight, how many a token goes through }. active: how many experts
-- see a token.
local function maps_of(module, active)
    local w = module.weight
    if w and module.in_features then
        return { { module.out_features, module.in_features, w, module.num_experts and active or 1 } }
    end
    local list = {}
    for _, slot in ipairs(module._parameters) do
        local t = module[slot.name] -- none in another stage
        if #slot.shape == 3 and t then -- experts without modules of their own, [experts, in, out] (GPT-OSS)
            list[#list + 1] = { slot.shape[3], slot.shape[2], t, active }
        end
    end
    return list
end

-- (path, module) of what a token goes through: of a model of images and text its language model and head.
local function token_modules(model)
    local own, next_module = vision_costs.text_modules(model), model:named_modules()
    return function()
        local path, module
        repeat
            path, module = next_module()
        until path == nil or not own or own[module]
        return path, module
    end
end

-- The matrices of a model that a token meets: { n (out), k (in), trained, adapter, head, count }, one for each that
-- differ.
local function matrices(model)
    local list, by_key, output = {}, {}, model:get_output_embeddings()
    local in_head
    for path, module in token_modules(model) do
        in_head = module == output and path or in_head
        local adapter = path:match("%.lora_[%a_]*[AB]$") ~= nil
        local head = in_head ~= nil and (path == in_head or path:sub(1, #in_head + 1) == in_head .. ".")
        for _, map in ipairs(maps_of(module, model.config.num_experts_per_tok or 1)) do
            local n, k, w, count = unpack(map)
            local key = string.format("%d %d %s %s %s", n, k, tostring(w.requires_grad), tostring(adapter),
                                      tostring(head))
            if not by_key[key] then
                by_key[key] = { n = n, k = k, trained = w.requires_grad, adapter = adapter, head = head, count = 0 }
                list[#list + 1] = by_key[key]
            end
            by_key[key].count = by_key[key].count + count
        end
    end
    return list
end

--- What a model costs: FLOPs of a token in linear maps below the head, of a token in the head, of a pair of
--- query and key. forward: without backward.
---@return {token: number, head: number, pair: number}
function M.costs(model, forward)
    local costs, width = { token = 0, head = 0 }, 0
    for _, m in ipairs(matrices(model)) do
        local part = m.head and "head" or "token"
        costs[part] = costs[part] + (forward and 2 or m.trained and 6 or 4) * m.n * m.k * m.count
    end
    for _, module in token_modules(model) do
        width = width + (module.kernel == "attention" and module.heads * module.head_dim or 0)
    end
    costs.pair = (forward and 4 or 12) * width
    return costs
end

--- FLOPs over `rows` rows of `length` tokens, `labels` of which go through the head. seen: pairs of query and key
--- of a row; without it each token sees all before it.
function M.of_rows(costs, rows, length, labels, seen)
    return rows * (length * costs.token + costs.pair * (seen or length * (length + 1) / 2)) + labels * costs.head
end

--- Pairs of query and key of a row of a batch, in the mean: a token sees its own sample alone.
function M.seen(batch)
    local pairs_of_all = 0
    for i = 0, batch.B * batch.T - 1 do
        local first, behind = batch.bounds[2 * i], batch.bounds[2 * i + 1]
        if behind > first then -- else it is padding
            pairs_of_all = pairs_of_all + i % batch.T - first + 1
        end
    end
    return pairs_of_all / batch.B
end

--- FLOPs of a step over `rows` rows of `length` tokens: of linear maps, of attention.
function M.of_step(model, rows, length)
    local costs = M.costs(model)
    return (costs.token + costs.head) * rows * length, costs.pair * rows * length * (length + 1) / 2
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

-- Seconds of fn, the mean and the least of some calls after one that warms the caches.
local function seconds_of(fn, calls)
    am.scope(fn)
    local start, least = edge.C.am_clock(), math.huge
    local last = start
    for _ = 1, calls do
        am.scope(fn)
        local now = edge.C.am_clock()
        last, least = now, math.min(least, now - last)
    end
    return (last - start) / calls, least
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

--- The same at a glance, for a share that is said while a run goes on: FLOP/s of products of each matrix, cut to
--- some rows and columns, the costly ones first, for about a tenth of a second. Draws no random numbers.
function M.quick_rate(model, tokens)
    local list, rows = {}, math.min(tokens, QUICK_ROWS)
    for _, m in ipairs(matrices(model)) do
        list[#list + 1] = not m.adapter and m or nil
    end
    table.sort(list, function(a, b) return a.n * a.k * a.count > b.n * b.k * b.count end)
    local options, flops, seconds = { dtype = model:dtype(), device = model:device() }, 0, 0
    local ends = edge.C.am_clock() + QUICK_SECONDS
    am.no_grad(function()
        for i, m in ipairs(list) do
            if i > 1 and edge.C.am_clock() > ends then
                break
            end
            am.scope(function()
                local k = math.min(m.k, QUICK_WEIGHTS / 16)
                local n = math.min(m.n, math.max(16, math.floor(QUICK_WEIGHTS / k)))
                local x, w = am.full({ rows, k }, 0.5, options), am.full({ n, k }, 0.5, options)
                local share = m.n * m.k * m.count / (n * k)
                flops = flops + 2 * rows * n * k * share
                local _, least = seconds_of(function() ops.linear(x, w) end, MOST_REPEATS)
                seconds = seconds + least * share -- others on the machine only make it slower
            end)
        end
    end)
    return flops / seconds
end

--- A function of FLOP/s that says what share they are of quick_rate. A measurement that steps turn out to be above
--- was disturbed and is made again, some times at most.
function M.meter(model, tokens)
    local rate, left = M.quick_rate(model, tokens), REMEASURED
    return function(done)
        while done > rate and left > 0 do
            rate, left = math.max(rate, M.quick_rate(model, tokens)), left - 1
        end
        return done / rate
    end
end

return M
