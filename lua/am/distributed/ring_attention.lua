-- Ring attention (Liu et al. 2023, arXiv:2310.01889): the ranks of a group share the tokens of each row, and the keys
-- and values of each go round to all others. Holds no batch and no model: see context_parallel.lua.
--
-- A row of T tokens is cut into 2 n chunks, of which rank r has the r-th and, behind it, the r-th from the end: under
-- a causal mask all ranks have as much to do. What a query may see is a range of the row's keys, and of any rank's two
-- chunks that is again one range of the keys that it holds: `plan` makes these.
--
-- A block of keys is under way to the next rank while this one computes with it, and its gradients follow it, until
-- they are where it came from. A block that no rank's queries see is passed over.

local ffi = require("ffi")
local autograd = require("am.core.autograd")
local ops = require("am.core.ops")
local tensor = require("am.core.tensor")

local M = {}

-- ---- who sees what --------------------------------------------------------------------------

---@class am.distributed.RingPlan
local Plan = {}
Plan.__index = Plan

--- What the queries of a batch see. group: the ranks; rows: B and T of the whole rows (T a multiple of twice the
--- ranks) and bounds, int32_t[B T 2], the key range of each token before a causal mask or window narrows it (nil: all).
---@return am.distributed.RingPlan
function M.plan(group, rows)
    local n = group:size()
    return setmetatable({ group = group, rank = group:rank(), n = n, B = rows.B, T = rows.T, bounds = rows.bounds,
                          chunk = rows.T / (2 * n), known = {} }, Plan)
end

-- The row's keys that token t of row b sees: from, and up to but without.
local function range(self, b, t, causal, window)
    local first, stop = 0, self.T
    if self.bounds then
        local at = 2 * (b * self.T + t)
        first, stop = self.bounds[at], self.bounds[at + 1]
    end
    stop = causal and math.min(stop, t + 1) or stop
    return window and math.max(first, t - window + 1) or first, stop
end

-- The steps of the ring at which some rank sees something: { [step] = true }. At step i a rank has the keys of the
-- i-th rank before it.
local function needed_steps(self, causal, window)
    local n, chunk, needed, left = self.n, self.chunk, { [0] = true }, self.n - 1
    local function owner(c) return c < n and c or 2 * n - 1 - c end
    for b = 0, self.B - 1 do
        for t = 0, self.T - 1 do
            local first, stop = range(self, b, t, causal, window)
            local own = owner(math.floor(t / chunk))
            for c = math.floor(first / chunk), first < stop and math.floor((stop - 1) / chunk) or -1 do
                local step = (own - owner(c)) % n
                left, needed[step] = left - (needed[step] and 0 or 1), true
            end
            if left == 0 then
                return needed
            end
        end
    end
    return needed
end

-- How many of the keys that rank r holds stand before place p of the row.
local function held_before(self, r, p)
    local chunk = self.chunk
    local function of(c) return math.max(0, math.min(chunk, p - c * chunk)) end
    return of(r) + of(2 * self.n - 1 - r)
end

-- The ranges of rank r's keys that this rank's queries see, int32_t[B 2 chunk 2]; nil where none sees any.
local function ranges_of(self, r, causal, window)
    local length, any = 2 * self.chunk, false
    local out = ffi.new("int32_t[?]", self.B * length * 2)
    for b = 0, self.B - 1 do
        for i = 0, length - 1 do
            local first, stop = range(self, b, self:place(i), causal, window)
            local at = 2 * (b * length + i)
            if first < stop then
                out[at], out[at + 1] = held_before(self, r, first), held_before(self, r, stop)
                any = any or out[at] < out[at + 1]
            end
        end
    end
    return any and out or nil
end

--- Where in the row the i-th of a rank's tokens is; this rank's unless another is named.
function Plan:place(i, rank)
    rank = rank or self.rank
    return i < self.chunk and rank * self.chunk + i or (2 * self.n - 2 - rank) * self.chunk + i
end

--- The steps of the ring: { hops = places that keys come from further back than at the step before, ranges =
--- int32_t[B 2 chunk 2] or nil where this rank sees nothing }, and `home`, the hops that are left until keys are where
--- they came from.
function Plan:steps(causal, window)
    local key = (causal and "causal " or "all ") .. (window or "")
    if not self.known[key] then
        local needed, steps, at = needed_steps(self, causal, window), {}, 0
        for i = 0, self.n - 1 do
            if needed[i] then
                steps[#steps + 1] = { hops = i - at,
                                      ranges = ranges_of(self, (self.rank - i) % self.n, causal, window) }
                at = i
            end
        end
        steps.home = (self.n - at) % self.n
        self.known[key] = steps
    end
    return self.known[key]
end

-- ---- the ring -------------------------------------------------------------------------------

