-- How the prompt prints values: tensors in PyTorch's layout, tables one level deep, and nothing
-- that runs code or reaches the terminal as a command.

local am = require("am")
local show = require("am.cli.show")

local function elements(t)
    return (show.value(t):gsub("^[^\n]*\n", "")) -- without the head
end

describe("a tensor is shown", function()
    it("with shape, dtype, device and requires_grad", function()
        local a = am.zeros({ 2, 3 }, { dtype = "bfloat16", device = "ref" })
        assert.equal("tensor [2, 3] bfloat16, ref", show.brief(a))
        a = am.zeros { 2 }
        a.requires_grad = true
        assert.equal("tensor [2] float32, cpu, requires_grad", show.brief(a))
        assert.equal("tensor [2] float32, cpu, requires_grad, computed", show.brief(a * 2))
        a = am.zeros { 4 }
        a:release()
        assert.equal("tensor [4] float32, cpu, released", show.value(a))
    end)

    it("with whole numbers, fractions and extremes each in their form", function()
        assert.equal("[1., 2., 3.]", elements(am.tensor { 1, 2, 3 }))
        assert.equal("[[ 1.5000, -2.0000],\n [ 0.2500, 10.0000]]", elements(am.tensor { { 1.5, -2 }, { 0.25, 10 } }))
        assert.equal("[1.0000e-05, 1.0000e+00]", elements(am.tensor { 1e-5, 1 }))
        assert.equal("[1.0000e+09]", elements(am.tensor { 1e9 }))
        assert.equal("[   nan,    inf,   -inf, 1.5000]", elements(am.tensor { 0 / 0, 1 / 0, -1 / 0, 1.5 }))
        assert.equal("2.5000", elements(am.tensor(2.5)))
        assert.equal("[]", elements(am.empty { 0, 3 }))
        assert.equal("[[[0.],\n  [0.]],\n\n [[0.],\n  [0.]]]", elements(am.zeros { 2, 2, 1 }))
    end)

    it("with integers exact and booleans as words", function()
        local big = require("ffi").new("int64_t[2]", { 9007199254740993LL, -1 })
        assert.equal("[9007199254740993,               -1]", elements(am.from_buffer(big, { 2 }, { dtype = "int64" })))
        assert.equal("[[ true, false]]", elements(am.tensor { { true, false } }))
    end)

    it("by its edges when it has more than a thousand elements, strided or not", function()
        local text = elements(am.zeros { 1000, 1001 })
        assert.equal("[[0., 0., 0., ..., 0., 0., 0.],\n [0., 0., 0., ..., 0., 0., 0.],", text:match("^[^\n]*\n[^\n]*"))
        assert.truthy(text:find("\n ...,\n", 1, true))
        local rows = {}
        for i = 1, 400 do
            rows[i] = { i, 1000 + i, 2000 + i }
        end
        assert.equal("[[   1.,    2.,    3., ...,  398.,  399.,  400.],\n"
            .. " [1001., 1002., 1003., ..., 1398., 1399., 1400.],\n"
            .. " [2001., 2002., 2003., ..., 2398., 2399., 2400.]]", elements(am.tensor(rows):transpose(0, 1)))
    end)

    it("in lines of 80 columns", function()
        for line in elements(am.ones { 999 }):gmatch("[^\n]+") do
            assert.is_true(#line <= 80, line)
        end
    end)
end)

describe("a table is shown", function()
    it("one level deep, list first, then names in order", function()
        assert.equal('{ 1, "x", [10] = 3, a = {}, b = {2 fields}, ["c d"] = true }',
                     show.value { 1, "x", [10] = 3, b = { 1, 2 }, a = {}, ["c d"] = true })
        assert.equal("{}", show.value {})
    end)

    it("also when it holds itself or thousands of fields", function()
        local loop = {}
        loop.loop = loop
        assert.equal("{ loop = {1 field} }", show.value(loop))
        local many = {}
        for i = 1, 5000 do
            many[i] = i
        end
        assert.truthy(show.value(many):find("... 4940 more", 1, true))
    end)

    it("without running its metamethods", function()
        local function boom()
            error("a metamethod was run")
        end
        local t = setmetatable({ x = 1 }, { __index = boom, __tostring = boom, __len = boom, __pairs = boom })
        assert.equal("{ x = 1 }", show.value(t))
        assert.equal("{1 field}", show.brief(t))
    end)

    it("by its class, a module as its tree, an error as its message", function()
        assert.truthy(show.value(am.nn.Linear):find("^Linear {"))
        assert.equal("Linear(in_features=2, out_features=3, bias=false)", show.value(am.nn.Linear.new(2, 3)))
        assert.equal("no good", show.value(require("am.core.error").new("data", "no good")))
    end)
end)

it("text is shown as it is, except what a terminal would obey", function()
    assert.equal("a\nb\tc é", show.value("a\nb\tc é"))
    assert.equal("\\027[2Jx\\000\\127", show.value("\27[2Jx\0\127"))
    assert.equal('"\\27c\\n"', show.brief("\27c\n"))
end)

it("functions are shown with the place they come from", function()
    assert.truthy(show.value(show.value):find("^function %(.*show%.lua:%d+%)$"))
    assert.equal("function", show.value(print))
    assert.equal("5LL", show.value(5LL))
    assert.equal("nil", show.value(nil))
end)
