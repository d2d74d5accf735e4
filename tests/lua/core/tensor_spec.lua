-- Tensors in Lua: from and to tables, dtypes, devices, operators, slicing, error objects.

local ffi = require("ffi")
local am = require("am.core")
local support = require("tests.support.tensors")
local ops = am.ops

local raised = support.raised

describe("tensors and tables", function()
    it("go there and back", function()
        for _, data in ipairs { { 1, 2, 3 }, { { 1, 2 }, { 3, 4 } }, { { { 1 } } }, { { 1.5, -2.25 } },
                                { {}, {} } } do
            assert.same(data, am.tensor(data):totable())
        end
        assert.equal(7, am.tensor(7):totable())
        assert.same({}, am.tensor(7):size())
        assert.same({ 2, 0 }, am.tensor({ {}, {} }):size())
    end)

    it("keep every dtype", function()
        for _, dtype in ipairs { "float32", "bfloat16", "float16", "float64", "int32", "int64", "uint8" } do
            local t = am.tensor({ { 1, 2, 3 }, { 4, 5, 100 } }, { dtype = dtype })
            assert.equal(dtype, t:dtype())
            assert.same({ { 1, 2, 3 }, { 4, 5, 100 } }, t:totable())
        end
        assert.same({ true, false }, am.tensor({ true, false }):totable())
        assert.equal("bool", am.tensor({ true, false }):dtype())
        assert.same({ 1, 0 }, am.tensor({ true, false }, { dtype = "float32" }):totable())
    end)

    it("take PyTorch's and short names of dtypes", function()
        for name, dtype in pairs { bf16 = "bfloat16", ["torch.bfloat16"] = "bfloat16", fp16 = "float16",
                                   half = "float16", F32 = "float32", long = "int64" } do
            assert.equal(dtype, am.zeros({ 1 }, { dtype = name }):dtype())
        end
        raised("argument", am.zeros, { 1 }, { dtype = "float31" })
    end)

    it("read strided tensors in row-major order", function()
        local t = am.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
        assert.same({ { 1, 4 }, { 2, 5 }, { 3, 6 } }, t:transpose(0, 1):totable())
        assert.is_false(t:transpose(0, 1):is_contiguous())
        assert.same({ { 2, 3 }, { 5, 6 } }, t:narrow(1, 1, 2):totable())
        assert.same({ { 1, 1 }, { 1, 1 } }, am.tensor({ { 1 } }):expand(2, 2):totable())
    end)

    it("refuse what is no tensor", function()
        assert.is_truthy(raised("shape", am.tensor, { { 1, 2 }, { 3 } }):find("differ in length"))
        raised("shape", am.tensor, { { 1 }, 2 })
        raised("argument", am.tensor, { "a" })
        raised("argument", am.tensor, { { 1, {} } })
        raised("shape", am.zeros, { -1 })
        raised("shape", am.zeros, { 2 ^ 40, 2 ^ 40 })
        raised("shape", am.zeros, { 1, 1, 1, 1, 1, 1, 1, 1, 1 })
    end)

    it("fill, copy and clone", function()
        local t = am.full({ 2, 2 }, 3)
        local c = t:clone()
        t:zero_()
        assert.same({ { 3, 3 }, { 3, 3 } }, c:totable())
        t:copy_(am.tensor({ 7, 8 }, { dtype = "int32" }))
        assert.same({ { 7, 8 }, { 7, 8 } }, t:totable())
        t:select(0, 1):copy_(5)
        assert.same({ { 7, 8 }, { 5, 5 } }, t:totable())
        assert.is_truthy(raised("shape", t.copy_, t, am.zeros { 3 }):find("%[3%]"))
    end)

    it("move between devices and dtypes", function()
        for _, device in ipairs { "cpu", "ref", "fence" } do
            local t = am.tensor({ { 1.25, 2 }, { 3, 4 } }, { device = device })
            assert.equal(device, t:device())
            for _, other in ipairs { "cpu", "ref", "fence" } do
                assert.same({ { 1.25, 3 }, { 2, 4 } }, t:transpose(0, 1):to(other):totable())
                local both = t:to { device = other, dtype = "bfloat16" }
                assert.equal(other, both:device())
                assert.equal("bfloat16", both:dtype())
                assert.same({ { 1.25, 2 }, { 3, 4 } }, both:totable())
            end
        end
        assert.is_truthy(raised("unsupported", am.zeros, { 1 }, { device = "gpu" }):find("fence"))
    end)

    it("give numbers and shapes", function()
        local t = am.zeros({ 2, 3, 5 }, { dtype = "float64" })
        assert.equal(30, t:numel())
        assert.equal(240, t:nbytes())
        assert.equal(3, t:dim())
        assert.equal(5, t:size(-1))
        assert.equal(2, t:size(0))
        assert.equal("tensor([2, 3, 5], float64, cpu)", tostring(t))
        assert.equal(2.5, am.tensor({ { 2.5 } }):item())
        raised("shape", t.item, t)
        raised("shape", t.size, t, 3)
        raised("shape", t.size, t, -4)
    end)
end)

