-- The distillation loss against NeMo Automodel's (make_kd_goldens.py), and what chunks must not change.
local am = require("am")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local kd = require("am.loss.kd")

local function same(x) return x end

local function loss_of(student, teacher, temperature)
    local hidden = am.tensor(student):requires_grad_()
    local loss = kd.KDLoss { temperature = temperature } (hidden, am.tensor(teacher), {
        head = same, teacher_head = same, vocab_size = #student[1],
    })
    loss:backward()
    return loss:item(), hidden.grad
end

describe("the distillation loss", function()
    for i, case in ipairs(json.decode(helper.read("tests/lua/loss/kd_goldens.json"))) do
        it("is NeMo Automodel's, with its gradient: case " .. i, function()
            local value, gradient = loss_of(case.student, case.teacher, case.temperature)
            -- f32 sums in another order
            assert.near(case.loss, value, 1e-5 * math.max(1, math.abs(case.loss)))
            local worst = (gradient - am.tensor(case.gradient)):abs():max():item()
            assert.is_true(worst < 1e-5, tostring(worst))
        end)
    end

    it("is nothing where the student is the teacher", function()
        local value, gradient = loss_of({ { 1, 2, 3 } }, { { 1, 2, 3 } })
        assert.near(0, value, 1e-7)
        assert.is_true(gradient:abs():max():item() < 1e-7)
    end)

    it("passes over what the teacher holds impossible", function()
        local value = loss_of({ { 1, 2, 3 } }, { { 1, -math.huge, 3 } })
        local z = math.exp(1) + math.exp(3)
        local own = math.exp(1) + math.exp(2) + math.exp(3)
        local expected = 0
        for _, logit in ipairs { 1, 3 } do
            local p = math.exp(logit) / z
            expected = expected + p * (math.log(p) - math.log(math.exp(logit) / own))
        end
        assert.near(expected, value, 1e-6)
    end)

    it("is the same in many chunks as over each row alone", function()
        local vocab, rows = 65536, 40 -- 16 rows a chunk
        am.manual_seed(3)
        local student, teacher = am.randn { rows, vocab }, am.randn { rows, vocab }
        local ctx = { head = same, teacher_head = same, vocab_size = vocab }
        local whole = kd.KDLoss {}(student, teacher, ctx):item()
        local sum = 0
        for i = 0, rows - 1 do
            sum = sum + kd.KDLoss {}(student:narrow(0, i, 1), teacher:narrow(0, i, 1), ctx):item()
        end
        assert.near(sum, whole, 1e-4 * sum)
    end)
end)
