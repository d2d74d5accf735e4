-- Context parallel: the ranks of the mesh's axis cp share the tokens of each row, so that a row may be longer than one
-- rank could hold activations of. Every rank has the whole model; attention alone needs other ranks' tokens, which come
-- by a ring (ring_attention.lua).
--
--   context_parallel.apply(model, mesh, layout)       can the model do so?
--   local part = context_parallel.shard(batch, mesh)  this rank's tokens of a batch
--   … the model's forward with the part's input_ids, position_ids, bounds and part …
--
-- A forward without `part` has whole rows, as generation has.

local ffi = require("ffi")
local autograd = require("am.core.autograd")
local err = require("am.core.error")
local Attention = require("am.nn.attention")
local ring = require("am.distributed.ring_attention")

local M = {}

local IGNORE = -100 -- the label of what is not learnt

local function refuse(mesh, why, ...)
    err.raise("usage", "distributed.cp_size is %d, but " .. why, mesh:size("cp"), ...)
end

local function check_attention(mesh, name, module)
    if getmetatable(module).forward ~= Attention.forward then -- of its class: others may share its heads
        refuse(mesh, "%s (%s) computes attention in a way of its own, which ranks can't share; set cp_size to 1", name,
               module.class_name)
    elseif module.slopes then
        refuse(mesh, "%s has biases by distance (ALiBi), which ranks can't share; set cp_size to 1", name)
    elseif module.eager then
        refuse(mesh, "model.attn_implementation is eager, which stores scores of whole rows; leave it out")
    elseif module.dropout > 0 then
        refuse(mesh, "%s drops %g of its probabilities, which the ring does not do; set model.attention_dropout to 0",
               name, module.dropout)
    end
end

--- Raise "usage" unless ranks can share the rows that the model sees.
function M.check(model, mesh)
    if model.get_image_features then
        refuse(mesh, "%s sees images, whose tokens stay together; set cp_size to 1", model.class_name)
    end
    local found = false
    for name, module in model:named_modules() do
        if module.kernel == "attention" then
            check_attention(mesh, name, module)
            found = true
        end
    end
    if not found then
        refuse(mesh, "%s has no attention that ranks can share; set cp_size to 1", model.class_name)
    end
end

--- Check a model, and have noise on embeddings (NEFTune), whose size is by the length of the rows, be as in whole ones.
function M.apply(model, mesh)
    M.check(model, mesh)
    for _, module in model:named_modules() do
        if module.noise_alpha then
            module.noise_alpha = module.noise_alpha / math.sqrt(mesh:size("cp"))
        end
    end
end

-- The sum over the ranks, whose gradients are summed, too.
local function summed(group)
    local function all(t) return group:all_reduce(t:detach():clone()):wait() end
    return autograd.custom {
        forward = function(_, t) return all(t) end,
        backward = function(_, grad) return all(grad) end,
    }
end

-- Arrays of whole rows, padded to `length` tokens with what sees nothing and is not learnt.
local function padded(batch, length)
    local function rows(array, width, fill)
        local out = ffi.new("int32_t[?]", batch.B * length * width, fill)
        for b = 0, batch.B - 1 do
            ffi.copy(out + b * length * width, array + b * batch.T * width, 4 * batch.T * width)
        end
        return out
    end
    return rows(batch.input_ids, 1, 0), rows(batch.labels, 1, IGNORE), rows(batch.position_ids, 1, 0),
        rows(batch.bounds, 2, 0)
end

local function longest_of(batch)
    local most = 0
    for i = 0, batch.B * batch.T - 1 do
        most = math.max(most, batch.position_ids[i])
    end
    return most + 1
end

--- This rank's tokens of a batch (am.datasets): a batch of B rows of T tokens with input_ids, labels, position_ids,
--- bounds (key ranges of the whole rows) and num_label_tokens of its own, and
---   part    what a model's forward takes as `part`: it must be called on all ranks of cp alike, labels or not
---   whole   the batch itself
--- Rows are padded to a multiple of twice the ranks.
function M.shard(batch, mesh)
    local group, n = mesh:group("cp"), mesh:size("cp")
    if batch.last_tokens then
        refuse(mesh, "a class is told from a row's last token, which one rank has; set cp_size to 1")
    end
    local T = math.ceil(batch.T / (2 * n)) * 2 * n
    local ids, labels, positions, bounds = padded(batch, T)
    local plan = ring.plan(group, { B = batch.B, T = T, bounds = bounds })
    local length = T / n
    local own = { B = batch.B, T = length, whole = batch, num_label_tokens = 0 }
    for _, name in ipairs { "input_ids", "labels", "position_ids" } do
        own[name] = ffi.new("int32_t[?]", batch.B * length)
    end
    own.bounds = ffi.new("int32_t[?]", 2 * batch.B * length)
    for i = 0, batch.B * length - 1 do
        local from = math.floor(i / length) * T + plan:place(i % length)
        own.input_ids[i], own.labels[i], own.position_ids[i] = ids[from], labels[from], positions[from]
        own.bounds[2 * i], own.bounds[2 * i + 1] = bounds[2 * from], bounds[2 * from + 1]
        own.num_label_tokens = own.num_label_tokens + (labels[from] ~= IGNORE and 1 or 0)
    end
    own.part = {
        attend = function(q, k, v, _, opts) return ring.attention(plan, q, k, v, opts) end,
        sum = summed(group), longest = longest_of(batch),
    }
    return own
end

return M