-- Begin to give `from` to the rank `hops` places on, and to take `to` from the one as far back.
local function pass(self, to, from, hops)
    local gives, takes = {}, {}
    for r = 1, self.n do
        gives[r], takes[r] = 0, 0
    end
    gives[(self.rank + hops) % self.n + 1] = from:numel()
    takes[(self.rank - hops) % self.n + 1] = to:numel()
    return self.group:all_to_all(to, takes, from, gives)
end

local function wide(x)
    return x:dtype() == "float64" and "float64" or "float32"
end

-- Keys and values in one piece, which can be sent.
local function pair_of(k, v)
    local b, t, heads, d = unpack(k:size())
    local kv = tensor.empty({ 2, b, t, heads, d }, { dtype = k:dtype(), device = k:device() })
    kv:select(0, 0):copy_(k)
    kv:select(0, 1):copy_(v)
    return kv
end

-- For each step in turn visit(step, keys and values that are here), while the next ones come.
local function go_round(self, steps, k, v, visit)
    local here, spare = pair_of(k, v), nil
    for i, step in ipairs(steps) do
        local following, work = steps[i + 1], nil
        if following then
            spare = spare or tensor.empty(here:size(), { dtype = here:dtype(), device = here:device() })
            work = pass(self, spare, here, following.hops)
        end
        visit(step, here:select(0, 0), here:select(0, 1), following and following.hops or steps.home)
        if work then
            work:wait()
            here, spare = spare, here
        end
    end
    here:release()
    if spare then
        spare:release()
    end
end

local function bounds_of(self, step, device)
    return tensor.from_buffer(step.ranges, { self.B, 2 * self.chunk, 2 }, { dtype = "int32", device = device })
end

local function forward(ctx, q, k, v, sinks, self, opts)
    local b, t, heads = unpack(q:size())
    local like = { dtype = wide(q), device = q:device() }
    local out, lse = tensor.zeros(q:size(), like), tensor.full({ b, heads, t }, -math.huge, like)
    local steps = self:steps(opts.causal, opts.window)
    go_round(self, steps, k, v, function(step, keys, values)
        if step.ranges then
            ops.attention_add(out, lse, q, keys, values, bounds_of(self, step, q:device()),
                              { causal = false, scale = opts.scale, softcap = opts.softcap,
                                sinks = step == steps[1] and sinks or nil })
        end
    end)
    ctx.q, ctx.k, ctx.v, ctx.sinks, ctx.lse = q, k, v, sinks, lse
    ctx.plan, ctx.opts, ctx.out = self, opts, out:to(q:dtype())
    return ctx.out
end

-- Of the logits that only take part in each softmax: minus their shares times the rows' sums of dout out.
local function sinks_grad(ctx, dout)
    local _, heads = unpack(ctx.lse:size())
    local shares = (ctx.sinks:to(ctx.lse:dtype()):reshape(1, heads, 1) - ctx.lse):exp()
    local sums = (dout:to(ctx.lse:dtype()) * ctx.out:to(ctx.lse:dtype())):sum(-1):transpose(1, 2)
    return (-(shares * sums):sum(2):sum(0)):to(ctx.sinks:dtype())
end

local function backward(ctx, dout)
    local self, opts, q, k, v = ctx.plan, ctx.opts, ctx.q, ctx.k, ctx.v
    local like = { dtype = wide(q), device = q:device() }
    local b, t, heads, d = unpack(k:size())
    dout = dout:contiguous()
    local dq, coming, kept = tensor.zeros(q:size(), like), nil, nil -- kept: what was given on, or is to be
    go_round(self, self:steps(opts.causal, opts.window), k, v, function(step, keys, values, hops)
        local own = tensor.zeros({ 2, b, t, heads, d }, like) -- of the keys that are here
        if step.ranges then
            ops.attention_add_grad({ q = dq, k = own:select(0, 0), v = own:select(0, 1) }, dout, ctx.out, ctx.lse, q,
                                   keys, values, bounds_of(self, step, q:device()),
                                   { causal = false, scale = opts.scale, softcap = opts.softcap })
        end
        if coming then
            local others = coming:wait()
            own:add_(others)
            others:release()
            kept:release()
        end
        kept = own
        if hops > 0 then
            coming = pass(self, tensor.empty(own:size(), like), own, hops)
        end
    end)
    local dkv = coming and coming:wait() or kept
    local grads = { dq:to(q:dtype()), dkv:select(0, 0):to(k:dtype()), dkv:select(0, 1):to(v:dtype()) }
    return grads[1], grads[2], grads[3], ctx.sinks and sinks_grad(ctx, dout) or nil
end

local ring = autograd.custom { forward = forward, backward = backward }

--- Attention of a rank's queries [B, 2 chunk, H, D] to the keys and values of all ranks, each with its own
--- [B, 2 chunk, K, D], at the places of a plan. All ranks call this together, and backward. opts: those of
--- ops.attention but dropout.
function M.attention(plan, q, k, v, opts)
    return ring(q, k, v, opts.sinks, plan, { causal = opts.causal ~= false, window = opts.window, scale = opts.scale,
                                             softcap = opts.softcap })
end

return M
