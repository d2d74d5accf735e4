-- What a run says and leaves when its GPU fails, over the emulated CUDA of the tests. Skipped, counted, where
-- AMLUA_CUDA names no module over it.

local ffi = require("ffi")
local helper = require("tests.recipe.helper")

ffi.cdef "void am_emu_set(const char *name, const char *value);"

local module = os.getenv("AMLUA_CUDA")
local emulated = pcall(function() return ffi.load(module).am_emu_set end)

local function config(dir, changes)
    return helper.config(dir, helper.changes({
        device = "cuda", step_scheduler = { max_steps = 4, ckpt_every_steps = 2 },
        peft = { target_modules = "*_proj", dim = 4, dropout = 0.1 },
    }, changes or {}))
end

-- A run whose GPU fails before its third step: exit status and what it said.
local function fail(cfg, how, before)
    local file = helper.yaml(helper.folder(), cfg)
    local rc, out, errors = helper.run({ "tests/cuda/failing.lua", file }, {
        before = ("STEP=2 FAIL='%s' %s"):format(how, before or ""),
    })
    return rc, out .. errors
end

local function skipped()
    if not emulated then
        pending("AMLUA_CUDA names no module over the emulated CUDA")
    end
    return not emulated
end

local function has(text, what)
    assert(text:find(what, 1, true), "not said: " .. what .. "\n" .. text)
end

local kinds = {
    { name = "a kernel", how = "launch:40", says = "unspecified launch failure" },
    { name = "a kernel, waited for", how = "launch:40", before = "AM_SYNC=1", says = "kernel ",
      place = "%.cu:%d+%): unspecified launch failure" },
    { name = "a kernel, far behind", how = "launch:40", before = "AM_EMU_STREAMS=lazy",
      says = "AM_SYNC=1 tells which" },
    { name = "a copy", how = "copy:2", says = "cuda: " },
    { name = "a product", how = "matmul:9", says = "by cuBLASLt" },
    { name = "the driver, which is gone", how = "device:60", says = "busy or unavailable" },
    { name = "memory", how = "memory:1", says = "bytes on cuda could not be had, ", memory = true },
}

describe("a GPU that fails in the third step", function()
    teardown(helper.cleanup)
    local unbroken

    setup(function()
        if not emulated then
            return
        end
        unbroken = helper.folder()
        local rc, _, errors = helper.train(config(unbroken))
        assert.equal(0, rc, errors)
    end)

    for _, kind in ipairs(kinds) do
        it("ends the run with its last checkpoint, from which it goes on: " .. kind.name, function()
            if skipped() then
                return
            end
            local dir = helper.folder()
            local cfg = config(dir)
            if kind.memory then -- longer rows, which released blocks don't do for
                cfg.step_scheduler.local_batch_size = 4
            end
            local rc, said = fail(cfg, kind.how, kind.before)
            assert.equal(1, rc, said)
            has(said, kind.says)
            assert(not kind.place or said:find(kind.place), said)
            has(said, "The checkpoint " .. dir .. "/epoch_0_step_1 is whole")
            assert.equal(dir .. "/epoch_0_step_1", helper.latest(dir))
            for _, help in ipairs(kind.memory and { "free, tensors of this process have ",
                                                    "step_scheduler.local_batch_size", "dataset.seq_length",
                                                    "model.activation_checkpointing: true" } or {}) do
                has(said, help)
            end
            rc, _, said = helper.train(cfg)
            assert.equal(0, rc, said)
            if not kind.memory then
                assert.same(helper.curve(unbroken), helper.curve(dir))
                assert.is_nil(helper.checkpoint_difference(helper.latest(unbroken), helper.latest(dir)))
            end
        end)
    end

    it("says what it goes on from when it fails before its first step", function()
        if skipped() then
            return
        end
        local dir = helper.folder()
        local cfg = config(dir)
        assert.equal(0, (helper.train(cfg, { "--step_scheduler.max_steps", "2" })))
        for environment, says in pairs {
            ["AM_EMU_MEMORY=64K"] = "What would help: model.torch_dtype: bfloat16; a peft section",
            ["AM_EMU_FAIL=launch:1"] = "unspecified launch failure",
        } do
            local rc, _, errors = helper.train(cfg, nil, { before = environment })
            assert.equal(1, rc, errors)
            has(errors, says)
            has(errors, "The checkpoint " .. helper.latest(dir) .. " is as it was")
        end
    end)

    it("goes on where released memory was enough", function()
        if skipped() then
            return
        end
        local dir = helper.folder()
        local rc, said = fail(config(dir), "alloc:1")
        assert.equal(0, rc, said)
        assert.same(helper.curve(unbroken), helper.curve(dir))
    end)
end)

describe("a GPU that can't be used", function()
    teardown(helper.cleanup)

    for environment, says in pairs {
        ["AM_EMU_CAPABILITY=75"] = "cuda:0, emulated GPU, has compute capability 7.5; the kernels need 8.0",
        ["AM_EMU_DRIVER=12020"] = "the NVIDIA driver is for CUDA 12.2 at most, and this amlua needs CUDA 13",
        ["AM_EMU_DRIVER=0"] = "no NVIDIA driver is installed here",
        ["AM_EMU_DEVICES=0"] = "no CUDA-capable device is detected",
    } do
        it("is refused where it is asked for: " .. environment, function()
            if skipped() then
                return
            end
            local rc, _, errors = helper.train(config(helper.folder()), nil, { before = environment })
            assert.equal(1, rc, errors)
            has(errors, "device: ")
            has(errors, says)
        end)
    end

    it("is refused by its number, too", function()
        if skipped() then
            return
        end
        local rc, _, errors = helper.train(config(helper.folder(), { device = "cuda:5" }), nil,
                                           { before = "AM_EMU_DEVICES=1" })
        assert.equal(1, rc, errors)
        has(errors, "device: there is no device cuda:5; there are 1, from cuda:0 on")
    end)
end)
