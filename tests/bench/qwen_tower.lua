-- How near Qwen's vision towers' forward pass comes to the rate at which this machine multiplies matrices of their
-- shapes.
--
--   amlua tests/bench/qwen_tower.lua [NAME] [--train]
--
-- Towers of random weights in the shapes of Qwen2-VL's and Qwen2.5-VL's, eight layers of each (of the latter, one that
-- sees whole pictures, as of the real one's), in f32 and bf16, over one picture of 504 x 504 pixels, one of 896 x 896,
-- and four of different sizes. FLOPs are those of matrix products, attention's two among them, over the keys that are
-- seen. --train also times forward and backward.

local am = require("am")
local config = require("am.models.config")
local grids = require("am.models.vision.grids")
local bench = require("tests.bench.tower")
local weights = require("am.models.weights")

local LAYERS, WIDTH, PATCH = 8, 1280, 3 * 2 * 14 * 14

local towers = {
    { "qwen2_vl", { depth = LAYERS, embed_dim = WIDTH, hidden_size = 2048, num_heads = 16 },
      { { 3 * WIDTH, WIDTH }, { WIDTH, WIDTH }, { 4 * WIDTH, WIDTH }, { WIDTH, 4 * WIDTH } } },
    { "qwen2_5_vl", { depth = LAYERS, hidden_size = WIDTH, out_hidden_size = 2048, intermediate_size = 3420,
                      num_heads = 16, fullatt_block_indexes = { LAYERS - 1 } },
      { { 3 * WIDTH, WIDTH }, { WIDTH, WIDTH }, { 3420, WIDTH }, { 3420, WIDTH }, { WIDTH, 3420 } } },
}
local batches = {
    { { 1, 36, 36 } },
    { { 1, 64, 64 } },
    { { 1, 36, 36 }, { 1, 20, 48 }, { 1, 6, 70 }, { 1, 26, 38 } },
}

-- Keys that all patches see together in a layer.
local function seen(ranges, n)
    local sum = 0
    for i = 0, n - 1 do
        sum = sum + ranges[2 * i + 1] - ranges[2 * i]
    end
    return sum
end

local function measure(name, fields, shapes, dtype, batch, train)
    local family = require("am.models.vision." .. name)
    local c = config.new { vision_config = fields }
    local tower = family.new(c:part("vision_config", family))
    tower.tied = {}
    weights.initialize(tower, { dtype = dtype })
    local lay = grids.layout(batch, tower.merge, tower.window)
    local n, pixels = lay.patches, am.randn({ lay.patches, PATCH })
    local multiply, a_layers = bench.products(shapes, n, dtype)
    local flops = LAYERS * a_layers + 2 * n * (PATCH * WIDTH + (4 * WIDTH * 4 * WIDTH + 4 * WIDTH * 2048) / 4)
    for i = 0, LAYERS - 1 do
        flops = flops + 4 * WIDTH * seen((not lay.windows or tower.full[i]) and lay.frames or lay.windows, n)
    end
    local function forward() return tower:forward(pixels, batch).pooler_output end
    local frozen, trained = bench.passes(tower, forward)
    for _, t in tower:named_parameters() do
        t.requires_grad = true
    end
    bench.compare(string.format("%-10s %-9s %5d patches", name, dtype, n), multiply, a_layers, flops, frozen,
                  train and trained or nil)
    for _, t in tower:named_parameters() do
        t:release()
    end
    tower:release()
end

io.stdout:setvbuf("line")
local name, train = nil, false
for _, word in ipairs(arg) do
    train = train or word == "--train"
    name = word:sub(1, 2) ~= "--" and word or name
end
for _, tower in ipairs(towers) do
    for _, dtype in ipairs(tower[1]:find(name or "", 1, true) and { "float32", "bfloat16" } or {}) do
        for _, batch in ipairs(batches) do
            am.scope(measure, tower[1], tower[2], tower[3], dtype, batch, train)
        end
    end
end
