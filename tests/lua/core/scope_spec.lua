-- Scopes, and that memory returns to the same figure without the help of Lua's collector.

local ffi = require("ffi")
local am = require("am.core")
local err = require("am.core.error")
local autograd = require("am.core.autograd")
local edge = require("am.core.ffi")
local tensor = require("am.core.tensor")
local C = edge.C
local ops = am.ops

local function stats(device)
    local s = ffi.new("am_mem_stats")
    edge.check(C.am_mem_get(tensor.device_id(device), s))
    return s
end

local function live(device) return tonumber(stats(device).live_bytes) end

describe("a scope", function()
    it("keeps what it returns and releases the rest", function()
        local inner
        local a, list, number = am.scope(function()
            inner = am.ones { 3 }
            return inner * 2, { x = inner + 1, deep = { inner + 2 } }, 7
        end)
        assert.same({ 2, 2, 2 }, a:totable())
        assert.same({ 2, 2, 2 }, list.x:totable())
        assert.same({ 3, 3, 3 }, list.deep[1]:totable())
        assert.equal(7, number)
        assert.is_false(inner:alive())
    end)

    it("hands results to the scope around it, which releases them in turn", function()
        local outer
        am.scope(function()
            outer = am.scope(function() return am.ones { 3 } end)
            assert.is_true(outer:alive())
        end)
        assert.is_false(outer:alive())
    end)

    it("leaves what an outer scope made to that scope", function()
        local made
        am.scope(function()
            made = am.ones { 3 }
            local same = am.scope(function() return made end)
            assert.is_true(same:alive())
        end)
        assert.is_false(made:alive())
    end)

    it("keeps nil results and their number", function()
        assert.equal(3, select("#", am.scope(function() return nil, 1, nil end)))
        assert.equal(0, select("#", am.scope(function() end)))
    end)

    it("ends on errors and passes them on", function()
        local t
        local ok, e = pcall(am.scope, function()
            t = am.ones { 3 }
            err.raise("data", "row 3")
        end)
        assert.is_false(ok)
        assert.equal("data", e.code)
        assert.is_false(t:alive())
        assert.equal(0, C.am_scope_depth())
    end)

    it("lets tensors escape", function()
        local t, u
        am.scope(function()
            am.scope(function() t = am.escape(am.ones { 2 }) end)
            u = am.escape { am.ones { 1 } }[1]
        end)
        assert.same({ 1, 1 }, t:totable())
        assert.is_true(u:alive())
    end)

    it("keeps what backward needs", function()
        local x = am.tensor { 1, 2, 3 }
        x.requires_grad = true
        local loss = am.scope(function() return ((x * 2):exp() * 3):sum() end)
        am.scope(loss.backward, loss)
        for i, g in ipairs(x.grad:totable()) do
            assert.near(6 * math.exp(2 * i), g, 1e-3)
        end
    end)

    it("releases gradients that were read in it", function()
        local x = am.ones { 1000 }
        x.requires_grad = true
        ops.sum(x * 2):backward()
        local before, kept = live(), nil
        am.scope(function() kept = x.grad end)
        assert.is_false(kept:alive())
        assert.is_truthy(x.grad:alive())
        x.grad = nil
        assert.is_true(live() <= before)
    end)

    it("releases a leaf's gradient with the leaf", function()
        collectgarbage()
        collectgarbage()
        local before = live()
        am.scope(function()
            local x = am.ones { 1000 }
            x.requires_grad = true
            ops.sum(x * 2):backward()
        end)
        assert.equal(before, live())
    end)
end)

-- ---- memory over many steps -----------------------------------------------------------------

-- Run step(i) n times with the collector stopped; live bytes after each from the second on are equal.
local function steady(n, device, step)
    collectgarbage()
    collectgarbage()
    collectgarbage("stop")
    local ok, e = pcall(function()
        local first
        for i = 1, n do
            am.scope(step, i)
            local now = live(device)
            first = i == 2 and now or first
            if first and now ~= first then
                error(("step %d: %d live bytes, %d after step 2"):format(i, now, first), 0)
            end
        end
    end)
    collectgarbage("restart")
    assert(ok, e)
end

