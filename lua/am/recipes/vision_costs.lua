-- What pictures cost a model of images and text: FLOPs and bytes, by the rules of flops.lua and memory.lua for the
-- language model. A patch goes through the tower's numbered layers, a picture's feature (an image token) through what
-- lies behind them: projector, merger, connector. Attention among patches counts as if each saw all of its picture,
-- also where a tower has windows. Measures nothing.

local M = {}

local bytes_of = { float32 = 4, float64 = 8, bfloat16 = 2, float16 = 2 }
local TOWER = { "vision", "visual", "image_encoder" }

--- The modules of a model of images and text that tokens go through, as a set: its language model's and its head's.
--- Nil for a model of text, all of which they do.
function M.text_modules(model)
    if not model.model.language then
        return nil
    end
    local set = {}
    for _, part in ipairs { model:get_decoder(), model:get_output_embeddings() } do
        for _, module in part:named_modules() do
            set[module] = true
        end
    end
    return set
end

local function in_tower(path)
    for _, word in ipairs(TOWER) do
        if path:find(word, 1, true) then
            return path:find("%.%d+%.") ~= nil
        end
    end
    return false
end

-- Numbers of a picture that become one patch, and the weights that map them; nil for a module that maps none.
local function patch_map(module)
    local slot = module._parameters[1]
    if slot and #slot.shape >= 4 then
        local n = 1
        for i = 2, #slot.shape do
            n = n * slot.shape[i]
        end
        return n, slot.shape[1], module[slot.name]
    end
end

-- Add a module's costs; layers: a set of the tower's.
local function add(costs, layers, path, module, size, forward)
    local numbers, out, weight = patch_map(module)
    if numbers then
        costs.numbers, costs.width = numbers, out
        costs.patch = costs.patch + 2 * numbers * out
    elseif module.in_features then
        weight = module.weight
        local flops = module.in_features * module.out_features * (forward and 2 or weight.requires_grad and 6 or 4)
        if in_tower(path) then
            layers[path:match("^.-%.%d+%.")] = true
            costs.patch, costs.kept = costs.patch + flops, costs.kept + module.out_features * size
        else
            costs.token = costs.token + flops
        end
    elseif module.kernel == "attention" and in_tower(path) then
        costs.pair = costs.pair + (forward and 4 or 12) * module.heads * module.head_dim
    end
    costs.trained = costs.trained or (weight ~= nil and weight.requires_grad and in_tower(path))
end

--- What the parts of a model that see pictures cost, or nil for a model of text: { numbers = of a patch, width = of
--- the tower, patch = FLOPs of one, pair = FLOPs of a patch that sees another, token = FLOPs of an image token, trained
--- = is the tower, kept = bytes that a patch leaves for backward, working = bytes of one layer }. forward: without
--- backward.
function M.of(model, forward)
    local of_text = M.text_modules(model)
    if not of_text then
        return nil
    end
    local size = bytes_of[model:dtype()]
    local costs = { numbers = 1, width = 0, patch = 0, pair = 0, token = 0, trained = false, kept = 0 }
    local layers, count = {}, 0
    for path, module in model:named_modules() do
        if not of_text[module] then
            add(costs, layers, path, module, size, forward)
        end
    end
    for _ in pairs(layers) do
        count = count + 1
    end
    if not costs.trained and not forward then -- no gradient comes so far down: a forward pass
        costs.patch, costs.pair = M.of(model, true).patch, costs.pair / 3
    end
    local ends = 2 * costs.width * size -- what goes into a layer's two parts
    costs.working = count > 0 and costs.kept / count + 2 * ends or 0
    costs.kept = costs.trained and costs.kept + count * ends or 0
    return costs
end

--- Patches of pictures with these plans (am.processors), and pairs of them that see each other.
function M.patches(costs, plans)
    local patches, pairs_of_all = 0, 0
    for _, plan in ipairs(plans) do
        local n = plan.n_floats / costs.numbers
        local pieces = #plan.shape == 4 and plan.shape[1] or 1
        patches, pairs_of_all = patches + n, pairs_of_all + n * n / pieces
    end
    return patches, pairs_of_all
end

--- FLOPs of pictures with these plans.
function M.flops(costs, plans)
    local patches, pairs_of_all = M.patches(costs, plans)
    local work = costs.patch * patches + costs.pair * pairs_of_all
    for _, plan in ipairs(plans) do
        work = work + costs.token * plan.num_tokens
    end
    return work
end

--- Bytes of activations for pictures: pixel values, what the tower keeps, and one layer of it.
function M.bytes(costs, plans, size)
    local floats = 0
    for _, plan in ipairs(plans) do
        floats = floats + plan.n_floats
    end
    return floats * (8 + size) + M.patches(costs, plans) * (costs.kept + costs.working)
end

return M
