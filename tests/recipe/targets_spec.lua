-- Names that a configuration may use: every target's own and the original's of all eras; what is there, what is
-- named as not there yet, and which sections a recipe has.
local config = require("am.config")
local err = require("am.core.error")
local finetune = require("recipes.llm_finetune")
local names = require("am.recipes.names")
local targets = require("am.recipes.targets")

local registry = targets.registry()

describe("a target", function()
    -- our name, and each of the original's: June 2025, August 2025 to October 2025, 2026
    local eras = {
        ["am.AutoModelForCausalLM.from_pretrained"] = {
            "nemo_automodel._transformers.NeMoAutoModelForCausalLM.from_pretrained",
            "nemo_automodel._transformers.auto_model.NeMoAutoModelForCausalLM.from_pretrained",
            "nemo_automodel.components._transformers.NeMoAutoModelForCausalLM.from_pretrained",
            "nemo_automodel.components._transformers.auto_model.NeMoAutoModelForCausalLM.from_pretrained",
            "nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained",
            "transformers.AutoModelForCausalLM.from_pretrained",
        },
        ["am.AutoModelForCausalLM.from_config"] = {
            "nemo_automodel._transformers.NeMoAutoModelForCausalLM.from_config",
            "nemo_automodel.components._transformers.auto_model.NeMoAutoModelForCausalLM.from_config",
            "nemo_automodel.NeMoAutoModelForCausalLM.from_config", "transformers.AutoModelForCausalLM.from_config",
        },
        ["am.AutoConfig.from_pretrained"] = { "transformers.AutoConfig.from_pretrained" },
        ["am.AutoTokenizer.from_pretrained"] = {
            "transformers.AutoTokenizer.from_pretrained", "nemo_automodel.NeMoAutoTokenizer.from_pretrained",
            "nemo_automodel._transformers.auto_tokenizer.NeMoAutoTokenizer.from_pretrained",
        },
        ["am.AutoModelForImageTextToText.from_pretrained"] = {
            "nemo_automodel.NeMoAutoModelForImageTextToText.from_pretrained",
            "nemo_automodel._transformers.auto_model.NeMoAutoModelForImageTextToText.from_pretrained",
            "nemo_automodel.components._transformers.NeMoAutoModelForImageTextToText.from_pretrained",
            "transformers.AutoModelForImageTextToText.from_pretrained",
        },
        ["am.AutoModelForImageTextToText.from_config"] = {
            "nemo_automodel.NeMoAutoModelForImageTextToText.from_config",
            "transformers.AutoModelForImageTextToText.from_config",
        },
        ["am.AutoProcessor.from_pretrained"] = { "transformers.AutoProcessor.from_pretrained" },
        ["am.datasets.vlm.make_cord_v2_dataset"] = {
            "nemo_automodel.datasets.vlm.datasets.make_cord_v2_dataset",
            "nemo_automodel.components.datasets.vlm.datasets.make_cord_v2_dataset",
            "nemo_automodel.components.datasets.vlm.make_cord_v2_dataset",
        },
        ["am.datasets.vlm.qwen2_5_collate_fn"] = {
            "nemo_automodel.datasets.vlm.collate_fns.qwen2_5_collate_fn",
            "nemo_automodel.components.datasets.vlm.collate_fns.qwen2_5_collate_fn",
        },
        ["am.PeftConfig"] = {
            "nemo_automodel._peft.lora.apply_lora_to_linear_modules",
            "nemo_automodel.components._peft.lora.PeftConfig",
        },
        ["am.loss.MaskedCrossEntropy"] = {
            "nemo_automodel.loss.masked_ce.masked_cross_entropy",
            "nemo_automodel.components.loss.masked_ce.masked_cross_entropy",
            "nemo_automodel.components.loss.masked_ce.MaskedCrossEntropy",
            "nemo_automodel.components.loss.MaskedCrossEntropyConfig",
        },
        ["am.loss.ChunkedCrossEntropy"] = { "nemo_automodel.components.loss.chunked_ce.ChunkedCrossEntropy" },
        ["am.loss.FusedLinearCrossEntropy"] = { "nemo_automodel.components.loss.linear_ce.FusedLinearCrossEntropy" },
        ["am.optim.Adam"] = { "torch.optim.Adam", "torch.optim.adam.Adam" },
        ["am.optim.AdamW"] = { "torch.optim.AdamW", "torch.optim.adamw.AdamW" },
        ["am.optim.OptimizerParamScheduler"] = {
            "nemo_automodel.optim.scheduler.OptimizerParamScheduler",
            "nemo_automodel.components.optim.scheduler.OptimizerParamScheduler",
            "nemo_automodel.components.optim.OptimizerParamScheduler",
        },
        ["am.training.StatefulRNG"] = {
            "nemo_automodel.training.rng.StatefulRNG", "nemo_automodel.components.training.rng.StatefulRNG",
        },
        ["am.datasets.ColumnMappedTextInstructionDataset"] = {
            "nemo_automodel.components.datasets.llm.column_mapped_text_instruction_dataset"
                .. ".ColumnMappedTextInstructionDataset",
            "nemo_automodel.components.datasets.llm.ColumnMappedTextInstructionDataset",
        },
        ["am.datasets.default_collater"] = {
            "nemo_automodel.datasets.utils.default_collater",
            "nemo_automodel.components.datasets.utils.default_collater",
            "nemo_automodel.components.datasets.utils.packed_sequence_thd_collater",
        },
        ["am.datasets.StatefulDataLoader"] = {
            "torchdata.stateful_dataloader.StatefulDataLoader", "torch.utils.data.DataLoader",
        },
        ["am.distributed.FSDP2Manager"] = {
            "nemo_automodel.distributed.fsdp2.FSDP2Manager",
            "nemo_automodel.components.distributed.fsdp2.FSDP2Manager",
            "nemo_automodel.components.distributed.config.FSDP2Config",
            "nemo_automodel.components.distributed.FSDP2Config",
        },
        ["am.distributed.DDPManager"] = { "nemo_automodel.components.distributed.ddp.DDPManager" },
        ["am.distributed.MegatronFSDPManager"] = {
            "nemo_automodel.components.distributed.nvfsdp.NVFSDPManager",
            "nemo_automodel.components.distributed.megatron_fsdp.MegatronFSDPManager",
        },
    }

    it("has the names that the original gave it in every era", function()
        for own, list in pairs(eras) do
            for _, name in ipairs { own, unpack(list) } do
                assert.equal(own, (registry:lookup(name) or {}).name, name)
            end
        end
    end)

    it("of the original that has no counterpart is named as not there yet", function()
        for _, name in ipairs {
            "nemo_automodel.NeMoAutoModelForMultimodalLM.from_pretrained",
            "transformers.models.qwen3_vl.video_processing_qwen3_vl.Qwen3VLVideoProcessor.from_pretrained",
            "nemo_automodel.components.datasets.audio.datasets.make_cv17_dataset",
            "nemo_automodel.components.datasets.vlm.collate_fns.phi4_mm_collate_fn",
            "nemo_automodel.components.datasets.vlm.collate_fns.gemma4_prefix_collate_fn",
            "nemo_automodel.components.models.gpt2.build_gpt2_model", "torch.optim.RAdam",
        } do
            local cfg = config.from_table({ _target_ = name }, "here")
            local ok, e = pcall(config.instantiate, cfg, { registry = registry })
            assert.is_false(ok)
            assert.is_true(err.is(e) and e.code == "unsupported", tostring(e))
        end
    end)

    it("declares what it takes: types, and a line for every key that matters", function()
        for _, entry in ipairs(registry.entries) do
            assert.is_string(entry.doc, entry.name)
            for key, spec in pairs(entry.fields) do
                assert.is_true(type(spec) == "string" or type(spec) == "table", entry.name .. "." .. key)
            end
        end
    end)
end)

