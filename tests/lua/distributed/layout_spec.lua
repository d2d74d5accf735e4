-- The mesh's numbering, and parts of parameters: without other ranks. That ranks put wholes together is
-- tests/dist/layout.lua's.
local am = require("am")
local layout = require("am.distributed.layout")
local mesh = require("am.distributed.mesh")
local Linear = require("am.nn.linear")

-- A world whose splits are only noted.
local function world(rank, size)
    local self = { rank = rank, size = size, splits = {} }
    self.group = { split = function(_, color, key, name)
        self.splits[name] = { color, key }
        return { close = function() end }
    end }
    return self
end

describe("the mesh", function()
    it("numbers ranks with tp fastest and pp slowest", function()
        for rank = 0, 31 do
            local m = mesh.new(world(rank, 32), { pp = 2, dp_replicate = 2, cp = 2, tp = 2 })
            assert.equal(2, m:size("dp_shard"))
            assert.equal(rank, (((m:rank("pp") * 2 + m:rank("dp_replicate")) * 2 + m:rank("dp_shard")) * 2
                + m:rank("cp")) * 2 + m:rank("tp"))
            assert.equal(m:rank("dp_replicate") * 2 + m:rank("dp_shard"), m:rank("dp"))
            assert.equal(m:rank("dp_shard") * 2 + m:rank("cp"), m:rank("shard"))
            assert.equal(16, m:size("stage"))
        end
    end)

    it("puts the ranks of an axis into one group, and makes no group twice", function()
        local members = {}
        for rank = 0, 15 do
            local w = world(rank, 16)
            mesh.new(w, { tp = 2, dp_replicate = 2, ep = 2 })
            assert.is_nil(w.splits.cp)
            assert.is_nil(w.splits.dp_cp, "the same ranks as dp")
            for name, split in pairs(w.splits) do
                local key = name .. split[1]
                members[key] = members[key] or {}
                members[key][split[2] + 1] = rank
            end
        end
        assert.same({ 0, 1 }, members.tp0)
        assert.same({ 0, 2, 4, 6, 8, 10, 12, 14 }, members.dp0)
        assert.same({ 0, 2 }, members.ep0)
        assert.same({ 0, 4, 8, 12 }, members.expert_dp0)
    end)

    it("has the ends of a pipeline, and all ranks that have parts of a loss", function()
        local ends, losses = {}, {}
        for rank = 0, 11 do
            local w = world(rank, 12)
            local m = mesh.new(w, { pp = 3, tp = 2 })
            assert.equal(6, m:size("loss"))
            ends[w.splits.pp_ends[1]] = (ends[w.splits.pp_ends[1]] or "") .. rank .. " "
            losses[w.splits.loss[1]] = (losses[w.splits.loss[1]] or "") .. rank .. " "
        end
        assert.same({ [0] = "0 8 ", "4 ", "1 9 ", "5 ", "2 10 ", "6 ", "3 11 ", "7 " }, ends)
        assert.same({ [0] = "0 2 4 6 8 10 ", "1 3 5 7 9 11 " }, losses)
        local w = world(1, 2)
        local m = mesh.new(w, { pp = 2 })
        assert.is_nil(w.splits.pp_ends, "all of pp")
        assert.same({ 1, 2 }, { m:rank("pp_ends"), m:size("pp_ends") })
    end)

    it("refuses sizes that are not the number of ranks", function()
        for _, sizes in ipairs { { tp = 3 }, { dp_shard = 2, tp = 1 }, { ep = 3 } } do
            local ok, e = pcall(mesh.new, world(0, 4), sizes)
            assert.is_false(ok)
            assert.equal("usage", e.code)
            assert.matches("distributed", tostring(e))
        end
    end)
end)

describe("the layout", function()
    local function parts_of(rows, size, dim, parts)
        local list = {}
        for rank = 0, size - 1 do
            local linear = Linear.new(3, rows)
            linear.weight = am.arange(rows * 3):to("float32"):reshape(rows, 3)
            local l = layout.new(linear, { size = function() return size end, rank = function() return rank end })
            list[rank + 1] = l:cut("weight", "tp", dim, parts)
            assert.equal(linear.weight, list[rank + 1])
            assert.same({ rows, 3 }, l:get("weight").shape)
        end
        return list
    end

    it("cuts rows, the last ranks having less", function()
        local list = parts_of(7, 4, 0)
        assert.same({ { 0, 1, 2 }, { 3, 4, 5 } }, list[1]:totable())
        assert.same({ { 18, 19, 20 } }, list[4]:totable())
        assert.equal(0, parts_of(3, 4, 0)[4]:numel())
    end)

    it("cuts the parts of a fused map each on its own, and columns", function()
        assert.same({ { 0, 1, 2 }, { 3, 4, 5 }, { 12, 13, 14 } }, parts_of(6, 2, 0, { 4, 2 })[1]:totable())
        assert.same({ { 2 }, { 5 } }, parts_of(2, 2, 1)[2]:totable())
    end)

    it("cuts a shared tensor once, for both", function()
        local linear, other = Linear.new(2, 4), Linear.new(2, 4)
        linear.weight = am.zeros { 4, 2 }
        linear:add("other", other)
        other:share("weight", linear.weight)
        local l = layout.new(linear, { size = function() return 2 end, rank = function() return 1 end })
        l:cut("weight", "tp", 0)
        assert.equal(linear.weight, other.weight)
        assert.equal(2, other.weight:size(0))
    end)
end)
