---@meta am.peft
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.peft
local am_peft = {}

--- Iterator over (path, LinearLoRA or EmbeddingLoRA) of a model.
function am_peft.lora_modules(model) end

--- Write a model's adapter, and the modules that are trained whole, into a folder that exists. config is its
--- PeftConfig. The base's own embeddings, which PEFT writes with an adapter of them, are left out.
function am_peft.save_adapter(model, dir, config) end

--- What a model's adapters compute, for writers of other formats: an array of { name, a [r, in], b [out, r], scale,
--- embedding = true where a is [in, r] }. Raises "unsupported" for DoRA, which is more than that.
function am_peft.adapters(model) end

--- Put the adapter of a directory onto a model (freezing everything else but modules_to_save). opts: dtype of the
--- adapter (default: each weight's own), dropout, dropout_position (default: the adapter's), check, a function
--- of the PeftConfig that may refuse it while the model is as it was.
--- Returns the PeftConfig that it amounts to.
function am_peft.load_adapter(model, dir, opts) end

--- Overwrite what is trained of an adapted model with what a directory holds (resume).
function am_peft.restore_adapter(model, dir) end

--- A PeftConfig from some of the fields; the rest get their defaults.
function am_peft.PeftConfig(values) end

--- Adapt a model: by the config's patterns, or from its adapter_path. Everything else is frozen, but for what
--- modules_to_save names. Returns the config in force and the adapted paths.
function am_peft.apply(model, config) end

--- NEFTune: while the model trains, its input embeddings get uniform noise of at most noise_alpha / sqrt(T C), see
--- am.nn.embedding. 0 ends it. Adapters and merging keep it. Nothing in files tells of it.
function am_peft.neftune(model, noise_alpha) end

--- Fold every adapter into its weight; the model is a plain one afterwards. A head and an embedding that shared a
--- weight have one each when either was adapted. What was packed is unpacked, also where nothing was adapted. Returns
--- how many adapters there were.
function am_peft.merge(model) end

--- Merge, then compare the logits of a row of token ids with those before. Raises a "state" error when they are
--- further apart than rounding to the weights' dtype explains; the model is merged all the same. Returns a report:
--- modules (merged), worst (greatest difference of a logit), largest (logit), same (tokens whose likeliest next
--- token stayed), tokens, dtype.
---@param ids integer[]
function am_peft.merge_checked(model, ids) end

return am_peft