-- A small model of everything: embedding, LoRA, attention with dropout, a custom op, recomputation,
-- tied head, flat parameters, an optimizer.
local function small_model(device)
    local o = { device = device }
    local p = { embed = am.randn({ 11, 8 }, o), norm = am.ones({ 8 }, o), w = am.randn({ 8, 8 }, o),
                a = am.randn({ 2, 8 }, o), b = am.zeros({ 8, 2 }, o) }
    local names = { "embed", "norm", "a", "b" }
    local params = ffi.new("am_params *[1]")
    edge.check(C.am_params_new(params))
    local sealed = ffi.gc(params[0], C.am_params_release)
    for _, name in ipairs(names) do
        p[name].requires_grad = true
        edge.check(C.am_params_add(sealed, name, p[name]))
    end
    edge.check(C.am_params_seal(sealed))
    local optim, config = ffi.new("am_optim *[1]"), ffi.new("am_optim_config")
    config.kind, config.state_dtype = C.AM_OPTIM_ADAMW, -1
    config.beta1, config.beta2, config.eps = 0.9, 0.999, 1e-8
    edge.check(C.am_optim_new(optim, sealed, config))
    local handle = ffi.gc(optim[0], C.am_optim_release)
    local double = autograd.custom {
        forward = function(ctx, x) ctx.x = x return x * 2 end,
        backward = function(ctx, dy) return dy * 2 + ctx.x * 0 end,
    }
    local function layer(h)
        local x = ops.rms_norm(h, p.norm, 1e-5)
        local q = ops.lora_linear(x, p.w, nil, p.a, p.b, { scale = 2, dropout = 0.1, position = "pre" })
        q = q:reshape(2, 5, 2, 4)
        local y = ops.attention(q, q, q, nil, { dropout = 0.2 }):reshape(2, 5, 8)
        return h + double(y)
    end
    local ids = am.tensor({ { 1, 2, 3, 4, 5 }, { 6, 7, 8, 9, 10 } }, { dtype = "int32", device = device })
    local labels = am.tensor({ 2, 3, 4, 5, -100, 7, 8, 9, 10, -100 }, { dtype = "int64", device = device })
    local norm = ffi.new("double[1]")
    return function(step)
        local h = ops.embedding(ids, p.embed)
        h = am.scope(layer, h)
        h = am.checkpoint(layer, h)
        local loss = ops.linear_cross_entropy(h:reshape(10, 8), p.embed, labels) / 8
        local value = loss:item()
        loss:backward()
        assert.is_true(p.embed.grad:sum():item() == p.embed.grad:sum():item())
        edge.check(C.am_params_grad_norm(sealed, 1, norm))
        edge.check(C.am_optim_step(handle, 1e-3, 0.01, 1 / math.max(1, norm[0])))
        edge.check(C.am_params_zero_grad(sealed))
        am.no_grad(function() -- evaluation
            ops.argmax(h:reshape(10, 8), 1):totable()
            h:to("bfloat16"):totable()
        end)
        assert.is_true(value == value, "step " .. step)
    end
end

