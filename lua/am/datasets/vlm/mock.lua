-- Random pictures with random answers, for benchmarks and tests: no files. Row i depends on i and the seed alone.

local ffi = require("ffi")
local bit = require("bit")
local err = require("am.core.error")
local philox = require("am.datasets.philox")
local conversation = require("am.datasets.vlm.conversation")
local formatting = require("am.datasets.formatting")
local png = require("am.datasets.vlm.png")
local rows = require("am.datasets.vlm.rows")

local M = {}

--- What the `dataset` section may hold for this dataset.
M.fields = formatting.fields(rows.fields, {
    num_samples = { type = "integer", min = 1, default = 10, doc = "rows" },
    num_images_per_sample = { type = "integer", min = 0, default = 1, doc = "pictures of a row" },
    image_size = { type = "list", items = { type = "integer", min = 1, max = 8192 },
                   doc = "width and height of each ([256, 256])" },
    prompt = { type = "string", default = "Describe this image.", doc = "what the user says beside them" },
    responses = { type = "list", items = { type = "string" }, doc = "answers, in turns (random words)" },
    seed = { type = "integer", min = 0, default = 0, doc = "same seed, same rows" },
})

local STREAM = 0x564c4d4dULL * 0x100000000ULL -- of random numbers, beyond the engine's
local WORDS = 256 -- of a random answer where max_length does not say

local words = {}
for word in ([[the image shows a landscape with mountains and rivers flowing through green valleys while clouds drift
    across the blue sky and birds fly overhead casting shadows on the ground below where flowers bloom in vibrant
    colors and trees sway gently in the warm breeze]]):gmatch("%S+") do
    words[#words + 1] = word
end

-- Noise, as bytes: xorshift from a drawn number.
local function noise(n, state)
    local out = ffi.new("uint8_t[?]", n)
    state = bit.bor(bit.tobit(state), 1)
    for i = 0, n - 1 do
        state = bit.bxor(state, bit.lshift(state, 13))
        state = bit.bxor(state, bit.rshift(state, 17))
        state = bit.bxor(state, bit.lshift(state, 5))
        out[i] = bit.band(state, 255)
    end
    return ffi.string(out, n)
end

local Source = { files = { "mock" } }
Source.__index = Source

function Source:len() return self.num_samples end
function Source.name(_, i) return "mock row " .. i end
function Source.place(_, i) return 1, i end

function Source:get(i)
    local draw = philox.sequence(self.seed, STREAM + i)
    local images, answer = {}, self.responses and self.responses[(i - 1) % #self.responses + 1]
    for k = 1, self.num_images do
        images[k] = { bytes = png.encode(self.width, self.height, noise(3 * self.width * self.height, draw())) }
    end
    if not answer then
        local picked = {}
        for k = 1, self.num_words do
            picked[k] = words[draw() % #words + 1]
        end
        answer = table.concat(picked, " ")
    end
    return conversation.question(images, self.prompt, answer, {}, self:name(i))
end

--- A dataset of random pictures. opts: the keys of `fields`; with max_length a random answer has as many words.
function M.build_mock_vlm_dataset(opts)
    local size = opts.image_size or { 256, 256 }
    if #size ~= 2 then
        err.raise("usage", "dataset.image_size is a width and a height, not %d numbers", #size)
    elseif opts.responses and #opts.responses == 0 then
        err.raise("usage", "dataset.responses is empty; leave it out for random answers")
    end
    return rows.new(setmetatable({
        num_samples = opts.num_samples or 10, num_images = opts.num_images_per_sample or 1, seed = opts.seed or 0,
        width = size[1], height = size[2], prompt = opts.prompt or "Describe this image.", responses = opts.responses,
        num_words = opts.max_length or WORDS,
    }, Source), opts)
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.vlm.build_mock_vlm_dataset",
    aliases = { "nemo_automodel.components.datasets.vlm.mock.build_mock_vlm_dataset",
                "nemo_automodel.components.datasets.vlm.mock.MockVlmDatasetConfig" },
    doc = "random pictures with random answers",
    fields = M.fields,
    build = M.build_mock_vlm_dataset,
} }

return M
