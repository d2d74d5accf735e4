-- A model of one's own: a decoder whose layers run attention and feed-forward side by side on one norm, as GPT-J's
-- and PaLM's do.
--   model:
--     _target_: model.lua:causal_lm
--     config: { architectures: [ParallelForCausalLM], hidden_size: 256, … }    # begins with random weights
--     pretrained_model_name_or_path: DIR                                       # or with those that a run has saved

local am = require("am")
local rope = require("am.nn.rope")
local nn = am.nn

local M = {}

local Layer = nn.Module.class("ParallelLayer")

function Layer.new(c)
    local self, hidden, heads = nn.Module.init(Layer), c:integer("hidden_size"), c:integer("num_attention_heads")
    self:add("norm", nn.RMSNorm.new(hidden, c.rms_norm_eps or 1e-6))
    self:add("self_attn", nn.Attention.new { hidden_size = hidden, num_heads = heads, num_kv_heads = heads,
                                             head_dim = hidden / heads })
    self:add("mlp", nn.GatedMLP.new { hidden_size = hidden, intermediate_size = c:integer("intermediate_size"),
                                      hidden_act = "silu" })
    return self
end

function Layer:forward(x, rotary, ctx)
    local h = self.norm:forward(x)
    return x + self.self_attn:forward(h, rotary, ctx) + self.mlp:forward(h)
end

local Body = nn.Module.class("ParallelModel")

function Body.new(c)
    local self, hidden = nn.Module.init(Body), c:integer("hidden_size")
    self.rope, self.count = { theta = c.rope_theta or 10000, dim = hidden / c.num_attention_heads }, c.num_hidden_layers
    self:add("embed_tokens", nn.Embedding.new(c:integer("vocab_size"), hidden, c.pad_token_id))
    self:add("layers", nn.Module.init(nn.Module.class("ModuleList")))
    for i = 0, c:integer("num_hidden_layers") - 1 do
        self.layers:add(tostring(i), Layer.new(c))
    end
    self:add("norm", nn.RMSNorm.new(hidden, c.rms_norm_eps or 1e-6))
    return self
end

--- Token ids and positions [B, T] -> states [B, T, C]. ctx: what a token may see (bounds) and has seen (cache).
function Body:forward(input_ids, position_ids, ctx)
    local rotary = am.ops.rope_table(position_ids, rope.inv_freq(self.rope, position_ids:device()))
    local x = self.embed_tokens:forward(input_ids)
    for i = 1, self.count do
        local function run(h)
            local seen = { bounds = ctx.bounds, cache = ctx.cache, layer = i }
            return self.layers[tostring(i - 1)]:forward(h, rotary, seen)
        end
        x = self.activation_checkpointing and am.checkpoint(run, x) or run(x)
    end
    return self.norm:forward(x)
end

local ForCausalLM = nn.Module.class("ParallelForCausalLM")

-- The parts have the names `model` and `lm_head`; loss, generation, saving and LoRA come along. `tied`: which
-- parameter is another one, by the names that they have in a checkpoint.
function ForCausalLM.new(c)
    local self = nn.Module.init(ForCausalLM)
    self.config = c
    self:add("model", Body.new(c))
    self:add("lm_head", nn.Linear.new(c:integer("hidden_size"), c:integer("vocab_size")))
    self.tied = c.tie_word_embeddings and { ["lm_head.weight"] = "model.embed_tokens.weight" } or {}
    return self
end

-- From here on config.json may name it.
am.models.register("ParallelForCausalLM", { new = ForCausalLM.new })

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
