-- What depends on instruction sets. The CPU's kernels are chosen once a process, and AMLUA_ISA lowers the
-- choice, so each has a process of its own: rows do not depend on their company in any of them, and
-- all compute the same but for rounding.
local am = require("am")
local compare = require("tests.support.compare")
local helper = require("tests.recipe.helper")

-- Differences from this CPU's best instruction set, as parts of the largest number of a tensor. f32 rounds
-- at 6e-8 and sums in another order, some hundred terms a product. bf16 rounds every activation at
-- 4e-3, f16 at 5e-4; where a sum lies near the middle of two of their numbers, its rounding decides.
-- Each is two to five times what was measured.
local TOLERANCES = {
    float32 = { logits = 4e-6, loss = 1e-6, gradient = 6e-6 },
    bfloat16 = { logits = 2e-2, loss = 2e-4, gradient = 5e-2 },
    float16 = { logits = 3e-3, loss = 2e-5, gradient = 6e-3 },
}

describe("on every instruction set", function()
    teardown(helper.cleanup)

    for _, isa in ipairs(helper.instruction_sets()) do
        -- these have products of their own for bf16; in f32 they are avx512
        local dtype = (isa == "avx512_bf16" or isa == "amx") and "bfloat16" or "float32"
        for _, threads in ipairs { 1, 2 } do
            it(("a row's bits do not depend on its company: %s, %d threads"):format(isa, threads), function()
                -- the scalar kernels, which have one path for every size, get rows of at most 64 tokens
                local longest = isa == "generic" and 64 or 600
                local before = string.format("AMLUA_ISA=%s OMP_NUM_THREADS=%d", isa, threads)
                local command = { "tests/recipe/row_bits.lua", longest, dtype }
                local status, out, errors = helper.run(command, { before = before })
                assert.equal("", errors)
                assert.equal(0, status)
                assert.matches("^%d+ rows are the same", out)
            end)
        end
    end

    it("logits, loss and gradients are the same within rounding", function()
        local numbers, best = {}, helper.instruction_sets()[1]
        for _, isa in ipairs(helper.instruction_sets()) do
            local file = helper.folder() .. "/" .. isa .. ".safetensors"
            local status, _, errors = helper.run({ "tests/recipe/isa_numbers.lua", file },
                                                 { before = "AMLUA_ISA=" .. isa })
            assert.equal("0 ", status .. " " .. errors)
            numbers[isa] = am.load_safetensors(file)
        end
        for isa, set in pairs(numbers) do
            for name, expected in pairs(numbers[best]) do
                local dtype, kind = name:match("^(%w+)%.(%w+)")
                compare.within(isa .. ": " .. name, set[name], expected, TOLERANCES[dtype][kind])
            end
        end
    end)
end)
