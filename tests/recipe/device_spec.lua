-- Where a run computes. What GPUs do is in tests/cuda/.

local devices = require("am.recipes.devices")
local edge = require("am.core.ffi")
local ffi = require("ffi")

local function log()
    local lines = {}
    local function add(_, ...) lines[#lines + 1] = string.format(...) end
    return { lines = lines, info = add, warning = add }
end

describe("the device of a run", function()
    local there = edge.C.am_gpu_count(ffi.new("int[1]")) == edge.C.AM_OK

    it("is what the configuration names", function()
        for _, name in ipairs { "cpu", "ref", "fence" } do
            assert.equal(name, devices.choose(name, 3, log()))
        end
    end)

    it("is the CPU without a GPU, in silence", function()
        if there then
            pending("there is a GPU")
            return
        end
        local l = log()
        assert.equal("cpu", devices.choose(nil, 0, l))
        assert.same({}, l.lines)
    end)

    it("is none where a GPU is asked for in vain", function()
        for _, name in ipairs { "cuda:9999", not there and "cuda" or nil } do
            local ok, e = pcall(devices.choose, name, 1, log())
            assert.is_false(ok)
            assert.equal("device", e.code)
            assert.truthy(tostring(e):find("device: ", 1, true), tostring(e))
        end
    end)
end)
