-- Directories whose weights torch.save wrote, in one file and in two with an index: the model has the bits of the
-- same tensors as safetensors, which are preferred where both are there.

local am = require("am")
local files = require("tests.support.files")
local path = require("am.utils.path")
local tiny = require("tests.support.tiny")

local DATA = "tests/c/data/io/llama/"
local load = am.AutoModelForCausalLM.from_pretrained

-- fn(dir) with a folder of some files of DATA: {name there = name in DATA}.
local function with_copies(names, fn)
    files.with_folder(function(dir)
        for to, from in pairs(names) do
            path.write_file(path.join(dir, to), assert(path.read_file(DATA .. from)))
        end
        path.write_file(path.join(dir, "config.json"), assert(path.read_file(DATA .. "config.json")))
        fn(dir)
    end)
end

local function loaded(dir)
    local model = load(dir)
    local out = tiny.weights(model)
    model:close()
    return out
end

local ONE = { ["pytorch_model.bin"] = "pytorch_model.bin" }
local TWO = {
    ["pytorch_model.bin.index.json"] = "pytorch_model.bin.index.json",
    ["pytorch_model-00001-of-00002.bin"] = "pytorch_model-00001-of-00002.bin",
    ["pytorch_model-00002-of-00002.bin"] = "pytorch_model-00002-of-00002.bin",
}

describe("weights that torch.save wrote", function()
    for name, copies in pairs { ["one file"] = ONE, ["two files with an index"] = TWO } do
        it("are read from " .. name, function()
            with_copies({ ["model.safetensors"] = "expected.safetensors" }, function(safe)
                with_copies(copies, function(dir)
                    local want, have = loaded(safe), loaded(dir)
                    assert.is_truthy(next(want))
                    assert.same({}, tiny.differing(want, have))
                    assert.same({}, tiny.differing(have, want))
                end)
            end)
        end)
    end

    it("are left alone where safetensors are there", function()
        with_copies({ ["model.safetensors"] = "expected.safetensors" }, function(dir)
            path.write_file(path.join(dir, "pytorch_model.bin"), "not looked at")
            assert.is_truthy(next(loaded(dir)))
        end)
    end)

    it("are refused when they ask for more", function()
        with_copies({}, function(dir)
            path.write_file(path.join(dir, "pytorch_model.bin"),
                            assert(path.read_file("tests/fuzz/corpus/pytorch/refused")))
            local _, e = pcall(load, dir)
            assert.equal("format", e.code)
            assert.is_truthy(e.msg:find("pytorch_model.bin: the pickle asks for os.system", 1, true), e.msg)
        end)
    end)

    it("name the part that is missing", function()
        with_copies({ ["pytorch_model.bin.index.json"] = "pytorch_model.bin.index.json" }, function(dir)
            local _, e = pcall(load, dir)
            assert.equal("io", e.code)
            assert.is_truthy(e.msg:find("pytorch_model%-0000%d%-of%-00002%.bin"), e.msg)
        end)
    end)
end)
