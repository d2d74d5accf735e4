-- How much memory a step will take, said before it is taken. Counts what lives through a step:
-- weights, gradients, optimizer state, the tensors that backward needs, and the loss's chunk.

local err = require("am.core.error")
local edge = require("am.core.ffi")

local M = {}

local bytes_of = { float32 = 4, float64 = 8, bfloat16 = 2, float16 = 2 }
-- of the moments; those of 8 bits have an f32 for each block of 256
local state_bytes = { bfloat16 = 2, bf16 = 2, int8 = 1 + 4 / 256 }
local LOSS_CHUNK = 16 * 1024 * 1024 -- elements of a chunk of logits, see engine/ops/op_loss.c
local SLACK = 128 * 1024 * 1024              -- the program itself, tokenizer, data, work space

--- Bytes of gradients and optimizer state that come on top of the weights.
--- opts: kind of optimizer, master_weights, state_dtype, fuse_backward.
function M.optimizer_bytes(model, opts)
    local total, grads, largest = 0, 0, 0
    for _, t in model:named_parameters() do
        if t.requires_grad then
            local n, size = t:numel(), bytes_of[t:dtype()]
            local wide = size == 8 and 8 or 4
            local state = size < 8 and state_bytes[opts.state_dtype] or wide
            local moments = opts.kind == "sgd" and ((opts.momentum or 0) > 0 and 1 or 0) or 2
            -- the flat buffer replaces the loaded weights, but both are there while it is filled
            total = total + n * (size + moments * state + (size == 2 and opts.master_weights ~= false and 4 or 0))
            grads, largest = grads + n * wide, math.max(largest, n * wide)
        end
    end
    if opts.fuse_backward then -- those of a layer at a time, and embeddings' from the head on
        grads = math.min(grads, largest + grads / model.config.num_hidden_layers)
    end
    return total + grads
end

--- Bytes of activations for a micro-batch of `tokens` tokens, at the worst moment of a step.
function M.activation_bytes(model, tokens)
    local c = model.config
    local size = bytes_of[model:dtype()]
    local hidden, inner = c.hidden_size, c.intermediate_size or 4 * c.hidden_size
    local heads = c.num_attention_heads
    local head_dim = c.head_dim or hidden / heads
    local kv = (c.num_key_value_heads or heads) * head_dim
    -- Kept by a layer: both norms' inputs, q k v after rotation, attention's output, gate and up. The
    -- norms' outputs and the product of gate and up are computed again where backward needs them.
    local attention, feed_forward = 2 * hidden + 2 * heads * head_dim + 2 * kv, 2 * inner
    local layer = attention + feed_forward
    local again = model.model.activation_checkpointing
    local kept = again == "selective" and attention or again and 2 * hidden or layer
    -- Temporaries and gradients of the layer that runs, measured, in what a layer keeps: 1.2, and 2.6
    -- where it is computed a second time first. The loss has its own moment, before any of them.
    local working = (again and 2.6 or 1.2) * layer * size * tokens
    local rows = math.min(tokens, math.max(1, math.floor(LOSS_CHUNK / c.vocab_size)))
    local head = model:head_weight()
    local logits = rows * c.vocab_size * 4 * (size == 2 and 1.5 or 1)
        + (head and head.requires_grad and head:numel() * 4 or 0) -- the loss makes the gradient as it goes
    local live = tokens * size * (c.num_hidden_layers * kept + 3 * hidden) + math.max(working, logits)
    return 1.1 * live -- blocks kept for reuse
end

local function gib(bytes)
    return string.format("%.2f GiB", bytes / 2 ^ 30)
end

--- Raise a "memory" error when the bytes asked for are more than this process can have.
---@param available number bytes, by default what the machine and its cgroup leave
function M.check(needed, tokens, shape, available)
    available = available or tonumber(edge.C.am_host_memory_available())
    if needed + SLACK <= available then
        return
    end
    err.raise("memory", "this run needs about %s more memory for a micro-batch of %s (%d tokens), and %s "
              .. "is left. What would help: a smaller step_scheduler.local_batch_size, shorter rows "
              .. "(dataset.seq_length with truncation, or packed_sequence.packed_sequence_size), "
              .. "model.activation_checkpointing: true%s", gib(needed), shape, tokens, gib(available),
              "; then a peft section, model.torch_dtype: bfloat16, optimizer.state_dtype: int8 or "
              .. "optimizer.fuse_backward: true")
end

return M
