-- Arguments that are none: every function and method of tensors answers with an error object that names it,
-- never with a crash or an error of Lua's own.

local am = require("am")
local err = require("am.core.error")
local ffi = require("ffi")

local function raised(code, text, fn, ...)
    local ok, e = pcall(fn, ...)
    assert.is_false(ok, "nothing was raised: " .. text)
    assert.is_true(err.is(e), "not an error object: " .. tostring(e))
    assert.equal(code, e.code, tostring(e))
    assert.is_truthy(tostring(e):find(text, 1, true), tostring(e))
end

-- Run by a process of its own, since what goes wrong here may be a crash. Prints each call before it is made.
local walk = [[
local am, err, tensor = require("am"), require("am.core.error"), require("am.core.tensor")
local functions, names = {}, {}
for name, fn in pairs(am) do
    if type(fn) == "function" then functions["am." .. name] = fn end
end
for name, fn in pairs(tensor.methods) do
    if type(fn) == "function" then functions["t:" .. name] = fn end
end
for name in pairs(functions) do names[#names + 1] = name end
table.sort(names)

local T = {} -- stands for a tensor
local calls = { { T }, { T, 0 }, { T, T }, { T, T, T }, { T, 0, T }, { T, 0, T, T }, { 0.5, T }, { "ij,jk", T, T },
                { { 2 }, 0 }, { 0, 2, { 2 } }, { 2 }, { { 1, 2 } }, { function() end } }
local wrong = { "nothing", "x", {}, { x = 1 }, { "x" }, function() end, 0.5, 0 / 0, 2 ^ 40, true, io.stdout }
local device = am.zeros({ 1 }):device()
local n = 0
for _, name in ipairs(names) do
    for c, call in ipairs(calls) do
        for place = 0, #call do
            for w, value in ipairs(place == 0 and { "all" } or wrong) do
                local args = {}
                for i = 1, #call do
                    args[i] = call[i] == T and am.ones { 2, 2 } or call[i]
                end
                if place > 0 then
                    args[place] = nil
                    if value ~= "nothing" then args[place] = value end
                end
                io.write("\n", name, " call ", c, " argument ", place, " wrong ", w)
                io.flush()
                local ok, e = pcall(functions[name], unpack(args, 1, #call))
                if not ok and not err.is(e) then io.write(" PLAIN ", tostring(e)) end
                n = n + 1
                am.set_default_device(device)
            end
        end
    end
end
io.write("\n", n, " calls\n")
]]

describe("a wrong argument", function()
    it("of any function is an error object", function()
        local script = os.tmpname()
        local file = assert(io.open(script, "w"))
        file:write(walk)
        file:close()
        local pipe = io.popen(("'%s' '%s' 2>&1"):format(os.getenv("AMLUA"), script))
        local text = pipe:read("*a")
        pipe:close()
        os.remove(script)
        local plain = {}
        for line in text:gmatch("[^\n]* PLAIN [^\n]*") do plain[#plain + 1] = line end
        assert.same({}, plain)
        assert.is_truthy(text:find("%d+ calls\n$"), "the process ended in: " .. text:sub(-300))
    end)
end)

describe("arguments", function()
    local t = am.tensor { { 1, -2 }, { 3, 4 } }

    it("that are no tensors are told with the function's name", function()
        raised("argument", "matmul: a tensor is missing", t.matmul, t, nil)
        raised("argument", "div: a tensor is missing", function() return t / nil end)
        raised("argument", "mul: a tensor is missing", am.mul, nil, 0.5)
        raised("argument", "add: a tensor is missing", am.add, 0.5, nil)
        raised("argument", "where: a tensor is missing", am.where, nil, 0.5)
        raised("argument", "where: a tensor is missing", am.where, t:gt(0), t, nil)
        raised("argument", "to: a tensor is missing", am.to, nil, "float32")
        raised("argument", "float: a tensor is missing", am.float, nil)
        raised("argument", "escape: a tensor is missing", am.escape, nil)
        raised("argument", "linear: a tensor is needed, not a table", am.ops.linear, t, {})
        raised("argument", "add: a tensor is needed, not \"x\"", function() return t + "x" end)
        raised("argument", "a:lt(b)", function() return t < 2 end)
        raised("argument", "no_grad: a function is needed, not nil", am.no_grad)
    end)

    it("with a fraction are not cut", function()
        raised("argument", "roll: shift is 0.5", t.roll, t, 0.5, 0)
        raised("argument", "its shape is 2.7", am.zeros, { 2.7 })
        raised("argument", "sum: dim is 1.9", t.sum, t, 1.9)
        raised("argument", "sum: dim is 0.5", t.sum, t, { 0.5 })
        raised("argument", "topk: k is 1.7", t.topk, t, 1.7)
        raised("argument", "narrow: start is 0.7", t.narrow, t, 0, 0.7, 1)
        raised("argument", "reshape: a size is 2.5", t.reshape, t, 2.5, -1)
        raised("argument", "softmax: dim is nil", t.softmax, t)
        raised("argument", "the shape is 2.5", am.randint, 0, 5, { 2.5 })
        raised("argument", "size: dim is 0.5", t.size, t, 0.5)
        raised("argument", "the number of pieces is nan", t.chunk, t, 0 / 0)
        raised("argument", "chunk: 0 pieces", t.chunk, t, 0)
        raised("argument", "sum: dim is 1099511627776", t.sum, t, 2 ^ 40)
        raised("argument", "manual_seed: seed is \"x\"", am.manual_seed, "x")
        raised("memory", "too many", am.randperm, 2 ^ 40)
        raised("argument", "2 shifts for 1 dims", t.roll, t, { 1, 1 }, 0)
        assert.same({ 2, 1 }, t:narrow(1, 0, 1LL):size())
    end)

    it("that are tables have no holes and no other keys", function()
        raised("argument", "a hole", am.tensor, { 1, nil, 3 })
        raised("argument", "a key \"x\"", am.tensor, { x = 1 })
        raised("argument", "a key \"x\"", am.tensor, { { 1, 2 }, { 1, 2, x = 1 } })
        raised("argument", "a key \"dtype\"", am.zeros, { 2, dtype = "float64" })
        raised("argument", "a table of whole numbers, such as {2, 3}, not 3", am.zeros, 3)
        raised("argument", "a table of whole numbers", am.zeros)
        raised("argument", "an index has a hole", function() return t[{ nil, 1 }] end)
        raised("argument", "it has no start", function() return t[{ { start = 1 } }] end)
        raised("argument", "a hole", am.cat, { t, nil, t })
        local loop = {}
        loop[1] = loop
        raised("argument", "numbers or booleans", am.tensor, loop)
    end)

    it("that are options or names are known", function()
        raised("argument", "no option dtyp (did you mean \"dtype\"?)", am.zeros, { 1 }, { dtyp = "float64" })
        raised("argument", "no option devise", am.tensor, { 1 }, { devise = "ref" })
        raised("argument", "no option dtyp", am.arange, 3, { dtyp = "int32" })
        raised("argument", "no option dtyp", am.zeros_like, t, { dtyp = "int32" })
        raised("argument", "no option dtyp", t.to, t, { dtyp = "int32" })
        raised("argument", "no option widnow (did you mean \"window\"?)", am.attention, t, t, t, nil, { widnow = 1 })
        raised("argument", "options are a table", am.zeros, { 1 }, "float64")
        raised("argument", "flaot64 is neither a dtype nor a device here (did you mean \"float64\"?)", t.to, t,
               "flaot64")
        raised("argument", "approximate is tan", t.gelu, t, "tan")
    end)

    it("of from_buffer are long enough", function()
        raised("argument", "12 bytes, the tensor needs 16", am.from_buffer, ffi.new("float[3]"), { 4 })
        raised("argument", "12 bytes", am.from_buffer, ffi.new("float[?]", 3), { 2, 2 })
        raised("argument", "a C array is needed, not a nil", am.from_buffer, nil, { 1 })
        local array = ffi.new("float[4]", 1, 2, 3, 4)
        assert.same({ 1, 2, 3, 4 }, am.from_buffer(ffi.cast("float *", array), { 4 }):totable())
        assert.same({ 1, 2, 3 }, am.from_buffer(array, { 3 }):totable())
    end)

    it("that are empty have a logsumexp", function()
        assert.equal(-math.huge, am.zeros({ 0 }):logsumexp():item())
        assert.same({ -math.huge, -math.huge }, am.zeros({ 2, 0 }):logsumexp(1):totable())
        assert.same({ 1, 1 }, am.zeros({ 2, 0 }):logsumexp({ 0, 1 }, true):size())
        assert.same({ 0 }, am.zeros({ 0, 3 }):logsumexp(1):size())
    end)
end)

describe("help", function()
    it("says something about every function and method", function()
        local help, silent = require("am.cli.help").text, {}
        for _, functions in ipairs { am, require("am.core.tensor").methods } do
            for name, fn in pairs(functions) do
                if type(fn) == "function" and help(fn):find("without a comment", 1, true) then
                    silent[#silent + 1] = name
                end
            end
        end
        assert.same({}, silent)
    end)
end)
