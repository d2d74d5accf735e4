-- Gradients in Lua: grad fields, no_grad, custom ops, recomputed blocks. The numbers of each op's
-- gradient are tests/op's business.

local ffi = require("ffi")
local am = require("am.core")
local err = require("am.core.error")
local autograd = require("am.core.autograd")
local C = require("am.core.ffi").C
local support = require("tests.support.tensors")
local ops = am.ops

local leaf, raised, live_bytes = support.leaf, support.raised, support.live_bytes

-- A tensor's bytes as text.
local function bits(t)
    local array = t:to_buffer()
    return ffi.string(array, t:nbytes())
end

describe("gradients", function()
    it("add up until they are cleared", function()
        local x = leaf { 1, 2, 3 }
        assert.is_nil(x.grad)
        ops.sum(x * x):backward()
        assert.same({ 2, 4, 6 }, x.grad:totable())
        ops.sum(x * 3):backward()
        assert.same({ 5, 7, 9 }, x.grad:totable())
        x.grad = nil
        assert.is_nil(x.grad)
        x:sum():backward()
        assert.same({ 1, 1, 1 }, x.grad:totable())
    end)

    it("take a gradient for what is no scalar", function()
        local x = leaf { 1, 2 }
        local y = x * x
        raised("shape", y.backward, y)
        y:backward(am.tensor { 10, 100 })
        assert.same({ 20, 400 }, x.grad:totable())
        raised("shape", function() (x * x):backward(am.zeros { 3 }) end)
    end)

    it("of bf16 leaves are f32", function()
        local x = leaf({ 1, 2 }, { dtype = "bfloat16" })
        for _ = 1, 3 do
            ops.sum(x * 257):backward() -- 256 in bf16
        end
        assert.equal("float32", x.grad:dtype())
        assert.same({ 768, 768 }, x.grad:totable())
    end)

    it("can be set", function()
        local x = leaf({ 1, 2 }, { dtype = "bfloat16" })
        x.grad = am.tensor({ 0.1, 3 }, { dtype = "float64" })
        assert.equal("float32", x.grad:dtype())
        x:sum():backward()
        assert.near(1.1, x.grad:totable()[1], 1e-6)
        raised("shape", function() x.grad = am.zeros { 3 } end)
        raised("argument", function() x.grad = am.zeros({ 2 }, { dtype = "int32" }) end)
    end)

    it("flow through a diamond", function()
        local x = leaf { 3 }
        local y = x * 2
        local z = y * y + y
        z:sum():backward()
        assert.same({ 2 * 2 * 6 + 2 }, x.grad:totable())
    end)

    it("need a floating leaf", function()
        raised("argument", function() am.tensor({ 1 }, { dtype = "int32" }).requires_grad = true end)
        local y = leaf { 1 } * 2
        raised("state", function() y.requires_grad = false end)
    end)

    it("say so when the history is gone", function()
        local x = leaf { 1, 2 }
        local y = (x * x):sum()
        y:backward()
        local text = raised("state", y.backward, y)
        assert.is_truthy(text:find("once"), text)
        raised("state", function() return y * 2 end)
        assert.equal(10, (y:detach() * 2):item())
        raised("state", function() am.zeros({}):backward() end)
    end)

    it("come from values that are computed again, where keeping them would take memory", function()
        local x, weight, matrix = am.randn({ 64, 256 }), am.randn({ 256 }), am.randn({ 256, 256 })
        local cheap = {
            rms_norm = function(t) return ops.rms_norm(t, weight, 1e-6) end,
            layer_norm = function(t) return ops.layer_norm(t, weight, weight, 1e-6) end,
            glu = function(t) return ops.glu(t, t, "silu") end,
            relu2 = ops.relu2,
            gelu = ops.gelu,
        }
        matrix.requires_grad = true
        for name, fn in pairs(cheap) do
            am.scope(function()
                local input = x:detach()
                input.requires_grad = true
                local before = live_bytes()
                local out = am.scope(function() return ops.linear(fn(input), matrix) end)
                local kept = (live_bytes() - before) / out:nbytes()
                assert.is_true(kept < 1.2, name .. " keeps " .. kept)
                out:sum():backward()
                local got, got_matrix = bits(input.grad), bits(matrix.grad)
                matrix.grad, input.grad = nil, nil

                local middle = fn(x):detach() -- the same by hand, with the value at hand
                middle.requires_grad = true
                ops.linear(middle, matrix):sum():backward()
                assert.equal(bits(matrix.grad), got_matrix)
                fn(input):backward(middle.grad)
                assert.equal(bits(input.grad), got)
                matrix.grad = nil
            end)
        end
    end)

    it("do not cross detach", function()
        local x = leaf { 2 }
        ops.sum(x * x:detach()):backward()
        assert.same({ 2 }, x.grad:totable())
    end)
end)

