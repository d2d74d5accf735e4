-- More ways to make a tensor, under PyTorch's names: sequences, the identity, copies of a shape, whole
-- random numbers. The plain ones (zeros, full, rand, tensor, …) are in tensor.lua.

local ffi = require("ffi")
local args = require("am.core.args")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local tensor = require("am.core.tensor")

local C = edge.C
local M = {}

local function doubles(n)
    local made, array = pcall(ffi.new, "double[?]", math.max(n, 1))
    if not made then
        err.raise("memory", "%.0f numbers are too many", n)
    end
    return array
end

-- Compiled loops run no hooks: long ones ask now and then whether Ctrl-C was pressed.
local function look_up(i)
    if i % 65536 == 0 then edge.check(C.am_signals_check()) end
end

-- n numbers by value(i), i from 0, in opts.dtype or `dtype`.
local function sequence(n, value, dtype, opts)
    opts = args.options("options", opts, { "dtype", "device" })
    local array = doubles(n)
    for i = 0, n - 1 do
        look_up(i)
        array[i] = value(i)
    end
    local wide = tensor.from_buffer(array, { n }, { dtype = "float64", device = opts.device })
    dtype = opts.dtype or dtype
    if tensor.dtype_id(dtype) == C.AM_F64 then
        return wide
    end
    local t = tensor.empty({ n }, { dtype = dtype, device = wide:device() }):copy_(wide)
    wide:release()
    return t
end

--- arange(stop), arange(start, stop[, step]): start, start + step, … below stop (above, for a negative
--- step). int64 when all are whole numbers, else float32. The options come last.
function M.arange(...)
    local given, n_given, opts = { ... }, select("#", ...), nil
    if type(given[n_given]) == "table" then
        opts, n_given = given[n_given], n_given - 1
    end
    local start, stop, step = given[1], given[2], n_given > 2 and given[3] or 1
    if n_given < 2 or stop == nil then
        start, stop = 0, start
    end
    args.number("arange", "start", start)
    args.number("arange", "stop", stop)
    args.number("arange", "step", step)
    local n = math.ceil((stop - start) / step)
    if not (step ~= 0 and n >= 0 and n < math.huge) then
        err.raise("argument", "arange: from %g to %g in steps of %g", start, stop, step)
    end
    local whole = start % 1 == 0 and stop % 1 == 0 and step % 1 == 0
    return sequence(n, function(i) return start + i * step end, whole and "int64" or "float32", opts)
end

--- n numbers at equal distances, first and last included.
function M.linspace(first, last, n, opts)
    args.number("linspace", "first", first)
    args.number("linspace", "last", last)
    if args.whole("linspace", "n", n) < 0 then
        err.raise("argument", "linspace: %d numbers", n)
    end
    local step = n > 1 and (last - first) / (n - 1) or 0
    return sequence(n, function(i) return i < n / 2 and first + i * step or last - (n - 1 - i) * step end,
                    "float32", opts)
end

--- 1 on the diagonal of an n by m (n) matrix, else 0.
function M.eye(n, m, opts)
    if type(m) == "table" then
        m, opts = nil, m
    end
    args.whole("eye", "n", n)
    args.whole("eye", "m", m, n)
    local t = tensor.zeros({ n, m or n }, opts)
    local diagonal = math.min(n, m or n)
    if diagonal > 0 then
        t:reshape(-1):narrow(0, 0, diagonal, (m or n) + 1):fill_(1)
    end
    return t
end

-- t's shape, dtype and device unless opts say otherwise.
local function like(what, t, opts)
    opts = args.options(what, opts, { "dtype", "device" })
    return args.tensor(what, t):size(), { dtype = opts.dtype or t:dtype(), device = opts.device or t:device() }
end

--- An uninitialised tensor of t's shape, and of its dtype and device unless opts say otherwise.
function M.empty_like(t, opts) return tensor.empty(like("empty_like", t, opts)) end
--- Zeros of t's shape, and of its dtype and device unless opts say otherwise.
function M.zeros_like(t, opts) return tensor.zeros(like("zeros_like", t, opts)) end
--- Ones of t's shape, and of its dtype and device unless opts say otherwise.
function M.ones_like(t, opts) return tensor.ones(like("ones_like", t, opts)) end
--- Uniform in [0, 1) of t's shape, and of its dtype and device unless opts say otherwise.
function M.rand_like(t, opts) return tensor.rand(like("rand_like", t, opts)) end
--- Standard normal of t's shape, and of its dtype and device unless opts say otherwise.
function M.randn_like(t, opts) return tensor.randn(like("randn_like", t, opts)) end

--- value everywhere, of t's shape, and of its dtype and device unless opts say otherwise.
function M.full_like(t, value, opts)
    local shape, options = like("full_like", t, opts)
    return tensor.full(shape, value, options)
end

-- ---- random whole numbers -------------------------------------------------------------------

local seed_box, stream_box = ffi.new("uint64_t[1]"), ffi.new("uint64_t[1]")

-- A function that gives draw i of the generator's next stream as a whole number in 0..n-1.
local function draws()
    C.am_rng_get(seed_box, stream_box)
    local seed, stream = seed_box[0], stream_box[0]
    C.am_rng_set(seed, stream + 1)
    return function(i, n) return math.floor(C.am_rng_u32(seed, stream, i) * (n / 2 ^ 32)) end
end

--- Whole numbers from low (0) to high - 1, int64: randint(high, shape) or randint(low, high, shape).
function M.randint(low, high, shape, opts)
    if type(high) == "table" then
        low, high, shape, opts = 0, low, high, shape
    end
    args.whole("randint", "low", low)
    args.whole("randint", "high", high)
    args.list("randint", "the shape", shape)
    if not (high > low and high - low <= 2 ^ 32) then
        err.raise("argument", "randint: nothing from %g to below %g, or more than 2^32", low, high)
    end
    local n, draw = 1, draws()
    for _, size in ipairs(shape) do n = n * size end
    local flat = sequence(n, function(i) return low + draw(i, high - low) end, "int64", opts)
    return flat:reshape(shape)
end

--- 0..n-1 in a random order, int64.
function M.randperm(n, opts)
    if args.whole("randperm", "n", n) < 0 then
        err.raise("argument", "randperm: %d numbers", n)
    end
    local order, draw = doubles(n), draws()
    for i = 0, n - 1 do
        look_up(i)
        local j = draw(i, i + 1)
        order[i] = order[j]
        order[j] = i
    end
    return sequence(n, function(i) return order[i] end, "int64", opts)
end

for _, name in ipairs { "empty_like", "zeros_like", "ones_like", "rand_like", "randn_like", "full_like" } do
    tensor.methods[name] = M[name]
end

return M
