-- Tensor parallel: ranks share every matrix of a model, and see the same rows (Shoeybi et al. 2019, arXiv:1909.08053).
-- Attention is cut by heads, feed-forward blocks and experts by their inner width, embeddings and head by the
-- vocabulary; a block's results are added up once. With sequence parallel (Korthikanti et al. 2022, arXiv:2205.05198)
-- ranks share the tokens, too, between blocks: norms, residuals and dropout are computed once.
--
-- What is cut follows from what modules are, so all families are known that are made of nn's; tensor_plan.lua reads
-- what a configuration says of single modules. How a module is cut is in tensor_maps.lua, how ranks' results meet in
-- tensor_ops.lua.

local err = require("am.core.error")
local maps = require("am.distributed.tensor_maps")
local tensor_ops = require("am.distributed.tensor_ops")
local tensor_plan = require("am.distributed.tensor_plan")

local M = {}

---@class am.distributed.TensorParallel
---@field ops am.distributed.TensorOps
---@field layout am.distributed.Layout
---@field plan am.distributed.TensorPlan
---@field size integer
---@field sequence boolean tokens are shared between blocks
---@field handled table names of parameters that are cut or whose gradients are parts

local function divides(tp, what, n, path)
    if n % tp.size ~= 0 then
        err.raise("usage", "distributed.tp_size: %d does not divide %s (%d)%s", tp.size, what, n,
                  path and " of " .. path or "")
    end
    return n / tp.size
end

-- ---- around blocks ----------------------------------------------------------------------------

-- How many tokens a row has, of which each rank has some; without ctx, what fills up the last ones is counted.
local function tokens(tp, x, ctx)
    return ctx and ctx.position_ids:size(-1) or x:size(1) * tp.size
end

-- The input of a block that ranks share, from what each has between blocks. Its gradients are parts of a sum.
local function enter(tp, x, ctx)
    if tp.sequence then
        return tp.ops.gather_shared(x, 1, tokens(tp, x, ctx))
    end
    return tp.ops.copy(x)
end

-- What a block gives, of which each rank has a part of a sum.
local function leave(tp, y)
    if tp.sequence then
        return tp.ops.reduce_split(y, 1)
    end
    return tp.ops.reduce(y)
end

-- Run fn with the random numbers that ranks share, inside of a layer whose tokens they share.
local function with_shared_numbers(tp, fn, ...)
    if tp.sequence then
        return tp.ops:with_other_numbers(fn, ...)
    end
    return fn(...)
end

-- Run fn with random numbers of this rank's own.
local function with_own_numbers(tp, fn, ...)
    if tp.sequence then -- the layer has them already
        return fn(...)
    end
    return tp.ops:with_other_numbers(fn, ...)
end

-- A block that every rank computes whole: with sequence parallel from all tokens.
local function whole_block(tp, module)
    if not tp.sequence then
        return
    end
    local plain = module.forward
    module.forward = function(self, x, rotary, ctx)
        local y, logits = with_shared_numbers(tp, plain, self, tp.ops.gather(x, 1, tokens(tp, x, ctx)), rotary, ctx)
        return tp.ops.split(y, 1), logits
    end
end

-- The last map of a block: back from a rank's own random numbers, for what all ranks have of a sum is dropped alike.
local function last_map(tp, path, module)
    maps.row(tp, path, module, function(y) return leave(tp, y) end)
    local plain = module.forward
    module.forward = function(self, x) return tp.ops:with_other_numbers(plain, self, x) end
    if tp.sequence and module.bias then
        maps.partial(tp, path .. ".bias")
    end
end

-- ---- attention --------------------------------------------------------------------------------

-- Maps that give queries, keys and values together: all of each ("parts"), or by groups of heads.
local FUSED = { c_attn = "parts", qkv_proj = "parts", query_key_value = "groups" }

