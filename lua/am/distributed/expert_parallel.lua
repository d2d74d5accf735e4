-- Expert parallel: the ranks of the mesh's axis "ep" have some experts each of every mixture (nn/moe.lua), and rows go
-- to the rank of their expert and back (Lepikhin et al. 2020, arXiv:2006.16668). No row is dropped, and each goes
-- through the same maps as with one rank, so a row's numbers are the same. All else of the model is whole on each
-- rank, or cut by other strategies.
--
--   ExpertParallel.apply(model, mesh, layout)
--
-- Every block of experts costs a rank two exchanges of rows forward and two backward, and one of counts; all ranks of
-- the axis make them together, also with no row to send. A block that is computed again in backward makes those of
-- forward again.

local ffi = require("ffi")
local autograd = require("am.core.autograd")
local err = require("am.core.error")
local ops = require("am.core.ops")
local tensor = require("am.core.tensor")

local M = {}

-- ---- rows on their way ----------------------------------------------------------------------

-- Rows of t, which lie in the order of ranks by `from`, in exchange for those that come, by `to`.
local function exchange(group, t, from, to)
    local width, n_from, n_to, total = t:size(1), {}, {}, 0
    for r = 1, #to do
        n_from[r], n_to[r], total = from[r] * width, to[r] * width, total + to[r]
    end
    local out = tensor.empty({ total, width }, { dtype = t:dtype(), device = t:device() })
    return group:all_to_all(out, n_to, t:contiguous(), n_from):wait()
end

-- Send rows to their experts: sorted by this rank's experts there.
local function send(group, plan, rows)
    local came = exchange(group, rows, plan.sent, plan.received)
    local sorted = ops.index_select(came, 0, plan.order)
    came:release()
    return sorted
end

-- The reverse of send.
local function send_back(group, plan, rows)
    local as_they_came = ops.index_select(rows, 0, plan.inverse)
    local back = exchange(group, as_they_came, plan.received, plan.sent)
    as_they_came:release()
    return back
end

-- An op of rows and a plan whose gradient goes the other way.
local function transport(there, back, group)
    return autograd.custom {
        forward = function(ctx, rows, plan)
            ctx.plan = plan
            return there(group, plan, rows)
        end,
        backward = function(ctx, grad)
            return back(group, ctx.plan, grad)
        end,
    }
end

-- Which rows go where, by how many rows each expert has here: offsets int32 [E + 1]. sent, received: rows for and
-- from each rank; order: places of what came, sorted by this rank's experts and among equals by rank; inverse; offsets
-- of this rank's experts.
local function plan_of(group, offsets)
    local size, first = group:size(), (offsets:to_buffer())
    local all = offsets:numel() - 1
    local own, counts = all / size, ffi.new("int32_t[?]", all)
    local plan = { sent = {}, received = {} }
    for e = 0, all - 1 do
        counts[e] = first[e + 1] - first[e]
    end
    local each, came = {}, tensor.empty({ all }, { dtype = "int32", device = "cpu" })
    for r = 1, size do
        each[r], plan.sent[r] = own, first[r * own] - first[(r - 1) * own]
    end
    group:all_to_all(came, each, tensor.from_buffer(counts, { all }, { dtype = "int32", device = "cpu" }), each):wait()
    local from, total = (came:to_buffer()), 0 -- [rank][expert]
    local starts = {}
    for r = 1, size do
        plan.received[r] = 0
        for e = 0, own - 1 do
            local i = (r - 1) * own + e
            starts[i], total, plan.received[r] = total, total + from[i], plan.received[r] + from[i]
        end
    end
    local order, inverse = ffi.new("int32_t[?]", math.max(total, 1)), ffi.new("int32_t[?]", math.max(total, 1))
    local ends, at = ffi.new("int32_t[?]", own + 1), 0
    for e = 0, own - 1 do
        for r = 0, size - 1 do
            local i = r * own + e
            for k = starts[i], starts[i] + from[i] - 1 do
                order[at], inverse[k], at = k, at, at + 1
            end
        end
        ends[e + 1] = at
    end
    local like = { dtype = "int32", device = offsets:device() }
    plan.order = tensor.from_buffer(order, { total }, like)
    plan.inverse = tensor.from_buffer(inverse, { total }, like)
    return plan, tensor.from_buffer(ends, { own + 1 }, like)
end

--- A function (run, x, offsets) that gives what run(x, offsets) would with all experts, where run has this rank's
--- alone: x [N, C], rows sorted by expert, offsets int32 [E + 1], E a multiple of the group's size.
function M.dispatcher(group)
    local there, back = transport(send, send_back, group), transport(send_back, send, group)
    return function(run, x, offsets)
        local plan, own_offsets = plan_of(group, offsets)
        return back(run(there(x, plan), own_offsets), plan)
    end
end

-- ---- putting it on a model ------------------------------------------------------------------

-- Entries of the parameters of a block's experts that this rank has, adapters among them: of all below it but the
-- router and the expert that sees every token.
local function entries_of(path, block, layout)
    local names, list = block.names, {}
    for _, child in ipairs(block._children) do
        if child.name ~= names.router and child.name ~= names.shared and child.name ~= names.shared_gate then
            for path_in, module in child.module:named_modules(path .. "." .. child.name) do
                for _, slot in ipairs(module._parameters) do
                    list[#list + 1] = layout.entries[path_in .. "." .. slot.name]
                end
            end
        end
    end
    return list
end

--- Iterator over (path, block) of a model's mixtures of experts.
local function blocks_of(model)
    local next_module = model:named_modules()
    return function()
        local path, module
        repeat
            path, module = next_module()
        until not path or module.run_experts
        return path, module
    end
end

-- Raise "usage" for a model whose experts so many ranks can't share.
local function check(model, size)
    if not blocks_of(model)() and not (model.config and model.config.num_experts) then -- else other stages have them
        err.raise("usage", "distributed.ep_size: %d ranks are to share experts, and %s has none; set it to 1", size,
                  model.class_name)
    end
    for path, block in blocks_of(model) do
        if block.num_experts % size ~= 0 then
            err.raise("usage", "distributed.ep_size: %d does not divide the %d experts of %s", size, block.num_experts,
                      path)
        end
    end
end

-- A parameter's first dim is that of the experts.
local function cut(layout, entry, path, block)
    if entry.shape[1] ~= block.num_experts then
        err.raise("unsupported", "distributed.ep_size: %s is [%s], no tensor for the %d experts of %s, so ranks can't "
                  .. "share it; set it to 1", entry.name, table.concat(entry.shape, ", "), block.num_experts, path)
    end
    layout:cut(entry.name, "ep", 0)
    layout:replicas(entry.name, "expert_dp")
end

--- Leave each rank of the axis "ep" its experts. Of the configuration it takes the size alone, which is the mesh's.
--- Raises "usage" where the model has no experts or the size does not divide their number.
function M.apply(model, mesh, layout)
    check(model, mesh:size("ep"))
    local dispatch = M.dispatcher(mesh:group("ep"))
    for path, block in blocks_of(model) do
        for _, entry in ipairs(entries_of(path, block, layout)) do
            cut(layout, entry, path, block)
        end
        local run = block.run_experts
        block.run_experts = function(self, x, offsets)
            return dispatch(function(rows, own) return run(self, rows, own) end, x, offsets)
        end
    end
end

return M
