---@meta am.models
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.AutoModelForCausalLM
local am_AutoModelForCausalLM = {}

--- A model with a checkpoint's weights, in eval mode, all floating parameters requiring grad.
---@param name string a Hugging Face directory, a GGUF file, or a hub name (cached or downloaded: utils/hub.lua)
---@param opts? {torch_dtype: string?, device: string?, config_overrides: table?, revision: string?, activation_checkpointing: boolean|"selective"?, attn_implementation: string?, use_liger_kernel: boolean?, quantize: am.Quantizer?} attn_implementation, use_liger_kernel: nn/kernels.lua; quantize: what weights are packed by as they are read, one after another (am.quantization.qlora.new)
---@return am.CausalLM
function am_AutoModelForCausalLM.from_pretrained(name, opts) end

--- A model with random weights from a configuration (AutoConfig's, or a table of its fields).
---@return am.CausalLM
function am_AutoModelForCausalLM.from_config(c, opts) end

---@class am.AutoModelForSequenceClassification
local am_AutoModelForSequenceClassification = {}

--- The same with a head that classifies (sequence_classification.lua). opts.num_labels: classes, those of
--- config.json by default. The head of a checkpoint that has none begins with random numbers.
---@return am.SequenceClassifier
function am_AutoModelForSequenceClassification.from_pretrained(name, opts) end

--- A classifier with random weights.
---@return am.SequenceClassifier
function am_AutoModelForSequenceClassification.from_config(c, opts) end

---@class am.AutoConfig
local am_AutoConfig = {}

--- config.json of a directory, a hub name, or a GGUF file. opts.revision: of a hub name.
---@return am.PretrainedConfig
function am_AutoConfig.from_pretrained(name, opts) end

---@class am.models
local am_models = {}

--- A configuration with a copy of config.json's fields, given as a table or another configuration.
function am_models.PretrainedConfig(values) end

--- How many positions a model of that configuration has; dynamically scaled ones stretch to any length.
function am_models.position_limit(c) end

--- Add an architecture: what config.json's "architectures" names -> a module path, or the table
--- that such a module returns (decoder.lua says what; image_text_to_text.lua of one that has `extend`).
function am_models.register(name, implementation) end

--- The dtype that torch_dtype names; nil for auto, which is the checkpoint's.
function am_models.weight_dtype(name) end

--- Does a configuration (AutoConfig's) describe a model of images and text?
function am_models.sees_images(c) end

--- A model's modules without weights: the names and shapes of its parameters (Module:parameter_slots).
--- c, opts: as from_config's, with opts.kind: "causal" (the default), "classifier", "image_text_to_text" or "tower".
--- Raises "unsupported" for an architecture that is not there.
function am_models.structure(c, opts) end

--- Write a LoRA adapter of a model as a GGUF file for llama.cpp. adapters: am.peft.adapters(model); opts: type
--- ("f32" by default; see save_gguf), name.
function am_models.save_gguf_adapter(file, model, adapters, opts) end

--- Raise a "usage" error unless GGUF files are written with this type.
function am_models.check_gguf_type(name) end

---@class am.CausalLM: am.nn.Module
local am_CausalLM = {}

--- Run the model. args: input_ids [B, T] (tensor or nested tables), attention_mask, position_ids, longest (the highest
--- of these, plus 1, for a caller who knows it: else they are read, for which a device is waited for),
--- labels (unshifted, -100 ignored), bounds (int32 [B, T, 2]: key ranges, instead of a mask),
--- samples (how many samples bounds are of, where rows are samples one behind the other),
--- cache (nn.cache), logits_to_keep (0: all; k: the last k positions only), output_hidden_states,
--- output_router_logits (that of the configuration), part (the rows are parts of longer ones, of which others have the
--- rest; with position_ids and bounds, whose ranges are of the whole rows' keys):
---   attend(q, k, v, bounds, opts)  in place of ops.attention
---   sum(t)                         t added up over all parts, with its gradient
---   longest                        the highest position of the whole rows, plus 1
--- Returns {logits=, loss=, hidden_states=, router_logits=, aux_loss=}; hidden_states are those after the last norm,
--- and with logits_to_keep = false there are no logits at all. Router logits are a list by layer, [B T, E]; with
--- them the loss has router_aux_loss_coef times aux_loss in it, which balances experts (nn/moe.lua).
function am_CausalLM:forward(args) end

--- The loss that balances experts over the tokens that are no padding (by key ranges), of a list of router logits.
--- sum: adds up what the tokens of other parts have, see forward.
function am_CausalLM:balancing_loss(router_logits, bounds, sum) end

--- The module that maps states to logits, without what follows it.
function am_CausalLM:get_output_embeddings() end

--- The body that has the decoder's layers.
function am_CausalLM:get_decoder() end

--- The module that looks tokens up.
function am_CausalLM:get_input_embeddings() end

--- hidden [..., C] -> logits [..., V], scaled and soft-capped as the family does.
function am_CausalLM:head(hidden) end

--- What a loss needs to know of the head (am.loss): head, logits before the cap; head_weight (the matrix [V, C],
--- for losses that never store logits; nil when the head is more than that: a bias, an adapter); head_input, what is
--- done to states before, if anything; fp8: `head` multiplies in 8 bits, with scales of all rows that it is given at
--- once; logit_scale, softcap, vocab_size.
function am_CausalLM:head_context() end

--- See Body:rotary_stage (decoder.lua); nil for a body that has none.
function am_CausalLM:rotary_stage(longest) end

--- The name of the device that the embeddings are on.
function am_CausalLM:device() end

--- The name of the embeddings' dtype.
function am_CausalLM:dtype() end

--- How many numbers the parameters have, and how many of them require grad.
function am_CausalLM:num_parameters() end

--- New token ids after `ids` (a Lua array): see generation.lua for opts.
---@return integer[]
function am_CausalLM:generate(ids, opts) end

--- Write config.json and safetensors (with an index when in several files) as transformers reads.
function am_CausalLM:save_pretrained(dir, opts) end

--- Write one GGUF file that llama.cpp reads. opts: type ("f16"; f32, bf16, q8_0, q4_0, q4_k: of matrices), name
--- (general.name), tokenizer (what Tokenizer:gguf_metadata returns; without one llama.cpp has no text).
function am_CausalLM:save_gguf(file, opts) end

--- Free all parameters now.
function am_CausalLM:close() end

---@class am.SequenceClassifier: am.CausalLM
local am_SequenceClassifier = {}

--- Run the model. args: those of a causal model (input_ids [B, T], attention_mask, position_ids, longest, bounds,
--- samples) and labels (B classes). Returns { logits = [B, num_labels], loss = mean cross-entropy }.
function am_SequenceClassifier:forward(args) end

--- The module that maps states to the classes' logits.
function am_SequenceClassifier:get_output_embeddings() end

--- Raises "usage": a classifier does not generate.
function am_SequenceClassifier:generate() end

---@class am.PretrainedConfig
local am_PretrainedConfig = {}

--- Give the configuration its family's defaults and names of fields, {defaults =, attribute_map =}, as
--- transformers' configuration class has them; padding = false where pad_token_id names no row of the embeddings.
function am_PretrainedConfig:bind(family) end

--- A part of a configuration, the object `key` in it, as a configuration with its family's defaults; values: in place
--- of that object. What messages call it names file and part.
function am_PretrainedConfig:part(key, family, values) end

--- The part that is about text (see part) answers for fields that this one does not have.
function am_PretrainedConfig:answer_by(text) end

--- Put other values in place of this configuration's: objects are merged, null takes a value away. A
--- name that looks like a mistyped one is a "usage" error.
function am_PretrainedConfig:override(values) end

--- A field's name as the family's files have it.
function am_PretrainedConfig:spelling(key) end

--- A field that must be a positive integer of at most `max` (2^31); the error names the file.
function am_PretrainedConfig:integer(key, default, max) end

--- Raise a "format" error naming file and field unless the fields have the types that models read.
function am_PretrainedConfig:check() end

--- An error object about a field of this configuration.
function am_PretrainedConfig:unsupported(key, e) end

--- Fields as a plain table in the hub's spelling, for config.json.
function am_PretrainedConfig:to_table() end

--- Write config.json into a directory.
function am_PretrainedConfig:save(dir) end

return am_models
