-- The model's side of a checkpoint: weights or adapter, optimizer state, tokenizer, and what a resumed run
-- must share with the one that saved. Methods of the recipes for language models (llm.lua); folders and
-- publishing are checkpoints.lua's and am.checkpoint's.

local am = require("am")
local checkpoint = require("am.checkpoint")
local consolidation = require("am.recipes.consolidation")
local err = require("am.core.error")
local json = require("am.utils.json")
local path = require("am.utils.path")
local saving_model = require("am.models.saving")
local shards = require("am.checkpoint.shards")
local wholes = require("am.recipes.wholes")

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
    local out = { architecture = self.model.class_name, dtype = self.stored_dtype or self.model:dtype(),
                  peft = self.peft_config ~= nil, base_weights = self.base_weights }
    for _, key in ipairs(signature_keys) do
        out[key] = c[key]
    end
    for _, key in ipairs { "dim", "alpha", "use_rslora", "use_dora" } do -- what an adapter's numbers mean
        out["peft." .. key] = self.peft_config and self.peft_config[key]
    end
    return out
end

-- ---- what is trained, and where it is ------------------------------------------------------

-- What a file of one writer alone is called, where that is no shard's name.
local ALONE = { optimizer = "optimizer.safetensors", averages = "averages.safetensors" }

