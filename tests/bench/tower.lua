-- What the benches of vision towers share: timing a pass beside the matrix products of its layers, in turns, since a
-- machine's speed varies. Holds no tower.

local am = require("am")
local C = require("am.core.ffi").C
local ops = require("am.core.ops")

local M = {}

-- One thread's own time, if there is but one, of which others on the machine take nothing.
local clock = C.am_threads() == 1 and os.clock or C.am_clock

--- A layer's linear maps over `tokens` rows, as a function that runs them, and their FLOPs. shapes: {out, in} of each.
function M.products(shapes, tokens, dtype)
    local runs, flops = {}, 0
    for i, shape in ipairs(shapes) do
        local x, w = am.randn({ tokens, shape[2] }, { dtype = dtype }), am.randn(shape, { dtype = dtype })
        flops = flops + 2 * tokens * shape[1] * shape[2]
        runs[i] = function() ops.linear(x, w) end
    end
    return function()
        for _, run in ipairs(runs) do
            am.scope(run)
        end
    end, flops
end

--- The passes of a model to time: frozen, and forward and backward of one that is trained. forward() gives a tensor.
function M.passes(model, forward)
    return function() am.no_grad(forward) end, function()
        forward():sum():backward()
        for _, t in model:named_parameters() do
            t.grad = nil
        end
    end
end

--- Time products of `a_layers` FLOPs, a pass of `flops` and, unless nil, training (three times the FLOPs), and print
--- behind a title their rates; of each the least time of five rounds counts.
function M.compare(title, multiply, a_layers, flops, frozen, trained)
    local passes, least = { multiply, frozen, trained }, {}
    for round = 0, 5 do
        for i, pass in ipairs(passes) do
            local start = clock()
            am.scope(pass)
            least[i] = round > 0 and math.min(least[i] or math.huge, clock() - start) or nil -- the first warms up
        end
    end
    local rate = a_layers / least[1]
    local function row(kind, seconds, done)
        return string.format("  %s %7.1f ms  %3.0f %%", kind, seconds * 1e3, 100 * done / seconds / rate)
    end
    io.write(string.format("%s  products %7.1f GFLOP/s", title, rate / 1e9), row("forward", least[2], flops),
             trained and row("trained", least[3], 3 * flops) or "", "\n")
end

return M