-- The maps from states to queries, keys and values: an array of { path, module, parts }.
local function projections(path, module)
    local list = {}
    for _, child in ipairs(module._children) do
        local map = child.module
        if maps.is_map(map) and child.name ~= module.output then
            local kind, d = FUSED[child.name], module.head_dim
            local known = kind or child.name == "q_proj" or child.name == "k_proj" or child.name == "v_proj"
            if not known then
                err.raise("unsupported", "distributed.tp_size: %s of %s is a map that tensor parallel does not know",
                          child.name, path)
            end
            local kv = module.kv_heads * d
            list[#list + 1] = { path .. "." .. child.name, map,
                                kind == "parts" and { module.heads * d, kv, kv } or nil }
        end
    end
    return list
end

-- Norms of queries and keys, of each head or of all together.
local function head_norms(tp, path, module)
    for _, child in ipairs(module._children) do
        if child.module == module.q_norm or child.module == module.k_norm then
            local name = path .. "." .. child.name
            if module.norm_all then
                maps.rms_norm(tp, name, child.module)
            else
                maps.all_partial(tp, name, child.module)
            end
        end
    end
end

local function attention(tp, path, module)
    local list, columns, output = projections(path, module), {}, path .. "." .. module.output
    for i, item in ipairs(list) do
        columns[i] = item[1]
    end
    if not tp.plan:shares(columns, { output }) then
        return whole_block(tp, module)
    end
    local heads = divides(tp, "num_attention_heads", module.heads, path)
    local kv_heads = divides(tp, "num_key_value_heads", module.kv_heads, path)
    for _, item in ipairs(list) do
        maps.column(tp, unpack(item))
    end
    last_map(tp, output, module[module.output])
    head_norms(tp, path, module)
    if module.sinks then
        maps.cut(tp, path .. ".sinks", module.sinks, 0)
    end
    if module.slopes then
        module.slopes = { unpack(module.slopes, tp.ops.rank * heads + 1, (tp.ops.rank + 1) * heads) }
    end
    module.heads, module.kv_heads = heads, kv_heads
    local plain = module.forward
    module.forward = function(self, x, rotary, ctx)
        return with_own_numbers(tp, plain, self, enter(tp, x, ctx), rotary, ctx)
    end
end

-- ---- feed-forward blocks ----------------------------------------------------------------------

-- The maps of a feed-forward block: those from states, an array of { name, parts }, and the last one's name.
local function feed_forward_maps(module)
    if module.gate_up_proj then
        return { { "gate_up_proj", { module.width, module.width } } }, "down_proj"
    elseif module.gate_proj and module.up_proj then
        return { { "gate_proj" }, { "up_proj" } }, "down_proj"
    elseif module.up_name and module.down_name then
        return { { module.up_name } }, module.down_name
    end
end

-- is_part: the block gives a part of a sum, which what is around it adds up.
local function feed_forward(tp, path, module, is_part)
    local from, last = feed_forward_maps(module)
    local columns = {}
    for i, map in ipairs(from) do
        columns[i] = path .. "." .. map[1]
    end
    local output = path .. "." .. last
    if not is_part and not tp.plan:shares(columns, { output }) then
        return whole_block(tp, module)
    end
    for i, map in ipairs(from) do
        maps.column(tp, columns[i], module[map[1]], map[2])
    end
    if module.width then
        local _, count = tp.ops:chunk(module.width)
        module.width = count
    end
    if is_part then
        return maps.row(tp, output, module[last])
    end
    last_map(tp, output, module[last])
    local plain = module.forward
    module.forward = function(self, x)
        return with_own_numbers(tp, plain, self, enter(tp, x))
    end
end

-- ---- experts ----------------------------------------------------------------------------------

-- GPT-OSS's: parameters without maps, gate and up in turns.
local function interleaved_experts(tp, path, module)
    local inner = module.down_proj:size(1)
    divides(tp, "intermediate_size", inner, path)
    maps.cut(tp, path .. ".gate_up_proj", module.gate_up_proj, 2)
    maps.cut(tp, path .. ".gate_up_proj_bias", module.gate_up_proj_bias, 1)
    maps.cut(tp, path .. ".down_proj", module.down_proj, 1)
    maps.share_field(tp, path, module, "down_proj_bias")
end

