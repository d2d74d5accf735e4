-- Parameter groups: by pattern, of Muon's companions, under a schedule, in a checkpoint.

local am = require("am")
local compare = require("tests.support.compare")
local groups = require("am.optim.groups")
local helpers = require("tests.lua.optim.helpers")
local json = require("am.utils.json")
local optim = require("am.optim")
local scheduler = require("am.optim.scheduler")
local tiny = require("tests.support.tiny")

local raised = tiny.raised

local NAMES = { "model.embed_tokens.weight", "model.layers.0.q_proj.weight", "model.layers.0.norm.weight",
                "model.layers.1.q_proj.weight", "model.layers.1.q_proj.bias", "lm_head.weight" }
local SHAPES = { { 6, 4 }, { 4, 4 }, { 4 }, { 4, 4 }, { 4 }, { 6, 4 } }

local function model(dtype)
    return helpers.named_parameters(NAMES, SHAPES, 3, dtype)
end

local function backward(list, step)
    am.manual_seed(50 + step)
    local loss
    for _, p in ipairs(list) do
        local term = (p * am.randn(p:size()):to(p:dtype())):sum()
        loss = loss and loss + term or term
    end
    loss:backward()
end

local function names_of(optimizer)
    local out = {}
    for i, g in ipairs(optimizer.param_groups) do
        out[i] = {}
        for k, name in ipairs(g.names) do
            for n, known in ipairs(NAMES) do
                out[i][k] = known == name and n or out[i][k]
            end
        end
    end
    return out
end

describe("param_group_overrides", function()
    it("put a parameter into the group of the first pattern that is found", function()
        local _, named = model()
        local optimizer = optim.new("adamw", named, { lr = 0.5, weight_decay = 0.25, param_group_overrides = {
            { pattern = "norm|bias$", wd_mult = 0 }, { pattern = "layers\\.1\\.", lr_mult = 4, max_lr = 3, min_lr = 1 },
            { pattern = "router", lr_mult = 9 }, { pattern = "(?i)EMBED", lr_mult = 0, wd_mult = 2 },
        } })
        assert.same({ { 2, 6 }, { 3, 5 }, { 4 }, { 1 } }, names_of(optimizer))
        local numbers = {}
        for i, g in ipairs(optimizer.param_groups) do
            numbers[i] = { g.lr, g.weight_decay, g.lr_mult, g.wd_mult, g.max_lr, g.min_lr }
        end
        assert.same({ { 0.5, 0.25, 1, 1 }, { 0.5, 0, 1, 0 }, { 2, 0.25, 4, 1, 3, 1 }, { 0, 0.5, 0, 2 } }, numbers)
        optimizer:close()
    end)

    it("may leave the first group empty, which keeps the base's numbers", function()
        local list, named = model()
        local optimizer = optim.new("sgd", named, { lr = 1, param_group_overrides = { { pattern = "", lr_mult = 2 } } })
        assert.same({ {}, { 1, 2, 3, 4, 5, 6 } }, names_of(optimizer))
        assert.equal(1, optimizer.param_groups[1].lr)
        backward(list, 1)
        local before, g = list[2]:detach():clone(), list[2].grad:detach():clone()
        optimizer:step()
        compare.within("twice the rate", list[2], before - g * 2, 1e-6)
        optimizer:close()
    end)

    -- What each group does is what an optimizer of its own does.
    it("are the updates of separate optimizers, fused or not, in every dtype", function()
        for _, dtype in ipairs { "float32", "bfloat16" } do
            for _, kind in ipairs { "adamw", "sgd", "lion", "adafactor", "shampoo" } do
                for _, fused in ipairs { false, true } do
                    local list, named = model(dtype)
                    local overrides = { { pattern = "norm|bias", lr_mult = 0.5, wd_mult = 0 } }
                    local whole = optim.new(kind, named, { lr = 0.01, weight_decay = 0.1, fuse_backward = fused,
                                                           param_group_overrides = overrides })
                    local others, iterate = model(dtype)
                    local sets, parts = { {}, {} }, {}
                    for name, p in iterate do
                        local second = name:find("norm") or name:find("bias")
                        table.insert(sets[second and 2 or 1], { name, p })
                    end
                    for i, set in ipairs(sets) do
                        local k = 0
                        parts[i] = optim.new(kind, function()
                            k = k + 1
                            if set[k] then
                                return unpack(set[k])
                            end
                        end, { lr = i == 1 and 0.01 or 0.005, weight_decay = i == 1 and 0.1 or 0 })
                    end
                    for step = 1, 3 do
                        backward(list, step)
                        backward(others, step)
                        local squares = 0
                        for _, part in ipairs(parts) do
                            squares = squares + part:grad_norm() ^ 2
                        end
                        compare.near("norm", whole:grad_norm(), fused and whole:grad_norm() or math.sqrt(squares), 1e-6)
                        whole:step()
                        whole:zero_grad()
                        for _, part in ipairs(parts) do
                            part:step()
                            part:zero_grad()
                        end
                    end
                    for i, p in ipairs(list) do
                        assert.equal(tiny.bits(others[i]), tiny.bits(p), kind .. " " .. NAMES[i])
                    end
                    assert.equal(parts[1]:numel() + parts[2]:numel(), whole:numel())
                    compare.near("weights", whole:param_norm(),
                                 math.sqrt(parts[1]:param_norm() ^ 2 + parts[2]:param_norm() ^ 2), 1e-6)
                    whole:close()
                    parts[1]:close()
                    parts[2]:close()
                end
            end
        end
    end)

    it("that are no patterns or no numbers are refused by place", function()
        local function refused(wanted, override)
            local _, named = model()
            raised("usage", wanted, optim.new, "adamw", named, { param_group_overrides = { { pattern = "a" },
                                                                                           override } })
        end
        refused({ "param_group_overrides[2].pattern", '"("', "character" }, { pattern = "(" })
        refused({ "param_group_overrides[2].pattern", "nil" }, {})
        refused({ "param_group_overrides[2].pattern", "9000" }, { pattern = ("a"):rep(9000) })
        for _, key in ipairs { "lr_mult", "wd_mult", "max_lr", "min_lr" } do
            for _, value in ipairs { -1, 0 / 0, "x", true } do
                refused({ "param_group_overrides[2]." .. key }, { pattern = "a", [key] = value })
            end
        end
        local slow = groups.searcher("(a+)+$", "key")
        raised("usage", { "key", "limit" }, slow, ("a"):rep(60) .. "b")
    end)
end)