describe("live bytes", function()
    for _, device in ipairs { "cpu", "fence" } do
        it("return to the same figure over 200 steps on " .. device, function()
            steady(200, device, small_model(device))
        end)
    end

    it("do not grow when a forward pass is dropped without backward", function()
        local x = am.ones { 100 }
        x.requires_grad = true
        steady(50, nil, function() return (x * 2):exp():sum():item() end)
    end)

    it("do not grow when backward fails", function()
        local x = am.ones { 100 }
        x.requires_grad = true
        local bad = autograd.custom { forward = function(ctx, t) ctx.t = t * 1 return t * 1 end,
                                      backward = function() err.raise("data", "no") end }
        steady(20, nil, function()
            local y = bad(x * 3):sum()
            assert.is_false(pcall(y.backward, y))
        end)
    end)

    it("do not grow from one custom op to the next in backward", function()
        local seen = {}
        local op = autograd.custom { forward = function(_, t) return t * 2 end, backward = function(_, dy)
            seen[#seen + 1] = live()
            return dy * 2
        end }
        local x = am.ones { 1000 }
        x.requires_grad = true
        am.scope(function()
            local y = x
            for _ = 1, 6 do
                y = op(y)
            end
            y:sum():backward()
        end)
        assert.same({ 64, 64 }, { x.grad:totable()[1], x.grad:totable()[1000] })
        assert.equal(6, #seen)
        assert.is_true(seen[6] <= seen[2], table.concat(seen, " "))
    end)

    it("do not grow by constructors, conversions and reading", function()
        local half = am.ones({ 100 }, { dtype = "bfloat16" })
        local t
        collectgarbage()
        collectgarbage()
        collectgarbage("stop")
        local before = live()
        half:totable() -- outside of any scope
        assert.equal(before, live())
        t = am.tensor({ 1, 2, 3 }, { dtype = "int64" })
        local one = live() - before
        t:release()
        collectgarbage("restart")
        assert.is_true(one <= 256, one .. " bytes for three integers")
        assert.equal(before, live())
    end)
end)

-- ---- the cache, the budget, and no memory ----------------------------------------------------

describe("memory", function()
    it("is reused by size and given back on demand", function()
        collectgarbage()
        collectgarbage()
        C.am_mem_trim(0)
        assert.equal(0, tonumber(stats().cached_bytes))
        local t = am.zeros { 100000 }
        t:release()
        local cached = tonumber(stats().cached_bytes)
        assert.is_true(cached >= 400000, "nothing was kept")
        t = am.zeros { 100000 - 100 }
        assert.is_true(tonumber(stats().cached_bytes) < cached)
        t:release()
        C.am_mem_trim(0)
        assert.equal(0, tonumber(stats().cached_bytes))
    end)

    it("counts the peak", function()
        collectgarbage()
        collectgarbage()
        edge.check(C.am_mem_reset_peak(0))
        local base = live()
        assert.equal(base, tonumber(stats().peak_bytes))
        am.scope(function() am.zeros { 1000000 } end)
        local peak = tonumber(stats().peak_bytes)
        assert.is_true(peak >= base + 4000000 and peak <= base + 4600000, tostring(peak))
        assert.equal(base, live())
    end)

    it("stays within a budget, collecting garbage before it gives up", function()
        collectgarbage()
        collectgarbage()
        edge.check(C.am_mem_set_budget(0, live() + 10 * 2 ^ 20))
        local ok, e = pcall(function()
            for _ = 1, 20 do
                am.zeros { 2 ^ 20 } -- 4 MiB each, never released: only the collector can
            end
            return am.zeros { 2 ^ 22 }
        end)
        edge.check(C.am_mem_set_budget(0, 0))
        assert.is_false(ok)
        assert.equal("memory", e.code)
        assert.is_truthy(tostring(e):find("budget"), tostring(e))
        assert.is_true(am.zeros({ 2 ^ 22 }):alive())
        assert.not_equal(0, C.am_mem_set_budget(0, -1))
    end)

    it("collecting garbage within an op spares the op's own operands", function()
        for k = 1, 4 do
            for _ = 1, 60 do -- the interpreter, then compiled code
                local x, y = am.full({ 64 }, 3), am.full({ 64 }, 4)
                x, y = x * 1, y * 1
                edge.check(C.am_mem_fail_at(k))
                local z = ops.add(x * 2, y * 2)
                edge.check(C.am_mem_fail_at(0))
                assert.equal(14, z:totable()[64])
            end
        end
        edge.check(C.am_mem_fail_at(1))
        assert.equal(5, ops.cat({ am.ones { 2 }, am.ones { 3 } }, 0):numel())
        edge.check(C.am_mem_fail_at(0))
    end)

    it("of a failed op is not lost", function()
        local x = am.ones { 100, 100 }
        x.requires_grad = true
        collectgarbage()
        collectgarbage()
        local before = live()
        for k = 1, 12 do
            am.scope(function()
                edge.check(C.am_mem_fail_at(k))
                pcall(function() ops.softmax(x:matmul(x), 1):sum():backward() end)
                edge.check(C.am_mem_fail_at(0))
            end)
            x.grad = nil
        end
        collectgarbage()
        collectgarbage()
        assert.is_true(live() <= before + 100 * 100 * 4 + 8192, "memory was lost") -- x's gradient buffer
    end)
end)

