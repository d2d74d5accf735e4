-- The short, hierarchical form of a configuration: `model.name`, and the sections `data`, `training` and
-- `distributed` with long names for sizes. Each of its keys stands for keys of the long form, into which it is
-- translated before anything else looks; `--print-config` shows the result. Holds no checks of values: they are
-- those of the long form, and their messages name the place and the short key.
--
-- Both forms may be mixed. Where they say different things about one key, that is an error, unless one of them
-- comes from the command line, which wins.

local err = require("am.core.error")
local nodes = require("am.config.node")
local strings = require("am.utils.strings")

local M = {}

local DATASETS = "nemo_automodel.components.datasets."

-- What `data.dataset_type` names: the target, its key for `data.path`, whether it has `data.columns`.
local kinds = {
    instruction = { target = "am.datasets.ColumnMappedTextInstructionDataset", path = "path_or_dataset_id",
                    columns = true },
    packed = { target = "am.datasets.ColumnMappedTextInstructionDataset", path = "path_or_dataset_id",
               columns = true },
    evaluation = { target = DATASETS .. "llm.hellaswag.HellaSwag", path = "path_or_dataset" },
    vlm = { target = DATASETS .. "vlm.datasets.make_cord_v2_dataset", path = "path_or_dataset" },
    mock = { target = "am.datasets.build_unpacked_dataset" },
}

local PACK = 2048 -- tokens, when `data.seq_length` says nothing

local function target_in(prefix, known)
    return function(name)
        return known[tostring(name):lower()] or prefix .. tostring(name)
    end
end

local optimizer = target_in("am.optim.", {
    adam = "torch.optim.Adam", adamw = "torch.optim.AdamW", sgd = "torch.optim.SGD", adafactor = "am.optim.Adafactor",
    lion = "am.optim.Lion", muon = "am.optim.Muon", shampoo = "am.optim.Shampoo", soap = "am.optim.SOAP",
})
local loss = target_in("am.loss.", {
    masked = "am.loss.MaskedCrossEntropy", cross_entropy = "am.loss.MaskedCrossEntropy",
    chunked = "am.loss.ChunkedCrossEntropy", fused = "am.loss.FusedLinearCrossEntropy",
})

--- The keys that stand for one other each: { short, long, value = function of the value }. Those of `data`
--- that depend on `dataset_type` are below.
M.keys = {
    { "model.name", "model.pretrained_model_name_or_path" },
    { "data.batch_size", "step_scheduler.local_batch_size" },
    { "data.shuffle", "dataloader.shuffle" },
    { "data.num_workers", "dataloader.num_workers" },
    { "data.drop_last", "dataloader.drop_last" },
    { "training.optimizer", "optimizer._target_", value = optimizer },
    { "training.learning_rate", "optimizer.lr" },
    { "training.weight_decay", "optimizer.weight_decay" },
    { "training.betas", "optimizer.betas" },
    { "training.eps", "optimizer.eps" },
    { "training.momentum", "optimizer.momentum" },
    { "training.num_epochs", "step_scheduler.num_epochs" },
    { "training.max_steps", "step_scheduler.max_steps" },
    { "training.global_batch_size", "step_scheduler.global_batch_size" },
    { "training.gradient_accumulation_steps", "step_scheduler.grad_acc_steps" },
    { "training.save_every_steps", "step_scheduler.ckpt_every_steps" },
    { "training.eval_every_steps", "step_scheduler.val_every_steps" },
    { "training.lr_schedule", "lr_scheduler.lr_decay_style" },
    { "training.warmup_steps", "lr_scheduler.lr_warmup_steps" },
    { "training.min_learning_rate", "lr_scheduler.min_lr" },
    { "training.max_grad_norm", "clip_grad_norm.max_norm" },
    { "training.loss", "loss_fn._target_", value = loss },
    { "training.precision", "model.torch_dtype" },
    { "training.activation_checkpointing", "model.activation_checkpointing" },
    { "training.output_dir", "checkpoint.checkpoint_dir" },
    { "training.resume_from", "checkpoint.restore_from" },
    { "training.seed", "seed" },
    { "distributed.data_parallel_size", "distributed.dp_size" },
    { "distributed.tensor_parallel_size", "distributed.tp_size" },
    { "distributed.context_parallel_size", "distributed.cp_size" },
    { "distributed.pipeline_parallel_size", "distributed.pp_size" },
}

--- The keys of `data` that say which rows there are.
M.data_keys = { "dataset_type", "path", "columns", "split", "seq_length", "limit", "validation_path",
                "validation_split" }

local function fail(node, fmt, ...)
    err.raise("usage", "%s: %s: %s", node:where(), node:path(), string.format(fmt, ...))
end

-- A node whose messages name the place and the key it was written as.
local function via(node, short)
    local origin = {}
    for key, value in pairs(node.origin) do
        origin[key] = value
    end
    origin.via = short
    node.origin = origin
    for _, child in pairs(node.children or {}) do
        via(child, short)
    end
    return node
end

local function from_command_line(node)
    return node.origin.line == nil and node.origin.label ~= nil
end

local function same(a, b)
    return a.kind == "leaf" and b.kind == "leaf" and a.value == b.value
end

