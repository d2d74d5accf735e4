-- How much memory a step takes, by formula: what must be kept through it (weights, gradients, optimizer state
-- and the tensors that backward needs), and an estimate of the most that is there at once, which is said
-- before the first step is tried. Measures nothing: recipes/benchmark.lua compares.

local err = require("am.core.error")
local edge = require("am.core.ffi")
local optim = require("am.optim")
local Attention = require("am.nn.attention")

local M = {}

local bytes_of = { float32 = 4, float64 = 8, bfloat16 = 2, float16 = 2 }
local LOSS_CHUNK = 16 * 1024 * 1024 -- elements of a chunk of logits, see engine/ops/op_loss.c
local FP8_SUMS = 8 * 1024 * 1024 -- of a product in 8 bits, at once, see kernels/cpu/simd/fp8.c
local DISTILLED = 1024 * 1024 -- the same, see lua/am/loss/kd.lua
local PROGRAM = 27 * 1024 * 1024 -- the code and its libraries, Lua, a configuration
local TOKENIZER = 370 -- an entry of its vocabulary, with the merge that makes it; measured
local WAITING = 64 * 1024 * 1024 -- and a quarter of the peak, see engine/core/mem.c
local SLACK = 128 * 1024 * 1024              -- the program itself, tokenizer, data, work space

-- Bytes of a tensor, or of what stands for one.
local function bytes_in(t)
    return type(t) == "table" and t:nbytes() or t:numel() * bytes_of[t:dtype()]
end

-- Bytes of a number that was summed up, beside numbers of `size`.
local function wide(size)
    return size == 8 and 8 or 4
end

-- ---- weights, gradients, optimizer state ------------------------------------------------------

-- Bytes of weights (all, and those that are trained), gradients and optimizer state.
-- opts: an optimizer section, or its keys and kind; share(name, t): of a parameter, what this rank has of it (1).
local function training_state(model, opts)
    local all = { weights = 0, trained = 0, gradients = 0, optimizer = 0 }
    local largest = 0
    for name, t in model:named_parameters() do
        local share, size = opts.share and opts.share(name, t) or 1, bytes_of[t:dtype()]
        local n = t:numel() * share
        all.weights = all.weights + bytes_in(t) * share
        if t.requires_grad then
            all.trained = all.trained + n * size
            all.optimizer = all.optimizer + math.ceil(optim.state_bytes(opts, name, t:size(), size) * share)
            all.gradients, largest = all.gradients + n * wide(size), math.max(largest, n * wide(size))
        end
    end
    if opts.fuse_backward then -- those of a layer at a time, and embeddings' from the head on
        all.gradients = math.min(all.gradients, largest + all.gradients / model.config.num_hidden_layers)
    end
    return all
end

--- Bytes of a model's weights.
function M.weight_bytes(model)
    local bytes = 0
    for _, t in model:named_parameters() do
        bytes = bytes + bytes_in(t)
    end
    return bytes
end

--- Bytes that averages of the trained weights take (am.training.ema), with the copy of these weights that stands
--- by while the averages are in the model to be validated or exported.
function M.ema_bytes(model)
    local bytes = 0
    for _, t in model:named_parameters() do
        local size = bytes_of[t:dtype()]
        bytes = bytes + (t.requires_grad and t:numel() * (wide(size) + size) or 0)
    end
    return bytes
end

-- ---- activations ------------------------------------------------------------------------------

-- The i-th layer (from 0); the whole body of a model by hand that has none of that name.
local function layer_of(model, i)
    local body = model:get_decoder()
    local layers = body[model.names.layers]
    return layers and layers[tostring(i)] or body
end

