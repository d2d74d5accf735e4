-- The vision tower of Qwen2-VL and Qwen2.5-VL, which differ in norms, feed-forward blocks and windows
-- (qwen2_vl.lua, qwen2_5_vl.lua): patches of any number of pictures of any sizes in one flat sequence (grids.lua), each
-- seeing those of its own picture or window, rotated by row and column; and the merger of merge x merge
-- neighbours to one token of the language model.

local autograd = require("am.core.autograd")
local err = require("am.core.error")
local ops = require("am.core.ops")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local Linear = require("am.nn.linear")
local MLP = require("am.nn.mlp").MLP
local Module = require("am.nn.module")
local rope = require("am.nn.rope")
local grids = require("am.models.vision.grids")

local M = {}

-- ---- parts ----------------------------------------------------------------------------------

local Conv3d = Module.class("Conv3d")

-- A convolution whose stride is its kernel, over rows that each hold one patch [channels, frames, height, width]:
-- a product.
local function conv3d(width, channels, frames, size)
    local self = Module.init(Conv3d)
    self.width = width
    self:declare("weight", { width, channels, frames, size, size })
    return self
end

function Conv3d:forward(x)
    return ops.linear(x, self.weight:reshape(self.width, -1))
end

local PatchEmbed = Module.class("PatchEmbed")

function PatchEmbed:forward(x)
    return self.proj:forward(x)
end

local VisionAttention = Module.class("VisionAttention", Attention)

local function attention(width, heads)
    local self = Attention.configure(VisionAttention, {
        num_heads = heads, num_kv_heads = heads, head_dim = width / heads,
    })
    self:add("qkv", Linear.new(width, 3 * width, true))
    self:add("proj", Linear.new(width, width, true))
    self.output = "proj"
    return self
end

function VisionAttention:project(x)
    local all = self.qkv:forward(x):reshape(x:size(0), x:size(1), 3, self.heads, self.head_dim)
    return all:select(2, 0), all:select(2, 1), all:select(2, 2)
end

local PatchMerger = Module.class("PatchMerger")

local function merger(norm, width, merge, out)
    local self, inner = Module.init(PatchMerger), width * merge * merge
    self.inner = inner
    self:add("ln_q", norm)
    self:add("mlp", MLP.new { up = { "0", Linear.new(inner, inner, true) },
                              down = { "2", Linear.new(inner, out, true) }, hidden_act = "gelu" })
    return self
end

function PatchMerger:forward(x)
    return self.mlp:forward(self.ln_q:forward(x):reshape(-1, self.inner))
end

-- ---- the tower ------------------------------------------------------------------------------

local Tower = Module.class("VisionTransformer")

local function square_size(c, key)
    local size = c[key]
    if type(size) == "table" then -- transformers allows a list, of which only equal numbers have a meaning here
        c:unsupported(key, "a list is not known here; write one number")
    end
    return c:integer(key, nil, 4096)
end

