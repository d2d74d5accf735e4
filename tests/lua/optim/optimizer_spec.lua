-- AdamW, Adam and SGD against their formulas in plain Lua, gradients, clipping, options. What a checkpoint
-- holds and 16-bit weights are in state_spec.lua, schedules in scheduler_spec.lua.

local am = require("am")
local devices = require("tests.support.devices")
local compare = require("tests.support.compare")
local edge = require("am.core.ffi")
local helpers = require("tests.lua.optim.helpers")
local optim = require("am.optim")
local tiny = require("tests.support.tiny")

local raised = tiny.raised
local cases, iterator, parameters = helpers.cases, helpers.iterator, helpers.parameters
local give_gradients = helpers.give_gradients

local function flat(t)
    local array, n = t:detach():to("float64"):to_buffer()
    local out = {}
    for i = 1, n do
        out[i] = array[i - 1]
    end
    return out
end

-- One parameter's update by torch.optim's formulas, in double; s holds what is kept between steps.
local function update(kind, p, g, s, o, lr, wd)
    s.t = (s.t or 0) + 1
    for i = 1, #p do
        local grad = g[i]
        if kind == "adamw" then
            p[i] = p[i] * (1 - lr * wd)
        else
            grad = grad + wd * p[i]
        end
        if kind == "sgd" then
            local step = grad
            if (o.momentum or 0) > 0 then
                s[i] = s.t == 1 and grad or o.momentum * s[i] + (1 - (o.dampening or 0)) * grad
                step = o.nesterov and grad + o.momentum * s[i] or s[i]
            end
            p[i] = p[i] - lr * step
        else
            local b1, b2 = unpack(o.betas or { 0.9, 0.999 })
            s.m, s.v = s.m or {}, s.v or {}
            s.m[i] = b1 * (s.m[i] or 0) + (1 - b1) * grad
            s.v[i] = b2 * (s.v[i] or 0) + (1 - b2) * grad * grad
            local m, v = s.m[i] / (1 - b1 ^ s.t), s.v[i] / (1 - b2 ^ s.t)
            p[i] = p[i] - lr * m / (math.sqrt(v) + (o.eps or 1e-8))
        end
    end
end

