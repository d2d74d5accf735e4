-- Adafactor, Muon, NorMuon, SOAP and Shampoo against published implementations (optimizer_goldens.json, whose
-- maker says which). Adam, AdamW, SGD and Lion have theirs in tests/c/test_optim.c.

local am = require("am")
local compare = require("tests.support.compare")
local json = require("am.utils.json")
local optim = require("am.optim")
local path = require("am.utils.path")

local goldens = assert(json.decode(assert(path.read_file("tests/lua/optim/optimizer_goldens.json"))))
local STEPS = 7

-- Lehmer's generator, between -1 and 1, as in make_optimizer_goldens.py.
local function numbers(shape, seed, opts)
    local x, out, n = seed * 7919 + 17, {}, 1
    for _, d in ipairs(shape) do
        n = n * d
    end
    for i = 1, n do
        x = x * 16807 % 2147483647
        out[i] = x / 2147483647 * 2 - 1
    end
    return am.tensor(out, { dtype = "float64" }):reshape(shape):to(opts)
end

local function flat(t)
    return t:detach():to("float64"):reshape(t:numel()):totable()
end

-- Put what the original had after its first step, the bases of a null space, in place of what was found.
local function hand_over(optimizer, first)
    for name, what, t in optimizer:state_tensors() do
        local k = what:match("^Q%.(%d)$")
        local list = k and first[name]
        if list and #list > 0 then
            t:copy_(am.tensor(table.remove(list, 1), { dtype = "float64" }):reshape(t:size()))
        end
    end
end

local function train(case, device, dtype, tolerance, extra)
    local names, list = {}, {}
    for i, entry in ipairs(case.shapes) do
        names[i] = entry[1]
        list[i] = numbers(entry[2], i, { dtype = dtype, device = device }):requires_grad_()
    end
    local i = 0
    local opts = { ns_dtype = dtype == "float32" and case.dtype == "float64" and "float32" or nil }
    for key, value in pairs(case.options) do
        opts[key] = value == json.null and "none" or value
    end
    for key, value in pairs(extra or {}) do
        opts[key] = value
    end
    local optimizer = optim.new(case.kind, function()
        i = i + 1
        return names[i], list[i]
    end, opts)
    for step = 1, STEPS do
        local loss
        for k, p in ipairs(list) do
            local term = (p * numbers(p:size(), 100 * step + k - 1, { dtype = dtype, device = device })):sum()
            loss = loss and loss + term or term
        end
        loss:backward()
        optimizer:step()
        optimizer:zero_grad()
        if step == 1 and case.first then
            local first = {}
            for name, bases in pairs(case.first) do
                first[name] = { unpack(bases) }
            end
            hand_over(optimizer, first)
        end
    end
    for k, name in ipairs(names) do
        for j, value in ipairs(flat(list[k])) do
            compare.near(("%s %s[%d] on %s in %s"):format(case.kind, name, j, device, dtype), value, case.last[name][j],
                         tolerance)
        end
    end
    optimizer:close()
end

local function describe_case(number, case)
    return ("%d: %s %s"):format(number, case.kind, json.encode(case.options, { sort_keys = true }))
end

describe("an optimizer's numbers are those of its published implementation,", function()
    for number, case in ipairs(goldens) do
        it(describe_case(number, case), function()
            if case.dtype == "float64" then
                train(case, "cpu", "float64", case.tolerance)
                train(case, "cpu", "float32", 2e-3)
                train(case, "fence", "float64", case.tolerance)
            else
                train(case, "cpu", case.dtype, case.tolerance)
            end
        end)
    end

    it("of every family", function()
        local seen = {}
        for _, case in ipairs(goldens) do
            seen[case.kind] = (seen[case.kind] or 0) + 1
        end
        assert.same({ adafactor = 4, transformers_adafactor = 4, muon = 5, dion_muon = 3, normuon = 2, soap = 6,
                      shampoo = 4 }, seen)
    end)
end)
