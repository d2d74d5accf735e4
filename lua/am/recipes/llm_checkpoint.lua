-- The model's side of a checkpoint: weights or adapter, optimizer state, tokenizer, and what a resumed run
-- must share with the one that saved. Methods of the recipes for language models (llm.lua); folders and
-- publishing are checkpoints.lua's and am.checkpoint's.

local am = require("am")
local checkpoint = require("am.checkpoint")
local err = require("am.core.error")
local json = require("am.utils.json")
local path = require("am.utils.path")
local weights = require("am.models.weights")

local Methods = {}

-- What a resumed run must share with the one that saved, in config.json; families call some of it otherwise, and
-- their configuration knows.
local signature_keys = { "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                         "num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings", "rms_norm_eps",
                         "rope_theta", "rope_scaling", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon",
                         "partial_rotary_factor", "rope_local_base_freq", "sliding_window", "layer_types",
                         "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping",
                         "embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling",
                         "num_experts", "num_experts_per_tok", "moe_intermediate_size",
                         "shared_expert_intermediate_size" }

function Methods:signature()
    local c = self.model.config
    local out = { architecture = self.model.class_name, dtype = self.model:dtype(), peft = self.peft_config ~= nil,
                  base_weights = self.base_weights }
    for _, key in ipairs(signature_keys) do
        out[key] = c[key]
    end
    for _, key in ipairs { "dim", "alpha", "use_rslora", "use_dora" } do -- what an adapter's numbers mean
        out["peft." .. key] = self.peft_config and self.peft_config[key]
    end
    return out
end

-- use(file, list) with the optimizer's tensors and their names in the file.
local function with_optimizer_tensors(optimizer, dir, use)
    local list = {}
    for name, what, t in optimizer:state_tensors() do
        list[#list + 1] = { "state." .. name .. "." .. what, t }
    end
    use(path.join(dir, "optim", "optimizer.safetensors"), list)
    for _, item in ipairs(list) do
        item[2]:release() -- a view; the optimizer's own stays
    end
end

local function model_tensors(model)
    local list = {}
    for name, t in model:named_parameters() do
        list[#list + 1] = { name, t }
    end
    return list
end

local SHARD = "shard-00001-model-00001-of-00001.safetensors"

-- The shard says where its tensors begin in the whole ones: at 0 in every dimension.
local function write_shard(file, tensors)
    local offsets = {}
    for _, item in ipairs(tensors) do
        local zeros = {}
        for d = 1, item[2]:dim() do
            zeros[d] = 0
        end
        offsets[item[1]] = { saved_offsets = json.array(zeros) }
    end
    checkpoint.write_tensors(file, tensors, json.encode {
        format = "pt", DCP_VERSION = "1.0", DCP_SHARDING_INFO = json.encode(offsets, { sort_keys = true }),
    })
end

--- Does a checkpoint hold the model as others read it? An adapter always, whole weights as
--- checkpoint.save_consolidated says.
function Methods:exports(is_last)
    local when = self:checkpoint_setting("save_consolidated")
    return self.peft_config ~= nil or when == true or when == "every" or (when == "final" and is_last)
end

--- Write the model as others read it: an adapter, or a Hugging Face directory, with the tokenizer.
function Methods:export_model(dir)
    if self.peft_config then
        path.mkdir_p(dir)
        am.peft.save_adapter(self.model, dir, self.peft_config)
    else
        weights.save(self.model, dir, { numbered = true })
    end
    self:save_tokenizer(dir)
end

function Methods:save_model(dir, is_last)
    local norm = self.optimizer:param_norm()
    if not self.is_finite(norm) then
        self:not_finite("norm of the weights", norm)
    end
    local into = path.join(dir, "model")
    path.mkdir_p(into)
    if self.peft_config then
        self:export_model(into)
    else
        write_shard(path.join(into, SHARD), model_tensors(self.model))
        if self:exports(is_last) then
            self:export_model(path.join(into, "consolidated"))
        end
    end
    with_optimizer_tensors(self.optimizer, dir, checkpoint.write_tensors)
end

function Methods:save_tokenizer(dir)
    local tokenizer = self:find_tokenizer()
    if tokenizer and tokenizer.save_pretrained then
        tokenizer:save_pretrained(dir)
    end
end

--- Read the weights, or the adapter, of a checkpoint.
function Methods:load_weights(dir)
    if self.peft_config then
        am.peft.restore_adapter(self.model, path.join(dir, "model"))
    else
        checkpoint.read_tensors(path.join(dir, "model", SHARD), model_tensors(self.model))
    end
end

function Methods:load_model(dir)
    local kind = checkpoint.read_json(path.join(dir, "optim", "optimizer.json")).kind
    if type(kind) == "string" and kind ~= self.optimizer.kind then -- else the first missing tensor would be said
        err.raise("state", "checkpoint %s was made with the optimizer %s, this run's is %s: keep it, or choose another "
                  .. "checkpoint.checkpoint_dir", dir, tostring(kind), self.optimizer.kind)
    end
    self:load_weights(dir)
    with_optimizer_tensors(self.optimizer, dir, checkpoint.read_tensors)
end

return Methods
