-- Qwen2-VL's vision tower (Wang et al. 2024, arXiv:2409.12191) as transformers' modeling_qwen2_vl.py has it: LayerNorm,
-- a plain feed-forward block, and every patch sees all of its picture.

local decoder = require("am.models.decoder")
local LayerNorm = require("am.nn.layer_norm")
local Linear = require("am.nn.linear")
local MLP = require("am.nn.mlp").MLP
local qwen = require("am.models.vision.qwen")

local M = {}

M.attribute_map = { num_attention_heads = "num_heads", num_hidden_layers = "depth" }
M.defaults = { depth = 32, embed_dim = 1280, hidden_size = 3584, hidden_act = "quick_gelu", mlp_ratio = 4,
               num_heads = 16, in_channels = 3, patch_size = 14, spatial_merge_size = 2, temporal_patch_size = 2 }

--- c: a bound vision configuration.
function M.new(c)
    return qwen.new("Qwen2VisionTransformerPretrainedModel", c, {
        width = c:integer("embed_dim"),
        out = c:integer("hidden_size"),
        norm = function(width) return LayerNorm.new(width, 1e-6) end,
        mlp = function(width)
            local inner = math.floor(width * c.mlp_ratio)
            return MLP.new { up = { "fc1", Linear.new(width, inner, true) },
                             down = { "fc2", Linear.new(inner, width, true) }, hidden_act = decoder.activation(c) }
        end,
    })
end

return M