describe("a schedule over groups", function()
    it("multiplies lr and decay, and honours max_lr and min_lr", function()
        local _, named = model()
        local optimizer = optim.new("adamw", named, { lr = 1e-2, weight_decay = 0.1, param_group_overrides = {
            { pattern = "norm|bias", lr_mult = 0.5, wd_mult = 0 }, { pattern = "embed", max_lr = 2e-3, min_lr = 5e-4 },
        } })
        local s = scheduler.new { optimizer = optimizer, lr_decay_style = "linear", init_lr = 0, max_lr = 1e-2,
                                  min_lr = 1e-3, lr_warmup_steps = 2, lr_decay_steps = 10, start_wd = 0.1, end_wd = 0.3,
                                  wd_incr_steps = 10, wd_incr_style = "linear" }
        for n = 0, 11 do
            local function at(max, min)
                return n <= 2 and max * n / 2 or n > 10 and min or min + (max - min) * (1 - (n - 2) / 8)
            end
            local wd = n > 10 and 0.3 or 0.1 + 0.2 * n / 10
            local wanted = { { at(1e-2, 1e-3), wd }, { at(1e-2, 1e-3) / 2, 0 }, { at(2e-3, 5e-4), wd } }
            for i, g in ipairs(optimizer.param_groups) do
                compare.near("lr", g.lr, wanted[i][1], 1e-15)
                compare.near("decay", g.weight_decay, wanted[i][2], 1e-15)
            end
            s:step(1)
        end
        optimizer:close()
    end)

    it("moves each matrix of a stack of experts as if it were alone", function()
        am.manual_seed(4)
        local start, grad = am.randn { 3, 8, 5 }, am.randn { 3, 8, 5 }
        for _, kind in ipairs { "muon", "normuon" } do
            local function moved(w, g)
                w, g = w:clone(), g:clone()
                w.requires_grad = true
                local list = { { "experts.w1.weight", w } }
                local optimizer = optim.new(kind, function() return unpack(table.remove(list) or {}) end, { lr = 0.1 })
                for _ = 1, 2 do
                    (w * g):sum():backward()
                    optimizer:step()
                    optimizer:zero_grad()
                end
                optimizer:close()
                return w:detach()
            end
            local all = moved(start, grad)
            for e = 0, 2 do
                compare.same(kind .. " of matrix " .. e, all:select(0, e):contiguous(),
                             moved(start:select(0, e), grad:select(0, e)))
            end
        end
    end)

    it("keeps the ratios of Muon's companions", function()
        local _, named = model()
        local optimizer = optim.new("dion_muon", named, { lr = 0.02, weight_decay = 0.1, scalar_lr = 0.01,
                                                          embed_lr = 0.04, param_group_overrides = {
                                                              { pattern = "bias", lr_mult = 3 } } })
        assert.same({ { 2, 4 }, { 3 }, { 5 }, { 1 }, { 6 } }, names_of(optimizer))
        local s = scheduler.from_config({ lr_decay_style = "linear", lr_warmup_steps = 0, min_lr = 0 },
                                        { lr = 0.02, weight_decay = 0.1, total_steps = 4, optimizer = optimizer })
        for n = 0, 4 do
            local share = 1 - n / 4
            for i, wanted in ipairs { { 0.02, 0.1 }, { 0.01, 0.1 }, { 0.03, 0.1 }, { 0.04, 0 }, { 0.01, 0 } } do
                compare.near("lr " .. i, optimizer.param_groups[i].lr, wanted[1] * share, 1e-15)
                compare.near("decay " .. i, optimizer.param_groups[i].weight_decay, wanted[2], 1e-15)
            end
            s:step(1)
        end
        optimizer:close()
    end)
end)

