-- PyTorch's files through am.core.io. Formats and what is refused are tested in tests/c/test_pytorch.c, models'
-- directories in tests/lua/models/sources_spec.lua.

local io_core = require("am.core.io")
local tiny = require("tests.support.tiny")

local DATA = "tests/c/data/io/"

describe("PyTorch's files", function()
    it("have the tensors that torch saved, in any dtype", function()
        local have, want = io_core.open(DATA .. "views.bin"), io_core.open(DATA .. "views_bin.safetensors")
        assert.equal("pytorch", have.kind)
        assert.equal(#want:names(), #have:names())
        for _, name in ipairs(want:names()) do
            assert.same(want:info(name), have:info(name), name)
            for _, dtype in ipairs { "float32", "bfloat16", "float64", false } do
                assert.equal(tiny.bits(want:get(name, dtype or nil)), tiny.bits(have:get(name, dtype or nil)), name)
            end
        end
    end)

    it("load as a table", function()
        local tensors = io_core.load_safetensors(DATA .. "nested.bin")
        local want = io_core.open(DATA .. "nested_bin.safetensors")
        for _, name in ipairs(want:names()) do
            assert.equal(tiny.bits(want:get(name)), tiny.bits(tensors[name]))
        end
        assert.same({ 2, 3 }, tensors.weight:size())
    end)

    it("are error objects when they ask for more than tensors", function()
        local file = "tests/fuzz/corpus/pytorch/refused"
        local _, e = pcall(io_core.open, file)
        assert.equal("format", e.code)
        assert.equal(file .. ": the pickle asks for os.system, which is not a tensor: refused", e.msg)
    end)
end)