local function cut_experts(tp, path, module)
    local names = module.names
    local experts = names.experts and module[names.experts] or module
    local at = names.experts and path .. "." .. names.experts or path
    if experts.input_linear and experts.output_linear then
        local inner = experts.input_linear.out_features / 2
        maps.column(tp, at .. ".input_linear", experts.input_linear, { inner, inner })
        maps.row(tp, at .. ".output_linear", experts.output_linear)
    elseif experts.names and #experts.names == 3 then
        local gate, up, down = unpack(experts.names)
        maps.column(tp, at .. "." .. gate, experts[gate])
        maps.column(tp, at .. "." .. up, experts[up])
        maps.row(tp, at .. "." .. down, experts[down])
    elseif experts.gate_up_proj and experts.down_proj_bias then
        interleaved_experts(tp, at, experts)
    else
        err.raise("unsupported", "distributed.tp_size: %s: experts of the kind %s are not known to tensor parallel", at,
                  experts.class_name)
    end
end

-- Router and choice are every rank's, from all tokens; experts, and the one that sees all, are shared.
local function mixture(tp, path, module)
    if tp.plan.rules and tp.plan:meaning(path .. "." .. (module.names.experts or "")) ~= "experts"
        and tp.plan:meaning(path) ~= "experts" then
        return whole_block(tp, module)
    end
    cut_experts(tp, path, module)
    for _, role in ipairs { "shared", "shared_gate" } do
        local name = module.names[role]
        if role == "shared" and name then
            feed_forward(tp, path .. "." .. name, module[name], true)
        elseif name then
            maps.all_partial(tp, path .. "." .. name, module[name])
        end
    end
    local plain = module.mix
    module.mix = function(self, rows, weights, index)
        return tp.ops.reduce(plain(self, tp.ops.copy(rows), tp.ops.copy(weights), index))
    end
    whole_block(tp, module)
end

-- ---- layers -----------------------------------------------------------------------------------

local function block(tp, path, module)
    if module.kernel == "attention" then
        attention(tp, path, module)
    elseif module.top_k then
        mixture(tp, path, module)
    elseif feed_forward_maps(module) then
        feed_forward(tp, path, module)
    elseif tp.plan.rules then
        whole_block(tp, module)
    else
        err.raise("unsupported", "distributed.tp_size: %s is a %s, which tensor parallel does not know; name what is "
                  .. "to be shared in distributed.tp_plan", path, module.class_name)
    end
end

-- What is between blocks has some of the tokens.
local function share_tokens(tp, path, layer)
    local whole = {}
    for _, role in ipairs { "attention", "mlp" } do
        whole[layer[layer.names[role]]] = true
    end
    for _, child in ipairs(layer._children) do
        if not whole[child.module] then
            maps.all_partial(tp, path .. "." .. child.name, child.module)
        end
    end
    local plain = layer.forward
    layer.forward = function(self, x, rotary, ctx)
        local y, logits = tp.ops:with_other_numbers(plain, self, x, rotary, ctx)
        local n = tokens(tp, x, ctx)
        if logits then -- not of what fills up the last piece
            logits = logits:reshape(x:size(0), -1, logits:size(1)):narrow(1, 0, n):reshape(-1, logits:size(1))
        end
        return y, logits
    end
end

-- Tokens are parted in front of the first layer, and put together behind the last one: what is before and behind is
-- the same on all ranks.
local function part_tokens(tp, first, last)
    local from_first = first.forward
    first.forward = function(self, x, ...) return from_first(self, tp.ops.split(x, 1), ...) end
    local from_last = last.forward
    last.forward = function(self, x, rotary, ctx)
        local y, logits = from_last(self, x, rotary, ctx)
        return tp.ops.gather(y, 1, tokens(tp, y, ctx)), logits
    end
end

-- Does this rank have a layer? Other stages of a pipeline do else.
local function is_here(layer)
    return layer:named_parameters()() ~= nil
end

local function decoder_layers(tp, path, body)
    local first, last
    for _, child in ipairs(body[body.names.layers]._children) do
        local at, layer = path .. "." .. body.names.layers .. "." .. child.name, child.module
        if not (layer.names and layer.names.attention and layer.names.mlp) then
            err.raise("unsupported", "distributed.tp_size: %s is a %s, which tensor parallel does not know", at,
                      layer.class_name)
        end
        if is_here(layer) then
            for _, role in ipairs { "attention", "mlp" } do
                block(tp, at .. "." .. layer.names[role], layer[layer.names[role]])
            end
            if tp.sequence then
                share_tokens(tp, at, layer)
            end
            first, last = first or layer, layer
        end
    end
    if tp.sequence then
        part_tokens(tp, first, last)
    end
