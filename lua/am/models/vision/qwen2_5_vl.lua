-- Qwen2.5-VL's vision tower (Bai et al. 2025, arXiv:2502.13923) as transformers' modeling_qwen2_5_vl.py has it:
-- RMSNorm, a gated feed-forward block, and in most layers a patch sees its window only.

local decoder = require("am.models.decoder")
local GatedMLP = require("am.nn.mlp").GatedMLP
local RMSNorm = require("am.nn.norm")
local qwen = require("am.models.vision.qwen")

local M = {}

M.attribute_map = { num_attention_heads = "num_heads", num_hidden_layers = "depth" }
M.defaults = { depth = 32, hidden_size = 3584, out_hidden_size = 3584, intermediate_size = 3420, hidden_act = "silu",
               num_heads = 16, in_channels = 3, patch_size = 14, spatial_merge_size = 2, temporal_patch_size = 2,
               window_size = 112, fullatt_block_indexes = { 7, 15, 23, 31 } }

--- c: a bound vision configuration.
function M.new(c)
    local full = {}
    if c.fullatt_block_indexes == nil then
        c:unsupported("fullatt_block_indexes", "which layers see a whole picture is not said")
    end
    for _, i in ipairs(c.fullatt_block_indexes or {}) do
        full[i] = true
    end
    return qwen.new("Qwen2_5_VisionTransformerPretrainedModel", c, {
        width = c:integer("hidden_size"),
        out = c:integer("out_hidden_size"),
        window = c:integer("window_size"),
        full = full,
        norm = function(width) return RMSNorm.new(width, 1e-6) end,
        mlp = function(width)
            return GatedMLP.new { hidden_size = width, intermediate_size = c:integer("intermediate_size"),
                                  hidden_act = decoder.activation(c), bias = true }
        end,
    })
end

return M
