-- What vision towers share: sizes of pictures and patches, layers whose attention sees every patch, and the loop over
-- them that keeps the hidden states asked for and runs no layer beyond the last of these.
--
-- A tower is a file beside this one. It returns tower.architecture { name, model_type, new = function(c) -> module,
-- defaults, file_names (am.models.file_names), unused = patterns of tensors in files }, whose module has
--   forward(pixel_values [N, channels, height, width], ctx) -> { last_hidden_state [N, T, C], pooler_output [N, C] or
--       nil, hidden_states }
--   ctx.layers      hidden states that are wanted, counted as transformers does: 0 is what goes into the first layer, i
--                   what comes out of the i-th, -1 the last of these. hidden_states has them in this order, and there
--                   is nothing else then.
--   ctx.output_hidden_states    hidden_states has all of them
--   ctx.interpolate_pos_encoding    pictures may be of other sizes than config.json's (DINOv2's always may)
--   activation_checkpointing    a field of the module, as a decoder's (decoder.lua)
--   tokens(height, width)   how many vectors there are for a picture of so many pixels, the class token among them
--   class_tokens    how many of them stand before the patches

local autograd = require("am.core.autograd")
local err = require("am.core.error")
local ops = require("am.core.ops")
local scope = require("am.core.scope")
local Attention = require("am.nn.attention")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local LayerNorm = require("am.nn.layer_norm")
local Linear = require("am.nn.linear")
local MLP = require("am.nn.mlp").MLP
local Module = require("am.nn.module")
local decoder = require("am.models.decoder")
local position_grid = require("am.nn.position_grid")

local M = {}

-- ---- what towers are built with -------------------------------------------------------------

local MOST_PIXELS = 65536 -- of a side

--- The height and the width that a field has: one number for both, or a list of two.
function M.sides(c, key)
    local v = c[key]
    if type(v) ~= "table" then
        local side = c:integer(key, nil, MOST_PIXELS)
        return side, side
    end
    for i = 1, 2 do
        if #v ~= 2 or type(v[i]) ~= "number" or v[i] % 1 ~= 0 or v[i] < 1 or v[i] > MOST_PIXELS then
            c:unsupported(key, "a side is one whole number, or a list of two: height and width")
        end
    end
    return v[1], v[2]
end

--- Rows and columns of patches in the pictures that the configuration is made for.
function M.grid(c)
    local height, width = M.sides(c, "image_size")
    local ph, pw = M.sides(c, "patch_size")
    if ph > height or pw > width then
        c:unsupported("patch_size", string.format("a patch of %d x %d is larger than a picture of %d x %d (\"%s\")",
                                                  pw, ph, width, height, c:spelling("image_size")))
    end
    return math.floor(height / ph), math.floor(width / pw)
end

--- Attention that sees all patches (nn/attention.lua), with the options given.
function M.attention(c, options)
    local o = decoder.attention(c, options)
    o.causal, o.rotary = false, false
    return Attention.new(o)
end

--- A feed-forward block of two maps, fc1 and fc2.
function M.mlp(c, width)
    local hidden = c:integer("hidden_size")
    return MLP.new { up = { "fc1", Linear.new(hidden, width, true) }, down = { "fc2", Linear.new(width, hidden, true) },
                     hidden_act = decoder.activation(c) }
end

--- LayerNorm over the hidden size.
function M.norm(c)
    return LayerNorm.new(c:integer("hidden_size"), c.layer_norm_eps)
end

--- The layer that CLIP and SigLIP have.
function M.layer(c)
    return DecoderLayer.new {
        attention = { "self_attn", M.attention(c, { output = "out_proj", bias = true, output_bias = true }) },
        mlp = { "mlp", M.mlp(c, c:integer("intermediate_size")) },
        attention_norm = { "layer_norm1", M.norm(c) },
        mlp_norm = { "layer_norm2", M.norm(c) },
    }
end

-- ---- a tower --------------------------------------------------------------------------------

local Tower = Module.class("VisionTower")
M.Tower = Tower

--- What modules of towers have in common: forward, by compute(pixel_values, ctx) -> the same, whose intermediate
--- results go with its end.
function Tower:forward(pixel_values, ctx)
    return scope.scope(self.compute, self, pixel_values, ctx)
end

-- ---- positions ------------------------------------------------------------------------------

--- Positions [T, C] for a picture of height x width pixels that gives rows x columns patches: those of the table
--- [class_tokens + grid, C] as they are where the picture is square and has as many patches as the table's, and
--- otherwise resampled, those of the class token aside.
function M.positions(positions, class_tokens, height, width, rows, columns)
    local n = positions:size(0) - class_tokens
    if rows * columns == n and height == width then
        return positions
    end
    local side = math.floor(math.sqrt(n) + 0.5)
    if side * side ~= n then
        err.raise("unsupported", "the positions of %d patches are no square, so there are none for pictures of %d x %d "
                  .. "pixels", n, width, height)
    end
    local grid = position_grid.resample(positions:narrow(0, class_tokens, n), side, side, rows, columns)
    if class_tokens == 0 then
        return grid
    end
    return ops.cat({ positions:narrow(0, 0, class_tokens), grid }, 0)
end

-- ---- the layers -----------------------------------------------------------------------------

local Encoder = Module.class("Encoder")

--- Layers under the name `list` ("layers", "layer"), made by layer(c, i), i from 0.
function M.Encoder(c, list, layer)
    local self = Module.init(Encoder)
    self.list, self.count = list, c:integer("num_hidden_layers", nil, 10000)
    local layers = self:add(list, Module.init(Module.class("ModuleList")))
    for i = 0, self.count - 1 do
        layers:add(tostring(i), layer(c, i))
    end
    return self
end

-- Of hidden states as transformers counts them, the numbers from 0.
local function places(wanted, count)
    local list, last = {}, 0
    for i, index in ipairs(wanted) do
        local at = type(index) == "number" and index < 0 and index + count + 1 or index
        if type(at) ~= "number" or at % 1 ~= 0 or at < 0 or at > count then
            err.raise("argument", "there is no hidden state %s of a tower with %d layers", tostring(index), count)
        end
        list[i], last = at, math.max(last, at)
    end
    return list, last
end

--- x [N, T, C] -> what the last layer that ran gives, and the hidden states that ctx asks for (or nil). `tower` has
--- activation_checkpointing.
function Encoder:forward(x, ctx, tower)
    local checkpointing, last = tower.activation_checkpointing, self.count
    local wanted, kept = nil, {}
    if ctx.layers then
        wanted, last = places(ctx.layers, self.count)
    elseif ctx.output_hidden_states then
        wanted = {}
        for i = 0, last do
            wanted[i + 1] = i
        end
    end
    for _, at in ipairs(wanted or {}) do
        kept[at] = at == 0 and x
    end
    for i = 1, last do
        local layer = self[self.list][tostring(i - 1)]
        local function run(h)
            return (layer:forward(h, nil, { checkpointing = checkpointing, bounds = ctx.bounds }))
        end
        -- A scope each: what backward does not need is freed as the layer ends; what came in, too.
        local before = x
        if checkpointing == true then
            x = scope.scope(autograd.checkpoint, run, before)
        else
            x = scope.scope(run, before)
        end
        if kept[i - 1] == nil and not before.requires_grad then
            before:release()
        end
        kept[i] = kept[i] ~= nil and x or nil
    end
    for i, at in ipairs(wanted or {}) do
        wanted[i] = kept[at]
    end
    return x, wanted
end

return M
