-- Sections of a configuration that belong to no component: processes and devices, launchers, metadata, and
-- what NeMo Automodel has and amlua has not yet. Each says what a key does here, why it changes nothing, or
-- what to do instead. Holds no building: recipes put these tables into their schema.

local kubernetes = require("am.launcher.kubernetes")
local quantization = require("am.quantization")
local slurm = require("am.launcher.slurm")

local M = {}

local LAUNCHER = "the launcher says it, and dist_env"
local GPUS = "it belongs to GPUs"

--- `fields` with the keys of other tables added; a key that is there stays.
function M.with(fields, ...)
    local out = {}
    for _, set in ipairs { fields, ... } do
        for key, spec in pairs(set) do
            if out[key] == nil then
                out[key] = spec
            end
        end
    end
    return out
end

local function without_effect(why, keys)
    local fields = {}
    for key in keys:gmatch("%S+") do
        fields[key] = { type = "any", no_effect = why }
    end
    return fields
end

-- ---- every recipe ---------------------------------------------------------------------------

--- Sections that any recipe may meet. A name that begins with `_` only holds values for aliases.
function M.everywhere()
    local fields = {
        recipe = { type = "any", no_effect = "the command line names it" },
        ci = { type = "any", no_effect = "metadata of tests" },
        ["_*"] = { type = "any", no_effect = "it holds values for aliases" },
        logging = { type = "any", no_effect = "see LOGGING_LEVEL" },
        slurm = { fields = slurm.fields, doc = "submit the run as a Slurm job: docs/launching.md" },
        k8s = { fields = kubernetes.fields, doc = "write the run's Kubernetes manifest: docs/launching.md" },
    }
    for _, key in ipairs { "skypilot", "nemo_run", "kubernetes" } do
        fields[key] = { type = "any", doc = "refused where a run begins: see slurm and k8s" }
    end
    return fields
end

-- ---- processes ------------------------------------------------------------------------------

-- Of what wraps mixtures of experts: `distributed.moe`, and the older section `parallelizer`.
local function of_mixtures(fields)
    fields.reshard_after_forward = { type = "boolean", doc = "as in distributed, which counts where both have it" }
    for key, why in pairs {
        _target_ = "distributed says it", mp_policy = "distributed.mp_policy says it",
        wrap_outer_model = "what lies in no layer is gathered as one", lm_head_precision = "logits are in float32",
        ignore_router_for_ac = "a layer is computed again with its router",
    } do
        fields[key] = { type = "any", no_effect = why }
    end
    return { fields = fields, doc = "fsdp, of models with experts" }
end

--- What the sections on processes say of activation checkpointing.
function M.activation_checkpointing(cfg)
    return cfg:get("distributed.activation_checkpointing") or cfg:get("parallelizer.activation_checkpointing")
end

--- What they say of weights behind a layer's forward; nil: nothing.
function M.reshard_after_forward(cfg)
    for _, section in ipairs { "distributed", "distributed.moe", "parallelizer" } do
        local said = cfg:get(section .. ".reshard_after_forward")
        if said ~= nil then
            return said
        end
    end
end

--- Keys of `distributed.pipeline`, which was the section `autopipeline` once.
function M.pipeline()
    return M.with({
        pp_schedule = { type = "string", default = "1f1b", now = { "1f1b", "1F1B" },
                        doc = "a stage does one forward and one backward in turns",
                        not_yet = "a rank has one stage; take 1f1b, whose gradients are the same" },
        pp_microbatch_size = { type = "integer", min = 1, doc = "rows of a micro-batch, in place of "
                               .. "step_scheduler.local_batch_size, which it divides" },
        layers_per_stage = { type = "integer", min = 1, doc = "layers of each stage, the last one having what is "
                             .. "left; without it as even as can be, the first having one more" },
        scale_grads_in_schedule = { type = "boolean", now = { false },
                                    not_yet = "gradients are means over label tokens; set it to false" },
    }, without_effect("the micro-batches of a step are its rows", "pp_batch_size"),
        without_effect("a decoder is cut between its layers", [[module_fqns_per_model_part patch_inner_model
            patch_causal_lm_model]]),
        without_effect("it belongs to other schedules", [[_target_ pp_schedule_csv round_virtual_stages_to_pp_multiple
            round_to_pp_multiple patch_stage_backward_maybe_with_nosync dtype device visualize]]))
end

