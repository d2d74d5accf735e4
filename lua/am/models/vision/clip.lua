-- CLIP's vision tower (Radford et al. 2021) as transformers' modeling_clip.py has it: a class token, a norm before the
-- layers, one of the class token's state after them.

local err = require("am.core.error")
local ops = require("am.core.ops")
local file_names = require("am.models.file_names")
local encoder = require("am.models.vision.encoder")
local tower = require("am.models.vision.tower")
local Embedding = require("am.nn.embedding")
local Module = require("am.nn.module")
local PatchEmbedding = require("am.nn.patch_embedding")

local Embeddings = Module.class("CLIPVisionEmbeddings")

local function new_embeddings(c)
    local self, hidden = Module.init(Embeddings), c:integer("hidden_size")
    local rows, columns = encoder.grid(c)
    local height, width = encoder.sides(c, "patch_size")
    local std = (c.initializer_range or 0.02) * c.initializer_factor
    self.image_height, self.image_width = encoder.sides(c, "image_size")
    self:declare("class_embedding", { hidden }, { std = hidden ^ -0.5 * c.initializer_factor })
    self:add("patch_embedding", PatchEmbedding.new {
        in_channels = c:integer("num_channels", nil, 65536), out_features = hidden, height = height, width = width,
    }):initialized("weight", { std = std })
    self:add("position_embedding", Embedding.new(rows * columns + 1, hidden)):initialized("weight", { std = std })
    return self
end

function Embeddings:forward(pixel_values, ctx)
    local height, width = pixel_values:size(2), pixel_values:size(3)
    local same = height == self.image_height and width == self.image_width
    if not same and not ctx.interpolate_pos_encoding then
        err.raise("shape", "pictures of %d x %d pixels, but the tower is made for %d x %d (\"image_size\"); resize "
                  .. "them, or give interpolate_pos_encoding", width, height, self.image_width, self.image_height)
    end
    local patches, rows, columns = self.patch_embedding:forward(pixel_values)
    local n, hidden = patches:size(0), patches:size(2)
    local x = ops.cat({ self.class_embedding:reshape(1, 1, hidden):expand(n, 1, hidden), patches }, 1)
    local positions = self.position_embedding.weight
    return x + (same and positions or encoder.positions(positions, 1, height, width, rows, columns))
end

local Tower = Module.class("CLIPVisionModel", encoder.Tower)

-- transformers' spread of attention and feed-forward maps grows with the width and falls with the depth.
local function spread(layer, c)
    local attention, mlp, hidden, factor = layer.self_attn, layer.mlp, c.hidden_size, c.initializer_factor
    local inner = { std = hidden ^ -0.5 * (2 * c.num_hidden_layers) ^ -0.5 * factor }
    for _, name in ipairs { "q_proj", "k_proj", "v_proj" } do
        attention[name]:initialized("weight", inner)
    end
    attention.out_proj:initialized("weight", { std = hidden ^ -0.5 * factor })
    mlp.fc1:initialized("weight", { std = (2 * hidden) ^ -0.5 * factor })
    mlp.fc2:initialized("weight", inner)
    return layer
end

local function new(c)
    local self = Module.init(Tower)
    self.config, self.class_tokens = c, 1
    self:add("embeddings", new_embeddings(c))
    self:add("pre_layrnorm", encoder.norm(c))
    self:add("encoder", encoder.Encoder(c, "layers", function() return spread(encoder.layer(c), c) end))
    self:add("post_layernorm", encoder.norm(c))
    return self
end

--- See encoder.lua. last_hidden_state is that of the last layer, without a norm.
function Tower:compute(pixel_values, ctx)
    local x = self.pre_layrnorm:forward(self.embeddings:forward(pixel_values, ctx))
    local states
    x, states = self.encoder:forward(x, ctx, self)
    if ctx.layers then
        return { hidden_states = states }
    end
    return { last_hidden_state = x, pooler_output = self.post_layernorm:forward(x:select(1, 0)),
             hidden_states = states }
end

--- The module that maps patches.
function Tower:get_input_embeddings()
    return self.embeddings.patch_embedding
end

return tower.architecture {
    new = new,
    name = "CLIPVisionModel",
    model_type = "clip_vision_model",
    defaults = { hidden_size = 768, intermediate_size = 3072, num_hidden_layers = 12, num_attention_heads = 12,
                 num_channels = 3, image_size = 224, patch_size = 32, hidden_act = "quick_gelu", layer_norm_eps = 1e-5,
                 attention_dropout = 0, initializer_range = 0.02, initializer_factor = 1 },
    file_names = file_names.new { prefixes = { { "", "vision_model." } } },
    unused = { "position_ids$", -- 0, 1, … in older files
               "^text_model%.", "^text_projection%.", "^visual_projection%.", "^logit_scale$" }, -- CLIPModel's
}
