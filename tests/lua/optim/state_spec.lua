-- What optimizers keep beside the weights: masters of 16-bit ones, moments, and what of it a checkpoint must
-- hold for a run to go on bit for bit.

local am = require("am")
local compare = require("tests.support.compare")
local helpers = require("tests.lua.optim.helpers")
local optim = require("am.optim")
local tiny = require("tests.support.tiny")

local raised = tiny.raised
local cases, iterator, parameters = helpers.cases, helpers.iterator, helpers.parameters
local give_gradients = helpers.give_gradients

describe("16-bit weights", function()
    -- Steps of SGD, each far smaller than half a place of the weights.
    local function small_steps(dtype, opts, n)
        local p = am.ones({ 5 }, { dtype = dtype }):requires_grad_()
        opts.lr = 1e-4
        local optimizer = optim.new("sgd", iterator { p }, opts)
        for _ = 1, n do
            (p * am.ones({ 5 }, { dtype = dtype })):sum():backward()
            optimizer:step()
            optimizer:zero_grad()
        end
        local state = {}
        for _, what, t in optimizer:state_tensors() do
            state[what] = t:detach():clone()
        end
        local out = p:detach():clone()
        optimizer:close()
        return out, state
    end

    it("have f32 masters, which small steps add up in", function()
        for _, dtype in ipairs { "bfloat16", "float16" } do
            local weights, state = small_steps(dtype, {}, 100)
            compare.near("master", state.master:amax():item(), 0.99, 3e-6) -- a hundred roundings
            assert.equal(dtype, weights:dtype())
            assert.equal("float32", state.master:dtype())
            assert.equal(tiny.bits(state.master:to(dtype)), tiny.bits(weights))
            local stuck, none = small_steps(dtype, { master_weights = false }, 100)
            assert.is_nil(none.master)
            assert.equal(1, stuck:amin():item())
        end
        assert.is_nil(select(2, small_steps("float32", {}, 1)).master)
    end)

    it("are the masters' rounding after every step", function()
        for _, case in ipairs(cases) do
            local list, wide = parameters("bfloat16"), {}
            for i, p in ipairs(list) do
                wide[i] = p:detach():to("float32"):clone():requires_grad_()
            end
            local optimizer = optim.new(case[1], iterator(list), case[2])
            local exact = optim.new(case[1], iterator(wide), case[2])
            for step = 1, 4 do
                for i, g in ipairs(give_gradients(list, step)) do
                    (wide[i] * g:to("bfloat16"):to("float32")):sum():backward()
                end
                optimizer:step()
                exact:step()
                optimizer:zero_grad()
                exact:zero_grad()
            end
            for name, what, t in optimizer:state_tensors() do
                local i = tonumber(name:match("%d+"))
                if what == "master" then
                    compare.within("master of " .. name, t, wide[i], 1e-6)
                    assert.equal(tiny.bits(t:to("bfloat16")), tiny.bits(list[i]))
                end
            end
            optimizer:close()
            exact:close()
        end
    end)

    it("may have moments of 16 bits", function()
        for _, dtype in ipairs { "float32", "bfloat16" } do
            local list = parameters(dtype)
            local optimizer = optim.new("adamw", iterator(list), { lr = 0.01, state_dtype = "bf16" })
            give_gradients(list, 1)
            optimizer:step()
            local seen = {}
            for _, what, t in optimizer:state_tensors() do
                seen[what] = t:dtype()
            end
            assert.same({ exp_avg = "bfloat16", exp_avg_sq = "bfloat16",
                          master = dtype == "bfloat16" and "float32" or nil }, seen)
            optimizer:close()
        end
    end)

    it("or of 8, in blocks of 256 that begin with each parameter", function()
        for _, dtype in ipairs { "float32", "bfloat16" } do
            local list = { am.randn({ 300 }), am.randn({ 1 }), am.randn({ 16, 32 }) }
            for i, p in ipairs(list) do
                list[i] = p:to(dtype):requires_grad_()
            end
            local optimizer = optim.new("adamw", iterator(list), { lr = 0.01, state_dtype = "int8" })
            give_gradients(list, 1)
            optimizer:step()
            local shapes = {}
            for name, what, t in optimizer:state_tensors() do
                if name == "p1" or what:find("absmax") then
                    shapes[name .. "." .. what] = t:dtype() .. " " .. table.concat(t:size(), ",")
                end
            end
            assert.same({
                ["p1.exp_avg"] = "uint8 300", ["p1.exp_avg_sq"] = "uint8 300",
                ["p1.exp_avg_absmax"] = "float32 2", ["p1.exp_avg_sq_absmax"] = "float32 2",
                ["p2.exp_avg_absmax"] = "float32 1", ["p2.exp_avg_sq_absmax"] = "float32 1",
                ["p3.exp_avg_absmax"] = "float32 2", ["p3.exp_avg_sq_absmax"] = "float32 2",
                ["p1.master"] = dtype == "bfloat16" and "float32 300" or nil,
            }, shapes)
            optimizer:close()
        end
    end)

    it("of 8 bits do not depend on a parameter's neighbours", function()
        local function trained(order)
            local list, bits = {}, {}
            am.manual_seed(3)
            for i, n in ipairs { 300, 1, 517 } do
                list[i] = am.randn({ n }):requires_grad_()
            end
            local shuffled = { list[order[1]], list[order[2]], list[order[3]] }
            local optimizer = optim.new("adamw", iterator(shuffled), { lr = 0.01, state_dtype = "int8" })
            for step = 1, 5 do
                give_gradients(list, step)
                optimizer:step()
                optimizer:zero_grad()
            end
            for i, p in ipairs(list) do
                bits[i] = tiny.bits(p)
            end
            optimizer:close()
            return bits
        end
        assert.same(trained { 1, 2, 3 }, trained { 3, 1, 2 })
    end)

    it("give masters what they were rounded from, where nothing has changed since", function()
        local exact = am.tensor { 1.001, 2.002, 3.003 }
        local p, q = exact:to("bfloat16"):requires_grad_(), exact:to("bfloat16"):requires_grad_()
        p:detach():select(0, 1):fill_(7)
        local optimizer = optim.new("sgd", iterator { p, q, am.ones({ 1 }):requires_grad_() }, { lr = 1 })
        optimizer:load_masters(function(name) return name == "p1" and exact or nil end)
        local masters = {}
        for name, what, t in optimizer:state_tensors() do
            masters[name] = what == "master" and tiny.bits(t)
        end
        local wanted = exact:clone()
        wanted:select(0, 1):fill_(7)
        assert.same({ p1 = tiny.bits(wanted), p2 = tiny.bits(exact:to("bfloat16"):to("float32")) }, masters)
        optimizer:close()
    end)

    it("that were changed from outside are copied into their masters", function()
        local p = am.ones({ 3 }, { dtype = "bfloat16" }):requires_grad_()
        local optimizer = optim.new("sgd", iterator { p }, { lr = 0.5 })
        p:detach():fill_(4)
        optimizer:sync_masters();
        (p * 1):sum():backward()
        optimizer:step()
        assert.same({ 3.5, 3.5, 3.5 }, p:totable())
        optimizer:close()
    end)
end)

