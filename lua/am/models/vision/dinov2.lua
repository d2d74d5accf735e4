-- DINOv2 (Oquab et al. 2023, arXiv:2304.07193) as transformers' modeling_dinov2.py has it: a class token, layer scale,
-- and positions that are resampled for pictures of any size. Its variant with registers is another model.

local ops = require("am.core.ops")
local err = require("am.core.error")
local file_names = require("am.models.file_names")
local encoder = require("am.models.vision.encoder")
local tower = require("am.models.vision.tower")
local DecoderLayer = require("am.nn.decoder_layer").DecoderLayer
local GatedMLP = require("am.nn.mlp").GatedMLP
local LayerScale = require("am.nn.layer_scale")
local Module = require("am.nn.module")
local PatchEmbedding = require("am.nn.patch_embedding")

local PatchEmbeddings = Module.class("Dinov2PatchEmbeddings")

local Embeddings = Module.class("Dinov2Embeddings")

local function new_embeddings(c)
    local self, hidden = Module.init(Embeddings), c:integer("hidden_size")
    local rows, columns = encoder.grid(c)
    local height, width = encoder.sides(c, "patch_size")
    self.dropout = c.hidden_dropout_prob
    self:declare("cls_token", { 1, 1, hidden })
    if c.use_mask_token then
        self:declare("mask_token", { 1, hidden }, "zeros")
    end
    self:declare("position_embeddings", { 1, rows * columns + 1, hidden })
    self:add("patch_embeddings", Module.init(PatchEmbeddings)):add("projection", PatchEmbedding.new {
        in_channels = c:integer("num_channels", nil, 65536), out_features = hidden, height = height, width = width,
        bias = true,
    })
    return self
end

-- x [N, T, C] with the mask's patches (bool [N, T]) replaced by the mask token.
local function masked(self, x, mask)
    if not self.mask_token then
        err.raise("argument", "bool_masked_pos: the tower has no mask token (\"use_mask_token\")")
    end
    return ops.where(mask:reshape(x:size(0), x:size(1), 1):ne(0), self.mask_token:reshape(1, 1, x:size(2)), x)
end

function Embeddings:forward(pixel_values, ctx)
    local x, rows, columns = self.patch_embeddings.projection:forward(pixel_values)
    local n, hidden = x:size(0), x:size(2)
    if ctx.bool_masked_pos ~= nil then
        x = masked(self, x, ctx.bool_masked_pos)
    end
    x = ops.cat({ self.cls_token:expand(n, 1, hidden), x }, 1)
    local positions = self.position_embeddings:reshape(self.position_embeddings:size(1), hidden)
    x = x + encoder.positions(positions, 1, pixel_values:size(2), pixel_values:size(3), rows, columns)
    return self.training and self.dropout > 0 and x:dropout(self.dropout) or x
end

local Tower = Module.class("Dinov2Model", encoder.Tower)

local function layer(c)
    local hidden = c:integer("hidden_size")
    local inner = math.floor(hidden * c.mlp_ratio)
    local function scale() return LayerScale.new(hidden, c.layerscale_value, c.drop_path_rate) end
    return DecoderLayer.new {
        attention = { "attention", encoder.attention(c, { bias = c.qkv_bias, output_bias = true,
                                                          dropout = c.attention_probs_dropout_prob }) },
        mlp = { "mlp", c.use_swiglu_ffn
            and GatedMLP.new { hidden_size = hidden, hidden_act = "silu", bias = true, -- two thirds, in eights
                               intermediate_size = math.floor((math.floor(inner * 2 / 3) + 7) / 8) * 8 }
            or encoder.mlp(c, inner) },
        attention_norm = { "norm1", encoder.norm(c) },
        mlp_norm = { "norm2", encoder.norm(c) },
        attention_post_norm = { "layer_scale1", scale() },
        mlp_post_norm = { "layer_scale2", scale() },
    }
end

local function new(c)
    local self = Module.init(Tower)
    self.config, self.class_tokens = c, 1
    self:add("embeddings", new_embeddings(c))
    self:add("encoder", encoder.Encoder(c, "layer", layer))
    self:add("layernorm", encoder.norm(c))
    return self
end

--- See encoder.lua; ctx.bool_masked_pos [N, patches]: patches that the mask token stands for. Hidden states are those
--- before the last norm.
function Tower:compute(pixel_values, ctx)
    local x, states = self.encoder:forward(self.embeddings:forward(pixel_values, ctx), ctx, self)
    if ctx.layers then
        return { hidden_states = states }
    end
    x = self.layernorm:forward(x)
    return { last_hidden_state = x, pooler_output = x:select(1, 0), hidden_states = states }
end

--- The module that maps patches.
function Tower:get_input_embeddings()
    return self.embeddings.patch_embeddings.projection
end

return tower.architecture {
    new = new,
    name = "Dinov2Model",
    model_type = "dinov2",
    defaults = { hidden_size = 768, num_hidden_layers = 12, num_attention_heads = 12, mlp_ratio = 4,
                 hidden_act = "gelu", hidden_dropout_prob = 0, attention_probs_dropout_prob = 0,
                 initializer_range = 0.02, layer_norm_eps = 1e-6, image_size = 224, patch_size = 14, num_channels = 3,
                 qkv_bias = true, layerscale_value = 1, drop_path_rate = 0, use_swiglu_ffn = false,
                 use_mask_token = true },
    file_names = file_names.new {
        prefixes = { { "", "", "dinov2." } }, -- the last in a classifier's files
        inside = {
            { ".attention.q_proj.", ".attention.attention.query." },
            { ".attention.k_proj.", ".attention.attention.key." },
            { ".attention.v_proj.", ".attention.attention.value." },
            { ".attention.o_proj.", ".attention.output.dense." },
            { ".mlp.down_proj.", ".mlp.weights_out." },
        },
        stacked = { { { ".mlp.gate_proj.", ".mlp.up_proj." }, ".mlp.weights_in." } },
    },
    unused = { "^classifier%." },
}
