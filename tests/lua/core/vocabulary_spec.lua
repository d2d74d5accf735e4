-- Functions composed of ops, constructors and einsum: what the goldens of tests/parity don't show, above
-- all what is refused and how it reads.

local am = require("am.core")
local err = require("am.core.error")

local function raised(code, text, fn, ...)
    local ok, e = pcall(fn, ...)
    assert.is_false(ok, "nothing was raised")
    assert.is_true(err.is(e), "not an error object: " .. tostring(e))
    assert.equal(code, e.code, tostring(e))
    assert.is_truthy(tostring(e):find(text, 1, true), tostring(e))
end

local t = am.tensor { { 1, -2 }, { 3, 4 } }
local int = am.arange(6)

describe("functions", function()
    it("are there as am.NAME and as methods", function()
        for _, name in ipairs { "add", "masked_fill", "sum", "max", "sort", "topk", "flip", "tril", "std", "norm",
                                "bmm", "split", "float", "einsum", "stack", "cat" } do
            assert.is_function(am[name], name)
        end
        assert.equal(am.softplus, t.softplus)
        assert.equal(am["repeat"], t.tile)
        assert.is_nil(t.stack)
    end)

    it("keep whole numbers whole", function()
        raised("argument", "0.5 is no whole number", function() return int * 0.5 end)
        raised("argument", "int64", int.eq, int, 2.5)
        raised("argument", "float()", function() return 1.5 - int end)
        assert.same({ 0, 0.5, 1 }, (int[{ { 0, 3 } }] / 2):totable())
        assert.equal("float32", (int / int):dtype())
        assert.same({ 1, 3, 5 }, (int[{ { 0, 3 } }] * 2 + 1):totable())
    end)

    it("round once in 16 bits", function()
        local x = am.tensor({ 256, 257, 258, 259 }, { dtype = "bfloat16" })
        assert.equal("bfloat16", x:std():dtype())
        local wide = x:float()
        assert.equal(wide:std():bfloat16():item(), x:std():item())
        assert.equal(wide:norm(3):bfloat16():item(), x:norm(3):item())
    end)

    it("count with norm 0 and take extremes", function()
        assert.equal(3, am.tensor({ 1, 0, 2, 3 }):norm(0):item())
        assert.equal(4, t:norm(math.huge):item())
        assert.equal(1, t:norm(-math.huge):item())
        assert.same({ 1, 4 }, am.max(t, am.tensor { 0, 4 }):select(0, 0):totable())
    end)

    it("join and cut", function()
        local many = {}
        for i = 1, 50 do many[i] = am.full({ 2 }, i) end
        assert.equal(50 * 51, am.cat(many):sum():item())
        assert.same({ 50, 2 }, am.stack(many):size())
        assert.equal(3, #am.arange(5):split(2))
        assert.equal(1, #am.zeros({ 0 }):split(2))
        raised("shape", "sizes add up to 3", int.split, int, { 1, 2 })
        raised("argument", "split: pieces of 0", int.split, int, 0)
        assert.same({ 0, 2 }, t:tile(0, 1):size())
        assert.same({ 1, 2, 2, 2 }, t:tile(1, 2, 1, 1):size())
        assert.same({ 1 }, am.tensor(3):flatten():size())
    end)

    it("say what does not fit", function()
        raised("shape", "dim 2 of a tensor with 2 dims", t.size, t, 2)
        raised("shape", "dim -2 is named twice", t.sum, t, { 0, -2 })
        raised("shape", "sum: dim 2 of 2", t.sum, t, { 2 })
        raised("shape", "bmm: a tensor with 2 dims where 3", am.bmm, t, t)
        raised("shape", "batches of 2 and 3", am.bmm, am.zeros { 2, 1, 1 }, am.zeros { 3, 1, 1 })
        raised("shape", "t: a tensor with 1 dims", int.t, int)
        raised("shape", "flatten", t.flatten, t, 1, 0)
        raised("shape", "tril", int.tril, int)
        raised("shape", "narrow", t.topk, t, 3)
        raised("shape", "matmul", am.matmul, int:float(), t)
    end)
end)

describe("einsum", function()
    it("says what is wrong", function()
        raised("argument", "twice", am.einsum, "ii->i", t)
        raised("argument", "2 tensors for 1 terms", am.einsum, "ij", t, t)
        raised("argument", "missing", am.einsum, "ij,jk", t)
        raised("argument", "index k", am.einsum, "ij->k", t)
        raised("argument", "3 dims", am.einsum, "ij", am.zeros { 1, 1, 1 })
        raised("argument", "not made of letters", am.einsum, "i1->i", t)
        raised("argument", "a text", am.einsum, t, t)
        raised("shape", "index j is 2 and 3", am.einsum, "ij,jk", t, am.zeros { 3, 1 })
    end)

    it("broadcasts dims of size 1 and takes spaces", function()
        assert.same({ { 3, -6 }, { 9, 12 } }, am.einsum(" ij, ij -> ij ", t, am.tensor { { 3 } }):totable())
        assert.equal(6, am.einsum("ij->", t):item())
    end)
end)

describe("constructors", function()
    it("count", function()
        assert.same({ 2, 4 }, am.arange(2, 6, 2):totable())
        assert.equal("int64", am.arange(3):dtype())
        assert.equal("float32", am.arange(0.5):dtype())
        assert.equal("int32", am.arange(3, { dtype = "int32" }):dtype())
        assert.same({}, am.arange(3, 3):totable())
        raised("argument", "arange", am.arange, 1, 0)
        raised("argument", "arange", am.arange, 0, 1, 0)
        assert.same({ 0 }, am.linspace(0, 1, 1):totable())
        local x = am.zeros({ 2, 0 }, { dtype = "int32", device = "ref" })
        local like = x:ones_like { dtype = "float64" }
        assert.same({ "float64", "ref", 2 }, { like:dtype(), like:device(), like:size(0) })
    end)

    it("draw whole numbers, the same on every device", function()
        local seen
        for _, device in ipairs { "cpu", "ref", "fence" } do
            require("am").manual_seed(3)
            local r = am.randint(-2, 3, { 40, 5 }, { device = device })
            assert.equal("int64", r:dtype())
            assert.same({ -2, 2 }, { r:min():item(), r:max():item() })
            local p = am.randperm(20, { device = device })
            assert.same(am.arange(20):totable(), p:sort():totable())
            local both = { r:totable(), p:totable(), am.randint(9, { 3 }):totable() }
            seen = seen or both
            assert.same(seen, both)
        end
        raised("argument", "randint", am.randint, 3, 3, { 1 })
    end)

    it("cast", function()
        for method, dtype in pairs { float = "float32", double = "float64", half = "float16", int = "int32",
                                     bfloat16 = "bfloat16", long = "int64", bool = "bool" } do
            assert.equal(dtype, t[method](t):dtype())
        end
        assert.equal(t, t:float())
    end)
end)

describe("changes in place", function()
    it("compute", function()
        local x = am.tensor { 1, 2 }
        assert.equal(x, x:add_(1))
        x:mul_(am.tensor { 2, 3 }):add_(am.ones { 2 }, 10):sub_(4):div_(2)
        assert.same({ 5, 7.5 }, x:totable())
    end)

    it("of what has a history are refused", function()
        local leaf = am.tensor({ 1, 2 }):requires_grad_()
        local y = leaf * 2
        for _, name in ipairs { "zero_", "fill_", "copy_", "add_", "uniform_", "normal_" } do
            raised("state", "history", y[name], y, 1)
        end
        raised("state", "history", function() y[{ 0 }] = 1 end)
        y:detach():fill_(7)
        assert.same({ 7, 7 }, y:totable())
        leaf:add_(1) -- a leaf has none
        assert.same({ 2, 3 }, leaf:totable())
        am.no_grad(function() (leaf * 2):zero_() end)
    end)
end)
