-- SigLIP's vision tower (Zhai et al. 2023) as transformers' modeling_siglip.py has it: no class token; a picture's
-- vector comes from attention of a learned query to all patches.

local err = require("am.core.error")
local ops = require("am.core.ops")
local file_names = require("am.models.file_names")
local encoder = require("am.models.vision.encoder")
local tower = require("am.models.vision.tower")
local decoder = require("am.models.decoder")
local Embedding = require("am.nn.embedding")
local Linear = require("am.nn.linear")
local Module = require("am.nn.module")
local PatchEmbedding = require("am.nn.patch_embedding")

-- transformers draws evenly from a range here; this is the normal distribution of the same spread.
local function xavier(inputs, outputs)
    return { std = (2 / (inputs + outputs)) ^ 0.5 }
end

local Embeddings = Module.class("SiglipVisionEmbeddings")

local function new_embeddings(c)
    local self, hidden = Module.init(Embeddings), c:integer("hidden_size")
    local channels = c:integer("num_channels", nil, 65536)
    local rows, columns = encoder.grid(c)
    local height, width = encoder.sides(c, "patch_size")
    self:add("patch_embedding", PatchEmbedding.new {
        in_channels = channels, out_features = hidden, height = height, width = width, bias = true,
    }):initialized("weight", { std = (channels * height * width) ^ -0.5 })
    self:add("position_embedding", Embedding.new(rows * columns, hidden))
        :initialized("weight", { std = hidden ^ -0.5 })
    return self
end

function Embeddings:forward(pixel_values, ctx)
    local x, rows, columns = self.patch_embedding:forward(pixel_values)
    local height, width, positions = pixel_values:size(2), pixel_values:size(3), self.position_embedding.weight
    if ctx.interpolate_pos_encoding then
        positions = encoder.positions(positions, 0, height, width, rows, columns)
    elseif rows * columns ~= positions:size(0) then
        err.raise("shape", "pictures of %d x %d pixels have %d patches, but the tower has positions for %d "
                  .. "(\"image_size\"); resize them, or give interpolate_pos_encoding", width, height, rows * columns,
                  positions:size(0))
    end
    return x + positions
end

-- ---- the head -------------------------------------------------------------------------------

-- PyTorch's MultiheadAttention: the maps to queries, keys and values are thirds of one.
local Pooling = Module.class("MultiheadAttention")

local function new_pooling(c)
    local self, hidden = Module.init(Pooling), c:integer("hidden_size")
    self.heads, self.head_dim = c.num_attention_heads, decoder.head_dim(c)
    self:declare("in_proj_weight", { 3 * hidden, hidden }, xavier(hidden, 3 * hidden))
    self:declare("in_proj_bias", { 3 * hidden }, "zeros")
    self:add("out_proj", Linear.new(hidden, hidden, true)):initialized("weight", { std = hidden ^ -0.5 })
    return self
end

-- query [N, 1, C], x [N, T, C] -> [N, 1, C]
function Pooling:forward(query, x)
    local n, t, hidden, h, d = x:size(0), x:size(1), x:size(2), self.heads, self.head_dim
    local w, bias = self.in_proj_weight, self.in_proj_bias
    local q = ops.linear(query, w:narrow(0, 0, hidden), bias:narrow(0, 0, hidden)):reshape(n, 1, h, d)
    local kv = ops.linear(x, w:narrow(0, hidden, 2 * hidden), bias:narrow(0, hidden, 2 * hidden))
    kv = kv:reshape(n, t, 2 * h, d)
    local y = ops.attention(q, kv:narrow(2, 0, h), kv:narrow(2, h, h), nil, { causal = false })
    return self.out_proj:forward(y:reshape(n, 1, hidden))
end

local Head = Module.class("SiglipMultiheadAttentionPoolingHead")

local function new_head(c)
    local self, hidden = Module.init(Head), c.hidden_size
    decoder.whole_heads(c)
    self:declare("probe", { 1, 1, hidden }, xavier(hidden, hidden))
    self:add("attention", new_pooling(c))
    self:add("layernorm", encoder.norm(c))
    self:add("mlp", encoder.mlp(c, c.intermediate_size))
    return self
end

function Head:forward(x)
    local n, hidden = x:size(0), x:size(2)
    local y = self.attention:forward(self.probe:expand(n, 1, hidden), x)
    y = y + self.mlp:forward(self.layernorm:forward(y))
    return y:reshape(n, hidden)
end

-- ---- the tower ------------------------------------------------------------------------------

local Tower = Module.class("SiglipVisionModel", encoder.Tower)

local function spread(layer, c)
    for _, name in ipairs { "q_proj", "k_proj", "v_proj", "out_proj" } do
        layer.self_attn[name]:initialized("weight", xavier(c.hidden_size, c.hidden_size))
    end
    layer.mlp.fc1:initialized("weight", xavier(c.hidden_size, c.intermediate_size))
    layer.mlp.fc2:initialized("weight", xavier(c.hidden_size, c.intermediate_size))
    return layer
end

local function new(c)
    local self = Module.init(Tower)
    self.config, self.class_tokens = c, 0
    self:add("embeddings", new_embeddings(c))
    self:add("encoder", encoder.Encoder(c, "layers", function() return spread(encoder.layer(c), c) end))
    self:add("post_layernorm", encoder.norm(c))
    if c.vision_use_head then
        self:add("head", new_head(c))
    end
    return self
end

--- See encoder.lua.
function Tower:compute(pixel_values, ctx)
    local x, states = self.encoder:forward(self.embeddings:forward(pixel_values, ctx), ctx, self)
    if ctx.layers then
        return { hidden_states = states }
    end
    x = self.post_layernorm:forward(x)
    return { last_hidden_state = x, pooler_output = self.head and self.head:forward(x) or nil, hidden_states = states }
end

--- The module that maps patches.
function Tower:get_input_embeddings()
    return self.embeddings.patch_embedding
end

return tower.architecture {
    new = new,
    name = "SiglipVisionModel",
    model_type = "siglip_vision_model",
    defaults = { hidden_size = 768, intermediate_size = 3072, num_hidden_layers = 12, num_attention_heads = 12,
                 num_channels = 3, image_size = 224, patch_size = 16, hidden_act = "gelu_pytorch_tanh",
                 layer_norm_eps = 1e-6, attention_dropout = 0, vision_use_head = true },
    file_names = file_names.new { prefixes = { { "", "vision_model." } } },
    unused = { "position_ids$", "^text_model%.", "^logit_scale$", "^logit_bias$" }, -- the last three SiglipModel's
}
