-- What vision towers are built with: patches, positions of other grids, layer scale. That they compute as transformers
-- does is shown by tests/parity/vision.

local am = require("am")
local position_grid = require("am.nn.position_grid")
local LayerScale = require("am.nn.layer_scale")
local PatchEmbedding = require("am.nn.patch_embedding")

local function scoped(name, fn)
    it(name, function() am.scope(fn) end)
end

describe("a PatchEmbedding", function()
    local function made(bias)
        local patches = PatchEmbedding.new { in_channels = 1, out_features = 2, height = 2, width = 3, bias = bias }
        -- the first feature is a patch's sum, the second its pixel of row 1, column 2
        patches.weight = am.tensor { { { { 1, 1, 1 }, { 1, 1, 1 } } }, { { { 0, 0, 0 }, { 0, 0, 1 } } } }
        return patches
    end

    scoped("maps patches row by row, and leaves out what is no whole patch", function()
        local patches, pixels = made(true), {}
        patches.bias = am.tensor { 100, 0 }
        for row = 0, 4 do
            pixels[row + 1] = {}
            for column = 0, 6 do
                pixels[row + 1][column + 1] = 10 * row + column
            end
        end
        local out, rows, columns = patches:forward(am.tensor { { pixels } })
        assert.same({ 2, 2 }, { rows, columns })
        assert.same({ { { 136, 12 }, { 154, 15 }, { 256, 32 }, { 274, 35 } } }, out:totable())
    end)

    scoped("says which pictures are none, and what it is", function()
        local patches = made()
        for message, pixels in pairs {
            ["pixel_values must be [pictures, 1, height, width], not [1, 3, 4, 6]"] = am.zeros { 1, 3, 4, 6 },
            ["pixel_values must be [pictures, 1, height, width], not [4, 6]"] = am.zeros { 4, 6 },
            ["pictures of 6 x 1 pixels are smaller than a patch of 3 x 2"] = am.zeros { 1, 1, 1, 6 },
        } do
            local ok, e = pcall(patches.forward, patches, pixels)
            assert.is_false(ok)
            assert.equal("shape", e.code)
            assert.truthy(tostring(e):find(message, 1, true))
        end
        assert.equal("1, 2, patch=2x3, bias=false", patches:extra_repr())
    end)
end)

describe("positions of a grid", function()
    scoped("stay as they are on the same grid, and flat ones on any", function()
        local positions = am.randn { 12, 5 }
        assert.same(positions:totable(), position_grid.resample(positions, 3, 4, 3, 4):totable())
        local flat = position_grid.resample(am.full({ 12, 2 }, 3), 3, 4, 7, 2)
        assert.is_true((flat - 3):abs():amax():item() < 1e-6)
    end)

    scoped("are weighed as PyTorch does: cubic between neighbours, edges repeated", function()
        -- torch.nn.functional.interpolate(x, size=(1, 2), mode="bicubic") of four numbers in a row
        local x = am.tensor { { 1 }, { 2 }, { 4 }, { 8 } }
        local out = position_grid.resample(x, 1, 4, 1, 2):totable()
        assert.is_true(math.abs(out[1][1] - 1.3125) < 1e-6 and math.abs(out[2][1] - 6.1875) < 1e-6)
    end)

    scoped("get the gradient of what was made of them", function()
        local positions = am.randn({ 4, 1 })
        positions.requires_grad = true
        position_grid.resample(positions, 2, 2, 3, 5):sum():backward()
        assert.is_true(math.abs(positions.grad:sum():item() - 15) < 1e-4) -- each new one's weights add up to 1
    end)
end)

describe("a LayerScale", function()
    scoped("multiplies, and leaves whole samples out while it is trained", function()
        am.manual_seed(4)
        local scale = LayerScale.new(3, 0.5, 0.25)
        scale.lambda1 = am.tensor { 1, 2, 3 }
        local x = am.ones { 200, 2, 3 }
        assert.same({ { 1, 2, 3 }, { 1, 2, 3 } }, scale:forward(x):totable()[1])
        scale:train()
        local kept = 0
        for _, sample in ipairs(scale:forward(x):totable()) do
            local factor = sample[1][1]
            kept = kept + (factor > 0 and 1 or 0)
            assert.is_true(factor == 0 or math.abs(factor - 1 / 0.75) < 1e-6)
            assert.same({ sample[1], sample[1] }, sample)
            assert.is_true(math.abs(sample[1][3] - 3 * factor) < 1e-6)
        end
        assert.is_true(kept > 120 and kept < 180)
        assert.equal("3, drop_path=0.25", scale:extra_repr())
    end)
end)
