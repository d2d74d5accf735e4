-- What each family of kernels reaches of a GPU's peak: time, arithmetic and bytes of an op, forward or with its
-- gradients, at the sizes of Llama-3-8B and a row of 4096 tokens, in bfloat16.
--
--   amlua tests/bench/gpu_kernels.lua [--device cuda] [--shrink 1] [--seconds 0.3]
--
-- An op's least time is the larger of its FLOPs at the peak of dense bf16 and its bytes, read or written once, at the
-- memory's peak; the share is that over the time seen. Prints a line of JSON for each, which gpu_torch.py reads to run
-- the same. Peaks are of NVIDIA's data sheets, by the device's name; without one there is no share. --shrink 16 divides
-- sizes, to try the script over the emulated CUDA.

local am = require("am")
local edge = require("am.core.ffi")
local ffi = require("ffi")
local json = require("am.utils.json")
local options = require("am.cli.options")
local tensor = require("am.core.tensor")

local M = {}

local specs = {
    { "device", default = "cuda", doc = "where to compute" },
    { "shrink", type = "integer", min = 1, default = 1, doc = "what sizes are divided by" },
    { "seconds", type = "number", above = 0, default = 0.3, doc = "to measure each" },
}

-- TFLOP/s of dense bf16 and TB/s, by a part of the name; SXM where there are several forms.
local peaks = {
    { "A100", 312, 2.04 }, { "H200", 989, 4.8 }, { "H100 NVL", 835, 3.9 }, { "H100 PCIe", 756, 2.0 },
    { "H100", 989, 3.35 }, { "B200", 2250, 8.0 }, { "L40S", 362, 0.864 }, { "RTX 4090", 165, 1.008 },
}

local function peak_of(about)
    for _, peak in ipairs(peaks) do
        if about:find(peak[1], 1, true) then
            return peak[2] * 1e12, peak[3] * 1e12
        end
    end
end

-- ---- the cases: each is name, FLOPs, bytes, what runs once, and its sizes for gpu_torch.py -------------------

local BF16 = 2

local function cases(device, shrink)
    local T, C, F, V = 4096 / shrink, 4096 / shrink, 14336 / shrink, 128256 / shrink
    local H, K = 32 / math.min(shrink, 8), 8 / math.min(shrink, 8)
    local D, R = math.max(128 / shrink, 64), 16
    V = V - V % 16
    local on = { device = device, dtype = "bfloat16" }

    local function random(...) return am.randn({ ... }, on) * 0.02 end
    local function leaf(...) return random(...):requires_grad_() end

    -- Forward, and gradients of `leaves` when there are any.
    local function with_gradients(leaves, dout, forward)
        return function()
            for _, x in ipairs(leaves) do
                x.grad = nil
            end
            forward():backward(dout)
        end
    end

    local list = {}
    local function add(name, sizes, flops, bytes, run)
        list[#list + 1] = { name = name, sizes = sizes, flops = flops, bytes = bytes, run = run }
    end

    do
        local x, w = random(T, C), random(F, C)
        add("linear", { T, C, F }, 2 * T * C * F, BF16 * (T * C + F * C + T * F),
            function() return am.linear(x, w) end)
    end
    do
        local x, w, a, b = leaf(T, C), random(C, C), leaf(R, C), leaf(C, R)
        local dout = random(T, C)
        add("lora_linear and gradients", { T, C, R }, 4 * T * C * C + 12 * T * R * C,
            BF16 * (2 * C * C + 5 * T * C), with_gradients({ x, a, b }, dout, function()
                return am.lora_linear(x, w, nil, a, b, { scale = 2 })
            end))
    end
    do
        local q, k, v = random(1, T, H, D), random(1, T, K, D), random(1, T, K, D)
        local pairs_of = T * (T + 1) / 2
        add("attention", { T, H, K, D }, 4 * H * D * pairs_of, BF16 * T * D * (2 * H + 2 * K),
            function() return am.attention(q, k, v) end)
        q, k, v = leaf(1, T, H, D), leaf(1, T, K, D), leaf(1, T, K, D)
        local dout = random(1, T, H, D)
        add("attention and gradients", { T, H, K, D }, 14 * H * D * pairs_of, BF16 * T * D * (6 * H + 6 * K),
            with_gradients({ q, k, v }, dout, function() return am.attention(q, k, v) end))
    end
    do
        local x, w, dout = leaf(T, C), leaf(C), random(T, C)
        add("rms_norm and gradients", { T, C }, 12 * T * C, BF16 * 5 * T * C,
            with_gradients({ x, w }, dout, function() return am.rms_norm(x, w, 1e-5) end))
    end
    do
        local gate, up, dout = leaf(T, F), leaf(T, F), random(T, F)
        add("glu and gradients", { T, F }, 20 * T * F, BF16 * 8 * T * F,
            with_gradients({ gate, up }, dout, function() return am.glu(gate, up, "silu") end))
    end
    do
        local hidden, w = leaf(T, C), random(V, C)
        local ids = {}
        for i = 1, T do
            ids[i] = i * 7919 % V
        end
        local labels = am.tensor(ids, { device = device, dtype = "int64" })
        add("linear_cross_entropy and gradients", { T, C, V }, 6 * T * C * V, BF16 * (2 * V * C + 3 * T * C),
            with_gradients({ hidden }, nil, function() return am.linear_cross_entropy(hidden, w, labels) end))
    end
    return list
end

-- ---- measuring ----------------------------------------------------------------------------------

-- Median seconds of one call, of calls that take `seconds` in all and the device's wait for them.
local function measure(run, device, seconds)
    local id, times = tensor.device_id(device), {}
    local function once()
        local from = edge.C.am_clock()
        am.scope(function() run() end)
        edge.check(edge.C.am_device_sync(id))
        return edge.C.am_clock() - from
    end
    once() -- algorithms are chosen, memory is there
    local left = seconds
    repeat
        times[#times + 1] = once()
        left = left - times[#times]
    until left <= 0 and #times >= 3
    table.sort(times)
    return times[math.ceil(#times / 2)]
end

function M.main(argv)
    local args = options.parse(argv, "amlua tests/bench/gpu_kernels.lua [--device cuda]", specs)
    local text = ffi.new("const char *[1]")
    edge.check(edge.C.am_device_about(text, tensor.device_id(args.device)))
    local about = ffi.string(text[0])
    local flops_peak, bytes_peak = peak_of(about)
    io.write(json.encode { device = about }, "\n")
    for _, case in ipairs(cases(args.device, args.shrink)) do
        local seconds = measure(case.run, args.device, args.seconds)
        local line = { name = case.name, sizes = case.sizes, ms = seconds * 1e3, tflops = case.flops / seconds / 1e12,
                       tbs = case.bytes / seconds / 1e12 }
        if flops_peak then
            line.share = math.max(case.flops / flops_peak, case.bytes / bytes_peak) / seconds
        end
        io.write(json.encode(line), "\n")
        io.flush()
    end
end

return M
