-- A model of one's own: a decoder whose layers run attention and feed-forward side by side on one norm, as GPT-J's
-- and PaLM's do.
--   model:
--     _target_: model.lua:causal_lm
--     config: { architectures: [ParallelForCausalLM], hidden_size: 256, … }    # begins with random weights
--     pretrained_model_name_or_path: DIR                                       # or with those that a run has saved

local am = require("am")
local decoder = require("am.models.decoder")
local nn = am.nn

local M = {}

-- The parts of a layer are {name in the checkpoint, module}. Embeddings, the last norm, the head, loss, generation,
-- saving and LoRA come along. From here on config.json may name it.
am.models.register("ParallelForCausalLM", decoder.architecture {
    name = "ParallelForCausalLM",
    layer = function(c)
        return nn.ParallelDecoderLayer.new {
            attention = { "self_attn", nn.Attention.new(decoder.attention(c)) },
            mlp = { "mlp", nn.GatedMLP.new(decoder.mlp(c)) },
            attention_norm = { "norm", decoder.rms_norm(c) },
        }
    end,
    defaults = { hidden_act = "silu", rms_norm_eps = 1e-6, max_position_embeddings = 2048 },
})

M.fields = {
    causal_lm = {
        config = { type = "table", open = true, doc = "what config.json would hold; random weights" },
        pretrained_model_name_or_path = { type = "string", doc = "a folder that a run has saved" },
        torch_dtype = { type = "string", doc = "dtype of the weights" },
    },
}

--- Called with the section's keys.
function M.causal_lm(args, ctx)
    local options = { torch_dtype = args.torch_dtype, device = ctx.device }
    if args.pretrained_model_name_or_path then
        return am.AutoModelForCausalLM.from_pretrained(args.pretrained_model_name_or_path, options)
    end
    return am.AutoModelForCausalLM.from_config(args.config, options)
end

return M
