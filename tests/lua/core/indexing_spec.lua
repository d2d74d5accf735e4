-- t[{…}] and t[{…}] = value.

local am = require("am.core")
local err = require("am.core.error")

local t = am.arange(24):reshape(2, 3, 4)

local function raised(code, text, fn)
    local ok, e = pcall(fn)
    assert.is_false(ok, "nothing was raised")
    assert.is_true(err.is(e), tostring(e))
    assert.equal(code, e.code, tostring(e))
    assert.is_truthy(tostring(e):find(text, 1, true), tostring(e))
end

describe("reading", function()
    it("selects, slices and leaves out", function()
        assert.same({ 4, 5, 6, 7 }, t[{ 0, 1 }]:totable())
        assert.equal(23, t[{ -1, -1, -1 }]:item())
        assert.same({ 3, 4 }, t[{ 1 }]:size())
        assert.same({ 2, 3, 4 }, t[{}]:size())
        assert.same({ { 1, 5, 9 }, { 13, 17, 21 } }, t[{ {}, {}, 1 }]:totable())
        assert.same({ { 3, 7, 11 }, { 15, 19, 23 } }, t[{ "...", 3 }]:totable())
        assert.same({ 12, 16, 20 }, t[{ 1, "...", 0 }]:totable())
        assert.same({ 2 }, t[{ "...", 0, 2 }]:size())
    end)

    it("takes slices as Python does", function()
        local row = am.arange(7)
        local cases = {
            { { 2 }, { 2, 3, 4, 5, 6 } }, { { 2, 4 }, { 2, 3 } }, { { -2 }, { 5, 6 } }, { { 0, -5 }, { 0, 1 } },
            { { 1, nil, 3 }, { 1, 4 } }, { { 0, 7, 2 }, { 0, 2, 4, 6 } }, { { 5, 2 }, {} }, { { 0, 100 }, nil },
            { { -100, 1 }, { 0 } }, { { 9 }, {} }, { { 6, nil, 5 }, { 6 } },
        }
        for _, case in ipairs(cases) do
            assert.same(case[2] or row:totable(), row[{ case[1] }]:totable())
        end
    end)

    it("gives views that gradients flow through", function()
        local x = am.zeros({ 3, 4 }):requires_grad_()
        local y = x[{ { 0, nil, 2 }, { 1, 3 } }] * 2 + x[{ 1, 0 }]
        y:sum():backward()
        assert.same({ { 0, 2, 2, 0 }, { 4, 0, 0, 0 }, { 0, 2, 2, 0 } }, x.grad:totable())
        local m = am.zeros { 2, 2 }
        m[{ {}, 1 }]:fill_(5)
        assert.same({ { 0, 5 }, { 0, 5 } }, m:totable())
    end)

    it("refuses what is no index", function()
        raised("shape", "index 2 is outside a dim of size 2", function() return t[{ 2 }] end)
        raised("shape", "index -4 is outside", function() return t[{ 0, -4 }] end)
        raised("shape", "4 indices for a tensor with 3 dims", function() return t[{ 0, 0, 0, 0 }] end)
        raised("argument", "0.5", function() return t[{ 0.5 }] end)
        raised("argument", "abc", function() return t[{ "abc" }] end)
        raised("argument", "positive", function() return t[{ { 0, 1, -1 } }] end)
        raised("argument", "whole", function() return t[{ { 0.5 } }] end)
        raised("argument", "\"...\" twice", function() return t[{ "...", "..." }] end)
    end)
end)

describe("writing", function()
    it("copies numbers, booleans and tensors", function()
        for _, device in ipairs { "cpu", "ref", "fence" } do
            local m = am.zeros({ 2, 4 }, { device = device })
            m[{ 0 }] = am.arange(4, { device = device })
            m[{ 1, { 0, nil, 2 } }] = 7
            m[{ "...", -1 }] = true
            assert.same({ { 0, 1, 2, 1 }, { 7, 0, 7, 1 } }, m:totable())
            m[{}] = am.tensor { { 1 }, { 2 } }
            assert.same({ { 1, 1, 1, 1 }, { 2, 2, 2, 2 } }, m:totable())
        end
        raised("shape", "copy", function() am.zeros({ 2 })[{}] = am.zeros { 3 } end)
    end)

    it("loses no gradient unnoticed", function()
        local w, m = am.ones({ 2 }):requires_grad_(), am.zeros { 2 }
        raised("state", "where or cat", function() m[{}] = w * 2 end)
        m[{}] = w:detach()
        am.no_grad(function() m[{ 0 }] = w[{ 0 }] * 3 end)
        w[{ 1 }] = 9 -- a leaf
        assert.same({ 3, 1 }, m:totable())
        assert.same({ 1, 9 }, w:totable())
    end)
end)
