-- What a configuration's `_target_` and `_fn` keys may name: every part that recipes compose, under
-- our own name and under NeMo Automodel's, PyTorch's and transformers' dotted names.

local config = require("am.config")
local datasets = require("am.datasets")
local err = require("am.core.error")
local evaluation = require("am.evaluation")
local loss = require("am.loss")
local models = require("am.models")
local optim = require("am.optim")
local peft = require("am.peft")
local schedule = require("am.optim.scheduler")
local tensor = require("am.core.tensor")
local training = require("am.training")

local M = {}

-- "a.b.{x,y}.c" for the eras in which a part had several homes.
local function names(list)
    local out = {}
    for _, name in ipairs(list) do
        local head, choices, tail = name:match("^(.-){(.-)}(.*)$")
        if head then
            for choice in choices:gmatch("[^,]+") do
                out[#out + 1] = head .. choice .. tail
            end
        else
            out[#out + 1] = name
        end
    end
    return out
end

local model_fields = {
    torch_dtype = { type = "string", default = "auto", doc = "dtype of the weights; auto: the checkpoint's" },
    attn_implementation = { type = "string", no_effect = "attention never stores its scores" },
    use_liger_kernel = { type = "boolean", no_effect = "kernels are fused anyway" },
    use_sdpa_patching = { type = "boolean", no_effect = "attention has one kernel" },
    sdpa_method = { type = "any", no_effect = "attention has one kernel" },
    trust_remote_code = { type = "boolean", no_effect = "no code is ever loaded from a checkpoint" },
    output_hidden_states = { type = "boolean", no_effect = "losses get them anyway" },
    cache_dir = { type = "string", no_effect = "see HF_HUB_CACHE" },
    is_meta_device = { type = "boolean", no_effect = "weights are mapped from their files" },
    force_hf = { type = "boolean", no_effect = "there is one implementation" },
    device = { type = "string", doc = "cpu, or a test device" },
    activation_checkpointing = { type = "boolean|string", default = false, enum = { true, false, "selective" },
                                 doc = "recompute layers in backward; selective: their feed-forward blocks" },
    attention_dropout = { type = "number", min = 0, below = 1, doc = "overrides config.json" },
    config_overrides = { type = "table", open = true, doc = "values that replace those of config.json" },
}

local function with(fields, extra)
    local out = {}
    for _, set in ipairs { fields, extra } do
        for k, v in pairs(set) do
            out[k] = v
        end
    end
    return out
end

-- A mistake in these two is one of the configuration, whatever the engine calls it.
local function check_model_section(args, device)
    for _, check in ipairs { { models.weight_dtype, args.torch_dtype }, { tensor.device_id, device } } do
        local found, e = pcall(check[1], check[2])
        if not found then
            err.raise("usage", "%s", tostring(e))
        end
    end
end

-- The arguments of a model section as from_pretrained's options.
local function model_options(args, ctx)
    check_model_section(args, args.device or ctx.device)
    local overrides = args.config_overrides or {}
    if args.attention_dropout then
        overrides.attention_dropout = args.attention_dropout
    end
    return { torch_dtype = args.torch_dtype, device = args.device or ctx.device,
             activation_checkpointing = args.activation_checkpointing, config_overrides = overrides }
end

local auto_model = "nemo_automodel.{NeMoAutoModelForCausalLM,components._transformers.NeMoAutoModelForCausalLM,"
    .. "components._transformers.auto_model.NeMoAutoModelForCausalLM}"

local function define_models(registry)
    registry:define {
        name = "am.AutoModelForCausalLM.from_pretrained",
        aliases = names { auto_model .. ".from_pretrained", "transformers.AutoModelForCausalLM.from_pretrained" },
        doc = "a causal language model with a checkpoint's weights",
        fields = with(model_fields, {
            pretrained_model_name_or_path = { type = "string", required = true,
                                              doc = "directory, GGUF file, or hub name in the cache" },
        }),
        build = function(args, ctx)
            return models.AutoModelForCausalLM.from_pretrained(args.pretrained_model_name_or_path,
                                                               model_options(args, ctx))
        end,
    }
    registry:define {
        name = "am.AutoConfig.from_pretrained",
        aliases = { "transformers.AutoConfig.from_pretrained" },
        doc = "a model's configuration",
        fields = { pretrained_model_name_or_path = { type = "string", required = true, doc = "as for the model" } },
        build = function(args)
            return models.AutoConfig.from_pretrained(args.pretrained_model_name_or_path)
        end,
    }
    registry:define {
        name = "am.AutoModelForCausalLM.from_config",
        aliases = names { auto_model .. ".from_config", "transformers.AutoModelForCausalLM.from_config" },
        doc = "a causal language model with random weights",
        fields = with(model_fields, {
            config = { type = "any", required = true, doc = "a section with _target_, or config.json's fields" },
        }),
        build = function(args, ctx)
            local c = args.config
            if type(c) == "string" then
                c = models.AutoConfig.from_pretrained(c)
            end
            return models.AutoModelForCausalLM.from_config(c, model_options(args, ctx))
        end,
    }
end

local function process_fields()
    local alone = "this run has one process"
    local fields = {
        activation_checkpointing = { type = "boolean|string", enum = { true, false, "selective" },
                                     doc = "as in the model section" },
        sequence_parallel = { type = "boolean", no_effect = alone },
        backend = { type = "string", no_effect = alone }, world_size = { type = "integer", no_effect = alone },
        mp_policy = { type = "any", no_effect = "model.torch_dtype says it" },
        offload_policy = { type = "any", no_effect = "everything is in the host's memory" },
    }
    for _, key in ipairs { "dp_size", "dp_replicate_size", "tp_size", "cp_size", "pp_size", "ep_size" } do
        fields[key] = { type = "integer", min = 0, doc = "processes; 1 here" }
    end
    return fields
end

local function define_rest(registry)
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
                          "nemo_automodel.{NeMoAutoTokenizer,_transformers.auto_tokenizer.NeMoAutoTokenizer}"
                              .. ".from_pretrained" },
        doc = "a tokenizer",
        fields = { pretrained_model_name_or_path = { type = "string", required = true, doc = "as for the model" } },
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
        registry:define { name = "am.distributed." .. name, aliases = aliases, fields = process_fields(),
                          open = name == "MegatronFSDPManager", -- which has a dozen switches of its own
                          doc = "how processes share a run; one process needs none",
                          build = function(args) return args end }
    end
end

--- A registry of all of them.
function M.registry()
    local registry = config.new_registry()
    define_models(registry)
    define_rest(registry)
    registry:define_all(datasets.targets)
    registry:define_all(training.targets)
    registry:define_all(optim.targets)
    registry:define_all(loss.targets)
    registry:define_all(evaluation.targets)
    return registry
end

return M