--- c: a bound vision configuration. parts: width, of a patch inside; out, of a merged one; norm = function(width);
--- mlp = function(width), a block's {name, module}; window, in patches, and full = {[layer] = true}, of the layers
--- that see beyond it.
function M.new(class_name, c, parts)
    local self = Module.init(Module.class(class_name, Tower))
    local width, heads = parts.width, c:integer("num_attention_heads", nil, 65536)
    if width % heads ~= 0 or width / heads % 4 ~= 0 or width / heads > 65536 then
        c:unsupported("num_attention_heads", string.format(
            "%d heads of %d numbers together are not what rows and columns can rotate, which takes four at a time, and "
            .. "at most 65536", heads, width))
    end
    if c.rope_scaling and c.rope_scaling.rope_type ~= "axial" then
        c:unsupported("rope_parameters", "rope_type " .. tostring(c.rope_scaling.rope_type) .. " is not known here; "
                      .. "known is axial")
    end
    self.config, self.merge = c, c:integer("spatial_merge_size", nil, 1024)
    self.layer_count = c:integer("num_hidden_layers", nil, 10000)
    self.rotary = rope.Rotary { theta = c.rope_theta or 10000, dim = width / heads / 2, axial = true }
    self.full, self.out = parts.full, parts.out
    if parts.window then
        self.window = math.floor(math.floor(parts.window / self.merge) / square_size(c, "patch_size"))
        if self.window < 1 then
            c:unsupported("window_size", string.format("%d is less than one merged patch", parts.window))
        end
    end
    local embed = self:add("patch_embed", Module.init(PatchEmbed))
    local channels, frames, size = c:integer("in_channels", nil, 4096), square_size(c, "temporal_patch_size"),
        square_size(c, "patch_size")
    embed:add("proj", conv3d(width, channels, frames, size))
    self.patch_numbers = channels * frames * size * size
    local blocks = self:add("blocks", Module.init(Module.class("ModuleList")))
    for i = 0, self.layer_count - 1 do
        blocks:add(tostring(i), DecoderLayer.new {
            attention = { "attn", attention(width, heads) },
            mlp = { "mlp", parts.mlp(width) },
            attention_norm = { "norm1", parts.norm(width) },
            mlp_norm = { "norm2", parts.norm(width) },
        })
    end
    self:add("merger", merger(parts.norm(width), width, self.merge, parts.out))
    return self
end

-- Squares of merge x merge patches in another order.
local function in_order(x, order, square)
    local n, width = x:size(0), x:size(1)
    return x:reshape(n / square, square * width):index_select(0, order):reshape(n, width)
end

--- pixel_values [patches, channels frames size size], each row a patch, image_grid_thw [pictures, 3] ->
--- { last_hidden_state [patches, width], in the order of windows where there are any, pooler_output
--- [patches / merge^2, out] }. What is computed of a picture does not depend on the others.
function Tower:forward(pixel_values, image_grid_thw)
    local list, square = grids.list(image_grid_thw, self.merge), self.merge * self.merge
    if not tensor.is(pixel_values) or pixel_values:dim() ~= 2 or pixel_values:size(1) ~= self.patch_numbers then
        err.raise("shape", "pixel_values must be [patches, %d], not %s", self.patch_numbers,
                  tensor.is(pixel_values) and "[" .. table.concat(pixel_values:size(), ", ") .. "]"
                  or type(pixel_values))
    end
    grids.check_patches(list, pixel_values:size(0))
    local lay, weight = grids.layout(list, self.merge, self.window), self.patch_embed.proj.weight
    local n, placed = lay.patches, { dtype = "int32", device = weight:device() }
    local order = lay.order and tensor.from_buffer(lay.order, { n / square }, placed)
    local frames = tensor.from_buffer(lay.frames, { 1, n, 2 }, placed)
    local windows = lay.windows and tensor.from_buffer(lay.windows, { 1, n, 2 }, placed)
    local rotary = self.rotary:table(tensor.from_buffer(lay.positions, { 2, 1, n }, placed))
    local x = scope.scope(function()
        local pixels = pixel_values:to { device = weight:device(), dtype = weight:dtype() }
        return self.patch_embed:forward(order and in_order(pixels, order, square) or pixels):unsqueeze(0)
    end)
    for i = 0, self.layer_count - 1 do
        local ctx = { bounds = (not windows or self.full[i]) and frames or windows, causal = false,
                      checkpointing = self.activation_checkpointing }
        local function run(h)
            return (self.blocks[tostring(i)]:forward(h, rotary, ctx))
        end
        if self.activation_checkpointing == true then
            x = scope.scope(autograd.checkpoint, run, x)
        else
            x = scope.scope(run, x)
        end
    end
    local hidden = x:squeeze(0)
    local merged = scope.scope(function()
        local out = self.merger:forward(hidden)
        return lay.back and out:index_select(0, tensor.from_buffer(lay.back, { n / square }, placed)) or out
    end)
    return { last_hidden_state = hidden, pooler_output = merged }
end

--- Free what is no parameter.
function Tower:release()
    self.rotary:release()
end

return M
