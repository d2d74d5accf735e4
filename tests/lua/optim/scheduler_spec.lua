-- am.optim.scheduler: values against NeMo Automodel's and closed forms, derived defaults, groups,
-- state and the rules of resuming.
local scheduler = require("am.optim.scheduler")
local json = require("am.utils.json")
local path = require("am.utils.path")

local base = {
    init_lr = 1e-5, max_lr = 1e-4, min_lr = 1e-6, lr_warmup_steps = 4, lr_decay_steps = 20,
    lr_decay_style = "cosine", start_wd = 0.1, end_wd = 0.1, wd_incr_steps = 20, wd_incr_style = "constant",
}

local function with(changes, from)
    local out = {}
    for key, value in pairs(from or base) do
        out[key] = value
    end
    for key, value in pairs(changes or {}) do
        out[key] = value
    end
    return out
end

local function near(expected, actual, tolerance, what)
    assert(math.abs(expected - actual) <= tolerance,
        string.format("%s: %.17g is not %.17g", what, actual, expected))
end

local function fails(code, pattern, fn, ...)
    local ok, e = pcall(fn, ...)
    assert.is_false(ok)
    assert.equal(code, e.code)
    assert.matches(pattern, e.msg)
end

describe("am.optim.scheduler", function()
    it("gives NeMo Automodel's values for every style", function()
        local cases = assert(json.decode(assert(path.read_file("tests/lua/optim/schedule_goldens.json"))))
        assert.is_true(#cases >= 30)
        for i, case in ipairs(cases) do
            local group = with({ lr = 1e-4, weight_decay = 0.1 }, case.group or { lr_mult = 1, wd_mult = 1 })
            group.wd_mult = group.wd_mult or 1
            local s = scheduler.new(with({ optimizer = { param_groups = { group } } }, case.schedule))
            for n = 1, #case.lr do
                local what = string.format("case %d step %d", i, n - 1)
                near(case.lr[n], group.lr, 1e-12 * case.lr[n], what .. " lr")
                near(case.wd[n], group.weight_decay, 1e-12 * case.wd[n], what .. " wd")
                s:step(1)
            end
        end
    end)

    it("agrees with closed forms at the corners", function()
        local at = scheduler.lr_at
        local s = with {}
        for n, lr in pairs {
            [0] = 1e-5, [2] = 5.5e-5, [4] = 1e-4, [8] = 1e-6 + 9.9e-5 * 0.5 * (1 + math.cos(math.pi / 4)),
            [12] = 1e-6 + 9.9e-5 / 2, [20] = 1e-6, [21] = 1e-6, [1e9] = 1e-6,
        } do
            near(lr, at(s, n), 1e-16, "cosine " .. n)
        end
        s = with { lr_decay_style = "inverse-square-root" }
        near(1e-4 * 2 / 3, at(s, 9), 1e-16, "inverse square root")
        s = with { lr_decay_style = "WSD", wsd_decay_steps = 4, lr_wsd_decay_style = "exponential" }
        near(1e-4, at(s, 16), 1e-16, "stable")
        near(1e-6 + 9.9e-5 * (math.sqrt(2) - 1), at(s, 18), 1e-16, "halfway down")
        near(5e-5, at(s, 2, { max_lr = 9e-5, min_lr = 0 }), 1e-16, "a group's own curve")
    end)

    -- Every style at its start, the end of the warmup, between, at its end and beyond, by the formulas of the
    -- documentation of NeMo Automodel.
    it("agrees with the closed form of every style to 1e-12", function()
        local init, max, min, decay, wsd = 2e-5, 3e-4, 4e-6, 40, 12
        local shapes = {
            linear = function(r) return 1 - r end,
            cosine = function(r) return (1 + math.cos(math.pi * r)) / 2 end,
            exponential = function(r) return 2 * 0.5 ^ r - 1 end,
            minus_sqrt = function(r) return 1 - r ^ 0.5 end,
        }
        local function check(style, warmup, shape, formula)
            local s = with({ init_lr = init, max_lr = max, min_lr = min, lr_warmup_steps = warmup,
                             lr_decay_steps = decay, lr_decay_style = style, wsd_decay_steps = wsd,
                             lr_wsd_decay_style = shape })
            for _, n in ipairs { 0, 1, warmup - 1, warmup, warmup + 1, 17, decay - wsd, decay - wsd + 1, decay - 5,
                                 decay - 1, decay, decay + 1, 1e6 } do
                if n >= 0 then
                    local wanted = formula(n)
                    if warmup > 0 and n <= warmup then
                        wanted = init + (max - init) * n / warmup
                    elseif n > decay and style ~= "constant" then
                        wanted = min
                    end
                    near(wanted, scheduler.lr_at(s, n), 1e-12 * wanted,
                         ("%s, warmup %d, n %d"):format(style, warmup, n))
                end
            end
        end
        for _, warmup in ipairs { 0, 1, 6, 27 } do
            local function ratio(n) return (n - warmup) / (decay - warmup) end
            check("constant", warmup, nil, function() return max end)
            check("linear", warmup, nil, function(n) return min + (max - min) * shapes.linear(ratio(n)) end)
            check("cosine", warmup, nil, function(n) return min + (max - min) * shapes.cosine(ratio(n)) end)
            check("inverse-square-root", warmup, nil, function(n)
                return math.max(min, max * (math.max(warmup, 1) / math.max(n, 1)) ^ 0.5)
            end)
            for shape, coefficient in pairs(shapes) do
                check("WSD", warmup, shape, function(n)
                    return min + (max - min) * (n <= decay - wsd and 1 or coefficient((n - decay + wsd) / wsd))
                end)
            end
        end
        for style, ramp in pairs { linear = function(r) return r end,
                                   cosine = function(r) return (1 + math.cos(math.pi * (1 - r))) / 2 end,
                                   constant = function() return 1 end } do
            local start, stop, steps = style == "constant" and 0.3 or 0.02, 0.3, 15
            local s = with { start_wd = start, end_wd = stop, wd_incr_steps = steps, wd_incr_style = style }
            for _, n in ipairs { 0, 1, 7, steps - 1, steps, steps + 1, 1e6 } do
                local wanted = n > steps and stop or start + (stop - start) * ramp(n / steps)
                near(wanted, scheduler.wd_at(s, n), 1e-12 * wanted, ("decay %s, n %d"):format(style, n))
            end
        end
    end)

    it("logs f(k + 1) as a run with base 1e-5 and warmup 10 does", function()
        local optimizer = { param_groups = { { lr = 1e-5, weight_decay = 0 } } }
        local s = scheduler.from_config({ lr_warmup_steps = 10 }, {
            lr = 1e-5, weight_decay = 0, total_steps = 100, optimizer = optimizer,
        })
        near(1e-6, optimizer.param_groups[1].lr, 1e-18, "used by update 0")
        s:step(1)
        near(1.9e-6, optimizer.param_groups[1].lr, 1e-18, "logged at step 0")
    end)

    it("derives what the configuration leaves out", function()
        local run = { lr = 2e-4, weight_decay = 0.1, total_steps = 99 }
        local s = scheduler.from_config({ lr_decay_style = "cosine" }, run)
        local expected = {
            init_lr = 2e-5, max_lr = 2e-4, min_lr = 2e-4 * 0.01, lr_warmup_steps = 9, lr_decay_steps = 99,
            lr_decay_style = "cosine", start_wd = 0.1, end_wd = 0.1, wd_incr_steps = 99,
            wd_incr_style = "constant", num_steps = 0,
        }
        assert.same(expected, s:state_dict())
        assert.equal(1000, scheduler.from_config({ min_lr = 0 }, { lr = 1, total_steps = 20000 }).lr_warmup_steps)
        for i = 1, 2 do
            local constant = scheduler.from_config(({ nil, { override_opt_param_scheduler = true } })[i],
                                                   { lr = 3e-4, total_steps = 1 })
            for n = 0, 5 do
                assert.equal(3e-4, scheduler.lr_at(constant, n))
            end
        end
        assert.equal("cosine", scheduler.from_config({}, { lr = 1, total_steps = 9 }).lr_decay_style)
    end)

    it("keeps each group's ratio and own curve", function()
        local groups = {
            { lr = 1e-4, weight_decay = 0.1 }, { lr = 1e-3, weight_decay = 0 },
            { lr = 5, max_lr = 2e-4, min_lr = 0, weight_decay = 0.2 },
        }
        local s = scheduler.new(with { optimizer = { param_groups = groups } })
        s:step(4)
        near(1e-4, groups[1].lr, 1e-16, "base")
        near(1e-3, groups[2].lr, 1e-16, "ten times")
        near(2e-4, groups[3].lr, 1e-16, "own curve")
        assert.same({ 0.1, 0, 0.2 }, { groups[1].weight_decay, groups[2].weight_decay, groups[3].weight_decay })
        s:step(1000)
        assert.equal(0, groups[3].lr)
    end)

    it("refuses what is no schedule", function()
        for pattern, changes in pairs {
            ["min_lr .* above max_lr"] = { min_lr = 1 },
            ["init_lr .* above max_lr"] = { init_lr = 1 },
            ["lr_warmup_steps %(20%) must be less than"] = { lr_warmup_steps = 20 },
            ["lr_warmup_steps must be a whole number"] = { lr_warmup_steps = 0.1 },
            ["lr_decay_steps must be a number of at least 1"] = { lr_decay_steps = 0 },
            ["end_wd .* below start_wd"] = { end_wd = 0 },
            ["constant needs equal"] = { end_wd = 1 },
            ["lr_decay_style cosin is not one of WSD, constant"] = { lr_decay_style = "cosin" },
            ["wsd_decay_steps must be a number"] = { lr_decay_style = "WSD" },
            ["lr_wsd_decay_style nil is not one of"] = { lr_decay_style = "WSD", wsd_decay_steps = 3 },
            ["together longer"] = { lr_decay_style = "WSD", wsd_decay_steps = 17, lr_wsd_decay_style = "linear" },
            ["exclude each other"] = {
                use_checkpoint_opt_param_scheduler = true, override_opt_param_scheduler = true,
            },
        } do
            fails("usage", pattern, scheduler.new, with(changes))
        end
        fails("usage", "max_lr must be a number", scheduler.new, with { max_lr = 0 / 0 })
    end)

    describe("resume", function()
        local function saved(changes, steps)
            local s = scheduler.new(with(changes))
            s:step(steps or 6)
            return json.decode(json.encode(s:state_dict()))
        end

        it("goes on with the same values, bit for bit, whatever was counted before", function()
            local changes = { lr_decay_style = "WSD", wsd_decay_steps = 9, lr_wsd_decay_style = "minus_sqrt",
                start_wd = 0.01, end_wd = 0.1, wd_incr_style = "cosine" }
            local whole = scheduler.new(with(changes))
            whole:step(6)
            local groups = { { lr = 1e-4, weight_decay = 0.1 } }
            local resumed = scheduler.new(with(with({ optimizer = { param_groups = groups } }, changes)))
            resumed:step(3)
            assert.same({}, resumed:load_state_dict(saved(changes)))
            for _ = 1, 20 do
                assert.equal(whole:lr(), groups[1].lr)
                assert.equal(whole:weight_decay(), groups[1].weight_decay)
                whole:step(1)
                resumed:step(1)
            end
        end)

        it("refuses a schedule that differs and changes nothing", function()
            for _, changes in ipairs {
                { max_lr = 2e-4 }, { init_lr = 2e-5 }, { min_lr = 0 }, { lr_decay_steps = 40 },
                { lr_decay_style = "linear" }, { lr_warmup_steps = 5 }, { start_wd = 0, end_wd = 0 },
            } do
                local s = scheduler.new(with(changes))
                fails("usage", "override_opt_param_scheduler: true", s.load_state_dict, s, saved())
                assert.equal(0, s.num_steps)
                assert.equal(changes.max_lr or 1e-4, s.max_lr)
            end
        end)

        it("takes the configuration's with override, the checkpoint's with use_checkpoint", function()
            local s = scheduler.new(with { max_lr = 2e-4, override_opt_param_scheduler = true })
            s:load_state_dict(saved())
            assert.equal(2e-4, s.max_lr)
            assert.equal(6, s.num_steps)
            s = scheduler.new(with { max_lr = 2e-4, use_checkpoint_opt_param_scheduler = true })
            assert.same({ "max_lr stays 0.0001, not 0.0002" }, s:load_state_dict(saved()))
            assert.equal(scheduler.lr_at(base, 6), s:lr())
        end)

        it("keeps the curve when the run's length was raised and the curve derived from it", function()
            local cfg = { lr_decay_style = "cosine" }
            local first = scheduler.from_config(cfg, { lr = 1e-4, total_steps = 50 })
            first:step(50)
            local raised = scheduler.from_config(cfg, { lr = 1e-4, total_steps = 80 })
            assert.same({ "lr_warmup_steps stays 5, not 8", "lr_decay_steps stays 50, not 80" },
                raised:load_state_dict(first:state_dict()))
            near(1e-6, raised:lr(), 1e-18, "end of the curve")
            raised:step(1)
            near(1e-6, raised:lr(), 1e-18, "beyond its end")
            local other_lr = scheduler.from_config(cfg, { lr = 2e-4, total_steps = 80 })
            fails("usage", "max_lr 0.0001, now 0.0002", other_lr.load_state_dict, other_lr, first:state_dict())
        end)

        it("ignores fields without effect: a constant run goes on", function()
            local run = { lr = 1e-4, weight_decay = 0.1, total_steps = 50 }
            local first = scheduler.from_config(nil, run)
            first:step(50)
            local s = scheduler.new(with { lr_decay_style = "constant", lr_warmup_steps = 0, lr_decay_steps = 7 })
            s:load_state_dict(first:state_dict())
            assert.equal(1e-4, s:lr())
            local longer = scheduler.from_config(nil, { lr = 1e-4, weight_decay = 0.1, total_steps = 90 })
            assert.same({}, longer:load_state_dict(first:state_dict()))
        end)

        it("reads the names of older states and refuses damaged ones", function()
            local s = scheduler.new(base)
            s:load_state_dict {
                start_lr = 1e-4, min_lr = 1e-6, warmup_iter = 4, end_iter = 20, decay_style = "cosine", num_iters = 9,
            }
            assert.equal(9, s.num_steps)
            for new, old in pairs { max_lr = "start_lr", lr_warmup_steps = "warmup_steps", num_steps = "num_iters",
                                    lr_decay_steps = "decay_steps", lr_decay_style = "decay_style" } do
                local state = saved()
                state[old], state[new] = state[new], nil
                s = scheduler.new(base)
                s:load_state_dict(state)
                assert.same(saved(), json.decode(json.encode(s:state_dict())))
            end
            for _, damage in ipairs {
                { num_steps = -1 }, { num_steps = "6" }, { max_lr = "x" }, { lr_decay_style = 3 },
            } do
                s = scheduler.new(base)
                fails("format", "lr_scheduler", s.load_state_dict, s, with(damage, saved()))
            end
            fails("format", "num_steps", s.load_state_dict, s, {})
        end)
    end)
end)
