-- Stages of a model against the whole: gradients of 1 to 8 micro-batches of different shapes, bit for bit, what stages
-- hold, which more micro-batches do not make more, and that they let go of it. Prints "name: ok" from the first rank,
-- or ends all ranks with what is wrong.
--
--   mpirun -n N amlua tests/dist/pipeline.lua

local am = require("am")
local distributed = require("am.distributed")
local edge = require("am.core.ffi")

local world = distributed.join()
local mesh = distributed.mesh(world, { pp = world.size })

local function build(changes, frozen)
    am.manual_seed(5)
    local c = { architectures = { "LlamaForCausalLM" }, model_type = "llama", hidden_size = 32, intermediate_size = 64,
                num_hidden_layers = 5, num_attention_heads = 4, num_key_value_heads = 2, vocab_size = 67,
                max_position_embeddings = 64, tie_word_embeddings = false }
    for key, value in pairs(changes) do
        c[key] = value
    end
    local model = am.AutoModelForCausalLM.from_config(c):train()
    for name, t in model:named_parameters() do
        t.requires_grad = not (frozen and name:find(frozen))
    end
    return model
end

-- Bytes of all tensors that are still wanted.
local function live()
    collectgarbage()
    collectgarbage()
    return am.memory("cpu").live_bytes
end

-- n micro-batches of two rows, each longer than the one before.
local function batches(n)
    local list = {}
    for k = 1, n do
        local ids = { {}, {} }
        for b = 1, 2 do
            for t = 1, 5 + k do
                ids[b][t] = (b * 7 + t * 3 + k * 11) % 67
            end
        end
        list[k] = ids
    end
    return list
end

local function check(fine, ...)
    if not fine then
        io.stderr:write(("rank %d: "):format(world.rank), string.format(...), "\n")
        world:abort(1, "a check failed")
    end
end

-- This rank's gradients are those of the whole model. A tied tensor's are sums in another order.
local function compare(name, whole, layout)
    local theirs = {}
    for key, t in whole:named_parameters() do
        theirs[key] = t.grad
    end
    for key, t in layout:named_parameters() do
        local grad, expected, tolerance = t.grad, theirs[key], 0
        check((grad == nil) == (expected == nil), "%s: %s has %s gradient", name, key, grad and "a" or "no")
        if #layout:get(key).partial > 0 then
            grad, tolerance = grad:clone(), 1e-6
            mesh:group("pp_ends"):all_reduce(grad):wait()
        end
        local off = grad and (grad - expected):abs():max():item() or 0
        check(off <= tolerance, "%s: gradient of %s differs by %g", name, key, off)
    end
end

local function loss_of(model, ids)
    return model:forward({ input_ids = ids, labels = ids }).loss
end

local function try(name, changes, opts)
    opts = opts or {}
    for _, n in ipairs { 1, 2, 3, 8 } do
        local before = live()
        local whole, list = build(changes, opts.frozen), batches(n)
        whole.model.activation_checkpointing = opts.checkpointing
        local one_copy = live() - before
        local model = build(changes, opts.frozen)
        model.model.activation_checkpointing = opts.checkpointing
        local layout, sum, staged_sum, lasts = distributed.layout(model, mesh), 0, 0, 0
        local pipeline = distributed.pipeline.apply(model, mesh, layout, {})
        local bytes = live() - before - one_copy
        check(bytes < 0.9 * one_copy, "%s: a stage of %d bytes, the whole has %d", name, bytes, one_copy)
        for _, ids in ipairs(list) do
            am.scope(function()
                local loss = loss_of(whole, ids)
                sum = sum + loss:item()
                loss:backward()
            end)
        end
        local function run()
            before = live()
            pipeline:run(list, {
                states = function(ids)
                    return model:forward({ input_ids = ids, logits_to_keep = false }).hidden_states
                end,
                loss = function(ids)
                    local loss = loss_of(model, ids)
                    staged_sum = staged_sum + loss:item()
                    return loss
                end,
                before_last = function() lasts = lasts + 1 end,
            })
        end
        run()
        compare(name, whole, layout)
        check(lasts == 1, "%s: before_last was called %d times", name, lasts)
        staged_sum = mesh:reduce("pp", { staged_sum })[1]
        check(staged_sum == sum, "%s: a loss of %.9g, and of %.9g in stages", name, sum, staged_sum)
        run() -- the gradients have their memory now
        check(live() <= before, "%s: %d bytes are left over", name, live() - before)
        pipeline:close()
        for _, m in ipairs { whole, model } do
            for _, t in m:named_parameters() do
                t:release()
            end
        end
    end
    if world:is_main() then
        print(name .. ": ok")
    end
end

-- Most bytes of a step over n micro-batches alike, beyond what is there between two.
local function most_bytes(pipeline, model, n)
    local list, before = {}, live()
    for k = 1, n do
        list[k] = batches(8)[8]
    end
    edge.C.am_mem_reset_peak(0)
    pipeline:run(list, {
        states = function(ids) return model:forward({ input_ids = ids, logits_to_keep = false }).hidden_states end,
        loss = function(ids) return loss_of(model, ids) end,
        before_last = function() end,
    })
    return am.memory("cpu").peak_bytes - before
end

local function try_memory()
    local model = build {}
    local layout = distributed.layout(model, mesh)
    local pipeline = distributed.pipeline.apply(model, mesh, layout, {})
    most_bytes(pipeline, model, 1) -- gradients have their memory from now on
    local few, many = most_bytes(pipeline, model, world.size), most_bytes(pipeline, model, 6 * world.size)
    check(many < 1.25 * few, "%d micro-batches take %d bytes, and %d take %d", world.size, few, 6 * world.size, many)
    pipeline:close()
    if world:is_main() then
        print("memory: ok")
    end
end

local experts = { architectures = { "MixtralForCausalLM" }, model_type = "mixtral", num_local_experts = 4,
                  num_experts_per_tok = 2, output_router_logits = true, router_aux_loss_coef = 0.1 }
try("full", {})
try("tied", { tie_word_embeddings = true })
try("experts", experts)
try("checkpointing", experts, { checkpointing = true })
try("selective checkpointing", experts, { checkpointing = "selective" })
try("a head alone", {}, { frozen = "^model" })
try("late layers alone", {}, { frozen = "layers%.[012]%." })
try("embeddings alone", {}, { frozen = "^[^e]*$" })
try_memory()
mesh:close()
world:close()
