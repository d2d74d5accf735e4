-- Tapes that are set aside: several graphs alive at once.

local am = require("am.core")
local err = require("am.core.error")
local autograd = require("am.core.autograd")
local C = require("am.core.ffi").C
local support = require("tests.support.tensors")

local leaf, raised, live_bytes = support.leaf, support.raised, support.live_bytes

describe("tapes", function()
    -- x^2 by a custom op, which keeps x for backward.
    local square = autograd.custom {
        forward = function(ctx, x)
            ctx.x = x
            return x * x
        end,
        backward = function(ctx, dy) return dy * ctx.x * 2 end,
    }

    it("hold several graphs, whose backwards come in any order", function()
        local w, tapes, losses = leaf { 1, 2 }, {}, {}
        for i = 1, 3 do
            tapes[i] = autograd.tape()
            losses[i] = tapes[i]:run(function()
                return am.checkpoint(function(h) return square(h) * i end, square(w)):sum() -- i w^4
            end)
        end
        square(w):sum():backward() -- of the tape that is always there; the others wait
        assert.same({ 2, 4 }, w.grad:totable())
        w.grad = nil
        local sum = 0
        for _, i in ipairs { 1, 3, 2 } do
            tapes[i]:run(losses[i].backward, losses[i])
            sum = sum + i
            assert.same({ 4 * sum, 32 * sum }, w.grad:totable())
        end
    end)

    it("tell hooks of a leaf once in each backward", function()
        local w, calls, a, b = leaf { 3 }, {}, autograd.tape(), autograd.tape()
        w:register_post_accumulate_grad_hook(function(t) calls[#calls + 1] = t.grad:item() end)
        local x = a:run(function() return w * 1 end)
        local y = b:run(function() return am.checkpoint(function(h) return (h * w):sum() end, w * 2) end)
        local z = a:run(function() return (x * w):sum() end)
        a:run(z.backward, z)
        b:run(y.backward, y)
        assert.same({ 6, 18 }, calls)
    end)

    it("refuse what another tape computed, and pass errors on", function()
        local w, tape = leaf { 3 }, autograd.tape()
        local y = tape:run(square, w)
        raised("state", function() return y * 2 end)
        raised("state", y.backward, y)
        assert.equal("mine", raised("data", tape.run, tape, err.raise, "data", "mine"))
        raised("state", tape.run, tape, tape.run, tape, error)
        tape:run(y.backward, y)
        assert.same({ 6 }, w.grad:totable())
        raised("argument", tape.run, tape, 1)
    end)

    it("have a backward of several tensors at once", function()
        local x = leaf { 1, 2 }
        autograd.backward({ x * 2, (x * x):sum() }, { am.tensor { 10, 100 }, am.tensor(3) })
        assert.same({ 20 + 3 * 2, 200 + 3 * 4 }, x.grad:totable())
        raised("argument", autograd.backward, { x }, {})
    end)

    it("keep what is made in their runs until they are released", function()
        local w, tape = leaf { 3 }, autograd.tape()
        w.grad = am.tensor { 0 }
        local before = live_bytes()
        local y = am.scope(function()
            tape:run(function()
                local table_of = am.tensor { 5 } -- read again by the block's second run
                tape.y = am.checkpoint(function(h) return (h * table_of):sum() end, w * 2)
            end)
            return tape.y -- not this scope's
        end)
        tape:run(y.backward, y)
        assert.equal(10, am.scope(function() return w.grad:item() end))
        raised("state", tape.run, tape, tape.release, tape) -- it is in use
        tape:release()
        tape:release()
        raised("state", y.item, y)
        assert.equal(before, live_bytes())
        assert.equal(0, C.am_scope_depth())
    end)

    it("let go of what custom ops hold when nothing leads onto them", function()
        local w, tape = leaf { 3 }, autograd.tape()
        local before = live_bytes()
        tape:run(square, w):release()
        tape:run(function() assert.equal(before, live_bytes()) end)
        tape:release()
    end)
end)