local function state_of(step, lr, weight_decay)
    return { kind = "adamw", step = step,
             param_groups = { { lr = lr, weight_decay = weight_decay, num_parameters = 5 } } }
end

describe("an optimizer's state", function()
    it("is what a checkpoint needs: a run goes on bit for bit", function()
        local kinds = {}
        for _, case in ipairs(helpers.all()) do
            kinds[#kinds + 1] = case
            if helpers.in_8_bits(case) then
                local opts = { state_dtype = "int8" }
                for k, v in pairs(case[2]) do
                    opts[k] = v
                end
                kinds[#kinds + 1] = { case[1], opts }
            end
        end
        for _, dtype in ipairs { "float32", "bfloat16" } do
            for _, case in ipairs(kinds) do
                local function steps(list, optimizer, first, last)
                    for step = first, last do
                        give_gradients(list, step)
                        optimizer:step()
                        optimizer:zero_grad()
                    end
                end
                local unbroken = parameters(dtype)
                local optimizer = optim.new(case[1], iterator(unbroken), case[2])
                steps(unbroken, optimizer, 1, 3)
                local state, saved, weights = optimizer:state_dict(), {}, {}
                for name, what, t in optimizer:state_tensors() do
                    saved[name .. "." .. what] = t:detach():clone()
                end
                for i, p in ipairs(unbroken) do
                    weights[i] = p:detach():clone()
                end
                steps(unbroken, optimizer, 4, 6)

                local resumed = parameters(dtype)
                local second = optim.new(case[1], iterator(resumed), case[2])
                for i, p in ipairs(resumed) do
                    p:detach():copy_(weights[i])
                end
                for name, what, t in second:state_tensors() do
                    t:copy_(saved[name .. "." .. what])
                    saved[name .. "." .. what] = nil
                end
                assert.is_nil(next(saved))
                second:load_state_dict(state)
                steps(resumed, second, 4, 6)
                for i, p in ipairs(unbroken) do
                    assert.equal(tiny.bits(p), tiny.bits(resumed[i]))
                end
                optimizer:close()
                second:close()
            end
        end
    end)

    it("has torch's names and the weights' shapes", function()
        for kind, wanted in pairs { adam = "exp_avg exp_avg_sq", adamw = "exp_avg exp_avg_sq", sgd = "",
                                    ["sgd momentum"] = "momentum_buffer" } do
            local list, seen = parameters(), {}
            local optimizer = optim.new(kind:match("%a+"), iterator(list), { momentum = kind:match(" ") and 0.5 })
            for name, what, t in optimizer:state_tensors() do
                assert.same(list[tonumber(name:match("%d+"))]:size(), t:size())
                assert.equal("float32", t:dtype())
                seen[name] = seen[name] and seen[name] .. " " .. what or what
            end
            assert.equal(wanted, seen.p1 or "")
            assert.equal(wanted, seen.p5 or "")
            optimizer:close()
        end
    end)

    it("also holds the group's numbers", function()
        local optimizer = optim.new("adamw", iterator(parameters()), { lr = 0.25 })
        assert.same(state_of(0, 0.25, 0.01), optimizer:state_dict())
        optimizer:load_state_dict(state_of(9, 0.5, 0))
        assert.same(state_of(9, 0.5, 0), optimizer:state_dict())
        assert.same({ { lr = 0.5, weight_decay = 0, lr_mult = 1, wd_mult = 1,
                        num_parameters = 5, names = { "p1", "p2", "p3", "p4", "p5" } } }, optimizer.param_groups)
        -- as version 0.1 wrote it
        optimizer:load_state_dict { kind = "adamw", step = 4, lr = 0.75, weight_decay = 0.5 }
        assert.same(state_of(4, 0.75, 0.5), optimizer:state_dict())
        optimizer:close()
    end)

    it("of another optimizer, or none, is refused and changes nothing", function()
        local optimizer = optim.new("adamw", iterator(parameters()), { lr = 0.25 })
        local good = { kind = "adamw", step = 3, lr = 0.5, weight_decay = 0.1 }
        local function changed(key, value)
            local state = {}
            for k, v in pairs(good) do
                state[k] = v
            end
            state[key] = value
            return state
        end
        raised("state", { "sgd", "adamw" }, optimizer.load_state_dict, optimizer, changed("kind", "sgd"))
        raised("state", { "nil", "adamw" }, optimizer.load_state_dict, optimizer, {})
        for _, key in ipairs { "step", "lr", "weight_decay" } do
            for _, value in ipairs { "3", -1, true, {}, 0 / 0 } do
                raised("format", { key }, optimizer.load_state_dict, optimizer, changed(key, value))
            end
            raised("format", { key, "nil" }, optimizer.load_state_dict, optimizer, changed(key, nil))
        end
        for _, value in ipairs { 2.5, 1e300, math.huge } do
            raised("format", { "step" }, optimizer.load_state_dict, optimizer, changed("step", value))
        end
        local groups = state_of(3, 0.5, 0.1)
        groups.param_groups[2] = groups.param_groups[1]
        raised("state", { "2 parameter groups", "param_group_overrides" }, optimizer.load_state_dict, optimizer, groups)
        groups.param_groups = { { lr = 1, weight_decay = 0, num_parameters = 4 } }
        raised("state", { "group 1", "param_group_overrides" }, optimizer.load_state_dict, optimizer, groups)
        for _, value in ipairs { 3, "x", { 1 } } do
            groups.param_groups = value
            raised("format", { "param_groups" }, optimizer.load_state_dict, optimizer, groups)
        end
        assert.same(state_of(0, 0.25, 0.01), optimizer:state_dict())
        optimizer:close()
    end)
end)
