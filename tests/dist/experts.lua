-- Experts that ranks share against all of them on one, forward and backward; a failure ends all ranks.
--
--   mpirun -n N amlua tests/dist/experts.lua

local am = require("am")
local comm = require("am.distributed.comm")
local expert_parallel = require("am.distributed.expert_parallel")
local ops = require("am.core.ops")

local world = comm.open("mpi", { timeout = 60 })
local rank, size = world:rank(), world:size()
local PER_RANK, WIDE, OUT = 3, 8, 8
local experts = PER_RANK * size

local function largest(t)
    return t:numel() > 0 and t:abs():max():item() or 0
end

local function near(a, b, tolerance, what)
    local difference = largest(a:detach() - b:detach())
    assert(difference <= tolerance * math.max(1, largest(b:detach())), ("rank %d, %s: %g apart"):format(rank, what,
                                                                                                   difference))
end

-- Weights are the same on all ranks; rows are each rank's own.
local function weights(dtype)
    am.manual_seed(1)
    return am.randn({ experts, OUT, WIDE }):to(dtype), am.randn({ experts, OUT }):to(dtype)
end

local function own(t)
    return t:narrow(0, rank * PER_RANK, PER_RANK):clone():requires_grad_()
end

-- counts: rows of each expert on this rank.
local function check(counts, dtype, what)
    local offsets, n = { 0 }, 0
    for e = 1, experts do
        n = n + counts[e]
        offsets[e + 1] = n
    end
    offsets = am.tensor(offsets, { dtype = "int32" })
    local weight, bias = weights(dtype)
    am.manual_seed(100 + rank)
    local x, goal = am.randn({ n, WIDE }):to(dtype), am.randn({ n, OUT }):to(dtype)

    local one_x, one_w, one_b = x:clone():requires_grad_(), weight:requires_grad_(), bias:requires_grad_()
    local one = ops.grouped_linear(one_x, one_w, offsets, one_b)
    one:backward(goal)

    local many_x, many_w, many_b = x:clone():requires_grad_(), own(weight:detach()), own(bias:detach())
    local dispatch = expert_parallel.dispatcher(world)
    local many = dispatch(function(rows, places)
        return ops.grouped_linear(rows, many_w, places, many_b)
    end, many_x, offsets)
    many:backward(goal)

    near(many, one, 0, what .. ": rows") -- each row alone, in the same products
    local rounded = dtype == "float32" and 0 or 2 ^ -8 -- a leaf's gradient is f32, one on its way is not
    near(many_x.grad, one_x.grad, rounded, what .. ": gradients of rows")
    for i, pair in ipairs { { one_w, many_w }, { one_b, many_b } } do
        local whole = world:all_reduce(pair[1].grad):wait():narrow(0, rank * PER_RANK, PER_RANK)
        -- sums in another order
        near(pair[2].grad, whole, 1e-6, what .. ": gradients of " .. (i == 1 and "weights" or "biases"))
    end
end

-- Rows of each expert by fn(e), e from 0.
local function counts_by(fn)
    local list = {}
    for e = 0, experts - 1 do
        list[e + 1] = fn(e)
    end
    return list
end

for _, dtype in ipairs { "float32", "bfloat16" } do
    check(counts_by(function(e) return (e * 5 + rank * 3) % 4 end), dtype, "ragged")
    check(counts_by(function(e) return e == 1 and 7 or 0 end), dtype, "one expert of the first rank")
    check(counts_by(function(e) return rank == 0 and 0 or (e % 2) end), dtype, "a rank without rows")
    check(counts_by(function() return 0 end), dtype, "no rows at all")
end

-- no gradient is asked for: nothing is kept, and nothing sent in backward
local before = world:counts().all_to_all.calls
am.no_grad(function()
    local weight = weights("float32")
    local offsets = am.tensor(counts_by(function(e) return e end), { dtype = "int32" })
    offsets = ops.cat({ offsets, am.tensor({ experts - 1 }, { dtype = "int32" }) }, 0)
    local x = am.randn { experts - 1, WIDE }
    local many = expert_parallel.dispatcher(world)(function(rows, places)
        return ops.grouped_linear(rows, own(weight), places)
    end, x, offsets)
    near(many, ops.grouped_linear(x, weight, offsets), 0, "without gradients")
end)
assert(world:counts().all_to_all.calls == before + 3)

world:close()
print("all is well on rank " .. rank)
