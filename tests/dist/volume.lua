-- What a step's collectives carry, counted, against what the strategies say they do; a failure ends all ranks.
--
--   mpirun -n N amlua tests/dist/volume.lua config.yaml
--
-- Counted are bytes of tensors that ranks gave (Comm:counts), here added up over the ranks. The numbers of a parameter
-- must be multiples of 16: an optimizer's flat buffer begins each at 64 bytes.

local distributed = require("am.distributed")

local world = distributed.join { timeout = 60 }
local recipe = require("recipes.llm_finetune").new(arg[1], nil, { world = world })
recipe:setup()
local mesh, layout = recipe.mesh, recipe.layout
local FLOAT, INT, DOUBLE = 4, 4, 8

-- Bytes that this rank gave to all its groups, by kind.
local function given()
    local sums, seen = {}, {}
    local function add(group)
        for kind, n in pairs(not seen[group] and group:counts() or {}) do
            sums[kind] = (sums[kind] or 0) + n.bytes
        end
        seen[group] = true
    end
    for _, group in pairs(mesh.groups) do
        add(group)
    end
    for _, group in pairs(recipe.fsdp and recipe.fsdp.reduce_groups or {}) do
        add(group)
    end
    add(world.group)
    return sums
end

-- Of the entries that pass: how many, and their numbers on this rank.
local function trained(passes)
    local count, numel = 0, 0
    for _, name in ipairs(layout.names) do
        local entry = layout:get(name)
        if entry.tensor.requires_grad and passes(entry) then
            count, numel = count + 1, numel + entry.tensor:numel()
        end
    end
    return count, numel
end

-- all_reduce of ddp: each gradient once, and whether it is there.
local function of_gradients()
    local bytes = 0
    for _, axis in ipairs { "dp_cp", "dp_replicate", "expert_dp" } do
        if mesh:group(axis) then
            local count, numel = trained(function(entry) return entry.replicas == axis end)
            bytes = bytes + count * INT + numel * FLOAT
        end
    end
    return bytes
end

-- all_reduce of a step's numbers: of tokens, labels and work, of losses, of the norm's squares where a rank has parts
-- alone, and of which sharded gradients there are.
local function of_numbers()
    local n = (mesh:group("dp") and 3 or 0) + (mesh:group("dp_cp") and 2 or 0) + (recipe:is_cut() and 1 or 0)
    for axis, params in pairs(recipe.fsdp and recipe.fsdp.trainable or {}) do
        n = n + (mesh:group(axis) and #params or 0)
    end
    return n * DOUBLE
end

-- Does a module lie in a layer of the decoder?
local function in_layer(entry)
    return entry.name:match("%.layers%.(%d+)%.")
end

-- fsdp: parts that a rank gives to be gathered and gradients that it gives to be summed, in a step of `times`
-- micro-batches. A layer's are gathered for forward and for backward, but for the last layer's, which stay between, and
-- the rest's once a step; all once a step where weights stay. Gradients that wait are summed once a step.
local function of_shards(times)
    local gathered, summed = 0, 0
    local stay, wait = recipe.fsdp and not recipe.fsdp.reshard, recipe.fsdp and recipe.fsdp.deferred
    local last = 0
    for _, name in ipairs(layout.names) do
        last = math.max(last, tonumber(in_layer(layout:get(name))) or 0)
    end
    for _, name in ipairs(layout.names) do
        local entry = layout:get(name)
        local cut = entry.cuts[#entry.cuts]
        if cut and (cut.axis == "shard" or cut.axis == "expert_dp") then
            local rows, width = math.ceil(cut.shape[1] / mesh:size(cut.axis)), 1
            for d = 2, #cut.shape do
                width = width * cut.shape[d]
            end
            local layer = not stay and tonumber(in_layer(entry))
            gathered = gathered + rows * width * FLOAT * (not layer and 1 or layer == last and times or 2 * times)
            summed = summed + rows * width * FLOAT * mesh:size(cut.axis) * (wait and 1 or times)
        end
    end
    return gathered, summed
end

-- ep: rows to their experts and back, forward and backward, and how many of each expert. tokens: of the micro-batches
-- of all ranks.
local function of_experts(tokens, times)
    local blocks, c = 0, recipe.model.config
    for _, module in recipe.model:named_modules() do
        blocks = blocks + (module.run_experts and 1 or 0)
    end
    return blocks * (4 * tokens * c.num_experts_per_tok * c.hidden_size * FLOAT
                     + times * world.size * c.num_experts * INT)
end

-- tp: what a rank gives to be reduced, gathered and reduced in parts. Twice a block forward and backward: states, or
-- with sequence_parallel pieces of them, which are filled up to be alike; states of embeddings; of labels the gradient
-- of states, and three numbers each; and once a step gradients that are parts of sums.
local function of_tensors(batches)
    local reduced, gathered, scattered = 0, 0, 0
    local size, c = mesh:size("tp"), recipe.model.config
    if size == 1 then
        return 0, 0, 0
    end
    local blocks = 4 * c.num_hidden_layers
    for _, batch in ipairs(batches) do
        local states, piece = batch.B * batch.T * c.hidden_size, batch.B * math.ceil(batch.T / size) * c.hidden_size
        reduced = reduced + states + batch.num_label_tokens * (c.hidden_size + 3)
        if recipe.cfg:get("distributed.sequence_parallel") then
            gathered = gathered + (blocks + 2) * piece
            scattered = scattered + blocks * piece * size
        else
            reduced = reduced + blocks * states
        end
    end
    local _, partial = trained(function(entry) return #entry.partial > 0 end)
    return (reduced + partial) * FLOAT, gathered * FLOAT, scattered * FLOAT
end

recipe:step()
local before, window = given(), recipe:next_window()
local tokens = 0
for _, batch in ipairs(window) do
    tokens = tokens + batch.B * batch.T
end
recipe:step()
local after = given()
tokens = world:reduce({ tokens })[1]
assert(#window > 1, "a step of one micro-batch shows too little")

-- expected: of all ranks.
local function same(kind, expected)
    local bytes = world:reduce({ after[kind] - before[kind] })[1]
    assert(bytes == expected, ("%s: %d bytes, and not %d"):format(kind, bytes, expected))
    if world:is_main() then
        print(("%s %d"):format(kind, bytes))
    end
end

local gathered, summed = of_shards(#window)
local reduced, pieces, sums = of_tensors(window)
same("all_reduce", world:reduce({ of_gradients() + of_numbers() + reduced })[1])
same("all_gather", world:reduce({ gathered + pieces })[1])
same("reduce_scatter", world:reduce({ summed + sums })[1])
same("all_to_all", mesh:size("ep") > 1 and of_experts(tokens, #window) or 0)

recipe.sync:close()
mesh:close()
world:close()
print("as computed on rank " .. world.rank)