-- use(list) with the optimizer's tensors: { name in files, tensor, parameter, state }.
local function with_optimizer_tensors(optimizer, use)
    local list = {}
    for name, what, t in optimizer:state_tensors() do
        list[#list + 1] = { "state." .. name .. "." .. what, t, name, what }
    end
    use(list)
    for _, item in ipairs(list) do
        item[2]:release() -- a view; the optimizer's own stays
    end
end

-- The model's tensors, as this rank has them: { name, tensor, name }.
local function model_tensors(self)
    local list = {}
    for name, t in (self.layout or self.model):named_parameters() do
        list[#list + 1] = { name, t, name }
    end
    return list
end

-- use(saving) with the save that is under way, or one of its own, which has ended when this returns.
local function with_saving(self, dir, use)
    local saving = self.saving or checkpoint.saving.new(dir, self:writers())
    use(saving)
    if not self.saving then
        saving:wait()
    end
end

--- Write tensors into a folder, each rank its rows: list as am.checkpoint.shards.items has it. stem: "model",
--- "optimizer" or "averages". also: see am.checkpoint.shards.write.
function Methods:write_tensors(dir, stem, list, also)
    local own = {}
    for _, one in ipairs(list) do
        local elsewhere = self.mesh:rank("pp") > 0 and (self.layout:get(one[3]).stages or 1) > 1
        own[#own + 1] = not elsewhere and one or nil -- what two stages have is the first one's
    end
    with_saving(self, dir, function(saving)
        local file = path.join(dir, shards.file_name(stem, saving.writers, ALONE[stem]))
        shards.write(saving, file, shards.items(own, self.layout, saving.writers), also)
    end)
end

--- Read what write_tensors wrote, on any number of ranks and by any layout.
function Methods:read_tensors(dir, stem, list)
    local files = shards.find(dir, stem, ALONE[stem])
    if #files == 0 then
        err.raise("format", "the checkpoint lacks %s", path.join(dir, ALONE[stem] or "shard-*-" .. stem .. "-*"))
    end
    shards.read(files, list, self.layout, { some = self.mesh and self.mesh:size("pp") > 1 })
end

-- ---- saving ---------------------------------------------------------------------------------

--- Does a checkpoint hold the model as others read it? An adapter always, whole weights as
--- checkpoint.save_consolidated says.
function Methods:exports(is_last)
    local when = self:checkpoint_setting("save_consolidated")
    return self.peft_config ~= nil or when == true or when == "every" or (when == "final" and is_last)
end

-- What a directory of the whole model holds: its plan, which all ranks make alike.
local function plan_of(self, items)
    local own, infos = {}, {}
    for _, item in ipairs(items) do
        own[item.name] = { dtype = item.dtype, shape = json.array { unpack(item.shape) } }
    end
    if self.mesh:size("pp") == 1 then
        infos = own
    else -- a stage knows of its own
        local texts = self.world:gather(self.mesh:rank("stage") == 0 and json.encode(own) or "{}")
        for _, text in ipairs(texts) do
            for name, info in pairs(assert(json.decode(text))) do
                infos[name] = { dtype = info.dtype, shape = { unpack(info.shape) } }
            end
        end
    end
    return saving_model.plan(self.model, infos, { numbered = true })
end

-- Begin a Hugging Face directory that all ranks write. Returns a function that takes rows, and one that ends it.
local function begin_directory(self, saving, dir, plan)
    local is_main = self.world:is_main()
    local out
    if is_main then
        path.mkdir_p(dir, true)
        out = plan:open(dir, saving, true)
    end
    self.world:barrier()
    out = out or plan:open(dir, saving, false)
    return function(item, first, rows) out.put(item.name, first, rows) end, function()
        for _, file in ipairs(out.files) do
            saving:close_file(file)
        end
        if is_main then
            plan:write_rest(dir)
            self:write_beside_weights(dir)
        end
        self.world:barrier()
    end
end

--- Write what a Hugging Face directory has beside its weights: configuration and tokenizer.
function Methods:write_beside_weights(dir)
    path.mkdir_p(dir, true)
    saving_model.write_config(self.model, dir, self.stored_dtype or self.model:dtype())
    self:save_tokenizer(dir)
end

-- An adapter: its tensors are small, so the first rank gets all of them.
local function export_adapter(self, dir)
    wholes.with(self, function()
        if self.world:is_main() then
            path.mkdir_p(dir, true)
            am.peft.save_adapter(self.model, dir, self.peft_config)
            self:save_tokenizer(dir)
        end
    end)
end

--- Write the model as others read it: an adapter, or a Hugging Face directory, with the tokenizer. All ranks call this.
function Methods:export_model(dir)
    if self.peft_config then
        export_adapter(self, dir)
    else
        with_saving(self, dir, function(saving)
            local items = shards.items(model_tensors(self), self.layout, saving.writers)
            local put, finish = begin_directory(self, saving, dir, plan_of(self, items))
            shards.write(saving, nil, items, put)
            finish()
        end)
    end
end

-- Shards of a whole model, and with `exports` the model as others read it. Beside them is what it takes to make the
-- latter of them later.
local function save_whole(self, into, exports)
    local list = model_tensors(self)
    local plan = plan_of(self, shards.items(list, self.layout, self:writers()))
    with_saving(self, into, function(saving)
        local put, finish
        if exports then
            put, finish = begin_directory(self, saving, path.join(into, "consolidated"), plan)
        end
        self:write_tensors(into, "model", list, put)
        if finish then
            finish()
        end
    end)
    if self.world:is_main() then
        local beside = path.join(into, consolidation.METADATA)
        self:write_beside_weights(beside)
        consolidation.write_plan(beside, plan)
    end
end

--- Raise "unsupported" where a part of the optimizer's state can't be made whole.
function Methods:check_saving()
    with_optimizer_tensors(self.optimizer, function(list) shards.items(list, self.layout, self:writers()) end)
end

--- Write the model and the optimizer into a checkpoint's folder. All ranks call this.
function Methods:save_model(dir, is_last)
    local norm = self.optimizer:param_norm()
    if not self.is_finite(norm) then
        self:not_finite("norm of the weights", norm)
    end
    if self.peft_config then
        self:export_model(path.join(dir, "model"))
    else
        save_whole(self, path.join(dir, "model"), self:exports(is_last))
    end
    with_optimizer_tensors(self.optimizer, function(list)
        self:write_tensors(path.join(dir, "optim"), "optimizer", list)
    end)
end

function Methods:save_tokenizer(dir)
    local tokenizer = self:find_tokenizer()
    if tokenizer and tokenizer.save_pretrained then
        tokenizer:save_pretrained(dir)
    end
end

-- ---- loading --------------------------------------------------------------------------------

--- Read the weights, or the adapter, of a checkpoint.
function Methods:load_weights(dir)
    if self.peft_config then
        wholes.load(self, function() am.peft.restore_adapter(self.model, path.join(dir, "model")) end)
    else
        self:read_tensors(path.join(dir, "model"), "model", model_tensors(self))
    end
end

function Methods:load_model(dir)
    local kind = checkpoint.read_json(path.join(dir, "optim", "optimizer.json")).kind
    if type(kind) == "string" and kind ~= self.optimizer.kind then -- else the first missing tensor would be said
        err.raise("state", "checkpoint %s was made with the optimizer %s, this run's is %s: keep it, or choose another "
                  .. "checkpoint.checkpoint_dir", dir, tostring(kind), self.optimizer.kind)
    end
    self:load_weights(dir)
    with_optimizer_tensors(self.optimizer, function(list)
        self:read_tensors(path.join(dir, "optim"), "optimizer", list)
    end)
end

return Methods
