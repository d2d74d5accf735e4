-- What is asked of a machine that it does not have: more threads than CPUs, an instruction set, a dtype.
-- An error, or a line that says what runs instead. (Which instruction sets are refused where: test_device.c.)
local ffi = require("ffi")
local C = require("am.core.ffi").C
local helper = require("tests.recipe.helper")

local function refused(status, wanted, got, out, errors)
    assert.is_nil(helper.refusal_problem(status, wanted, got, out, errors))
end

local function losses(cfg, ...)
    local status, _, errors = helper.train(cfg, ...)
    assert.equal(0, status, errors)
    local out = {}
    for i, record in ipairs(helper.jsonl(cfg.checkpoint.checkpoint_dir .. "/training.jsonl")) do
        out[i] = record.loss
    end
    return out, errors
end

describe("threads", function()
    teardown(helper.cleanup)

    it("are a whole number from 1 to 1024", function()
        local cfg = helper.yaml(helper.folder(), helper.config(helper.folder()))
        for _, number in ipairs { "0", "-1", "two", "2.5", "", "nan", "1e400", "4294967298", "1025" } do
            for _, words in ipairs {
                { "--threads", number, "-e", "" }, { helper.finetune, cfg, "--threads", number },
                { "recipes/generate.lua", "--model", helper.tiny, "--prompt", "x", "--threads", number },
            } do
                refused(2, { '--threads needs a whole number from 1 to 1024, not "' .. number .. '"' },
                        helper.run(words))
            end
        end
        refused(2, { "not nothing" }, helper.run { "--threads" })
    end)

    it("beyond the CPUs are as many as these", function()
        local print_threads = "print(require('am.core.ffi').C.am_threads())"
        local one = { before = "taskset -c $(taskset -cp $$ | grep -oE '[0-9]+' | tail -n 1)" }
        local status, out, errors = helper.run({ "--threads", 1024, "-e", print_threads }, one)
        assert.equal(0, status, errors)
        assert.equal("1\n", out)
        local line = "| WARNING | am.cli | --threads 1024: this process has 1 CPU; running with 1 thread\n"
        assert.matches(line, errors, 1, true)
        local expected = losses(helper.config(helper.folder()))
        local trained, log = losses(helper.config(helper.folder()), { "--threads", "1024" }, one)
        assert.same(expected, trained)
        assert.matches(line, log, 1, true)
        status, out, errors = helper.run({ "--threads", 1, "-e", print_threads }, one)
        assert.equal("0 1\n ", status .. " " .. out .. " " .. errors)
    end)
end)

describe("an instruction set that does not exist", function()
    teardown(helper.cleanup)

    it("is an error wherever the CPU is used", function()
        local wanted = { 'AMLUA_ISA is "avx3"; write generic, avx2, avx512, avx512_bf16 or amx' }
        local before = { before = "AMLUA_ISA=avx3" }
        refused(1, wanted, helper.run({ "-e", "am.ones { 2 }" }, before))
        refused(1, wanted, helper.train(helper.config(helper.folder()), nil, before))
        refused(1, wanted, helper.run({ "recipes/generate.lua", "--model", helper.text_model(), "--prompt", "x" },
                                      before))
        local status, out = helper.run({ "--info" }, before)
        assert.equal(0, status)
        assert.matches("none in use, " .. ffi.string(C.am_cpu_isa_available()) .. " available", out, 1, true)
        assert.equal(0, (helper.run({ "-e", "am.ones { 2 }" }, { before = "AMLUA_ISA=" })))
    end)
end)

describe("a dtype", function()
    teardown(helper.cleanup)

    it("that is none of weights is refused", function()
        local text_model = helper.text_model()
        for _, name in ipairs { "float8_e4m3fn", "int8", "int32", "bf61", "" } do
            local message = 'torch_dtype "' .. name .. '" is none that weights can have here; write auto, float32, '
            refused(2, { message, "in model", "config.yaml:" },
                    helper.train(helper.config(helper.folder(), { model = { torch_dtype = name } })))
            refused(1, { message }, helper.run { "recipes/generate.lua", "--model", text_model, "--prompt", "x",
                                                 "--torch_dtype", name })
        end
    end)

    -- Six steps of the tiny model: rounding moves its losses by less than this.
    it("that the CPU cannot multiply is trained all the same, and said", function()
        local expected = losses(helper.config(helper.folder()))
        for _, case in ipairs {
            { "float16", "", "float16, multiplied as float32: ", 1e-3 },
            { "bfloat16", "avx2", "bfloat16, multiplied as float32: avx2 has no instructions for it", 1e-2 },
            { "bfloat16", "generic", "bfloat16, multiplied as float32: generic has no instructions for it", 1e-2 },
            { "float64", "", "float64, by the scalar kernels of one thread", 1e-4 },
            { "float32", "generic", "LlamaForCausalLM, float32\n", 1e-4 },
        } do
            local dtype, isa, line, tolerance = unpack(case)
            if isa ~= "avx2" or ffi.string(C.am_cpu_isa_available()) ~= "generic" then
                local got, log = losses(helper.config(helper.folder(), { model = { torch_dtype = dtype } }), nil,
                                        { before = "AMLUA_ISA=" .. isa })
                assert.matches(line, log, 1, true)
                for i, loss in ipairs(expected) do
                    local off = helper.relative(loss, got[i])
                    assert.is_true(off <= tolerance, string.format("%s %s: off by %g", dtype, isa, off))
                end
            end
        end
    end)
end)