describe("a NaN that a file holds", function()
    -- as LuaJIT's own nil, a pointer to something, …
    for dtype, patterns in pairs { float32 = { "\255\255\255\255", "\0\0\224\255", "\1\0\240\255" },
                                   float64 = { "AAAA\0\0\250\255", "@AAA\255\255\253\255" } } do
        it("is a number: " .. dtype, function()
            for _, bits in ipairs(patterns) do
                local array = ffi.new(dtype == "float32" and "float[2]" or "double[2]")
                ffi.copy(array, bits .. bits, 2 * #bits)
                local t = am.from_buffer(array, { 2 }, { dtype = dtype })
                for _, v in ipairs { t[{ 0 }]:item(), t:totable()[2], t:sum():item(), (t:to_buffer())[0] } do
                    assert.is_true(type(v) == "number" and v ~= v)
                end
                assert.equal(2, #t:totable())
                assert.is_truthy(tostring(t):find("2", 1, true))
            end
        end)
    end
end)

describe("operators", function()
    local a, b = am.tensor { 1, 2, 4 }, am.tensor { 2, 4, 8 }

    it("take tensors and numbers on either side", function()
        assert.same({ 3, 6, 12 }, (a + b):totable())
        assert.same({ 3, 4, 6 }, (a + 2):totable())
        assert.same({ 3, 4, 6 }, (2 + a):totable())
        assert.same({ -1, -2, -4 }, (a - b):totable())
        assert.same({ 0, 1, 3 }, (a - 1):totable())
        assert.same({ 7, 6, 4 }, (8 - a):totable())
        assert.same({ 2, 8, 32 }, (a * b):totable())
        assert.same({ 0.5, 1, 2 }, (a * 0.5):totable())
        assert.same({ 0.5, 1, 2 }, (0.5 * a):totable())
        assert.same({ 0.5, 0.5, 0.5 }, (a / b):totable())
        assert.same({ 0.5, 1, 2 }, (a / 2):totable())
        assert.same({ 8, 4, 2 }, (8 / a):totable())
        assert.same({ 1, 4, 16 }, (a ^ 2):totable())
        assert.same({ 1, 16, 65536 }, (a ^ b):totable())
        assert.same({ 2, 4, 16 }, (2 ^ a):totable())
        assert.same({ -1, -2, -4 }, (-a):totable())
        assert.same({ false, true, false }, a:eq(2):totable())
        assert.same({ 1, 2, 2 }, ops.minimum(a, 2):totable())
        assert.same({ 9, 2, 9 }, ops.where(a:eq(2), a, 9):totable())
    end)

    it("broadcast", function()
        local column = am.tensor { { 10 }, { 20 } }
        assert.same({ { 11, 12, 14 }, { 21, 22, 24 } }, (column + a):totable())
    end)

    it("say what does not fit", function()
        local text = raised("shape", function() return a + am.zeros { 2 } end)
        assert.is_truthy(text:find("add: [3] and [2]", 1, true), text)
        text = raised("device", function() return a + a:to("ref") end)
        assert.is_truthy(text:find("cpu") and text:find("ref"), text)
        text = raised("argument", function() return a + a:to("int32") end)
        assert.is_truthy(text:find("int32"), text)
        raised("argument", function() return a:to("int32") ^ b:to("int32") end)
        raised("argument", function() return ops.add(a, nil) end)
    end)
end)

describe("slicing", function()
    local t = am.tensor { { { 1, 2, 3, 4 }, { 5, 6, 7, 8 }, { 9, 10, 11, 12 } } } -- [1, 3, 4]

    it("follows PyTorch", function()
        assert.same({ { 1, 2, 3, 4 }, { 5, 6, 7, 8 }, { 9, 10, 11, 12 } }, t:select(0, 0):totable())
        assert.same({ { 5, 6, 7, 8 } }, t:select(1, 1):totable())
        assert.same({ { 4, 8, 12 } }, t:select(-1, -1):totable())
        assert.same({ { { 5, 6, 7, 8 }, { 9, 10, 11, 12 } } }, t:narrow(1, 1, 2):totable())
        assert.same({ { { 3, 4 }, { 7, 8 }, { 11, 12 } } }, t:narrow(-1, -2, 2):totable())
        assert.same({ 3, 4 }, t:squeeze(0):size())
        assert.same({ 3, 4 }, t:squeeze():size())
        assert.same({ 1, 3, 4 }, t:squeeze(1):size())
        assert.same({ 1, 1, 3, 4 }, t:unsqueeze(0):size())
        assert.same({ 1, 3, 4, 1 }, t:unsqueeze(-1):size())
        assert.same({ 1, 3, 1, 4 }, t:unsqueeze(2):size())
        assert.same({ 12 }, t:reshape(-1):size())
        assert.same({ 6, 2 }, t:view({ 6, -1 }):size())
        assert.same({ 4, 1, 3 }, t:permute(2, 0, 1):size())
        assert.same({ { 1, 2, 3 } }, ops.cat({ am.tensor { { 1 } }, am.tensor { { 2, 3 } } }, 1):totable())
        local index = am.tensor({ 2, 0, 2 }, { dtype = "int64" })
        assert.same({ { { 9, 10, 11, 12 }, { 1, 2, 3, 4 }, { 9, 10, 11, 12 } } },
                    t:index_select(1, index):totable())
    end)

    it("writes through views", function()
        local m = am.zeros { 3, 2 }
        m:narrow(0, 1, 1):fill_(4)
        m:transpose(0, 1):select(0, 1):copy_(am.tensor { 1, 2, 3 })
        assert.same({ { 0, 1 }, { 4, 2 }, { 0, 3 } }, m:totable())
    end)

    it("reshapes without copying where strides allow", function()
        -- every shape of 24 elements against every view of them
        local shapes = { { 24 }, { 4, 6 }, { 2, 2, 6 }, { 4, 2, 3 }, { 2, 2, 2, 3 }, { 1, 4, 1, 6 }, { 8, 3 },
                         { 12, 2 }, { 3, 8 }, { 24, 1 } }
        local numbers = {}
        for i = 1, 96 do numbers[i] = i end
        local views = {
            am.tensor(numbers):narrow(0, 5, 24):reshape(4, 6),
            am.tensor(numbers):reshape(8, 12):narrow(0, 2, 4):narrow(1, 3, 6),
            am.tensor(numbers):reshape(8, 12):narrow(0, 0, 2):reshape(2, 3, 4):transpose(0, 1),
            am.tensor(numbers):reshape(4, 4, 6):narrow(1, 1, 1),
            am.tensor(numbers):reshape(4, 2, 3, 4):narrow(3, 1, 1),
            am.tensor(numbers):narrow(0, 0, 6):expand(4, 6),
        }
        for _, v in ipairs(views) do
            local flat = v:contiguous():reshape(24):totable()
            for _, shape in ipairs(shapes) do
                assert.same(flat, v:reshape(shape):contiguous():reshape(24):totable())
            end
        end
        local m = am.zeros { 2, 3, 4 }
        m:narrow(2, 1, 2):reshape(6, 2):fill_(1)
        m:transpose(0, 2):narrow(0, 0, 1):reshape(3, 2):fill_(2)
        assert.same({ { { 2, 1, 1, 0 }, { 2, 1, 1, 0 }, { 2, 1, 1, 0 } },
                      { { 2, 1, 1, 0 }, { 2, 1, 1, 0 }, { 2, 1, 1, 0 } } }, m:totable())
    end)

    it("refuses what is out of range", function()
        raised("shape", t.select, t, 1, 3)
        raised("shape", t.select, t, 3, 0)
        raised("shape", t.narrow, t, 1, 2, 2)
        raised("shape", t.squeeze, t, 3)
        raised("shape", t.unsqueeze, t, 4)
        raised("shape", t.unsqueeze, t, -5)
        raised("shape", t.reshape, t, 5)
        raised("shape", t.expand, t, 2, 2, 4)
        raised("shape", t.permute, t, 0, 1)
        raised("argument", ops.cat, {}, 0)
        local text = raised("argument", t.index_select, t, 1, am.tensor({ 3 }, { dtype = "int64" }))
        assert.is_truthy(text:find("index_select", 1, true), text)
    end)
end)

describe("a released tensor", function()
    it("is an error to use, never a crash", function()
        local t = am.tensor { 1, 2, 3 }
        t:release()
        assert.is_false(t:alive())
        assert.is_truthy(tostring(t):find("released"))
        assert.same({ 3 }, t:size())
        raised("state", t.exp, t)
        raised("state", t.totable, t)
        raised("state", function() return t + t end)
        raised("state", t.detach, t)
        t:release() -- once more does nothing
        assert.is_false(t:alive())
    end)

    it("leaves its views alone", function()
        local t = am.tensor { 1, 2, 3 }
        local v = t:narrow(0, 1, 2)
        t:release()
        assert.same({ 2, 3 }, v:totable())
    end)
end)

describe("fields", function()
    it("refuse unknown names", function()
        local t = am.zeros { 1 }
        raised("argument", function() t.nonsense = 1 end)
        assert.is_nil(t.nonsense)
    end)
end)