--- Keys of the `distributed` section, in its three spellings: by strategy, by manager, by configuration.
function M.distributed()
    local fields = M.with({},
        without_effect(LAUNCHER, "backend world_size device_mesh"),
        without_effect("ranks do so by themselves", [[enable_fsdp2_prefetch overlap_grad_reduce overlap_param_gather
            fsdp_double_buffer init_fsdp_with_meta_device init_nvfsdp_with_meta_device find_unused_parameters
            preserve_fp32_weights check_for_nan_in_grad report_nan_in_param_grad patch_is_packed_sequence]]),
        without_effect("gradients are summed in float32 and divided by the step's label tokens",
                       "grad_reduce_in_fp32 average_in_collective calculate_per_token_loss"),
        without_effect("units are the decoder's layers", "nvfsdp_unit_modules megatron_fsdp_unit_modules"),
        without_effect("the model says it", "multimodal"),
        without_effect("the numbers would be the same", [[enable_async_tensor_parallel broadcast_buffers static_graph
            gradient_as_bucket_view disable_bucketing]]),
        without_effect(GPUS, "keep_fp8_transpose_cache_when_using_custom_fsdp keep_fp8_transpose_cache nccl_ub"))
    fields.use_hf_tp_plan = { type = "any", no_effect = "all is shared that can be" }
    fields.activation_checkpointing = { type = "boolean|string", enum = { true, false, "selective" },
                                        doc = "as in the model section" }
    fields.activation_checkpointing_scope = { type = "string|list", now = { "all" },
                                              not_yet = "all layers are recomputed, or none; leave it out" }
    fields.bucket_cap_mb = { type = "number", min = 0, default = 25,
                             doc = "ddp: megabytes of gradients that are added up at once" }
    fields.mp_policy = { fields = M.with({
        param_dtype = { type = "string", doc = "fsdp: of weights that are gathered; as stored" },
        reduce_dtype = { type = "string", doc = "fsdp: of gradients that are summed; float32" },
    }, without_effect("states have the weights' dtype", "_target_ output_dtype cast_forward_inputs")),
                         doc = "fsdp: dtypes" }
    fields.autocast_dtype = { type = "any", no_effect = "model.torch_dtype says it" }
    fields.offload_policy = { type = "any", no_effect = "everything is in the host's memory" }
    fields.enable_compile = { type = "any", no_effect = "kernels are compiled" }
    fields.dp_size = { type = "integer", min = 0, doc = "ranks that share the rows; what other sizes leave" }
    fields.dp_replicate_size = { type = "integer", min = 0, default = 1,
                                 doc = "fsdp: copies of the sharded model (HSDP)" }
    fields.ep_size = { type = "integer", min = 0, default = 1, doc = "ranks that share the experts of each mixture; it "
                       .. "divides dp_shard x cp and the number of experts" }
    fields.moe = of_mixtures {}
    fields.cp_size = { type = "integer", min = 0, default = 1, doc = "ranks that share the tokens of each row" }
    fields.cp_rotate_method = { type = "string", enum = { "alltoall", "allgather" },
                                no_effect = "keys and values go round from rank to rank" }
    fields.reshard_after_forward = { type = "boolean", default = true,
                                     doc = "fsdp: let a layer's weights go behind its forward" }
    fields.defer_fsdp_grad_sync = { type = "boolean", default = false,
                                    doc = "fsdp: sum gradients with a step's last micro-batch alone" }
    fields.data_parallel_sharding_strategy = {
        type = "string", enum = { "no_shard", "optim", "optim_grads", "optim_grads_params" },
        doc = "megatron_fsdp: what each rank has a part of (optim_grads_params)" }
    fields.zero_dp_strategy = { type = "integer", min = 0, max = 3, doc = "the same as a number" }
    fields.tp_size = { type = "integer", min = 0, default = 1, doc = "ranks that share each matrix: it must divide "
                           .. "the heads of queries and of keys" }
    fields.sequence_parallel = { type = "boolean", default = false,
                                 doc = "ranks that share matrices share the tokens, too, between blocks" }
    fields.tp_plan = { type = "table", open = true,
                       doc = "which modules tp_size ranks share, and how: { pattern of a name: colwise, rowwise, … }; "
                           .. "all that can be by default" }
    fields.pp_size = { type = "integer", min = 0, default = 1, doc = "ranks that have the layers in turns" }
    fields.pipeline = { fields = M.pipeline(), doc = "how micro-batches go through the stages of pp_size" }
    return fields
end

local strategies = { type = "string", enum = { "fsdp2", "ddp", "megatron_fsdp", "nvfsdp" },
                     doc = "how processes share a run" }

