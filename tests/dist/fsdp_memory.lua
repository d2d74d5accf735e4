-- What a rank holds of a model under FSDP, between two steps and while one runs: prints from each rank
-- "rank R: P parameters, B bytes held, M bytes at most". The ranks are those that mpirun started.
--
--   mpirun -n N amlua tests/dist/fsdp_memory.lua

local am = require("am")
local distributed = require("am.distributed")
local edge = require("am.core.ffi")
local optim = require("am.optim")

local world = distributed.join()
local mesh = distributed.mesh(world, {})

local before = am.memory("cpu").live_bytes
am.manual_seed(1)
local model = am.AutoModelForCausalLM.from_config {
    model_type = "llama", architectures = { "LlamaForCausalLM" }, hidden_size = 64, intermediate_size = 192,
    num_hidden_layers = 24, num_attention_heads = 4, num_key_value_heads = 2, vocab_size = 99,
    max_position_embeddings = 64, torch_dtype = "float32",
}
local layout = distributed.layout(model, mesh)
local fsdp = world.size > 1 and distributed.fsdp(model, mesh, layout, {}) or nil
local optimizer = optim.new("adamw", layout:named_parameters(), { lr = 1e-3 })
local sync = world.size > 1 and distributed.sync(optimizer, layout, { fsdp = fsdp }) or nil
local ids = { {} }
for i = 1, 32 do
    ids[1][i] = (i * 7 + world.rank) % 99
end
local held, most
for _ = 1, 2 do
    optimizer:zero_grad()
    am.scope(function()
        if sync then
            sync:begin()
        end
        model:train():forward({ input_ids = ids, labels = ids }).loss:backward()
    end)
    if sync then
        sync:finish()
    end
    optimizer:step(1 / world.size)
    held, most = am.memory("cpu").live_bytes - before, am.memory("cpu").peak_bytes - before
    edge.C.am_mem_reset_peak(0) -- what loading took, after the first step
end
local parameters = 0
for name in layout:named_parameters() do
    local n = 1
    for _, size in ipairs(layout:get(name).shape) do
        n = n * size
    end
    parameters = parameters + n
end
local said = ("%d parameters, %d bytes held, %d bytes at most"):format(parameters, held, most)
for rank, text in ipairs(world:gather(said)) do
    if world:is_main() then
        print(("rank %d: %s"):format(rank - 1, text))
    end
end
if sync then
    sync:close()
end
mesh:close()
world:close()
