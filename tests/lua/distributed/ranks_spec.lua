-- am.distributed.ranks: what the environments of launchers say.
local distributed = require("am.distributed")
local err = require("am.core.error")
local ranks = require("am.distributed.ranks")

local function find(env)
    return ranks.find(function(name) return env[name] end)
end

local function fails(pattern, env)
    local ok, e = pcall(find, env)
    assert.is_false(ok)
    assert.is_true(err.is(e))
    assert.matches(pattern, e.msg)
end

describe("am.distributed.ranks", function()
    it("knows who started it", function()
        assert.same({ 0, 1, "self" }, { find({}).rank, find({}).size, find({}).engine })
        assert.same({ rank = 3, size = 4, local_rank = 1, engine = "gloo", by = "torchrun or its like",
                      address = "10.0.0.1", port = 29500 },
            find { RANK = "3", WORLD_SIZE = "4", LOCAL_RANK = "1", LOCAL_WORLD_SIZE = "2", MASTER_ADDR = "10.0.0.1",
                   MASTER_PORT = "29500", OMPI_COMM_WORLD_RANK = "0", OMPI_COMM_WORLD_SIZE = "9" })
        local place = find { OMPI_COMM_WORLD_RANK = "1", OMPI_COMM_WORLD_SIZE = "2", OMPI_COMM_WORLD_LOCAL_RANK = "1",
                             OMPI_COMM_WORLD_LOCAL_SIZE = "2" }
        assert.same({ 1, 2, 1, "mpi" }, { place.rank, place.size, place.local_rank, place.engine })
        assert.equal("mpi", find({ PMI_RANK = "0", PMI_SIZE = "2" }).engine)
        assert.is_nil(find({ PMI_RANK = "1", PMI_SIZE = "2" }).local_rank)
        assert.equal("self", find({ RANK = "0", WORLD_SIZE = "1" }).engine)
    end)

    it("takes the launcher's word for a rank's place on its host", function()
        local world = distributed.join { place = { rank = 0, size = 1, local_rank = 3, engine = "self" } }
        assert.same({ 3, true }, { world.local_rank, world.is_first_on_host })
        world = distributed.join { place = { rank = 0, size = 1, engine = "self" } }
        assert.same({ 0, true }, { world.local_rank, world.is_first_on_host })
    end)

    it("knows srun's ranks, and that a batch script is none", function()
        local step = { SLURM_STEP_ID = "0", SLURM_PROCID = "1", SLURM_STEP_NUM_TASKS = "4", SLURM_LOCALID = "1",
                       SLURM_STEP_NODELIST = "n[03-04,7]", MASTER_PORT = "1234" }
        local place = find(step)
        assert.same({ 1, 4, 1, "gloo", "n03", 1234 }, { place.rank, place.size, place.local_rank, place.engine,
                                                        place.address, place.port })
        step.PMIX_RANK = "1"
        assert.equal("mpi", find(step).engine)
        step.PMIX_RANK, step.SLURM_STEP_NODELIST = nil, "alpha,beta"
        assert.equal("alpha", find(step).address)
        assert.equal("self", find({ SLURM_PROCID = "0", SLURM_NTASKS = "4" }).engine)
    end)

    it("lets mpirun's ranks meet over Gloo where they are told to", function()
        local env = { OMPI_COMM_WORLD_RANK = "1", OMPI_COMM_WORLD_SIZE = "2", MASTER_ADDR = "n1", MASTER_PORT = "1234" }
        local function getenv(name) return env[name] end
        local place = ranks.over_gloo(ranks.find(getenv), getenv)
        assert.same({ "gloo", "n1", 1234 }, { place.engine, place.address, place.port })
        env.MASTER_PORT = nil
        local ok, e = pcall(ranks.over_gloo, ranks.find(getenv), getenv)
        assert.is_false(ok)
        assert.matches("mpirun started 2 ranks, and MASTER_ADDR and MASTER_PORT do not say where", e.msg)
    end)

    it("refuses what makes no sense", function()
        fails('RANK is "two"', { RANK = "two", WORLD_SIZE = "2" })
        fails("RANK is 2, and WORLD_SIZE is 2", { RANK = "2", WORLD_SIZE = "2" })
        fails("MASTER_ADDR and MASTER_PORT do not say", { RANK = "1", WORLD_SIZE = "2" })
        fails("do not say", { RANK = "1", WORLD_SIZE = "2", MASTER_ADDR = "", MASTER_PORT = "1234" })
        fails("srun %-%-mpi=pmix", { SLURM_STEP_ID = "0", SLURM_PROCID = "1", SLURM_STEP_NUM_TASKS = "2",
                                     SLURM_STEP_NODELIST = "n[1-2]" })
        for _, port in ipairs { "0", "65536" } do
            fails("MASTER_PORT is " .. port, { RANK = "1", WORLD_SIZE = "2", MASTER_ADDR = "n1", MASTER_PORT = port })
        end
    end)
end)