end

-- ---- the vocabulary ---------------------------------------------------------------------------

-- The head gives whole logits, but to losses that can do with some columns.
local function share_head(tp, path, model, head)
    local own = maps.column_gathered(tp, path, head)
    local first, count = tp.ops:chunk(head.out_features)
    local plain = model.head_context
    model.head_context = function(self)
        local ctx = plain(self)
        ctx.head_weight = nil
        ctx.shard = {
            first = first, count = count,
            enter = tp.ops.copy,
            head = function(hidden)
                local logits = own(hidden)
                return self.logit_scale and logits * self.logit_scale or logits
            end,
            all_reduce = function(t, op) return tp.ops:all_reduce(t, op) end,
        }
        return ctx
    end
end

local function vocabulary(tp, model, path, body)
    local table_path, head_path = path .. "." .. body.names.embeddings, model.names.head
    local embeddings, head = body[body.names.embeddings], model[head_path]
    -- style: how a plan may say it, beside as what gives or takes whole states.
    local function shared(name, style, whole_style)
        local meaning, said = tp.plan:meaning(name)
        if meaning and meaning ~= "whole" and meaning ~= style and meaning ~= whole_style then
            err.raise("usage", "distributed.tp_plan: %s is shared by the vocabulary, so it cannot be %s", name, said)
        end
        return not tp.plan.rules or meaning ~= nil and meaning ~= "whole"
    end
    local both, top = shared(table_path, "row", "row_split"), shared(head_path, "column", "column_gathered")
    local tied = (model.tied or {})[head_path .. ".weight"] ~= nil
    if head and tied and both ~= top then
        err.raise("usage", "distributed.tp_plan: %s and %s have one weight: name both or none", table_path, head_path)
    end
    if both and embeddings.weight then
        maps.embedding(tp, table_path, embeddings)
    end
    if head and head.weight and top then
        tp.handled[head_path .. ".weight"] = tied or nil
        share_head(tp, head_path, model, head)
    end
end

-- ---- single maps ------------------------------------------------------------------------------

-- Maps that a plan names outside of blocks, which give what they did.
local function single_maps(tp, model)
    for path, module in model:named_modules() do
        local meaning, style = tp.plan:meaning(path)
        if meaning == "sequence" and not tp.sequence then
            err.raise("usage", "distributed.tp_plan: %s is sequence_parallel; set distributed.sequence_parallel: true",
                      path)
        end
        if meaning and not tp.handled[path .. ".weight"] and maps.is_map(module) then
            if meaning == "column_gathered" then
                maps.column_gathered(tp, path, module)
            elseif meaning == "row_split" then
                maps.row_split(tp, path, module)
            elseif meaning == "column" or meaning == "row" then
                err.raise("usage", "distributed.tp_plan: %s is no part of a block that ranks share, so it cannot be "
                          .. "%s; take %s", path, style, meaning == "column" and "colwise_gather_output"
                          or "rowwise_split_input")
            end
        end
    end
end

-- ---- the model --------------------------------------------------------------------------------

--- Give each rank of the mesh's axis tp its part of a model. opts: sequence_parallel, tp_plan.
function M.apply(model, mesh, layout, opts)
    local group = mesh:group("tp")
    local body = model:get_decoder()
    local path
    for name, module in model:named_modules() do
        path = module == body and name or path
    end
    if not body.names then
        err.raise("unsupported", "distributed.tp_size: %s is no model that decoder.lua makes, so it is not known what "
                  .. "ranks could share of it", model.class_name)
    end
    local tp = { ops = tensor_ops.new(group), layout = layout, size = group:size(), handled = {},
                 sequence = opts.sequence_parallel == true, plan = tensor_plan.new(opts.tp_plan, path) }
    decoder_layers(tp, path, body)
    vocabulary(tp, model, path, body)
    if tp.plan.rules then
        single_maps(tp, model)
        tp.plan:check_used()
    end
    return tp
end

return M
