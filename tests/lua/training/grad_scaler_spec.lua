-- The loss scale's arithmetic is that of torch.amp.GradScaler.update, and its state is checked.
local grad_scaler = require("am.training.grad_scaler")
local tiny = require("tests.support.tiny")

local function run(opts, text)
    local scaler, out = grad_scaler.GradScaler(opts), {}
    for step in text:gmatch(".") do
        scaler:update(step == "x")
        out[#out + 1] = scaler.scale
    end
    return out, scaler
end

describe("a loss scale", function()
    it("begins at 65536, doubles after 2000 clean steps, and halves behind one that is not", function()
        local out = run({}, ("."):rep(2000) .. "x" .. ("."):rep(1999) .. "xx.")
        assert.same({ 65536, 131072, 65536, 65536, 32768, 16384, 16384 },
                    { out[1999], out[2000], out[2001], out[4000], out[4001], out[4002], out[4003] })
    end)

    it("counts clean steps from the last change on", function()
        assert.same({ 8, 24, 24, 72, 18, 18, 54, 13.5 },
                    (run({ init_scale = 8, growth_factor = 3, backoff_factor = 0.25, growth_interval = 2 },
                         "....x..x")))
    end)

    it("is a float32, and stays finite", function()
        local out = run({ init_scale = 0.1, growth_factor = 1.1, growth_interval = 1 }, ".")
        assert.equal(0.10999999940395355, out[1])
        out = run({ init_scale = 2 ^ 126, growth_interval = 1 }, "...x")
        assert.same({ 2 ^ 127, 2 ^ 127, 2 ^ 127, 2 ^ 126 }, out)
    end)

    it("is no use below 2^-14", function()
        local _, scaler = run({ init_scale = 1 }, ("x"):rep(14))
        assert.is_false(scaler:is_used_up())
        scaler:update(true)
        assert.is_true(scaler:is_used_up())
    end)

    it("goes on from its state, and refuses one that is none", function()
        local _, scaler = run({ growth_interval = 3 }, "x..")
        local _, other = run({ growth_interval = 3 }, "")
        other:load_state_dict(scaler:state_dict())
        other:update(false)
        scaler:update(false)
        assert.same(scaler:state_dict(), other:state_dict())
        for _, state in ipairs { {}, { scale = 0, growth_tracker = 0 }, { scale = math.huge, growth_tracker = 0 },
                                 { scale = 1, growth_tracker = -1 }, { scale = 1, growth_tracker = 0.5 },
                                 { scale = "1", growth_tracker = 0 }, { scale = 0 / 0, growth_tracker = 1 } } do
            tiny.fails("format", "grad scaler state: ", other.load_state_dict, other, state)
        end
    end)
end)
