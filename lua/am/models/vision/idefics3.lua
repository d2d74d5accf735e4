-- Idefics3's vision transformer (Laurençon et al. 2024, arXiv:2408.12637) as transformers' modeling_idefics3.py has
-- it, SmolVLM's too: SigLIP's layers for pictures that end before their frame does. A patch's position is where it
-- lies in its picture as a fraction, looked up in the table of a square grid, and patches of the frame alone are
-- seen by none.

local ffi = require("ffi")
local err = require("am.core.error")
local tensor = require("am.core.tensor")
local Embedding = require("am.nn.embedding")
local Module = require("am.nn.module")
local PatchEmbedding = require("am.nn.patch_embedding")
local encoder = require("am.models.vision.encoder")

local Tower = Module.class("Idefics3VisionTransformer")

local single = ffi.new("float[1]")

-- A number rounded to float32.
local function f32(x)
    single[0] = x
    return tonumber(single[0])
end

-- The ends of a side's first places as torch.arange(1 / side, 1.0, 1 / side) has them. Where fractions fall on them
-- its roundings decide: sixteen numbers at a time, of which each half counts from its first, rounded; the rest one by
-- one.
local function boundaries(side)
    local step, out = 1 / side, {}
    local count = math.ceil((1 - step) / step)
    for i = 0, count - 1 do
        local inside = i < count - count % 16 and i % 8 or 0
        out[i + 1] = f32(f32(step + step * (i - inside)) + inside * step)
    end
    return out
end

-- Of `count` patches in a row, the place of each among `side`, both from 0.
local function places(count, side)
    local out, step, at, ends = {}, f32(1 / count), 0, boundaries(side)
    for i = 0, count - 1 do
        local fraction = math.min(f32(i * step), f32(1 - 1e-6))
        while ends[at + 1] and ends[at + 1] <= fraction do
            at = at + 1
        end
        out[i] = at
    end
    return out
end

-- How many of n numbers, `stride` apart, are not 0.
local function counted(mask, first, n, stride)
    local count = 0
    for i = 0, n - 1 do
        count = count + (mask[first + i * stride] ~= 0 and 1 or 0)
    end
    return count
end

-- Places in the table int32 [N, rows columns], of patches outside of their picture 0.
local function positions(self, mask, n, rows, columns, device)
    local ids = ffi.new("int32_t[?]", n * rows * columns)
    for i = 0, n - 1 do
        local first = i * rows * columns
        local high = mask and counted(mask, first, rows, columns) or rows
        local wide = mask and counted(mask, first, columns, 1) or columns
        if high == 0 or wide == 0 then
            err.raise("data", "pixel_attention_mask: picture %d begins with pixels that are none; it must lie at its "
                      .. "frame's upper left corner", i + 1)
        end
        local down, across = places(high, self.side), places(wide, self.side)
        for r = 0, rows - 1 do
            for c = 0, columns - 1 do
                local at = first + r * columns + c
                if not mask or mask[at] ~= 0 then
                    if r >= high or c >= wide then
                        err.raise("data", "pixel_attention_mask: picture %d is no rectangle", i + 1)
                    end
                    ids[at] = down[r] * self.side + across[c]
                end
            end
        end
    end
    return tensor.from_buffer(ids, { n, rows * columns }, { dtype = "int32", device = device })
end

-- An order of the patches of n pictures in which those that are seen stand first, its inverse, and the key ranges
-- [N, T, 2] of attention in it.
local function seen_first(mask, n, t, device)
    local order, back = ffi.new("int32_t[?]", n * t), ffi.new("int32_t[?]", n * t)
    local bounds = ffi.new("int32_t[?]", n * t * 2)
    for i = 0, n - 1 do
        local seen = counted(mask, i * t, t, 1)
        local front, rear = i * t, i * t + seen
        for p = i * t, (i + 1) * t - 1 do
            local to
            if mask[p] ~= 0 then
                to, front = front, front + 1
            else
                to, rear = rear, rear + 1
            end
            order[to], back[p] = p, to
            bounds[2 * p + 1] = seen
        end
    end
    local placed = { dtype = "int32", device = device }
    return tensor.from_buffer(order, { n * t }, placed), tensor.from_buffer(back, { n * t }, placed),
        tensor.from_buffer(bounds, { n, t, 2 }, placed)
end

local function reordered(x, order)
    local n, t, width = x:size(0), x:size(1), x:size(2)
    return x:reshape(n * t, width):index_select(0, order):reshape(n, t, width)
end

--- c: the vision configuration.
function Tower.new(c)
    local self = Module.init(Tower)
    local hidden = c:integer("hidden_size")
    local height, width = encoder.sides(c, "patch_size")
    local rows, columns = encoder.grid(c)
    if rows ~= columns then
        c:unsupported("image_size", "pictures must be squares")
    end
    self.side = rows
    local embeddings = self:add("embeddings", Module.init(Module.class("Idefics3VisionEmbeddings")))
    embeddings:add("patch_embedding", PatchEmbedding.new {
        in_channels = c:integer("num_channels"), out_features = hidden, height = height, width = width, bias = true,
    })
    embeddings:add("position_embedding", Embedding.new(rows * columns, hidden))
    self:add("encoder", encoder.Encoder(c, "layers", function() return encoder.layer(c) end))
    self:add("post_layernorm", encoder.norm(c))
    return self
end

-- Which patches have pixels of their picture: a C array [N rows columns] of an array [N height width]. nil where all
-- do, as those of nearly all pictures.
local function patch_mask(pixels, n, height, width, ph, pw)
    local rows, columns = math.floor(height / ph), math.floor(width / pw)
    local out, all = ffi.new("uint8_t[?]", n * rows * columns), true
    for i = 0, n - 1 do
        for y = 0, rows * ph - 1 do
            local from, to = (i * height + y) * width, (i * rows + math.floor(y / ph)) * columns
            for x = 0, columns * pw - 1 do
                if pixels[from + x] ~= 0 then
                    out[to + math.floor(x / pw)] = 1
                end
            end
        end
    end
    for i = 0, n * rows * columns - 1 do
        all = all and out[i] == 1
    end
    return not all and out or nil
end

--- pixel_values [N, channels, height, width] -> { last_hidden_state [N, T, C] }. ctx.pixel_attention_mask [N, height,
--- width]: 0 where a frame has no picture.
function Tower:forward(pixel_values, ctx)
    local n, height, width = pixel_values:size(0), pixel_values:size(2), pixel_values:size(3)
    local patches = self.embeddings.patch_embedding
    local x, rows, columns = patches:forward(pixel_values)
    local mask = ctx.pixel_attention_mask
    mask = mask and patch_mask(mask:to_buffer(), n, height, width, patches.height, patches.width)
    x = x + self.embeddings.position_embedding:forward(positions(self, mask, n, rows, columns, x:device()))
    local order, back, bounds
    if mask then
        order, back, bounds = seen_first(mask, n, rows * columns, x:device())
        x = reordered(x, order)
    end
    x = self.post_layernorm:forward((self.encoder:forward(x, { bounds = bounds }, self)))
    return { last_hidden_state = back and reordered(x, back) or x }
end

return {
    name = "Idefics3VisionTransformer",
    model_type = "idefics3_vision",
    places = places,
    new = Tower.new,
    defaults = { hidden_size = 1152, intermediate_size = 3072, num_hidden_layers = 12, num_attention_heads = 16,
                 num_channels = 3, image_size = 224, patch_size = 32, hidden_act = "gelu_pytorch_tanh",
                 layer_norm_eps = 1e-6, attention_dropout = 0 },
}
