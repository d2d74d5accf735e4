-- Rotary frequencies and tables of every scaling type against transformers'.
-- Goldens: tests/parity/rope_tables.py.

local am = require("am")
local devices = require("tests.support.devices")
local compare = require("tests.support.compare")
local config = require("am.models.config")
local files = require("tests.support.files")
local rope = require("am.nn.rope")

local GOLDEN = "tests/parity/golden/rope"
-- Frequencies are equal bit for bit, but for those few that torch's vectorised pow does not round
-- correctly (libm's does): one place of the power, at most two of its inverse.
local PLACES = 2 ^ -22
local torch_pow = { qwen2_yarn = true, dynamic_2049 = true, dynamic_4096 = true, dynamic_10000 = true }
-- Of the same frequencies, torch's vectorised cos and sin may round to the neighbouring number, half
-- a unit at 1, and the product with attention_scaling once more.
local TABLE = 2 ^ -24

local index, golden = files.json(GOLDEN .. ".json"), am.load_safetensors(GOLDEN .. ".safetensors")

-- The frequencies as a model with this configuration computes them.
local function frequencies(case)
    local c = config.new { rope_parameters = case.rope_parameters }
    return rope.inv_freq({
        theta = c.rope_theta, dim = case.head_dim, max_position_embeddings = case.max_position_embeddings,
        scaling = c.rope_scaling, seq_len = case.sequence_length,
    }, "ref")
end

describe("rotary frequencies", function()
    for _, case in ipairs(index.cases) do
        it("equal transformers': " .. case.name, function()
            local inv_freq, scaling = frequencies(case)
            local actual, expected = inv_freq:totable(), golden[case.name .. ".inv_freq"]:totable()
            assert.equal(#expected, #actual)
            for i, value in ipairs(expected) do
                compare.near("frequency " .. i, actual[i], value, torch_pow[case.name] and PLACES * value or 0)
            end
            compare.near("attention_scaling", scaling, case.attention_scaling, 1e-12)
        end)
    end
end)

for _, device in ipairs(devices) do
    describe("a rotary table on " .. device, function()
        for _, case in ipairs(index.cases) do
            it("equals transformers': " .. case.name, function()
                local scaling, half = case.attention_scaling, case.head_dim / 2
                local positions = am.tensor({ index.positions }, { dtype = "int32", device = device })
                local inv_freq = golden[case.name .. ".inv_freq"]:to { device = device }
                local rotary = am.ops.rope_table(positions, inv_freq, scaling):reshape(#index.positions, 2 * half)
                for i, name in ipairs { "cos", "sin" } do
                    compare.within(name, rotary:narrow(1, (i - 1) * half, half), golden[case.name .. "." .. name],
                                   scaling == 1 and TABLE or 2 * TABLE, scaling)
                end
            end)
        end
    end)
end
