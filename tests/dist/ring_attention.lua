-- Ring attention against attention to whole rows, on all ranks that run this: forward, and the gradients of queries,
-- keys, values and sinks.
--
--   mpirun -n N amlua tests/dist/ring_attention.lua

local ffi = require("ffi")
local am = require("am")
local comm = require("am.distributed.comm")
local ring = require("am.distributed.ring_attention")

local world = comm.open("mpi", { timeout = 60 })
local rank, n = world:rank(), world:size()

-- A rank's tokens of a tensor of whole rows.
local function own(x)
    local chunk = x:size(1) / (2 * n)
    return am.cat({ x:narrow(1, rank * chunk, chunk), x:narrow(1, (2 * n - 1 - rank) * chunk, chunk) }, 1)
end

local function close(a, b, tolerance, what)
    local most = (a:to("float64") - b:to("float64")):abs():max():item()
    assert(most <= tolerance, ("rank %d, %s: %g apart"):format(rank, what, most))
end

-- Key ranges of rows that are packed of samples of these lengths; what is left sees nothing.
local function packed(b, t, lengths)
    local out = ffi.new("int32_t[?]", 2 * b * t)
    for row = 0, b - 1 do
        local first = 0
        for i = 1, #lengths do
            local length = lengths[(i + row - 1) % #lengths + 1]
            for k = first, first + length - 1 do
                out[2 * (row * t + k)], out[2 * (row * t + k) + 1] = first, first + length
            end
            first = first + length
        end
    end
    return out
end

-- case: b, t, h, kv heads, d, dtype, lengths (of packed samples), opts (of attention), steps (of the ring, expected)
local function check(name, case)
    local b, t, h, kv, d = unpack(case.shape)
    t = t * 2 * n
    am.manual_seed(5)
    local dtype, tolerance = case.dtype or "float32", case.tolerance or 1e-5
    local function random(heads) return am.randn({ b, t, heads, d }):to(dtype) end
    local q, k, v, grad, sinks = random(h), random(kv), random(kv), random(h), nil
    local opts = case.opts or {}
    if case.sinks then
        sinks = am.randn({ h }):to(dtype)
    end
    local array = case.lengths and packed(b, t, case.lengths(t))
    local bounds = array and am.from_buffer(array, { b, t, 2 }, { dtype = "int32" })
    local function run(attend, given, ...)
        local leaves = {}
        for i, x in ipairs { ... } do
            leaves[i] = x:contiguous():detach()
            leaves[i].requires_grad = true
        end
        opts.sinks = sinks and sinks:detach() or nil
        if sinks then
            opts.sinks.requires_grad = true
        end
        local out = attend(leaves[1], leaves[2], leaves[3])
        local value = out:detach()
        out:backward(given)
        return value, leaves, opts.sinks
    end
    local out, whole, d_sinks = run(function(x, y, z) return am.attention(x, y, z, bounds, opts) end, grad, q, k,
                                     v)
    local plan = ring.plan(world, { B = b, T = t, bounds = array })
    local given = world:counts().all_to_all.bytes
    local part, leaves, own_sinks = run(function(x, y, z) return ring.attention(plan, x, y, z, opts) end,
                                        own(grad), own(q), own(k), own(v))
    given = world:counts().all_to_all.bytes - given
    if case.steps == n then -- twice keys and values, and f32 gradients of them until they are home
        local numbers = 2 * b * t / n * kv * d
        assert(given == (2 * (n - 1) + n) * numbers * 4, ("%s: %d bytes given"):format(name, given))
    end
    close(part, own(out), tolerance, name .. ", out")
    for i, what in ipairs { "dq", "dk", "dv" } do
        close(leaves[i].grad, own(whole[i].grad), tolerance * (case.grad_scale or 1), name .. ", " .. what)
    end
    if sinks then
        close(world:all_reduce(own_sinks.grad:clone()):wait(), d_sinks.grad, 1e-4, name .. ", sinks")
    end
    if case.steps then
        local steps = #plan:steps(opts.causal ~= false, opts.window)
        assert(steps == case.steps, ("%s: %d steps instead of %d"):format(name, steps, case.steps))
    end
end

local function halves(t) return { t / 2, t / 2 } end
-- The first sample has so many chunks, the others one each.
local function chunks(first)
    return function(t)
        local chunk = t / (2 * n)
        local list = { first * chunk }
        for i = 2, 2 * n - first + 1 do
            list[i] = chunk
        end
        return list
    end
end
local function uneven(t) return { 3, math.floor(t / 2), math.floor(t / 2) - 5 } end

check("causal", { shape = { 2, 5, 4, 4, 16 }, steps = n })
check("shared heads", { shape = { 1, 33, 6, 2, 32 } })
check("all see all", { shape = { 1, 7, 2, 2, 8 }, opts = { causal = false }, steps = n })
check("packed", { shape = { 3, 9, 4, 2, 16 }, lengths = uneven })
check("packed, each sees only its neighbours", { shape = { 1, 8, 2, 2, 16 }, lengths = halves })
check("samples that no two ranks share", { shape = { 1, 4, 2, 2, 16 }, lengths = chunks(1), steps = 1 })
check("samples that the first two ranks share", { shape = { 1, 4, 2, 2, 16 }, lengths = chunks(2), steps = 2 })
check("a window", { shape = { 2, 16, 4, 2, 16 }, opts = { window = 5 }, steps = math.min(n, 3) })
check("a wide window, packed", { shape = { 2, 16, 4, 2, 16 }, opts = { window = 40 }, lengths = uneven })
check("soft cap and scale", { shape = { 2, 11, 4, 1, 16 }, opts = { softcap = 3, scale = 0.7 }, grad_scale = 3 })
check("sinks", { shape = { 2, 8, 4, 2, 16 }, sinks = true, lengths = uneven })
check("float64", { shape = { 1, 4, 2, 1, 8 }, dtype = "float64", tolerance = 1e-13 })
-- Outputs of bfloat16 are off by 2^-9 of themselves, and each block's are rounded once.
check("bfloat16", { shape = { 1, 16, 4, 2, 32 }, dtype = "bfloat16", tolerance = 0.03, grad_scale = 2 })

-- computed again in backward
am.manual_seed(3)
local plan = ring.plan(world, { B = 1, T = 8 * n })
local x = own(am.randn { 1, 8 * n, 2, 8 }):contiguous():detach()
local function twice(recompute)
    local leaf = x:detach()
    leaf.requires_grad = true
    local function fn(y) return ring.attention(plan, y, y * 2, y, {}) end
    local out = recompute and am.checkpoint(fn, leaf) or fn(leaf)
    out:sum():backward()
    return leaf.grad
end
close(twice(true), twice(false), 0, "recomputed")

world:close()
print("all is well on rank " .. rank)