-- What a rank has whole for a while where each has a part of the model (distributed/fsdp.lua): all but the layers, and
-- two of these, with the gradients of the former and of one.
local function gathered_bytes(model)
    local function both_in(module)
        local weights, gradients = 0, 0
        for _, t in module:named_parameters() do
            local n, size = t:numel(), bytes_of[t:dtype()]
            weights, gradients = weights + bytes_in(t), gradients + (t.requires_grad and n * wide(size) or 0)
        end
        return weights, gradients
    end
    local count, weights, gradients = model.config.num_hidden_layers, 0, 0
    for i = 0, count - 1 do
        local w, g = both_in(layer_of(model, i))
        weights, gradients = weights + w, gradients + g
    end
    local all_weights, all_gradients = both_in(model)
    return all_weights + all_gradients - weights - gradients + (2 * weights + gradients) / count
end

-- Of a norm over rows of `width`: its input, unless that is kept anyhow, and a number or two of each row.
local function of_norm(list, what, module, count, size, block, input)
    list[#list + 1] = input and { "input of " .. what, input * size, block } or nil
    local stats = module.class_name == "LayerNorm" and 2 or 1
    list[#list + 1] = { "statistics of " .. what, stats * count * wide(size), block }
end

-- Of attention: queries, keys and values as they are multiplied, its output, and what norms of heads, one map for all
-- three and clipping keep besides.
local function of_attention(list, module, size)
    local q, kv, block = module.heads * module.head_dim, module.kv_heads * module.head_dim, "self_attn"
    local fused = not module.q_proj
    if module.clip then
        list[#list + 1] = { "q, k and v before they are clipped", (q + 2 * kv) * size, block }
    end
    if module.rotate ~= Attention.rotate then
        list[#list + 1] = { "q before it is scaled", q * size, block }
    end
    if module.q_norm then
        of_norm(list, "q_norm", module.q_norm, module.norm_all and 1 or module.heads, size, block, q)
        of_norm(list, "k_norm", module.k_norm, module.norm_all and 1 or module.kv_heads, size, block, kv)
    elseif fused then -- values are a view of it
        list[#list + 1] = { "queries and keys before rotation", module.rotary and (q + kv) * size or 0, block }
    end
    for _, part in ipairs { { "q after rotation", q * size }, { "k after rotation", kv * size }, { "v", kv * size },
                            { "output of attention", q * size },
                            { "log of the sum of exp(scores)", module.heads * wide(size) } } do
        list[#list + 1] = { part[1], part[2], block }
    end
end

-- Of a feed-forward block: what its first maps give. The activation's output is computed again.
local function of_mlp(list, module, size)
    local first = module.gate_up_proj or module.gate_proj or module[module.up_name]
    local inner = first.out_features * ((module.gate_proj and 2) or 1)
    list[#list + 1] = { "outputs of the first maps", inner * size, "mlp" }
end

-- Of experts: rows sorted by expert, what the first maps give, the last map's output, and router's numbers.
local function of_experts(list, module, size, hidden)
    local k, inner = module.top_k, 0
    for path, child in module:named_modules() do
        local slot = child._parameters[1]
        if child.num_experts and child.in_features == hidden and not path:find("%.lora_[AB]$") then
            inner = inner + child.out_features
        elseif slot and #slot.shape == 3 and not child.in_features then -- GPT-OSS's activation: several ops
            inner = inner + 4 * slot.shape[3]
        end
    end
    for _, part in ipairs { { "rows sorted by expert", k * hidden * size },
                            { "outputs of the first maps", k * inner * size },
                            { "outputs of the experts", 2 * k * hidden * size },
                            { "the router's numbers", 2 * module.num_experts * 4 + 16 * k * 4 } } do
        list[#list + 1] = { part[1], part[2], "mlp" }
    end
end

-- Of adapters below a module: the output of A (above a product in 8 bits scaled, too), and what DoRA and dropout keep;
-- above a weight in few bits the input, where it is multiplied in another dtype.
local function of_adapters(list, layer, size, top_k, attention)
    for name, module in layer:named_modules() do
        local block = name:match("^[^.]+") == attention and "self_attn" or "mlp"
        local weight = module.in_features and not name:find("%.lora_[AB]$") and module.weight
        local its_size = weight and bytes_of[weight:dtype()] or size
        if its_size ~= size then
            list[#list + 1] = { "input of " .. name .. " in another dtype", module.in_features * its_size, block }
        end
        if module.dim and module.in_features then
            local times = module.num_experts and top_k or module.fp8 and 2 or 1
            list[#list + 1] = { "output of " .. name .. ".lora_A", times * module.dim * its_size, block }
            if module.lora_magnitude_vector then -- DoRA scales the output, by what is trained
                list[#list + 1] = { "output of " .. name .. " before its scaling", module.out_features * size, block }
                if module.dropout > 0 and module.dropout_position == "pre" then
                    list[#list + 1] = { "dropped input of " .. name, module.in_features * size, block }
                end
            end
        end
    end
end

--- The tensors of layer i (from 0) that backward needs, as an array of { what it is, bytes of a token, block },
--- block "input", "self_attn" or "mlp". Outputs of norms before a map and of activations are not among them: they are
--- computed again where backward needs them. Nor are weights, what all layers share, and eager attention's scores,
--- which grow with the square of a row's length.
function M.saved_tensors(model, i)
    local layer, size, list = layer_of(model, i), bytes_of[model:dtype()], {}
    local hidden, roles = model.config.hidden_size, layer.names or {}
    local attention_norm, mlp_norm = layer[roles.attention_norm], layer[roles.mlp_norm]
    local parallel = layer.class_name == "ParallelDecoderLayer"
    list[1] = { "input of the layer", hidden * size, "input" }
    if attention_norm then
        of_norm(list, "the norm before attention", attention_norm, 1, size, "self_attn")
    end
    if not parallel then
        list[#list + 1] = { "input of the feed-forward part", hidden * size, "self_attn" }
    end
    if mlp_norm then
        of_norm(list, "the norm before the feed-forward block", mlp_norm, 1, size, "mlp")
    end
    for _, role in ipairs { "attention_post_norm", "mlp_post_norm" } do
        if roles[role] then
            of_norm(list, "the norm behind a part", layer[roles[role]], 1, size,
                    role == "mlp_post_norm" and "mlp" or "self_attn", hidden)
        end
    end
    if layer.multiplier then
        list[#list + 1] = { "output of attention before it is multiplied", hidden * size, "self_attn" }
        list[#list + 1] = { "output of the feed-forward block before it is multiplied", hidden * size, "mlp" }
    end
    local top_k = 1
    for _, module in layer:named_modules() do
        if module.kernel == "attention" then
            of_attention(list, module, size)
        elseif module.top_k then
            top_k = module.top_k
            of_experts(list, module, size, hidden)
        elseif module.class_name == "GatedMLP" or module.class_name == "MLP" then
            of_mlp(list, module, size)
        end
    end
    of_adapters(list, layer, size, top_k, roles.attention)
    return list
end

-- Bytes of weights [in, out] (GPT-2's) below adapters, which their op turns round and keeps so until backward.
local function turned_bytes(model)
    local bytes, first = 0, model.model.activation_checkpointing == true and model.config.num_hidden_layers - 1 or 0
    for i = first, model.config.num_hidden_layers - 1 do
        for _, module in layer_of(model, i):named_modules() do
            local w = module.fan_in_fan_out and module.weight
            bytes = bytes + (w and bytes_in(w) or 0)
        end
    end
    return bytes
end

-- Bytes of a token: what all layers keep from forward to backward, and the most that one has saved while it
-- runs, which activation checkpointing makes again for a layer at a time.
local function layers_bytes(model)
    local again, kept, largest, largest_again = model.model.activation_checkpointing, 0, 0, 0
    for i = 0, model.config.num_hidden_layers - 1 do
        local stays, whole = 0, 0
        for _, saved in ipairs(M.saved_tensors(model, i)) do
            local bytes, block = saved[2], saved[3]
            whole = whole + bytes
            if not again or block == "input" or again == "selective" and block == "self_attn" then
                stays = stays + bytes
            end
        end
        kept, largest, largest_again = kept + stays, math.max(largest, whole), math.max(largest_again, whole - stays)
    end
    return kept, largest, largest_again
end

--- What a step over micro-batches of `tokens` tokens has to keep, in bytes: { weights, gradients, optimizer
--- (moments and f32 masters), activations }. Holds where gradients pass through all layers.
--- opts: an optimizer section (_target_ and its keys), or kind ("sgd", "adamw", …) and the same keys.
function M.kept(model, opts, tokens)
    local state, size = training_state(model, opts), bytes_of[model:dtype()]
    local kept, _, again = layers_bytes(model)
    local final_norm = model.config.hidden_size * size + wide(size)
    return { weights = state.weights, gradients = state.gradients, optimizer = state.optimizer,
             activations = tokens * (kept + again + final_norm) + turned_bytes(model) }
end

--- What a save beside the steps (checkpoint.is_async) copies of a model, all ranks together: its weights, unless only
--- an adapter is saved, and the optimizer's state.
function M.staged_bytes(model, opts, is_adapted)
    local state = training_state(model, opts)
    return (is_adapted and 0 or state.weights) + state.optimizer
end

-- Bytes that products in 8 bits have beside tensors on a CPU: the largest map's operands in bfloat16 and its sums.
local function fp8_scratch(model, tokens)
    local most, head = 0, model:get_output_embeddings()
    for _, module in model:named_modules() do
        local n, k = module.out_features, module.in_features
        if module.fp8 and (module ~= head or model.logits_at_once) then
            local operands = math.max((tokens + n) * k, (tokens + k) * n, (n + k) * tokens)
            most = math.max(most, 2 * operands + 4 * math.min(FP8_SUMS, tokens * math.max(n, k)))
        end
    end
    return most
end

-- Does any adapter stand above a product in 8 bits?
local function adapts_fp8(model)
    for _, module in model:named_modules() do
        if module.dim and module.fp8 then
            return true
        end
    end
    return false
end

-- Bytes of the logits that are there at once. Those of a head in 8 bits are there in the model's dtype and in float32,
-- with gradients of both where it is trained.
local function logits_bytes(model, tokens, with_gradients)
    local vocab_size, size = model.config.vocab_size, bytes_of[model:dtype()]
    if model.logits_at_once then
        local each = size + (size < 4 and 4 or 0)
        return tokens * vocab_size * (with_gradients and 2 or 1) * each
    end
    return math.min(tokens, math.max(1, math.floor(LOSS_CHUNK / vocab_size))) * vocab_size * 4
end

-- Bytes that states need in a forward pass that no gradient is asked of.
local function states_bytes(model, tokens)
    local _, layer = layers_bytes(model)
    return tokens * (1.2 * layer + 3 * model.config.hidden_size * bytes_of[model:dtype()])
end

--- Bytes of activations of a forward pass over `tokens` tokens that no gradient is asked of.
function M.forward_bytes(model, tokens)
    return states_bytes(model, tokens) + logits_bytes(model, tokens) + fp8_scratch(model, tokens)
end

--- Bytes of a tokenizer with a vocabulary of `vocab_size` entries.
function M.tokenizer_bytes(vocab_size)
    return TOKENIZER * vocab_size
end

--- Bytes that distillation takes beside the student: the teacher's weights, its forward pass over `tokens` tokens,
--- and what the loss has of a chunk of logits at once, 16 times its size as measured.
function M.teacher_bytes(teacher, tokens)
    local vocab_size = teacher.config.vocab_size
    local rows = math.min(tokens, math.max(16, math.floor(DISTILLED / vocab_size)))
    return M.weight_bytes(teacher) + states_bytes(teacher, tokens) + 16 * rows * vocab_size * 4
end

-- Bytes for a micro-batch of `tokens` tokens: what stays from forward to backward, what the layer that runs
-- needs beside it, what the loss needs, and what one layer saves.
local function activation_parts(model, tokens)
    local c, size = model.config, bytes_of[model:dtype()]
    local kept, layer = layers_bytes(model)
    -- Temporaries and gradients of the layer that runs, measured, in what a layer keeps: 1.2, and 2.8
    -- where it is computed a second time first; 0.8 more for adapters whose products and those in 8 bits are added. The
    -- loss has its own moment, before any of them.
    local times = (model.model.activation_checkpointing and 2.8 or 1.2) + (adapts_fp8(model) and 0.8 or 0)
    local working = times * layer * tokens
    local head = not model.logits_at_once and model:head_context().head_weight
    local logits = logits_bytes(model, tokens, true) + fp8_scratch(model, tokens)
        + (head and head.requires_grad and head:numel() * 4 or 0) -- the loss makes the gradient as it goes
    return tokens * (kept + 3 * c.hidden_size * size) + turned_bytes(model), working, logits, tokens * layer
end

--- What is resident at the worst moment of a run, as it is expected (not as a bound): { weights, gradients,
--- optimizer, activations, program, total }, bytes. Blocks of a layer and of the loss are not in use at one
--- time, but both stay with the process; so do some more of a layer's, of other sizes. varied: batches are of
--- several shapes, and blocks of one wait while another has its turn (am_device_alloc says for how long).
--- opts: see M.kept; nil where nothing is trained. Within 10 % of what is measured: tests/recipe/preflight_spec.lua.
function M.expected(model, opts, tokens, varied)
    if not opts then
        local out = { weights = M.weight_bytes(model), gradients = 0, optimizer = 0,
                      activations = M.forward_bytes(model, tokens), program = PROGRAM }
        out.total = out.weights + out.activations + out.program
        return out
    end
    local state = training_state(model, opts)
    local kept, working, logits, layer = activation_parts(model, tokens)
    local out = { weights = state.weights, gradients = state.gradients, optimizer = state.optimizer,
                  activations = kept + working + logits + layer + (opts.share and gathered_bytes(model) or 0),
                  program = PROGRAM }
    if varied then
        local live = state.trained + out.gradients + out.optimizer + kept + math.max(working, logits)
        out.activations = out.activations + math.min(out.activations, live / 4 + WAITING)
    end
    -- Flat buffers take the place of the loaded weights, but both are there while they are filled.
    local filling = out.weights + state.trained + out.gradients
    out.total = math.max(filling, out.weights + out.gradients + out.optimizer + out.activations) + out.program
    return out
end

--- Bytes of M.expected that a process with the model in it does not have yet; `there`: those of its weights that
--- are in memory, not in their file.
function M.to_come(model, opts, tokens, varied, there)
    return M.expected(model, opts, tokens, varied).total - PROGRAM - there
end

--- Are batches of `size` rows, of `rows` with lengths of `mean` and `longest`, of several shapes?
function M.varied(size, rows, mean, longest)
    return mean < longest or rows % size > 0 and rows > size
end

-- ---- refusing what can't fit ------------------------------------------------------------------

local function gib(bytes)
    return string.format("%.2f GiB", bytes / 2 ^ 30)
end

--- The settings that make a run need less memory.
M.HELP = "What would help: a smaller step_scheduler.local_batch_size, shorter rows (dataset.seq_length with "
    .. "truncation, or packed_sequence.packed_sequence_size), model.activation_checkpointing: true; then a peft "
    .. "section, model.torch_dtype: bfloat16, optimizer.state_dtype: int8 or optimizer.fuse_backward: true"

--- Raise a "memory" error when the bytes asked for are more than this process can have.
---@param ranks integer? processes on this host that share what there is
---@param available number? bytes, by default what the machine and its cgroup leave
function M.check(needed, tokens, shape, ranks, available)
    available = (available or tonumber(edge.C.am_host_memory_available())) / (ranks or 1)
    if needed + SLACK <= available then
        return
    end
    err.raise("memory", "this run needs about %s more memory for a micro-batch of %s (%d tokens), and %s "
              .. "is left. %s", gib(needed), shape, tokens, gib(available), M.HELP)
end

return M
