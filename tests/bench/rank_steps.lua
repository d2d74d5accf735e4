-- Training steps of a Llama of some size on random ids, on one rank or shared by several: what scaling.lua and
-- cost_model.lua time. Measures nothing but a step.

local am = require("am")
local distributed = require("am.distributed")
local edge = require("am.core.ffi")
local optim = require("am.optim")

local M = {}

--- The model: 20 million parameters, 80 MB of gradients. A micro-batch of ROWS x LENGTH tokens is what a rank takes.
M.config = {
    model_type = "llama", architectures = { "LlamaForCausalLM" }, hidden_size = 512, intermediate_size = 1408,
    num_hidden_layers = 6, num_attention_heads = 8, num_key_value_heads = 8, vocab_size = 2048,
    max_position_embeddings = 1024, tie_word_embeddings = true, torch_dtype = "float32",
}
M.ROWS, M.LENGTH = 2, 512

--- A model to train: step() -> its seconds, and those of them for which it waited for others. strategy: "ddp" or
--- "fsdp2", with a world of several ranks; of a world of one each rank trains for itself. bytes: of its gradients;
--- counts(): calls and bytes of its collectives so far, by kind.
function M.new(world, strategy)
    am.manual_seed(1)
    local mesh = distributed.mesh(world, strategy == "ddp" and { dp_replicate = world.size } or {})
    local model = am.AutoModelForCausalLM.from_config(M.config):train()
    local bytes = 0
    for _, t in model:named_parameters() do
        bytes = bytes + 4 * t:numel()
    end
    local layout = distributed.layout(model, mesh)
    local many = world.size > 1
    local fsdp = many and strategy == "fsdp2" and distributed.fsdp(model, mesh, layout, {}) or nil
    local optimizer = optim.new("adamw", layout:named_parameters(), { lr = 1e-4 })
    local sync = many and distributed.sync(optimizer, layout, { fsdp = fsdp }) or nil
    local ids = {}
    for row = 1, M.ROWS do
        ids[row] = {}
        for i = 1, M.LENGTH do
            ids[row][i] = edge.C.am_rng_u32(world.rank, row, i) % M.config.vocab_size
        end
    end
    local self = { bytes = bytes }
    function self.counts()
        local sums, seen = {}, {}
        for _, groups in ipairs { mesh.groups, fsdp and fsdp.reduce_groups or {} } do
            for _, group in pairs(groups) do
                for kind, n in pairs(not seen[group] and group:counts() or {}) do
                    sums[kind] = sums[kind] or { calls = 0, bytes = 0 }
                    sums[kind].calls, sums[kind].bytes = sums[kind].calls + n.calls, sums[kind].bytes + n.bytes
                end
                seen[group] = true
            end
        end
        return sums
    end
    function self.step()
        local began, waited = edge.C.am_clock(), world.waited()
        optimizer:zero_grad()
        am.scope(function()
            if sync then
                sync:begin()
            end
            local loss = model:forward({ input_ids = ids, labels = ids }).loss * (1 / world.size)
            loss:backward()
        end)
        if sync then
            sync:finish()
        end
        optimizer:step()
        return edge.C.am_clock() - began, world.waited() - waited
    end
    function self.close()
        if sync then
            sync:close()
        end
        optimizer:close()
        model:close()
        mesh:close()
    end
    return self
end

return M
