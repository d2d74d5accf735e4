-- StableLM (Stability AI 2023) as transformers' modeling_stablelm.py has it, outside the tree, as a user ports a
-- model: docs/port_a_model.md goes through it. Llama's block with LayerNorm, biases of queries, keys and values
-- if wanted, a part of each head rotated, and attention beside the feed-forward block if wanted.
--   model: {_target_: stablelm.lua:from_pretrained, pretrained_model_name_or_path: DIR}
-- and for the tools: amlua stablelm.lua generate --model DIR --prompt TEXT

local am = require("am")
local decoder = require("am.models.decoder")
local nn = am.nn

local M = {}

local function norm(c)
    return nn.LayerNorm.new(c:integer("hidden_size"), c.layer_norm_eps)
end

am.models.register("StableLmForCausalLM", decoder.architecture {
    name = "StableLmForCausalLM",
    layer = function(c)
        local parts = {
            attention = { "self_attn", nn.Attention.new(decoder.attention(c, {
                bias = c.use_qkv_bias, output_bias = false,
            })) },
            mlp = { "mlp", nn.GatedMLP.new(decoder.mlp(c, { bias = false })) },
            attention_norm = { "input_layernorm", norm(c) },
        }
        if c.use_parallel_residual then -- one norm for both
            return nn.ParallelDecoderLayer.new(parts)
        end
        parts.mlp_norm = { "post_attention_layernorm", norm(c) }
        return nn.DecoderLayer.new(parts)
    end,
    norm = norm,
    check = function(c)
        if c.qk_layernorm then -- StableLM 2 12B
            c:unsupported("qk_layernorm", "a norm of its own for each head's queries and keys is not there")
        elseif c.hidden_dropout ~= 0 then
            c:unsupported("hidden_dropout", "dropout of the feed-forward block alone is not there; write 0")
        end
    end,
    defaults = { hidden_act = "silu", layer_norm_eps = 1e-5, max_position_embeddings = 4096, num_key_value_heads = 32,
                 rope_theta = 10000, partial_rotary_factor = 0.25, use_qkv_bias = false, qk_layernorm = false,
                 use_parallel_residual = false, hidden_dropout = 0, attention_dropout = 0 },
})

M.fields = {
    from_pretrained = {
        pretrained_model_name_or_path = { type = "string", required = true, doc = "a Hugging Face directory" },
        torch_dtype = { type = "string", doc = "dtype of the weights" },
    },
}

--- What the model section of a configuration names.
function M.from_pretrained(args, ctx)
    return am.AutoModelForCausalLM.from_pretrained(args.pretrained_model_name_or_path,
                                                   { torch_dtype = args.torch_dtype, device = ctx.device })
end

--- amlua stablelm.lua NAME …: the program recipes/NAME.lua, which knows this architecture then.
function M.main(args)
    local name = table.remove(args, 1) or "compare"
    return require("recipes." .. name).main(args)
end

return M
