-- The profiler: what it counts, when it is off, the trace it writes.

local am = require("am")
local json = require("am.utils.json")
local optim = require("am.optim")
local path = require("am.utils.path")
local helpers = require("tests.lua.optim.helpers")
local profile = require("am.training.profile")

local function by_name(p)
    local sums = {}
    for _, sum in ipairs(profile.sums(p)) do
        sums[(sum.what .. " " .. sum.phase):gsub(" $", "")] = sum
    end
    return sums
end

describe("the profiler", function()
    it("counts calls, FLOPs and bytes, forward and backward", function()
        local x = am.randn({ 7, 5 }):requires_grad_()
        local w, frozen = am.randn({ 3, 5 }):requires_grad_(), am.randn({ 5, 3 })
        local sums = by_name(profile.run(function()
            local y = am.linear(am.linear(x, w), frozen)
            y:sum():backward()
        end))
        assert.equal(2, sums["linear forward"].calls)
        assert.equal(2 * (2 * 7 * 5 * 3), sums["linear forward"].flops)
        assert.equal(4 * ((7 * 5 + 3 * 5 + 7 * 3) + (7 * 3 + 5 * 3 + 7 * 5)), sums["linear forward"].bytes)
        -- the trained one has two gradients, the frozen one its input's
        assert.equal(3 * (2 * 7 * 5 * 3), sums["linear backward"].flops)
        assert.equal(0, sums["sum forward"].flops)
        assert.is_true(sums["the rest"].seconds >= 0)
    end)

    it("counts the pairs of causal attention", function()
        local q = am.randn({ 2, 5, 4, 6 }):requires_grad_()
        local k = am.randn { 2, 5, 2, 6 }
        local sums = by_name(profile.run(function()
            am.attention(q, k, k, nil, { scale = 1 }):sum():backward()
        end))
        local pairs_of_tokens = 2 * 4 * (5 * 6 / 2)
        assert.equal(4 * 6 * pairs_of_tokens, sums["attention forward"].flops)
        assert.equal(10 * 6 * pairs_of_tokens, sums["attention backward"].flops)
    end)

    it("finds each product of the fused loss made once", function()
        local labels = am.tensor({ 1, -100, 3 }, { dtype = "int32" })
        local hidden, head = am.randn({ 3, 4 }):requires_grad_(), am.randn { 5, 4 }
        local function flops(recorded)
            local sums = by_name(profile.run(function()
                local loss = am.linear_cross_entropy(hidden, head, labels)
                if recorded then
                    loss:backward()
                end
            end))
            local backward = sums["linear_cross_entropy backward"]
            return sums["linear_cross_entropy forward"].flops, backward and backward.flops
        end
        local one = 2 * 3 * 4 * 5
        local forward, backward = flops(true)
        assert.same({ 2 * one, 0 }, { forward, backward }) -- logits, and the gradient of hidden
        head:requires_grad_()
        forward, backward = flops(true)
        assert.same({ 3 * one, 0 }, { forward, backward })
        assert.equal(one, am.no_grad(flops, false))
    end)

    it("sees the optimizer and its norms", function()
        local x = am.randn({ 10 }):requires_grad_()
        local optimizer = optim.new("adamw", helpers.iterator { x }, { lr = 0.1 })
        local sums = by_name(profile.run(function()
            (x * x):sum():backward()
            optimizer:clip_grad_norm(1)
            optimizer:step()
        end))
        assert.equal(10 * 4 * (2 + 1 + 4), sums["adam optimizer"].bytes)
        assert.equal(10 * 4, sums["sumsq optimizer"].bytes)
    end)

    it("gives the error of what it profiles, and is off afterwards", function()
        local ok, e = pcall(profile.run, function() error({ mine = true }) end)
        assert.is_false(ok)
        assert.is_true(e.mine)
        local p = profile.run(function() end)
        am.ones { 3 }:exp()
        assert.equal(0, #p.events)
        assert.equal(0, #profile.run(function() end).events)
    end)

    it("writes a trace in order", function()
        local p = profile.run(function() return am.randn({ 4, 4 }):exp():log() end)
        local file = os.tmpname()
        profile.write_trace(p, file)
        local trace = json.decode(path.read_file(file))
        os.remove(file)
        assert.equal("exp", trace.traceEvents[1].name)
        assert.equal("X", trace.traceEvents[2].ph)
        assert.is_true(trace.traceEvents[2].ts >= trace.traceEvents[1].ts + trace.traceEvents[1].dur)
        assert.is_truthy(profile.table(p):find("\nexp +forward +1 "))
    end)
end)