describe("a post-accumulate hook", function()
    -- Names of leaves in the order in which they became final, and their gradients then.
    local function watch(seen, leaves)
        for name, t in pairs(leaves) do
            t:register_post_accumulate_grad_hook(function(x)
                assert.is_true(x.requires_grad and not autograd.is_grad_enabled())
                seen[#seen + 1] = name .. " " .. table.concat(x.grad:totable(), ",")
            end)
        end
    end

    it("runs once the gradient is final, also of a leaf with several uses", function()
        local seen, w, v, free = {}, leaf { 1, 2 }, leaf { 3, 4 }, leaf { 5, 6 }
        watch(seen, { w = w, v = v, free = free })
        for _ = 1, 2 do
            seen[1], seen[2], seen[3] = nil, nil, nil
            ops.sum((w * 2) * v * w):backward() -- 2 w^2 v
            assert.same({ "v 2,8", "w 12,32" }, seen)
            w.grad, v.grad = nil, nil
        end
    end)

    it("may change the leaf and its gradient", function()
        local x, w = leaf { 1, 2 }, leaf { 3, 4 }
        w:register_post_accumulate_grad_hook(function(t)
            t:sub_(t.grad, 0.5)
            t.grad = nil
        end)
        ops.sum(x * x * w):backward()
        assert.same({ 2.5, 2 }, w:totable())
        assert.is_nil(w.grad)
        assert.same({ 6, 16 }, x.grad:totable())
    end)

    it("runs in order with others, until it is removed", function()
        local seen, w = {}, leaf { 1 }
        local handles = {}
        for i = 1, 3 do
            handles[i] = w:register_post_accumulate_grad_hook(function()
                seen[#seen + 1] = i
                handles[2]:remove()
            end)
        end
        ops.sum(w * 1):backward()
        ops.sum(w * 1):backward()
        assert.same({ 1, 2, 3, 1, 3 }, seen)
        handles[1]:remove()
        handles[1]:remove()
        handles[3]:remove()
        local gone = leaf { 1 }
        local handle = gone:register_post_accumulate_grad_hook(function() end)
        gone:release()
        handle:remove()
        ops.sum(w * 1):backward()
        assert.equal(5, #seen)
        assert.same({ 3 }, w.grad:totable())
    end)

    it("waits for all recomputed blocks that use the leaf", function()
        local seen, w, x = {}, leaf { 2, 3 }, leaf { 1, 1 }
        local function block(h)
            return autograd.checkpoint(function(k) return k * w end, h)
        end
        watch(seen, { w = w, x = x })
        ops.sum(block(block(block(x)))):backward() -- x w^3
        assert.same({ "w 12,27", "x 8,27" }, seen)
        w.grad, x.grad, seen[1], seen[2] = nil, nil, nil, nil
        ops.sum(block(block(x * w) * w)):backward() -- x w^4, with blocks in between
        assert.same({ "x 16,81", "w 32,108" }, { seen[1]:match("x") and seen[1] or seen[2],
                                                seen[1]:match("w") and seen[1] or seen[2] })
    end)

    it("waits for a block within a block, and for a custom op in it", function()
        local seen, w, x = {}, leaf { 2, 3 }, leaf { 1, 1 }
        local double = autograd.custom {
            forward = function(_, a) return a * 2 end,
            backward = function(_, g) return g * 2 end,
        }
        watch(seen, { w = w })
        local y = autograd.checkpoint(function(h)
            return autograd.checkpoint(function(k) return k * double(w) end, h)
        end, x)
        ops.sum(y * w):backward() -- 2 x w^2
        assert.same({ "w 8,12" }, seen)
    end)

    it("passes its error on and leaves the tape clean", function()
        local w = leaf { 1 }
        local handle = w:register_post_accumulate_grad_hook(function() err.raise("data", "no") end)
        local y = ops.sum(w * 1)
        raised("data", y.backward, y)
        assert.equal(0, tonumber(C.am_tape_length()))
        handle:remove()
        w.grad = nil
        ops.sum(w * 4):backward()
        assert.same({ 4 }, w.grad:totable())
    end)

    it("is a function, and for leaves", function()
        local w = leaf { 1 }
        raised("argument", w.register_post_accumulate_grad_hook, w, 3)
        local y = w * 2
        raised("state", y.register_post_accumulate_grad_hook, y, function() end)
    end)
end)

describe("no_grad", function()
    it("records nothing and is undone by errors", function()
        local x = leaf { 1 }
        local y = am.no_grad(function() return x * 2 end)
        assert.is_false(y.requires_grad)
        pcall(am.no_grad, error, "x")
        assert.is_true(autograd.is_grad_enabled())
        assert.is_true((x * 2).requires_grad)
        am.no_grad(function()
            assert.is_true(autograd.enable_grad(function() return (x * 2).requires_grad end))
        end)
        local ok, e = pcall(am.no_grad, function() err.raise("data", "row %d", 7) end)
        assert.is_false(ok)
        assert.equal("data", e.code)
        assert.equal("row 7", tostring(e))
    end)
end)

describe("inference mode", function()
    local function bits_of(mode, fn, ...)
        return bits(mode(fn, ...))
    end

    it("records nothing and is undone by errors", function()
        local x = leaf { 1 }
        assert.is_false(am.inference_mode(function() return (x * 2).requires_grad end))
        assert.is_false(am.inference_mode(autograd.is_grad_enabled))
        pcall(am.inference_mode, error, "x")
        assert.is_true((x * 2).requires_grad)
        am.inference_mode(function()
            assert.is_true(autograd.enable_grad(function() return (x * 2).requires_grad end))
            assert.is_false(autograd.is_grad_enabled())
        end)
    end)

    it("gives a row the same bits beside up to seven others, near those of no_grad", function()
        local k, n, r = 75, 130, 4
        for _, dtype in ipairs { "float32", "bfloat16" } do
            local function random(...) return am.randn({ ... }):to(dtype) end
            local x, w, bias, a, b = random(8, k), random(n, k), random(n), random(r, k), random(n, r)
            local function linear(rows) return ops.linear(rows, w, bias) end
            local function lora(rows) return ops.lora_linear(rows, w, bias, a, b, { scale = 0.5 }) end
            for _, fn in ipairs { linear, lora } do
                local all = am.inference_mode(fn, x)
                local off = ops.abs(all:float() - am.no_grad(fn, x):float()):amax():item()
                assert.is_true(off <= (dtype == "float32" and 1e-4 or 0.5), "off by " .. off)
                for count = 1, 8 do
                    for first = 0, 8 - count, 3 do
                        assert.equal(bits(all:narrow(0, first, count)),
                                     bits_of(am.inference_mode, fn, x:narrow(0, first, count)))
                    end
                end
            end
        end
    end)

    it("changes nothing for nine rows, in training, and in blocks that are recomputed", function()
        local x, w = am.randn { 9, 75 }, am.randn { 130, 75 }
        assert.equal(bits_of(am.no_grad, ops.linear, x, w), bits_of(am.inference_mode, ops.linear, x, w))
        local row = x:narrow(0, 0, 1)
        local plain = bits(ops.linear(row, w))
        assert.equal(plain, bits_of(am.no_grad, ops.linear, row, w))
        assert.equal(plain, bits_of(am.checkpoint, ops.linear, row, w))
        assert.equal(plain, am.inference_mode(function() return bits_of(autograd.enable_grad, ops.linear, row, w) end))
    end)
end)

describe("custom ops", function()
    local function cube()
        return autograd.custom {
            forward = function(ctx, x)
                ctx.x = x
                return x * x * x
            end,
            backward = function(ctx, dy) return dy * ctx.x * ctx.x * 3 end,
        }
    end

    it("take part in gradients", function()
        local x = leaf { 1, 2 }
        ops.sum(cube()(x * 1) * am.tensor { 1, 10 }):backward()
        assert.same({ 3, 120 }, x.grad:totable())
    end)

    it("may mix tensors with other values and leave gradients out", function()
        local scale = autograd.custom {
            forward = function(ctx, a, k, b)
                ctx.k, ctx.b = k, b
                return a * k, b * 2
            end,
            backward = function(ctx, da, db)
                assert.is_nil(db)
                return da * ctx.k, nil, nil
            end,
        }
        local a, b = leaf { 2 }, leaf { 3 }
        local y = scale(a, 5, b)
        y:sum():backward()
        assert.same({ 5 }, a.grad:totable())
        assert.is_nil(b.grad)
    end)

    it("may return an input", function()
        local same = autograd.custom { forward = function(_, x) return x end,
                                       backward = function(_, dy) return dy * 7 end }
        local x = leaf { 1 }
        local y = x * 2
        same(y):sum():backward()
        assert.same({ 14 }, x.grad:totable())
    end)

    it("are not asked when no gradient arrives", function()
        local asked = false
        local op = autograd.custom { forward = function(_, x) return x * 1 end,
                                     backward = function(_, dy) asked = true return dy end }
        local x = leaf { 1 }
        local unused = op(x)
        x:sum():backward()
        assert.is_false(asked)
        assert.is_truthy(unused)
        am.no_grad(op, x)
        op(am.tensor { 1 })
        assert.equal(0, tonumber(C.am_tape_length()))
    end)

    it("pass their errors on and leave the tape clean", function()
        local x = leaf { 1 }
        local bad = autograd.custom { forward = function(_, t) return t * 1 end,
                                      backward = function() err.raise("data", "no luck") end }
        local y = bad(x):sum()
        assert.equal("no luck", raised("data", y.backward, y))
        assert.equal(0, tonumber(C.am_tape_length()))
        assert.equal(0, C.am_scope_depth())
        x:sum():backward()
        assert.same({ 1 }, x.grad:totable())
        local wrong = autograd.custom { forward = function(_, t) return t * 1 end,
                                        backward = function() return am.zeros { 2 } end }
        y = wrong(x):sum()
        assert.is_truthy(raised("shape", y.backward, y):find("[2]", 1, true))
    end)

    it("are not recorded while backward runs", function()
        local inner, x = cube(), leaf { 2 }
        local op = autograd.custom { forward = function(_, t) return t * 1 end, backward = function(_, dy)
            for _ = 1, 300 do
                autograd.enable_grad(inner, x)
            end
            return dy
        end }
        local y = op(x):sum()
        assert.is_truthy(raised("state", y.backward, y):find("while backward runs", 1, true))
        assert.is_nil(x.grad)
        y = inner(x):sum()
        y:backward()
        assert.same({ 12 }, x.grad:totable())
    end)

    it("have at most eight inputs and outputs", function()
        local op = autograd.custom { forward = function(_, ...) return ... end,
                                     backward = function(_, ...) return ... end }
        local nine, eight = {}, {}
        for i = 1, 9 do nine[i], eight[i] = leaf { i }, i < 9 and leaf { i } or nil end
        raised("argument", op, unpack(nine))
        local outs = { op(unpack(eight)) }
        ops.cat({ outs[1], outs[8] }, 0):sum():backward()
        assert.same({ 1 }, eight[8].grad:totable())
        assert.is_nil(eight[2].grad)
        local many = autograd.custom { forward = function(_, x)
            local list = {}
            for i = 1, 9 do list[i] = x * i end
            return unpack(list)
        end, backward = function() end }
        raised("argument", many, eight[1])
    end)
end)

describe("checkpoint", function()
    -- A block with dropout, shared use and parameters of its own.
    local function setup()
        C.am_rng_seed(11)
        local x, w, v = am.randn({ 5, 8 }), am.randn({ 8, 8 }), am.randn({ 8 })
        for _, t in ipairs { x, w, v } do t.requires_grad = true end
        local function block(h)
            return (ops.rms_norm(h, v, 1e-5):linear(w):silu():dropout(0.4)) + h
        end
        return x, w, v, block
    end

    local function run(recompute)
        local x, w, v, block = setup()
        local h = x * 1
        for _ = 1, 3 do
            h = recompute and am.checkpoint(block, h) or block(h)
        end
        local loss = (h * h):sum()
        local after = am.rand { 4 } -- the generator goes on as if nothing had been recomputed
        loss:backward()
        return { bits(loss), bits(x.grad), bits(w.grad), bits(v.grad), bits(after), bits(am.rand { 4 }) }
    end

    it("gives the same bits as the plain block, dropout included", function()
        local plain, again = run(false), run(true)
        for i = 1, #plain do
            assert.is_true(plain[i] == again[i], "item " .. i .. " differs")
        end
    end)

    it("nests", function()
        local x, w, _, block = setup()
        local plain = block(block(x)):sum()
        plain:backward()
        local gx, gw = bits(x.grad), bits(w.grad)
        x.grad, w.grad = nil, nil
        local x2, w2, _, block2 = setup()
        am.checkpoint(function(h) return block2(am.checkpoint(block2, h)) end, x2):sum():backward()
        assert.is_true(gx == bits(x2.grad))
        assert.is_true(gw == bits(w2.grad))
    end)

    it("reaches parameters when no argument needs a gradient", function()
        local _, w, v, block = setup()
        local x = am.ones { 5, 8 }
        am.checkpoint(block, x):sum():backward()
        assert.is_truthy(w.grad)
        assert.is_truthy(v.grad)
    end)

    it("passes an error in the second run on", function()
        local x, runs = leaf { 1, 2 }, 0
        local y = am.checkpoint(function(h)
            runs = runs + 1
            if runs == 2 then err.raise("data", "second") end
            return h * h
        end, x):sum()
        assert.equal("second", raised("data", y.backward, y))
        assert.equal(0, tonumber(C.am_tape_length()))
        assert.equal(0, C.am_scope_depth())
        ops.sum(x * x):backward()
        assert.same({ 2, 4 }, x.grad:totable())
    end)

    it("is the plain function without gradients", function()
        assert.same({ 4 }, am.no_grad(am.checkpoint, function(h) return h * 2 end, am.tensor { 2 }):totable())
    end)
end)
