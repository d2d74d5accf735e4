-- What a configuration's `_target_` and `_fn` keys may name: every part that recipes compose, under
-- our own name and under NeMo Automodel's, PyTorch's and transformers' dotted names.

local config = require("am.config")
local datasets = require("am.datasets")
local err = require("am.core.error")
local evaluation = require("am.evaluation")
local kernels = require("am.nn.kernels")
local loss = require("am.loss")
local models = require("am.models")
local names_of = require("am.recipes.names")
local optim = require("am.optim")
local peft = require("am.peft")
local quantization = require("am.quantization")
local schedule = require("am.optim.scheduler")
local sections = require("am.recipes.sections")
local tensor = require("am.core.tensor")
local training = require("am.training")

local M = {}

-- "a.b.{x,y}.c" for the eras in which a part had several homes.
local function names(list)
    local out = {}
    for _, name in ipairs(list) do
        local head, choices, tail = name:match("^(.-){(.-)}(.*)$")
        if head then
            for choice in (choices .. ","):gmatch("([^,]*),") do
                out[#out + 1] = head .. choice .. tail
            end
        else
            out[#out + 1] = name
        end
    end
    return out
end

local NO_MTP = "the model predicts one token at a time; set it to 0 or leave it out"

local model_fields = {
    torch_dtype = { type = "string", default = "auto", doc = "dtype of the weights; auto: the checkpoint's" },
    dtype = { type = "string", doc = "newer spelling of torch_dtype" },
    attn_implementation = { type = "string", doc = "eager stores the scores, for checking; flash_attention_2, sdpa and "
                                .. "the others are one op that does not, which flash_attention_2 lets cuDNN compute" },
    use_liger_kernel = { type = "boolean", default = true, doc = "false: norms and gated activations of elementwise "
                             .. "ops, for checking" },
    use_sdpa_patching = { type = "boolean", no_effect = "attention has one kernel" },
    sdpa_method = { type = "any", no_effect = "attention has one kernel" },
    has_packed_sequence = { type = "boolean", no_effect = "attention knows the samples of a row" },
    trust_remote_code = { type = "boolean", no_effect = "no code is ever loaded from a checkpoint" },
    output_hidden_states = { type = "boolean", no_effect = "losses get them anyway" },
    use_cache = { type = "boolean", no_effect = "training keeps no cache, generation always does" },
    cache_dir = { type = "string", no_effect = "see HF_HUB_CACHE" },
    is_meta_device = { type = "boolean", no_effect = "weights are mapped from their files" },
    force_hf = { type = "boolean", no_effect = "there is one implementation" },
    low_cpu_mem_usage = { type = "boolean", no_effect = "weights are mapped from their files" },
    load_base_model = { type = "boolean", now = { false }, not_yet = "take from_pretrained for a checkpoint's weights",
                        doc = "load weights into a model of from_config" },
    backend = { type = "table", open = true, no_effect = "kernels are chosen by themselves",
                fields = { te_fp8 = { type = "any", not_yet = "Transformer Engine's products in fp8; take the "
                                          .. "section fp8" } } },
    fp8_config = { target = true, switch = "enabled", switch_off = true, of = "^am%.quantization%.FP8Config$",
                   default_target = "am.quantization.FP8Config", doc = "as the section fp8, which counts where both "
                       .. "are there; recipes read it" },
    quantization_config = { type = "any", doc = "a section with _target_ transformers.BitsAndBytesConfig, or its "
                                .. "arguments: frozen weights in few bits, as the section quantization" },
    num_nextn_predict_layers = { type = "integer", min = 0, now = { 0 }, not_yet = NO_MTP },
    mtp_loss_scaling_factor = { type = "number", no_effect = "there are no heads for further tokens" },
    mtp_use_repeated_layer = { type = "boolean", no_effect = "there are no heads for further tokens" },
    device = { type = "string", doc = "where the weights lie: as device, which is for all of a run" },
    activation_checkpointing = { type = "boolean|string", default = false, enum = { true, false, "selective" },
                                 doc = "recompute layers in backward; selective: their feed-forward blocks" },
    attention_dropout = { type = "number", min = 0, below = 1, doc = "overrides config.json" },
    text_config = { type = "table", open = true, doc = "the language model's values, as if they stood beside it" },
    config_overrides = { type = "table", open = true, doc = "values that replace those of config.json" },
}

-- Fields of config.json that may also stand in the model section itself, as keyword arguments do in Python.
local direct_overrides = {}
for name in ([[hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim
    vocab_size max_position_embeddings rope_theta rope_scaling rms_norm_eps tie_word_embeddings initializer_range
    hidden_act sliding_window use_sliding_window bos_token_id eos_token_id pad_token_id attention_bias mlp_bias
    partial_rotary_factor rope_local_base_freq original_max_position_embeddings layer_types max_window_layers
    hidden_activation layer_norm_eps attn_logit_softcapping final_logit_softcapping query_pre_attn_scalar
    num_experts num_local_experts num_experts_per_tok moe_intermediate_size norm_topk_prob output_router_logits
    router_aux_loss_coef embedding_multiplier residual_multiplier attention_multiplier logits_scaling n_embd n_layer
    n_head n_inner n_positions layer_norm_epsilon activation_function resid_pdrop embd_pdrop attn_pdrop hidden_dropout
    embedding_dropout residual_dropout kda_mode]]):gmatch("%S+") do
    direct_overrides[#direct_overrides + 1] = name
    model_fields[name] = { type = "any", doc = "overrides config.json" }
end

local with = sections.with

-- A mistake in these is one of the configuration, whatever the engine calls it.
local function check_model_section(args, device)
    for _, check in ipairs { { models.weight_dtype, args.torch_dtype }, { tensor.device_id, device },
                             { kernels.check_attention, args.attn_implementation } } do
        local found, e = pcall(check[1], check[2])
        if not found then
            err.raise("usage", "%s", tostring(e))
        end
    end
end

-- The arguments of a model section as from_pretrained's options.
local function model_options(args, ctx)
    args.torch_dtype = args.dtype or args.torch_dtype
    check_model_section(args, args.device or ctx.device)
    local overrides = with(args.config_overrides or {}, args.text_config or {})
    for _, list in ipairs { direct_overrides, { "attention_dropout" } } do
        for _, key in ipairs(list) do
            if args[key] ~= nil then
                overrides[key] = args[key]
            end
        end
    end
    local few, qlora = args.quantization_config, quantization.qlora
    return { torch_dtype = args.torch_dtype, device = args.device or ctx.device,
             quantize = few and qlora.new(with(few, qlora.transformers_defaults)) or ctx.quantize,
             activation_checkpointing = args.activation_checkpointing, config_overrides = overrides,
             attn_implementation = args.attn_implementation, use_liger_kernel = args.use_liger_kernel }
end

-- Its homes, from the oldest to the newest and back again.
local auto_model = "nemo_automodel{,._transformers,._transformers.auto_model,.components._transformers,"
    .. ".components._transformers.auto_model}.NeMoAutoModelForCausalLM"

-- Fields of config.json from several tables; earlier ones win. A configuration's own notes begin with _.
local function config_values(...)
    local out = with(...)
    for key in pairs(out) do
        if key:sub(1, 1) == "_" then
            out[key] = nil
        end
    end
    return out
end

local function pretrained_options(args, ctx)
    args.config_overrides = config_values(args.config_overrides or {}, args.config or {})
    local options = model_options(args, ctx)
    options.revision = args.revision
    return options
end

-- `options` beside `build`: what skeleton.lua needs to know of a model that is not loaded.
local function define_models(registry)
    registry:define {
        name = "am.AutoModelForCausalLM.from_pretrained",
        aliases = names { auto_model .. ".from_pretrained", "transformers.AutoModelForCausalLM.from_pretrained" },
        doc = "a causal language model with a checkpoint's weights",
        fields = with(model_fields, {
            pretrained_model_name_or_path = { type = "string", required = true,
                                              doc = "directory, GGUF file, or hub name" },
            revision = { type = "string", doc = "branch, tag or commit on the hub" },
            config = { type = "any", doc = "a section with _target_, or values that replace those of config.json" },
        }),
        options = pretrained_options,
        build = function(args, ctx)
            return models.AutoModelForCausalLM.from_pretrained(args.pretrained_model_name_or_path,
                                                               pretrained_options(args, ctx))
        end,
    }
    registry:define {
        name = "am.AutoConfig.from_pretrained",
        aliases = { "transformers.AutoConfig.from_pretrained" },
        doc = "a model's configuration",
        fields = {
            pretrained_model_name_or_path = { type = "string", required = true, doc = "as for the model" },
            trust_remote_code = model_fields.trust_remote_code, attn_implementation = model_fields.attn_implementation,
            num_nextn_predict_layers = model_fields.num_nextn_predict_layers, name_or_path = "string",
        },
        open = true, -- to the fields of config.json
        build = function(args)
            local overrides = {}
            for key, value in pairs(args) do
                if key ~= "pretrained_model_name_or_path" and key ~= "name_or_path" and key ~= "attn_implementation"
                    and not (model_fields[key] and model_fields[key].no_effect) then
                    overrides[key] = value
                end
            end
            return models.AutoConfig.from_pretrained(args.pretrained_model_name_or_path):override(overrides)
        end,
    }
    registry:define {
        name = "am.AutoModelForCausalLM.from_config",
        aliases = names { auto_model .. ".from_config", "transformers.AutoModelForCausalLM.from_config" },
        doc = "a causal language model with random weights",
        fields = with(model_fields, {
            config = { type = "any", required = true, doc = "a section with _target_, or config.json's fields" },
        }),
        options = model_options,
        build = function(args, ctx)
            local c = args.config
            if type(c) == "string" then
                c = models.AutoConfig.from_pretrained(c)
            end
            return models.AutoModelForCausalLM.from_config(c, model_options(args, ctx))
        end,
    }
end

local auto_classifier = auto_model:gsub("ForCausalLM", "ForSequenceClassification")

local classifier_fields = with(model_fields, {
    num_labels = { type = "integer", min = 2, doc = "classes; those of config.json by default" },
    revision = { type = "string", doc = "branch, tag or commit on the hub" },
})

local function classifier_options(args, ctx)
    local options = pretrained_options(args, ctx)
    options.num_labels, options.kind = args.num_labels, "classifier"
    return options
end

local function define_classifiers(registry)
    registry:define {
        name = "am.AutoModelForSequenceClassification.from_pretrained",
        aliases = names { auto_classifier .. ".from_pretrained",
                          "transformers.AutoModelForSequenceClassification.from_pretrained" },
        doc = "a classifier of sequences on the body of a checkpoint's model",
        fields = with(classifier_fields, {
            pretrained_model_name_or_path = { type = "string", required = true, doc = "directory or hub name" },
        }),
        options = classifier_options,
        build = function(args, ctx)
            return models.AutoModelForSequenceClassification.from_pretrained(args.pretrained_model_name_or_path,
                                                                             classifier_options(args, ctx))
        end,
    }
    registry:define {
        name = "am.AutoModelForSequenceClassification.from_config",
        aliases = names { auto_classifier .. ".from_config",
                          "transformers.AutoModelForSequenceClassification.from_config" },
        doc = "a classifier of sequences with random weights",
        fields = with(classifier_fields, {
            config = { type = "any", required = true, doc = "a section with _target_, or config.json's fields" },
        }),
        options = classifier_options,
        build = function(args, ctx)
            return models.AutoModelForSequenceClassification.from_config(args.config, classifier_options(args, ctx))
        end,
    }
end

local auto_vlm = auto_model:gsub("ForCausalLM", "ForImageTextToText")

-- Other parts than the language model have sections of their own in config.json, and so in the model section.
local vlm_fields = with({
    text_config = { type = "table", open = true, doc = "values that replace those of config.json's text_config" },
    vision_config = { type = "table", open = true, doc = "values that replace those of config.json's vision_config" },
}, model_fields)
for _, key in ipairs(direct_overrides) do
    vlm_fields[key] = nil
end

-- What a processor's files say, and what may be said in their place.
local processor_fields = {
    pretrained_model_name_or_path = { type = "string", required = true, doc = "directory or hub name; the model's" },
    revision = { type = "string", doc = "branch, tag or commit on the hub" },
    backend = { type = "string", enum = { "torchvision", "pil" },
                doc = "whose pixels: transformers' processors have two ways to resize (torchvision)" },
    alpha = { type = "string", enum = { "white", "drop" },
              doc = "transparent pictures lie on white (the default), or lose their alpha" },
    use_fast = { type = "boolean", doc = "an older spelling: false is backend pil" },
    trust_remote_code = model_fields.trust_remote_code,
    padding_side = { type = "string", no_effect = "rows are padded on the right" },
    video_processor = { type = "any", no_effect = "videos are not read" },
}
for name in ([[min_pixels max_pixels size crop_size resample do_resize do_center_crop do_rescale rescale_factor
    do_normalize image_mean image_std do_convert_rgb do_pad do_pan_and_scan pan_and_scan_min_crop_size
    pan_and_scan_max_num_crops pan_and_scan_min_ratio_to_activate do_image_splitting max_image_size patch_size
    temporal_patch_size merge_size image_seq_len image_seq_length chat_template]]):gmatch("%S+") do
    processor_fields[name] = { type = "any", doc = "overrides the processor's files" }
end

local function vlm_options(args, ctx)
    local parts = { text_config = args.text_config, vision_config = args.vision_config }
    args.text_config = nil
    local options = pretrained_options(args, ctx)
    options.config_overrides, options.kind = with(parts, options.config_overrides), "image_text_to_text"
    return options
end

local function define_vlms(registry)
    registry:define {
        name = "am.AutoModelForImageTextToText.from_pretrained",
        aliases = names { auto_vlm .. ".from_pretrained", "transformers.AutoModelForImageTextToText.from_pretrained" },
        doc = "a model that reads images and text, with a checkpoint's weights",
        fields = with({
            pretrained_model_name_or_path = { type = "string", required = true, doc = "directory or hub name" },
            revision = { type = "string", doc = "branch, tag or commit on the hub" },
            config = { type = "any", doc = "values that replace those of config.json" },
        }, vlm_fields),
        options = vlm_options,
        build = function(args, ctx)
            return models.AutoModelForImageTextToText.from_pretrained(args.pretrained_model_name_or_path,
                                                                      vlm_options(args, ctx))
        end,
    }
    registry:define {
        name = "am.AutoModelForImageTextToText.from_config",
        aliases = names { auto_vlm .. ".from_config", "transformers.AutoModelForImageTextToText.from_config" },
        doc = "a model that reads images and text, with random weights",
        fields = with({
            config = { type = "any", required = true, doc = "a section with _target_, or config.json's fields" },
        }, vlm_fields),
        options = vlm_options,
        build = function(args, ctx)
            local c = args.config
            args.config = nil
            return models.AutoModelForImageTextToText.from_config(type(c) == "string"
                                                                  and models.AutoConfig.from_pretrained(c) or c,
                                                                  vlm_options(args, ctx))
        end,
    }
    registry:define {
        name = "am.AutoProcessor.from_pretrained",
        aliases = { "transformers.AutoProcessor.from_pretrained" },
        doc = "what makes pixel values and token ids of images and text",
        fields = processor_fields,
        build = function(args)
            local options = {}
            for key, value in pairs(args) do
                if key ~= "pretrained_model_name_or_path" and not processor_fields[key].no_effect then
                    options[key] = value
                end
            end
            return require("am").AutoProcessor.from_pretrained(args.pretrained_model_name_or_path, options)
        end,
    }
end

local function define_rest(registry)
    local fields, qlora = {}, quantization.qlora
    for key, spec in pairs(qlora.fields) do
        fields[key] = key ~= "_target_" and with({ default = qlora.transformers_defaults[key] }, spec) or nil
    end
    registry:define {
        name = "am.BitsAndBytesConfig", aliases = { "transformers.BitsAndBytesConfig" },
        doc = "frozen weights in few bits, for model.quantization_config",
        fields = fields,
        build = function(args) return args end,
    }
    registry:define {
        name = "am.PeftConfig",
        aliases = names { "nemo_automodel.components._peft.lora.PeftConfig", "nemo_automodel.PeftConfig" },
        doc = "LoRA",
        fields = peft.fields,
        build = function(args) return peft.PeftConfig(args) end,
    }
    registry:define {
        name = "am.AutoTokenizer.from_pretrained",
        aliases = names { "transformers.AutoTokenizer.from_pretrained",
                          "nemo_automodel{,._transformers,._transformers.auto_tokenizer}.NeMoAutoTokenizer"
                              .. ".from_pretrained" },
        doc = "a tokenizer",
        fields = {
            pretrained_model_name_or_path = { type = "string", required = true, doc = "as for the model" },
            trust_remote_code = model_fields.trust_remote_code,
            use_fast = { type = "boolean", no_effect = "there is one implementation" },
            padding_side = { type = "string", no_effect = "rows are padded on the right" },
            truncation_side = { type = "string", enum = { "right", "left" }, now = { "right" },
                                not_yet = "rows are cut on the right" },
            add_bos_token = { type = "boolean", now = { false }, not_yet = "the tokenizer's own files say it" },
            add_eos_token = { type = "boolean", now = { false }, not_yet = "take dataset.add_eos" },
        },
        build = function(args)
            return require("am").AutoTokenizer.from_pretrained(args.pretrained_model_name_or_path)
        end,
    }
    registry:define {
        name = "am.optim.OptimizerParamScheduler",
        aliases = { "nemo_automodel.components.optim.scheduler.OptimizerParamScheduler" },
        doc = "learning rate and weight decay over the run",
        fields = schedule.fields,
        build = function(args) return args end,
    }
    for name, aliases in pairs {
        FSDP2Manager = { "fsdp2.FSDP2Manager" }, DDPManager = { "ddp.DDPManager" },
        MegatronFSDPManager = { "megatron_fsdp.MegatronFSDPManager", "nvfsdp.NVFSDPManager" },
    } do
        for i, alias in ipairs(aliases) do
            aliases[i] = "nemo_automodel.components.distributed." .. alias
        end
        registry:define { name = "am.distributed." .. name, aliases = aliases, fields = sections.distributed(),
                          doc = "how ranks share a run; one needs none",
                          build = function(args) return args end }
    end
end

--- A registry of all of them.
function M.registry()
    local registry = config.new_registry()
    define_models(registry)
    define_classifiers(registry)
    define_vlms(registry)
    define_rest(registry)
    registry:define_all(datasets.targets)
    registry:define_all(training.targets)
    registry:define_all(optim.targets)
    registry:define_all(loss.targets)
    registry:define_all(quantization.fp8.targets)
    registry:define_all(quantization.qat.targets)
    registry:define_all(evaluation.targets)
    return names_of.complete(registry)
end

return M