describe("a checkpoint of groups", function()
    local overrides = { { pattern = "norm|bias", lr_mult = 0.5, wd_mult = 0 } }

    it("is gone on from bit for bit", function()
        local function train(first, last, from)
            local list, named = model("bfloat16")
            local optimizer = optim.new("muon", named, { lr = 0.02, param_group_overrides = overrides })
            if from then
                for i, p in ipairs(list) do
                    p:detach():copy_(from.weights[i])
                end
                for name, what, t in optimizer:state_tensors() do
                    t:copy_(from.tensors[name .. what])
                end
                optimizer:load_state_dict(from.state)
            end
            for step = first, last do
                backward(list, step)
                optimizer:step(0.5)
                optimizer:zero_grad()
            end
            local out = { weights = {}, tensors = {}, state = json.decode(json.encode(optimizer:state_dict())) }
            for i, p in ipairs(list) do
                out.weights[i] = p:detach():clone()
            end
            for name, what, t in optimizer:state_tensors() do
                out.tensors[name .. what] = t:clone()
            end
            optimizer:close()
            return out
        end
        local whole, parts = train(1, 5), train(3, 5, train(1, 2))
        assert.same(whole.state, parts.state)
        for i, w in ipairs(whole.weights) do
            assert.equal(tiny.bits(w), tiny.bits(parts.weights[i]))
        end
        for name, t in pairs(whole.tensors) do
            assert.equal(tiny.bits(t), tiny.bits(parts.tensors[name]), name)
        end
    end)

    it("is refused by an optimizer that has others", function()
        local _, named = model()
        local optimizer = optim.new("adamw", named, { param_group_overrides = overrides })
        local state = optimizer:state_dict()
        optimizer:close()
        for _, other in ipairs { {}, { { pattern = "norm" } }, { { pattern = "norm" }, { pattern = "bias" } } } do
            _, named = model()
            local second = optim.new("adamw", named, { param_group_overrides = other })
            raised("state", { "param_group_overrides" }, second.load_state_dict, second, state)
            second:close()
        end
    end)
end)
