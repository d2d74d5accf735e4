-- How often a steady step waits for the GPU, counted by the emulated CUDA of the tests: a launch or an upload that
-- waits leaves a GPU idle. Skipped, counted, where AMLUA_CUDA names no module over it.

local ffi = require("ffi")
local helper = require("tests.recipe.helper")


ffi.cdef [[
typedef struct am_emu_counts { unsigned long long switches, threads, blocks, launches, waits; } am_emu_counts;
am_emu_counts am_emu_count(void);
]]

local module = os.getenv("AMLUA_CUDA")
local loaded, emulator = pcall(function()
    local lib = ffi.load(module)
    return lib.am_emu_count and lib
end)

local kinds = {
    { name = "all weights", waits = 2 }, -- the loss, the norm of the gradients
    { name = "LoRA", waits = 2, changes = { peft = { target_modules = "*_proj", dim = 4, dropout = 0.1 } } },
    { name = "two micro-batches, packed", waits = 3, changes = {
        step_scheduler = { local_batch_size = 2 }, packed_sequence = { packed_sequence_size = 48 },
    } },
    { name = "CUDA graphs", waits = 2, changes = { compile = { enabled = true, mode = "reduce-overhead" } } },
}

describe("a steady step on CUDA", function()
    teardown(helper.cleanup)

    for _, kind in ipairs(kinds) do
        it("waits only for what it reports: " .. kind.name, function()
            if not loaded then
                pending("AMLUA_CUDA names no module over the emulated CUDA")
                return
            end
            local recipe = helper.recipe(helper.config(helper.folder(), helper.changes({
                device = "cuda", step_scheduler = { local_batch_size = 4, max_steps = 8 },
            }, kind.changes or {})))
            recipe:step()
            for _ = 1, 3 do
                local before = emulator.am_emu_count().waits
                recipe:step()
                assert.equal(kind.waits, tonumber(emulator.am_emu_count().waits - before))
            end
            helper.close(recipe)
        end)
    end
end)
