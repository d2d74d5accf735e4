-- Optimizers of one's own: a rule written over tensors is the optimizer that the engine has, with groups, masters,
-- clipping, updates inside backward and states; what is no rule is refused.
local am = require("am")
local groups_of = { { pattern = "b", lr_mult = 0.5, wd_mult = 0 } }

-- torch.optim.SGD with momentum.
local sgd = am.optim.custom("own_sgd", {
    momentum = { type = "number", default = 0.9, min = 0 },
    weight_decay = { type = "number", default = 0.1, min = 0 },
}, function(opts)
    return {
        states = function(shape, dtype) return { { "momentum_buffer", shape, dtype } } end,
        update = function(w, g, state, s)
            g = g + w * s.weight_decay
            state.momentum_buffer:copy_(s.t == 1 and g or state.momentum_buffer * opts.momentum + g)
            w:copy_(w - state.momentum_buffer * s.lr)
        end,
    }
end)

local function weights(dtype)
    am.manual_seed(4)
    local list = { { "a", am.randn({ 5, 3 }):to(dtype):requires_grad_() },
                   { "b", am.randn({ 7 }):to(dtype):requires_grad_() } }
    local function named()
        local i = 0
        return function()
            i = i + 1
            if list[i] then
                return list[i][1], list[i][2]
            end
        end
    end
    return list, named()
end

local function step(list, optimizer, factor)
    local sum
    for i, item in ipairs(list) do
        local x = (item[2]:to("float32") * i):pow(2):sum()
        sum = sum and sum + x or x
    end
    optimizer:zero_grad()
    sum:backward()
    optimizer:step(factor)
end

local function values(list)
    local out = {}
    for _, item in ipairs(list) do
        for _, v in ipairs(item[2]:detach():to("float64"):reshape(-1):totable()) do
            out[#out + 1] = v
        end
    end
    return out
end

describe("am.optim.custom", function()
    it("is SGD where the rule is SGD's", function()
        for _, case in ipairs { { "float32", false, 0.5 }, { "bfloat16", false, 1 }, { "float64", false, 1 },
                                { "float32", true } } do
            local dtype, fused, factor = case[1], case[2], case[3]
            local own, own_named = weights(dtype)
            local engine, engine_named = weights(dtype)
            local opts = { lr = 0.01, param_group_overrides = groups_of, fuse_backward = fused }
            local mine = sgd.build(opts, { named_parameters = own_named })
            local theirs = am.optim.new("sgd", engine_named, { lr = 0.01, weight_decay = 0.1, momentum = 0.9,
                                                               param_group_overrides = groups_of,
                                                               fuse_backward = fused })
            assert.equal("own_sgd", mine.kind)
            for _ = 1, 4 do
                step(own, mine, factor)
                step(engine, theirs, factor)
            end
            local a, b = values(own), values(engine)
            for i = 1, #a do
                assert.near(b[i], a[i], (dtype == "bfloat16" and 1e-2 or 1e-6) * math.max(1, math.abs(b[i])), dtype)
            end
            assert.near(theirs:param_norm(), mine:param_norm(), dtype == "bfloat16" and 1e-2 or 1e-5)
            mine:close()
            theirs:close()
        end
    end)

    it("goes on from its state, bit by bit", function()
        local first, first_named = weights("bfloat16")
        local whole = sgd.build({ lr = 0.01 }, { named_parameters = first_named })
        for _ = 1, 2 do
            step(first, whole)
        end
        local second, second_named = weights("bfloat16")
        local resumed = sgd.build({ lr = 0.01 }, { named_parameters = second_named })
        for i, item in ipairs(second) do
            item[2]:detach():copy_(first[i][2]:detach())
        end
        local kept = {}
        for name, what, t in whole:state_tensors() do
            kept[name .. what] = t
        end
        local count = 0
        for name, what, t in resumed:state_tensors() do
            t:copy_(kept[name .. what])
            count = count + 1
        end
        assert.equal(4, count) -- the momentum and the master of both
        resumed:load_state_dict(whole:state_dict())
        step(first, whole)
        step(second, resumed)
        assert.same(values(first), values(second))
    end)

    it("has the keys that every optimizer has, and defaults of its own", function()
        assert.equal(0.9, sgd.fields.momentum.default)
        assert.equal(0.1, sgd.fields.weight_decay.default)
        assert.equal(1e-3, sgd.fields.lr.default)
        assert.is_table(sgd.fields.param_group_overrides)
        assert.equal(0, am.optim.custom("plain", {}, function() end).fields.weight_decay.default)
    end)

    it("refuses what is no rule", function()
        local function fails(rule, text)
            local _, named = weights("float32")
            local made = am.optim.custom("bad", {}, function() return rule end)
            local ok, e = pcall(made.build, {}, { named_parameters = named })
            assert.is_false(ok)
            assert.equal("usage", e.code)
            assert.is_truthy(tostring(e):find(text, 1, true), tostring(e))
        end
        local function update() end
        fails(nil, "optimizer bad: its rule must be a table")
        fails({}, "its rule must be a table with a function update")
        fails({ update = update, states = function() return { "momentum" } end }, "number 1 is none")
        fails({ update = update, states = function(shape, dtype) return { { "master", shape, dtype } } end },
              'the name "master" is taken')
    end)
end)