local function processes()
    local distributed = M.distributed()
    return {
        distributed = { target = true, default_target = "am.distributed.FSDP2Manager",
                        fields = { strategy = strategies }, doc = "how processes share a run" },
        distributed_config = { type = "any", no_effect = "distributed says it" },
        parallelizer = of_mixtures { activation_checkpointing = distributed.activation_checkpointing },
        autopipeline = { fields = M.pipeline(), doc = "as distributed.pipeline, where there is none" },
        dist_env = { fields = {
            backend = { type = "string", doc = "mpi or gloo, instead of what fits the launcher; GPUs use nccl anyway" },
            timeout_minutes = { type = "number", min = 0, doc = "how long a rank waits for the others (10)" },
            init_process_group = { type = "any", no_effect = LAUNCHER },
        }, doc = "how processes find each other" },
    }
end

-- Numbers of few bits.
local function low_precision()
    return {
        fp8 = { switch = "enabled", switch_off = true, target = true, of = "^am%.quantization%.FP8Config$",
                default_target = "am.quantization.FP8Config", doc = "products in 8 bits: docs/low_precision.md" },
        qat = { fields = quantization.qat.fields,
                doc = "training that knows of later quantisation: docs/low_precision.md" },
        quantization = { fields = quantization.qlora.fields,
                         doc = "frozen weights in few bits: docs/low_precision.md" },
    }
end

-- ---- what is not there yet, and what belongs to GPUs ------------------------------------------

-- torch.compile's; what it means here is recorded.lua's.
local function compile()
    return { switch = "enabled", switch_off = true, doc = "CUDA graphs: docs/cuda.md", fields = M.with({
        enabled = { type = "boolean", default = false },
        mode = { type = "string", default = "default", null = true,
                 enum = { "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs" },
                 doc = "reduce-overhead, max-autotune: a GPU records forward and backward and repeats them" },
    }, without_effect("kernels are compiled already", "fullgraph dynamic backend options dynamo_cache_size_limit")) }
end

local function later()
    return {
        compile = compile(),
        moe_metrics = { switch = "enabled", switch_off = true, doc = "how experts are used",
                        not_yet = "models with experts; leave the section out" },
        embedding_row_repair = { type = "any", not_yet = "rows of the embedding that were never trained stay as "
                                 .. "they are; leave it out" },
        tool_call_eval = { type = "any", not_yet = "tool calls are not scored in validation; leave it out" },
        processor = { type = "any", no_effect = "recipes/vlm_finetune.lua reads it" },
    }
end

--- Sections of recipes that train.
function M.training()
    return M.with(processes(), low_precision(), later(),
                  without_effect(GPUS, "nvtx prewarm mfu sdpa_method longalign"), {
        benchmark = { type = "any", no_effect = "recipes/benchmark.lua reads it" },
    })
end

--- The norm that gradients are cut to by a configuration; nil: they are not.
function M.max_norm(cfg)
    return cfg:get("clip_grad_norm.max_norm", not cfg:has("clip_grad_norm.max_norm") and 1.0 or nil)
end

--- The name of the validation set that a section is, "default" for the one without a name; nil for other sections.
function M.validation_name(key)
    return key == "validation_dataset" and "default" or key:match("^validation_dataset_(.+)$")
end

--- Keys of `validation_dataloader` that have other defaults than the target's: every row is seen, in order.
M.validation_dataloader = {
    shuffle = { type = "boolean", no_effect = "rows are validated in their order" },
    drop_last = { type = "boolean", no_effect = "every row is validated" },
    group_by_length = { type = "boolean", no_effect = "rows are validated in their order" },
}

--- What `packed_sequence` may hold beside the component's own keys: those of rows with images.
M.packed_sequence = {}
for _, key in ipairs { "pack_size", "packing_ratio", "max_length", "collate_max_length", "balance_media_tokens",
                       "packing_format", "post_tokenize_hook_fn", "pretokenize", "attn_implementation" } do
    M.packed_sequence[key] = { type = "any", not_yet = "packing of rows with images; take packed_sequence_size" }
end

-- ---- single recipes -------------------------------------------------------------------------

local TEACHER = "the teacher is whole on every rank"

--- Sections of knowledge distillation that are about processes.
function M.knowledge_distillation()
    return {
        offload_teacher_model = { type = "boolean", no_effect = "everything is in the host's memory" },
        separate_meshes = { type = "boolean", no_effect = TEACHER },
        teacher_distributed = { type = "any", no_effect = TEACHER },
    }
end

return M
