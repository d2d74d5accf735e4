-- The mesh: ranks in a grid whose axes are the ways in which they share a run, and the groups that its lines and
-- planes are. Holds no strategy and no tensor.
--
-- A rank's number is ((((pp * dp_replicate + r) * dp_shard + s) * cp + c) * tp + t): the ranks that talk most, those
-- of tp, are neighbours. Axes, and products of them that have a group of their own:
--
--   pp            stages of the layers                       dp     dp_replicate x dp_shard: different rows
--   dp_replicate  copies of all shards (HSDP)                dp_cp  dp x cp: over these gradients are summed
--   dp_shard      shards of the model, with different rows   shard  dp_shard x cp: over these a model is sharded
--   cp            parts of each row                          stage  all ranks of one stage
--   tp            parts of each matrix                       ep, expert_dp: ranks of dp_cp that share all experts,
--                                                            and those that have the same ones
--   loss          pp x dp_cp: over these losses are summed   pp_ends: the first and the last stage

local err = require("am.core.error")

local M = {}

local AXES = { "pp", "dp_replicate", "dp_shard", "cp", "tp" }
local PRODUCTS = {
    dp = { "dp_replicate", "dp_shard" }, dp_cp = { "dp_replicate", "dp_shard", "cp" }, shard = { "dp_shard", "cp" },
    loss = { "pp", "dp_replicate", "dp_shard", "cp" }, stage = { "dp_replicate", "dp_shard", "cp", "tp" },
}
local ORDER = { "pp", "dp_replicate", "dp_shard", "cp", "tp", "dp", "dp_cp", "shard", "loss", "stage" }

---@class am.distributed.Mesh
local Mesh = {}
Mesh.__index = Mesh

-- Coordinates of a rank, by axis.
local function coordinates(sizes, rank)
    local at = {}
    for i = #AXES, 1, -1 do
        at[AXES[i]] = rank % sizes[AXES[i]]
        rank = math.floor(rank / sizes[AXES[i]])
    end
    return at
end

-- A rank's place along some axes, and a number that all ranks have that differ along these alone.
local function place(sizes, at, axes)
    local along, others, is_in = 0, 0, {}
    for _, axis in ipairs(axes) do
        is_in[axis] = true
    end
    for _, axis in ipairs(AXES) do
        if is_in[axis] then
            along = along * sizes[axis] + at[axis]
        else
            others = others * sizes[axis] + at[axis]
        end
    end
    return along, others
end

--- A size as the configuration has it: nil and 0 are nil.
function M.given(size)
    return size and size > 0 and size or nil
end

-- The size of each axis. dp_shard is what the others leave.
local function all_sizes(world, given)
    local sizes, product = {}, 1
    for _, axis in ipairs(AXES) do
        sizes[axis] = M.given(given[axis]) or 1
        product = product * (axis == "dp_shard" and 1 or sizes[axis])
    end
    local left = world.size / product
    if left % 1 ~= 0 or M.given(given.dp_shard) and given.dp_shard ~= left then
        local said = {}
        for _, axis in ipairs(AXES) do
            if M.given(given[axis]) then
                said[#said + 1] = axis .. "_size " .. given[axis]
            end
        end
        err.raise("usage", "distributed: %d ranks are not what %s make; their product must be the number of ranks",
                  world.size, table.concat(said, " x "))
    end
    sizes.dp_shard = left
    return sizes
end

-- key: the same for names that mean the same ranks, which are one group then.
local function add_group(self, made, name, key, size, rank, color)
    self.sizes[name], self.ranks[name] = size, rank
    if size > 1 then -- on all ranks alike
        made[key] = made[key] or self.world.group:split(color, rank, name)
        self.groups[name] = made[key]
    end
end

--- All ranks call this together. sizes: { pp, dp_replicate, dp_shard, cp, tp, ep }, each 1 where it is absent, but for
--- dp_shard: what is left. Raises "usage" where they do not make the number of ranks.
---@param world am.distributed.World
---@return am.distributed.Mesh
function M.new(world, sizes)
    local grid = all_sizes(world, sizes or {})
    local self = setmetatable({ world = world, sizes = {}, ranks = {}, groups = {} }, Mesh)
    local at = coordinates(grid, world.rank)
    local made, dp_cp = {}, nil
    for _, name in ipairs(ORDER) do
        local size, wide = 1, {}
        for _, axis in ipairs(PRODUCTS[name] or { name }) do
            size = size * grid[axis]
            wide[#wide + 1] = grid[axis] > 1 and axis or nil
        end
        local key = table.concat(wide, " ")
        dp_cp = name == "dp_cp" and key or dp_cp
        add_group(self, made, name, key, size, place(grid, at, PRODUCTS[name] or { name }))
    end
    if grid.pp > 1 then
        local between = at.pp > 0 and at.pp < grid.pp - 1 -- these have a group, too, since all split together
        local _, others = place(grid, at, { "pp" })
        add_group(self, made, "pp_ends", grid.pp == 2 and "pp" or "pp_ends", 2, at.pp,
                  2 * others + (between and 1 or 0))
        self.ranks.pp_ends = at.pp == 0 and 0 or 1
    end
    local ep, all, rank = M.given(sizes and sizes.ep) or 1, self.sizes.dp_cp, self.ranks.dp_cp
    if self.sizes.shard % ep ~= 0 then
        err.raise("usage", "distributed.ep_size: %d does not divide the %d ranks that dp_shard_size x cp_size are", ep,
                  self.sizes.shard)
    end
    local _, others = place(grid, at, PRODUCTS.dp_cp)
    -- of its own where ep is dp_cp, too: backward waits for rows, which gradients on their way must not hold up
    add_group(self, made, "ep", "ep", ep, rank % ep, others * all / ep + math.floor(rank / ep))
    add_group(self, made, "expert_dp", ep == 1 and dp_cp or "expert_dp", all / ep, math.floor(rank / ep),
              others * ep + rank % ep)
    return self
end

--- How many ranks an axis has.
function Mesh:size(axis) return self.sizes[axis] end

--- This rank's place on an axis, from 0.
function Mesh:rank(axis) return self.ranks[axis] end

--- The ranks of this one's line along an axis; nil where it is alone.
---@return am.distributed.Comm?
function Mesh:group(axis) return self.groups[axis] end

--- Numbers reduced over an axis ("sum", "max", "min"), in double precision.
function Mesh:reduce(axis, list, op)
    local group = self.groups[axis]
    return group and group:reduce_numbers(list, op) or list
end

--- Leave the groups; before the world is closed.
function Mesh:close()
    for _, group in pairs(self.groups) do
        group:close() -- of several names: once
    end
    self.groups = {}
end

return M
