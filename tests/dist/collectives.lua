-- Every collective of a communicator against plain arithmetic, on all ranks that run this; a failure ends them all.
--
--   AMLUA_MEETING=$(mktemp -d) mpirun -n N amlua tests/dist/collectives.lua WORD [DEVICE [DTYPE]]
--
-- Of tensors on DEVICE (cpu). WORD:
--
-- right: all of it.
-- late: the last rank stays away from the last collective, a sum in DTYPE (float32), and the others print what they
-- are told.
-- behind: so it does from what the second one waits for, while the first has gone on to the next.

local am = require("am")
local comm = require("am.distributed.comm")
local meeting = require("tests.dist.meeting")
local posix = require("am.utils.posix")

local word, device = arg[1], arg[2] or "cpu"
local world = comm.open("mpi", { timeout = word ~= "right" and 1 or 60 })
local rank, size = world:rank(), world:size()
am.set_default_device(device == "cuda" and "cuda:" .. rank or device)
local all = size * (size + 1) / 2 -- the sum of 1, 2, …, size

-- What rank r has: r + 1, r + 2, …, so that places are told apart.
local function own(r, n, dtype)
    return (am.arange(n) + (r + 1)):to(dtype)
end

local function equal(a, b, what)
    local x, y = a:to("float64"):totable(), b:to("float64"):totable()
    assert(#x == #y, what)
    for i = 1, #x do
        assert(x[i] == y[i], ("%s: %g instead of %g at %d"):format(what, x[i], y[i], i))
    end
end

local function check(group, n, dtype)
    local r, k = group:rank(), group:size()
    local t = own(r, n, dtype)
    group:all_reduce(t):wait()
    equal(t, am.arange(n) * k + k * (k + 1) / 2, "sum " .. dtype)
    t = own(r, n, dtype)
    group:all_reduce(t, "max"):wait()
    equal(t, own(k - 1, n, "float32"), "max " .. dtype)
    t = own(r, n, dtype)
    group:all_reduce(t, "min"):wait()
    equal(t, own(0, n, "float32"), "min " .. dtype)
    local whole, part = am.zeros({ k * n }, { dtype = dtype }), am.zeros({ n }, { dtype = dtype })
    group:all_gather(whole, own(r, n, dtype)):wait()
    for i = 0, k - 1 do
        equal(whole:narrow(0, i * n, n), own(i, n, "float32"), "all_gather " .. dtype)
    end
    group:reduce_scatter(part, whole):wait()
    equal(part, own(r, n, "float32") * k, "reduce_scatter " .. dtype)
    t = own(r, n, dtype)
    group:broadcast(t, k - 1):wait()
    equal(t, own(k - 1, n, "float32"), "broadcast " .. dtype)
end

local function check_uneven(group)
    local r, k = group:rank(), group:size()
    local to, from, n_to, n_from = {}, {}, 0, 0
    for i = 0, k - 1 do -- rank r sends r + i numbers to rank i, each r * 100 + i
        to[i + 1], from[i + 1] = i + r, r + i
        n_to, n_from = n_to + i + r, n_from + r + i
    end
    local sent = {}
    for i = 0, k - 1 do
        for _ = 1, r + i do sent[#sent + 1] = r * 100 + i end
    end
    local got = am.zeros({ n_to })
    group:all_to_all(got, to, am.tensor(sent):reshape(n_from), from):wait()
    local want = {}
    for i = 0, k - 1 do
        for _ = 1, i + r do want[#want + 1] = i * 100 + r end
    end
    equal(got, am.tensor(want):reshape(n_to), "all_to_all")
end

-- Each sends to the next. The first receives before it sends: a group's works are done one after another.
local function check_ring()
    local next_rank, before, n = (rank + 1) % size, (rank - 1) % size, 200000
    local got, works = am.zeros { n }, {}
    local function send() works[#works + 1] = world:send(own(rank, n, "float32"), next_rank, 5) end
    local function recv() works[#works + 1] = world:recv(got, before, 5) end
    for _, act in ipairs(rank == 0 and { recv, send } or { send, recv }) do
        act()
    end
    works[1]:wait()
    works[2]:wait()
    equal(got, own(before, n, "float32"), "send and recv")
end

for _, dtype in ipairs { "float32", "float64", "int32", "int64" } do
    check(world, 1, dtype)
    check(world, 1013, dtype)
end
for _, dtype in ipairs { "bfloat16", "float16" } do
    check(world, 5, dtype) -- small whole numbers are exact
end
check(world, 300000, "float32")
if size == 3 then -- 1, 1/256 and -1: 0 for whoever rounds each sum to 16 bits
    local sum = am.zeros({ 3 }, { dtype = "bfloat16" })
    local x = am.full({ 3 }, ({ 1, 1 / 256, -1 })[rank + 1], { dtype = "bfloat16" })
    equal(world:all_reduce(x:clone()):wait(), am.full({ 3 }, 1 / 256), "a sum in f32")
    local parts = am.full({ 9 }, ({ 1, 1 / 256, -1 })[rank + 1], { dtype = "bfloat16" })
    world:reduce_scatter(sum, parts):wait()
    equal(sum, am.full({ 3 }, 1 / 256), "a scattered sum in f32")
end
local half = world:split(rank % 2, -rank, "half") -- the last comes first
assert(half:world_rank(half:rank()) == rank)
assert(half:rank() == math.floor((size - 1 - rank) / 2))
check(half, 100, "float32")
check_uneven(world)
if size > 1 then
    check_ring()
end

-- two groups at once, many works each, waited for in the other order
local works = {}
for i = 1, 50 do
    works[i] = { world:all_reduce(am.ones { i }), half:all_reduce(am.ones { i } * 2) }
end
for i = 50, 1, -1 do
    assert(works[i][1]:wait():sum():item() == i * size)
    assert(works[i][2]:wait():sum():item() == 2 * i * half:size())
end

-- the same bits everywhere, of numbers whose sum depends on their order
am.manual_seed(rank)
local t = world:all_reduce(am.randn { 10007 }):wait()
local low, high = t:clone(), t:clone()
world:all_reduce(low, "min"):wait()
world:all_reduce(high, "max"):wait()
equal(low, high, "the bits of a sum")

assert(world:reduce_numbers({ rank + 1, 1 })[1] == all)
local texts = world:gather_texts(("x"):rep(rank) .. "é")
for i = 1, size do
    assert(texts[i] == ("x"):rep(i - 1) .. "é")
end
local counts = world:counts()
assert(counts.all_to_all.calls == 1 and counts.all_reduce.calls > 60 and counts.all_reduce.bytes > 0)

-- Of a GPU's tensor only reading shows whether it came.
local function read(work) return work:wait():sum():item() end

if word == "late" then
    if rank == size - 1 then
        posix.sleep(8)
    end
    local dtype = arg[3] or "float32"
    local work = world:all_reduce(t:to(dtype))
    local behind = world:all_reduce(t:clone())
    local given_up = dtype == "bfloat16" -- before it is waited for
    posix.sleep(given_up and rank < size - 1 and 2.5 or 0)
    local ok, e = pcall(read, work)
    local _, first = pcall(read, behind)
    assert(ok or tostring(first) == tostring(e), "what was begun behind it tells the first failure")
    local again, same = pcall(read, work)
    assert(again == ok and (ok or tostring(same) == tostring(e)), "a second time says the same")
    if given_up and not ok then -- nothing writes to its tensor any more, whose memory others have now
        local n = t:numel()
        work.tensors[1]:release()
        local other = am.full({ n }, 7, { dtype = dtype })
        for _ = 1, 20 do
            assert(other:to("float32"):sum():item() == 7 * n, "what was given up writes to another's memory")
        end
    end
    meeting.say(rank, size - 1, ("rank %d: %s\n"):format(rank, ok and "came" or tostring(e)))
    posix.sleep(rank == 0 and 0 or 20) -- one ends all
    world:abort(5, "late")
end
if word == "behind" then -- the first rank has gone on to the next collective, where it waits for both others
    local ok, e = true, nil
    if rank == size - 1 then
        posix.sleep(8)
    else
        ok, e = pcall(function()
            local one = am.ones { 1 } -- so little that it is sent before it is asked for
            local work = rank == 0 and world:send(one, 1) or world:recv(one, size - 1)
            read(work)
            world:barrier()
        end)
    end
    meeting.say(rank, size - 1, ("rank %d: %s\n"):format(rank, ok and "came" or tostring(e)))
    posix.sleep(rank == 0 and 0 or 20)
    world:abort(5, "behind")
end
half:close()
world:close()
print("all is well on rank " .. rank)
