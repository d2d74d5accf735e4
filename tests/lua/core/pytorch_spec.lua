-- PyTorch's files through am.core.io, one and several with an index, as weights of a directory are read. Formats
-- and what is refused are tested in tests/c/test_pytorch.c.

local io_core = require("am.core.io")
local json = require("am.utils.json")
local path = require("am.utils.path")
local tiny = require("tests.support.tiny")

local DATA = "tests/c/data/io/"

local function same(name, have, want)
    assert.same(want:info(name), have:info(name), name)
    for _, dtype in ipairs { "float32", "float16", "bfloat16", "float64" } do
        assert.equal(tiny.bits(want:get(name, dtype)), tiny.bits(have:get(name, dtype)), name)
    end
    assert.equal(tiny.bits(want:get(name)), tiny.bits(have:get(name)), name)
end

describe("PyTorch's files", function()
    it("give the tensors of an index", function()
        local want = io_core.open(DATA .. "sharded/expected.safetensors")
        local index = json.decode(path.read_file(DATA .. "sharded/pytorch_model.bin.index.json"))
        local count = 0
        for name, file in pairs(index.weight_map) do
            local have = io_core.open(DATA .. "sharded/" .. file)
            assert.equal("pytorch", have.kind)
            same(name, have, want)
            count = count + 1
        end
        assert.equal(3, count)
        assert.equal(3, #want:names())
    end)

    it("load as a table", function()
        local tensors, want = io_core.load_safetensors(DATA .. "nested.bin"), io_core.open(DATA .. "nested_bin.safetensors")
        for _, name in ipairs(want:names()) do
            assert.equal(tiny.bits(want:get(name)), tiny.bits(tensors[name]))
        end
        assert.same({ 2, 3 }, tensors.weight:size())
    end)

    it("are error objects when they ask for more than tensors", function()
        local _, e = pcall(io_core.open, "tests/fuzz/corpus/pytorch/refused")
        assert.equal("format", e.code)
        assert.equal("tests/fuzz/corpus/pytorch/refused: the pickle asks for os.system, which is not a tensor: refused",
                     e.msg)
    end)
end)