describe("a recipe", function()
    it("is found by the original's class names", function()
        assert.equal("llm_finetune", names.recipe("TrainFinetuneRecipeForNextTokenPrediction"))
        assert.equal("llm_finetune", names.recipe("nemo_automodel.recipes.llm.train_ft."
            .. "TrainFinetuneRecipeForNextTokenPrediction"))
        assert.equal("benchmark", names.recipe(config.parse("_target_: x.BenchmarkingRecipeForNextTokenPrediction")))
        assert.equal("vlm_finetune", names.recipe("nemo_automodel.recipes.vlm.finetune.FinetuneRecipeForVLM"))
        assert.equal("vlm_finetune", names.recipe("VLMFinetuneRecipe"))
        assert.is_nil(names.recipe("Other"))
        assert.is_nil(names.recipe(nil))
    end)

    local good = "model: {_target_: am.AutoModelForCausalLM.from_pretrained, pretrained_model_name_or_path: x}\n"
        .. "optimizer: {_target_: torch.optim.AdamW}\ndataset: {_target_: am.datasets.build_unpacked_dataset}\n"

    local function validate(text)
        config.validate(config.parse(good .. text, { name = "run.yaml" }), { fields = finetune.schema() },
                        { registry = registry })
    end

    -- sections of the original that say nothing here, or that one process makes true
    for _, text in ipairs {
        "recipe: TrainFinetuneRecipeForNextTokenPrediction\nci: {time: 00:15:00}\n_anchor: {a: 1}",
        "distributed: {strategy: fsdp2, dp_size: none, tp_size: 1, cp_size: 1, pp_size: 1, ep_size: 1, "
            .. "sequence_parallel: false, activation_checkpointing: true, pipeline: {pp_schedule: 1f1b}, "
            .. "moe: {wrap_outer_model: false}}",
        "distributed: {_target_: nemo_automodel.components.distributed.fsdp2.FSDP2Manager, dp_replicate_size: 1, "
            .. "mp_policy: {_target_: torch.distributed.fsdp.MixedPrecisionPolicy, param_dtype: bfloat16}}",
        "distributed: {_target_: nemo_automodel.components.distributed.nvfsdp.NVFSDPManager, "
            .. "nvfsdp_unit_modules: [a.b], overlap_grad_reduce: true}",
        "parallelizer: {_target_: nemo_automodel.components.moe.parallelizer.parallelize_model, "
            .. "activation_checkpointing: true, reshard_after_forward: false}",
        "dist_env: {backend: nccl, timeout_minutes: 1}",
        "rng: {_target_: nemo_automodel.components.training.rng.StatefulRNG, seed: 1, ranked: true}",
        "compile: {enabled: true, mode: default, fullgraph: false, dynamic: true, backend: null}",
        "fp8: {enabled: false, recipe_name: tensorwise}",
        "fp8: {enabled: true, recipe_name: rowwise_with_gw_hp, enable_fsdp_float8_all_gather: true, "
            .. "precompute_float8_dynamic_scale_for_fsdp: true, force_recompute_fp8_weight_in_bwd: true, "
            .. "filter_fqns: [lm_head], emulate: false}",
        "fp8: {_target_: nemo_automodel.components.quantization.fp8.FP8Config, recipe_name: null, emulate: true}",
        "qat: {enabled: false}",
        "qat: {enabled: true, fake_quant_after_n_steps: 1, quantizer: {_target_: "
            .. "torchao.quantization.qat.Int8DynActInt4WeightQATQuantizer, groupsize: 256}}",
        "qat: {enabled: true, qat_config: {_target_: nemo_automodel.components.quantization.qat.QATConfig, "
            .. "quantizer_type: int4_weight_only, groupsize: 128, inner_k_tiles: 4, precision: torch.bfloat16}}",
        "grad_scaler: {_target_: torch.amp.GradScaler, init_scale: 1024}",
        "quantization: {load_in_4bit: true, bnb_4bit_quant_type: nf4, bnb_4bit_quant_storage: bfloat16}",
        "slurm: {job_name: x, nodes: 2, ntasks_per_node: 8, time: 00:05:00, account: a, partition: batch, "
            .. "container_image: i, hf_home: h, extra_mounts: [/a:/b], master_port: 13742, "
            .. "gpus_per_node: 8, wandb_key: k, hf_token: t, chdir: c, job_dir: d, repo_root: r}",
        "skypilot: {cloud: kubernetes}", "nemo_run: {a: 1}", "kubernetes: {}", "logging: {level: 10}",
        "wandb: {project: p, enable: false}", "mlflow: {experiment_name: x}", "comet: {}",
        "processor: {min_pixels: 1}",
        "benchmark: {warmup_steps: 1}", "nvtx: false", "prewarm: {a: true}", "mfu: {a: 1}",
        "packed_sequence: {packed_sequence_size: 0}", "sdpa_method: [flash]",
        "peft: {moe_rank_scaling: false}",
        "checkpoint: {enabled: true, dequantize_base_checkpoint: true, is_async: true}",
    } do
        it("takes " .. text:match("^[^:{]+"), function() validate(text) end)
    end

    for text, pattern in pairs {
        ["distributed: {activation_checkpointing_scope: vision}"] = "all layers are recomputed",
        ["tool_call_eval: {a: 1}"] = "not there yet",
        ["packed_sequence: {pack_size: 4096}"] = "take packed_sequence_size",
    } do
        it("says that it has not yet " .. text, function()
            local ok, e = pcall(validate, text)
            assert.is_false(ok)
            assert.equal("unsupported", e.code)
            assert.matches(pattern, e.msg)
        end)
    end
end)