local function describe_case(case)
    local words = {}
    for key, value in pairs(case[2]) do
        words[#words + 1] = key .. " " .. (type(value) == "table" and table.concat(value, " ") or tostring(value))
    end
    table.sort(words)
    return case[1] .. ", " .. table.concat(words, ", ")
end

-- Six steps of a case, the learning rate and decay changing on the way, against the formulas.
local function check(case, dtype, tolerance, device)
    local kind, o = case[1], case[2]
    local list = parameters(dtype, device)
    local optimizer = optim.new(kind, iterator(list), o)
    local group = optimizer.param_groups[1]
    assert.same({ o.lr or 1e-3, o.weight_decay or (kind == "adamw" and 0.01 or 0) }, { group.lr, group.weight_decay })
    local expected, states = {}, {}
    for i, p in ipairs(list) do
        expected[i], states[i] = flat(p), {}
    end
    for step = 1, 6 do
        if step == 4 then
            group.lr, group.weight_decay = group.lr / 2, group.weight_decay * 3
        end
        local gradients = give_gradients(list, step)
        local scale = step == 2 and 0.25 or nil
        optimizer:step(scale)
        optimizer:zero_grad()
        for i, p in ipairs(list) do
            local g = flat(gradients[i])
            for j = 1, #g do
                g[j] = g[j] * (scale or 1)
            end
            update(kind, expected[i], g, states[i], o, group.lr, group.weight_decay)
            for j, value in ipairs(flat(p)) do
                compare.near(("p%d[%d] after step %d"):format(i, j, step), value, expected[i][j], tolerance)
            end
        end
    end
    assert.equal(6, optimizer:state_dict().step)
    optimizer:close()
end

describe("an optimizer", function()
    for _, case in ipairs(cases) do
        it("updates by torch's formula: " .. describe_case(case), function()
            check(case, "float64", 1e-12)
            check(case, "float32", 3e-6)
        end)
    end

    it("is the same on every backend", function()
        for _, device in ipairs(devices.others) do
            for _, case in ipairs { cases[2], cases[6], cases[11] } do
                check(case, "float32", 3e-6, device)
            end
        end
    end)

    it("leaves alone what has no gradient", function()
        for _, case in ipairs(helpers.all()) do
            local list = parameters()
            local optimizer = optim.new(case[1], iterator(list), case[2])
            give_gradients(list, 1)
            optimizer:step()
            optimizer:zero_grad()
            local before = tiny.bits(list[3])
            local states = {}
            for name, what, t in optimizer:state_tensors() do
                states[name .. what] = tiny.bits(t)
            end
            give_gradients(list, 2, 3)
            optimizer:step()
            assert.equal(before, tiny.bits(list[3]))
            assert.not_equal(tiny.bits(parameters()[2]), tiny.bits(list[2]))
            for name, what, t in optimizer:state_tensors() do
                local same = states[name .. what] == tiny.bits(t)
                if name == "p3" or not what:match("^Q") then -- new bases come later
                    assert.equal(name == "p3", same, name .. " " .. what)
                end
            end
            optimizer:close()
        end
    end)

    it("gives the same bits on any number of threads", function()
        local function trained(case, dtype, threads)
            local before = edge.C.am_threads()
            edge.check(edge.C.am_threads_set(threads))
            am.manual_seed(9)
            local list, bits = {}, {}
            for i, shape in ipairs { { 130, 97 }, { 64, 200 }, { 3000 } } do
                list[i] = am.randn(shape):to(dtype):requires_grad_()
            end
            local optimizer = optim.new(case[1], iterator(list), case[2])
            for step = 1, 3 do
                give_gradients(list, step)
                optimizer:step()
                optimizer:zero_grad()
            end
            for i, p in ipairs(list) do
                bits[i] = tiny.bits(p)
            end
            optimizer:close()
            edge.check(edge.C.am_threads_set(before))
            return bits
        end
        for _, dtype in ipairs { "float32", "bfloat16" } do
            for _, case in ipairs(helpers.others) do
                if not case[2].precondition_1d and case[1] ~= "shampoo" then -- of 3000 rows: too slow
                    assert.same(trained(case, dtype, 1), trained(case, dtype, 3), case[1])
                end
            end
            assert.same(trained({ "shampoo", { max_precond_dim = 200 } }, dtype, 1),
                        trained({ "shampoo", { max_precond_dim = 200 } }, dtype, 3))
            local soap = { "soap", { precondition_frequency = 1 } }
            assert.same(trained(soap, dtype, 1), trained(soap, dtype, 3))
        end
    end)

    it("takes what requires gradients, and keeps it the same tensor", function()
        local list = parameters()
        list[2].requires_grad, list[4].requires_grad = false, false
        local before = {}
        for i, p in ipairs(list) do
            before[i] = tiny.bits(p)
        end
        local optimizer = optim.new("sgd", iterator(list), { lr = 1 })
        assert.equal(7 + 15 + 1, optimizer:numel())
        for i, p in ipairs(list) do
            assert.equal(before[i], tiny.bits(p))
        end
        give_gradients(list, 1)
        optimizer:step()
        for i, p in ipairs(list) do
            assert.equal(not p.requires_grad, before[i] == tiny.bits(p), "p" .. i)
        end
        optimizer:close()
        for _, p in ipairs(list) do
            p.requires_grad = false
        end
        raised("usage", "nothing is trainable", optim.new, "sgd", iterator(list), { lr = 1 })
    end)

    it("adds up gradients until they are emptied", function()
        local function two(empty)
            local list = parameters()
            local optimizer = optim.new("sgd", iterator(list), { lr = 1 })
            give_gradients(list, 1)
            if empty then
                optimizer:zero_grad()
                assert.equal(0, optimizer:grad_norm())
            end
            local g = give_gradients(list, 2)
            local grad = list[3].grad:detach():clone()
            optimizer:close()
            return grad, g[3]
        end
        local sum, second = two(false)
        am.manual_seed(101)
        local first = { am.randn(helpers.SHAPES[1]), am.randn(helpers.SHAPES[2]), am.randn(helpers.SHAPES[3]) }
        compare.within("both", sum, first[3] + second, 1e-6)
        local only = two(true)
        compare.same("the second", only, second)
    end)

    it("measures weights and gradients", function()
        local list = parameters("bfloat16")
        list[1], list[4] = parameters()[1], parameters("float64")[4]
        local optimizer = optim.new("adamw", iterator(list), { lr = 1 })
        give_gradients(list, 1)
        local weights, gradients = 0, 0
        for _, p in ipairs(list) do
            for _, x in ipairs(flat(p)) do weights = weights + x * x end
            for _, x in ipairs(flat(p.grad)) do gradients = gradients + x * x end
        end
        compare.near("weights", optimizer:param_norm(), math.sqrt(weights), 1e-9)
        compare.near("gradients", optimizer:grad_norm(), math.sqrt(gradients), 1e-9)
        optimizer:close()
    end)

    it("clips by a factor, as torch does", function()
        local list = parameters()
        local optimizer = optim.new("sgd", iterator(list), { lr = 1 })
        assert.same({ 0, 1 }, { optimizer:clip_grad_norm(1) })
        give_gradients(list, 1)
        local norm = optimizer:grad_norm()
        assert.is_true(norm > 5)
        for _, max in ipairs { 1, 0.001, norm * 0.999 } do
            assert.same({ norm, max / (norm + 1e-6) }, { optimizer:clip_grad_norm(max) })
        end
        for _, max in ipairs { norm * 1.001, 1e9, math.huge } do
            assert.same({ norm, 1 }, { optimizer:clip_grad_norm(max) })
        end
        assert.same({ norm, 1 }, { optimizer:clip_grad_norm(nil) })
        -- gradients stay; the factor is the step's
        assert.equal(norm, optimizer:grad_norm())
        local before, g = flat(list[3]), flat(list[3].grad)
        optimizer:step((select(2, optimizer:clip_grad_norm(1))))
        for i, x in ipairs(flat(list[3])) do
            compare.near("clipped", before[i] - x, g[i] / norm, 1e-6)
        end
        optimizer:close()
    end)

    it("frees what it holds when it is closed", function()
        local function live()
            collectgarbage()
            collectgarbage()
            return am.memory().live_bytes
        end
        local list = { am.randn({ 1000 }):requires_grad_() }
        local before = live()
        local optimizer = optim.new("adamw", iterator(list), { lr = 1 })
        give_gradients(list, 1)
        optimizer:step()
        assert.is_true(live() >= before + 3 * 4000)
        optimizer:close()
        list = nil -- luacheck: ignore
        assert.is_true(live() < before + 1000)
    end)
end)

describe("fuse_backward", function()
    -- Three steps; returns the bits of weights and state, and the norms.
    local function train(case, dtype, state_dtype, fused)
        local list, opts, out = parameters(dtype), {}, {}
        for k, v in pairs(case[2]) do
            opts[k] = v
        end
        opts.state_dtype, opts.fuse_backward = state_dtype, fused
        local optimizer = optim.new(case[1], iterator(list), opts)
        for step = 1, 3 do
            optimizer:zero_grad()
            am.manual_seed(100 + step)
            local loss
            for i, p in ipairs(list) do -- the third twice, the last not always
                local g = am.randn(p:size()):to { dtype = dtype }
                local term = (p * g):sum() + (i == 3 and (p * p):sum() or 0)
                loss = (i < #list or step ~= 2) and (loss and loss + term or term) or loss
            end
            loss:backward()
            for _, p in ipairs(list) do
                assert.is_true(not fused or p.grad == nil)
            end
            out[#out + 1] = select(1, optimizer:clip_grad_norm(nil))
            optimizer:step()
            optimizer.param_groups[1].lr = optimizer.param_groups[1].lr * 0.5
        end
        for _, p in ipairs(list) do
            out[#out + 1] = tiny.bits(p)
        end
        for name, what, t in optimizer:state_tensors() do
            out[#out + 1] = name .. what .. tiny.bits(t)
        end
        out[#out + 1] = optimizer:state_dict().step
        optimizer:close()
        return out
    end

    it("gives the bits of a step after backward", function()
        for _, dtype in ipairs { "float32", "bfloat16" } do
            for _, state_dtype in ipairs { "float32", "bfloat16", "int8" } do
                for _, case in ipairs(helpers.all()) do
                    if state_dtype ~= "int8" or helpers.in_8_bits(case) then
                        assert.same(train(case, dtype, state_dtype, false), train(case, dtype, state_dtype, true))
                    end
                end
            end
        end
    end)

    it("updates a gradient that backward did not make in step", function()
        local list = parameters()
        local optimizer = optim.new("sgd", iterator(list), { lr = 1, fuse_backward = true })
        local before = flat(list[1])
        list[1].grad = am.ones(list[1]:size())
        optimizer:step()
        for i, x in ipairs(flat(list[1])) do
            compare.near("weight", x, before[i] - 1, 1e-6)
        end
        assert.is_nil(list[1].grad)
        assert.equal(math.sqrt(list[1]:numel()), optimizer:grad_norm())
        optimizer:close()
    end)

    it("refuses what needs all gradients, and says which keys", function()
        local w = am.ones({ 2 }):requires_grad_()
        local optimizer = optim.new("sgd", iterator { w }, { lr = 1, fuse_backward = true })
        raised("usage", { "fuse_backward", "clip_grad_norm.max_norm" }, optimizer.clip_grad_norm, optimizer, 1)
        raised("usage", { "fuse_backward", "0.5" }, optimizer.step, optimizer, 0.5);
        (w * 1):sum():backward()
        local loss = (w * 1):sum()
        raised("usage", { "fuse_backward", "p1", "local_batch_size" }, loss.backward, loss)
        optimizer:step()
        optimizer:close()
    end)

    it("remembers that a step ended halfway", function()
        local v, w = am.ones({ 2 }):requires_grad_(), am.ones({ 2 }):requires_grad_()
        local optimizer = optim.new("sgd", iterator { v, w }, { lr = 1, fuse_backward = true })
        local stop = v:register_post_accumulate_grad_hook(function() error("stop", 0) end)
        local function loss() return (v * 2 * w):sum() end -- w is final first
        local first = loss()
        assert.is_false(pcall(first.backward, first))
        stop:remove()
        raised("state", "halfway", optimizer.zero_grad, optimizer)
        raised("state", "halfway", optimizer.state_dict, optimizer)
        optimizer:load_state_dict { kind = "sgd", step = 0, lr = 1, weight_decay = 0 }
        optimizer:zero_grad()
        loss():backward()
        optimizer:step()
        assert.equal(1, optimizer:state_dict().step)
        optimizer:close()
    end)

    it("holds no gradients, and is collected without being closed", function()
        local function live()
            collectgarbage()
            collectgarbage()
            return am.memory().live_bytes
        end
        local before = live()
        local function made(fused)
            local w = am.ones({ 4096 }):requires_grad_()
            local optimizer = optim.new("sgd", iterator { w }, { lr = 1, fuse_backward = fused });
            (w * 1):sum():backward()
            optimizer:step()
            return live() - before, optimizer
        end
        local plain, first = made(false)
        first:close()
        local fused = made(true)
        assert.equal(4 * 4096, plain - fused)
        assert.is_true(live() - before < 1000)
    end)
end)

describe("what an optimizer is asked for", function()
    it("is checked", function()
        local function refused(code, wanted, kind, opts)
            raised(code, wanted, optim.new, kind, iterator(parameters()), opts)
        end
        refused("usage", '"adagrad"', "adagrad", {})
        for _, betas in ipairs { 0.9, { 0.9 }, { 0.9, "x" }, {}, "0.9" } do
            refused("usage", "betas", "adamw", { betas = betas })
        end
        for _, betas in ipairs { { 1, 0.9 }, { 0.9, 1 }, { -0.1, 0.9 }, { 0 / 0, 0.9 } } do
            refused("argument", "betas", "adam", { betas = betas })
        end
        refused("argument", "eps", "adam", { eps = -1 })
        refused("argument", "momentum", "sgd", { momentum = -0.5 })
        refused("argument", "nesterov", "sgd", { nesterov = true })
        refused("argument", "nesterov", "sgd", { nesterov = true, momentum = 0.5, dampening = 0.1 })
        for _, dtype in ipairs { "float16", "float64", "int32", "uint8", "float31" } do
            refused("usage", { "state_dtype", dtype }, "adamw", { state_dtype = dtype })
        end
    end)

    it("has torch's defaults", function()
        local bare = optim.new("adamw", iterator(parameters()), {})
        assert.same({ kind = "adamw", step = 0,
                      param_groups = { { lr = 1e-3, weight_decay = 0.01, num_parameters = 5 } } }, bare:state_dict())
    end)
end)
