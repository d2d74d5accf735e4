-- Ranks that share matrices, and tokens between blocks, learn what one rank learns: the recipe under mpirun, the same
-- global batch in the same order. Skipped, and counted, where there is no mpirun or no amlua_mpi.so.
local helper = require("tests.recipe.helper")
local ranks = require("tests.dist.ranks")

local function with(distributed, changes)
    return helper.changes({ distributed = distributed }, changes or {})
end

local function tp(size, more)
    return helper.changes({ strategy = "ddp", tp_size = size }, more or {})
end

local WITHOUT_FILES = { "--checkpoint.enabled", "false" }

local cases = {
    { "full, two of two", 2, tp(2) },
    { "full, two of four: rows are dealt to two", 4, tp(2) },
}

describe("tensor parallel", function()
    if not ranks.can_run then
        pending("there is no mpirun, or no amlua_mpi.so")
        return
    end

    teardown(helper.cleanup)

    local alone = {}

    for _, case in ipairs(cases) do
        local name, n, distributed, changes = unpack(case)
        it("learns what one rank learns: " .. name, function()
            local key = changes or cases
            alone[key] = alone[key] or ranks.train(1, changes)
            ranks.compare(alone[key], (ranks.train(n, with(distributed, changes), WITHOUT_FILES)))
        end)
    end
end)