-- Put `node`, written as `short`, at the long key, unless what is there wins.
local function place(root, long, node, short)
    local there = root:child(long)
    if there and not same(there, node) then
        if from_command_line(there) and not from_command_line(node) then
            return
        elseif from_command_line(node) == from_command_line(there) then
            err.raise("usage", "%s: %s stands for %s, which %s sets to something else: keep one of the two",
                      node:where(), short, long, there:where())
        end
    end
    via(root:set(long, node), short)
end

local function leaf_at(node, value)
    return nodes.leaf(value, node.origin)
end

local function move(root, key)
    local short, long = key[1], key[2]
    local node = root:child(short)
    if node then
        place(root, long, key.value and node.value ~= nil and leaf_at(node, key.value(node.value)) or node, short)
        root:unset(short)
    end
end

-- The kind of rows that `data` asks for; instruction when only a path is given.
local function kind_of(data)
    local node = data.children.dataset_type
    if not node then
        return data.children.path and "instruction" or nil
    end
    if not kinds[node.value] then
        local names = strings.sorted_keys(kinds)
        fail(node, "got \"%s\"%s; expected one of %s", tostring(node.value or node.kind),
             strings.did_you_mean(tostring(node.value), names), table.concat(names, ", "))
    end
    return node.value
end

-- A section `dataset` or `validation_dataset` from `data`.
local function place_dataset(root, data, section, kind, keys)
    local first = data.children.dataset_type or data.children.path or data.children[keys.path or keys.split]
    place(root, section .. "._target_", leaf_at(first, kind.target), "data.dataset_type")
    for _, key in ipairs { "path", "columns", "split", "seq_length", "limit" } do
        local short = keys[key] or key
        local node = data.children[short] or (key == "path" and data.children.path) or nil
        local long = ({ path = kind.path or false, columns = kind.columns and "column_mapping" or false,
                        limit = "limit_dataset_samples" })[key]
        if node and long == false then
            fail(node, "a data set of type %s has no %s", data:get("dataset_type"), key)
        elseif node then
            place(root, section .. "." .. (long or key), node:copy(), "data." .. short)
        end
    end
end

local function place_data(root)
    local data = root:child("data")
    if not data then
        return
    elseif data.kind ~= "map" then
        fail(data, "expected a section of keys")
    end
    local name = kind_of(data)
    local kind = name and kinds[name]
    if name == "packed" then
        local size = data.children.seq_length or leaf_at(data.children.dataset_type, PACK)
        place(root, "packed_sequence.packed_sequence_size", size:copy(),
              data.children.seq_length and "data.seq_length" or "data.dataset_type")
        data:unset("seq_length")
    end
    if kind then
        place_dataset(root, data, "dataset", kind, {})
        if data.children.validation_path or data.children.validation_split then
            place_dataset(root, data, "validation_dataset", kind,
                          { path = "validation_path", split = "validation_split", limit = "" })
        end
    end
end

-- What is left in `data` and `training` is no key of theirs.
local function refuse_rest(root)
    local known = { data = {}, training = {} }
    for _, key in ipairs(M.data_keys) do
        table.insert(known.data, key)
        if root:child("data") then
            root:unset("data." .. key)
        end
    end
    for _, key in ipairs(M.keys) do
        local section, name = key[1]:match("^(%w+)%.(.+)$")
        if known[section] then
            table.insert(known[section], name)
        end
    end
    for _, section in ipairs { "data", "training" } do
        local node = root:child(section)
        if node and node.kind == "map" and #node.order > 0 then
            local child = node.children[node.order[1]]
            local hint = strings.did_you_mean(node.order[1], known[section])
            fail(child, "unknown key of the short form%s", hint ~= "" and hint or "; known here: "
                 .. table.concat(known[section], ", "))
        elseif node and node.kind ~= "map" then
            fail(node, "expected a section of keys")
        elseif node then
            root:unset(section)
        end
    end
end

local function is_short(root)
    local model, distributed = root:child("model"), root:child("distributed")
    local any = root:child("data") or root:child("training")
        or (model and model.kind == "map" and model.children.name)
    for _, key in ipairs(M.keys) do
        any = any or (distributed and distributed.kind == "map" and key[1]:find("^distributed") and root:child(key[1]))
    end
    return any
end

--- Translate the short form's keys in a configuration, in place; without any nothing changes. Raises "usage".
function M.expand(root)
    if not is_short(root) then
        return root
    end
    local name = root:child("model.name")
    local batch, vlm = root:child("data.batch_size"), root:get("data.dataset_type") == "vlm"
    if name and not root:has("model._target_") then
        place(root, "model._target_", leaf_at(name, vlm and "nemo_automodel.NeMoAutoModelForImageTextToText"
              .. ".from_pretrained" or "am.AutoModelForCausalLM.from_pretrained"), "model.name")
    end
    place_data(root)
    for _, key in ipairs(M.keys) do
        move(root, key)
    end
    local steps = root:child("step_scheduler")
    if batch and not (steps.children.grad_acc_steps or steps.children.global_batch_size) then
        place(root, "step_scheduler.grad_acc_steps", leaf_at(batch, 1), "data.batch_size")
    end
    refuse_rest(root)
    return root
end

return M
