-- Which rank this process is, by the environment of what started it. Joins nothing (comm.lua does) and needs no
-- library, so that a login node can ask.
--
-- Known are, in this order: RANK and WORLD_SIZE (torchrun and its like), Open MPI's mpirun, MPICH's and Intel's
-- mpiexec, and srun, whose ranks meet through PMIx (mpi) or, without it, by SLURM's list of hosts (gloo).

local err = require("am.core.error")

local M = {}

---@class am.distributed.Place
---@field rank integer
---@field size integer
---@field local_rank integer? on this host, where the launcher says it
---@field engine string "self", "mpi" or "gloo"
---@field by string? what started the ranks, for messages
---@field address string? where rank 0 is, for gloo
---@field port integer?

local function number(getenv, name)
    local text = getenv(name)
    if text == nil or text == "" then
        return nil
    end
    local value = text:match("^%d+$") and tonumber(text)
    return value and value < 2 ^ 31 and value
        or err.raise("usage", "the environment's %s is \"%s\", not a whole number", name, text)
end

-- A place by the names of variables: { rank, size, local_rank }, of which the last may be unset; nil where the first
-- two are.
local function by_names(getenv, engine, by, names)
    local rank, size = number(getenv, names[1]), number(getenv, names[2])
    if not (rank and size) then
        return nil
    elseif rank >= size then
        err.raise("usage", "%s is %d, and %s is %d: ranks begin at 0", names[1], rank, names[2], size)
    end
    return { rank = rank, size = size, local_rank = number(getenv, names[3]),
             engine = size > 1 and engine or "self", by = by }
end

-- The first host of a Slurm list: "n[1-3,7],m2" begins with n1.
local function first_host(list)
    local prefix, numbers = list:match("^([^%[,]*)%[([^%]]*)%]")
    return prefix and prefix .. numbers:match("^%d+") or list:match("^[^,]+")
end

local function with_meeting_point(place, getenv)
    local hosts = getenv("SLURM_STEP_NODELIST")
    local address = getenv("MASTER_ADDR")
    place.address = address ~= "" and address or (hosts and first_host(hosts))
    place.port = number(getenv, "MASTER_PORT")
    if place.engine == "gloo" and not (place.address and place.port) then
        err.raise("usage", "%s started %d ranks, and MASTER_ADDR and MASTER_PORT do not say where they meet%s",
                  place.by, place.size, place.by == "srun" and "; over MPI they need neither: srun --mpi=pmix" or "")
    elseif place.engine == "gloo" and (place.port < 1 or place.port > 65535) then
        err.raise("usage", "the environment's MASTER_PORT is %d, and ports are 1 to 65535", place.port)
    end
    return place
end

--- A place whose ranks, whoever started them, are to meet over Gloo.
function M.over_gloo(place, getenv)
    place.engine = "gloo"
    return with_meeting_point(place, getenv or os.getenv)
end

--- Where this process stands. getenv: os.getenv by default.
---@return am.distributed.Place
function M.find(getenv)
    getenv = getenv or os.getenv
    local place = by_names(getenv, "gloo", "torchrun or its like",
                           { "RANK", "WORLD_SIZE", "LOCAL_RANK" })
    if place then
        return with_meeting_point(place, getenv)
    end
    place = by_names(getenv, "mpi", "mpirun", { "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                                                "OMPI_COMM_WORLD_LOCAL_RANK" })
        or by_names(getenv, "mpi", "mpiexec", { "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID" })
    if place then
        return place
    elseif getenv("SLURM_STEP_ID") and getenv("SLURM_STEP_NUM_TASKS") then -- not a batch script itself
        local has_pmix = getenv("PMIX_RANK") ~= nil
        place = by_names(getenv, has_pmix and "mpi" or "gloo", "srun",
                         { "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID" })
        return place and (has_pmix and place or with_meeting_point(place, getenv)) or M.alone()
    end
    return M.alone()
end

--- A process that nobody started with others.
function M.alone()
    return { rank = 0, size = 1, local_rank = 0, engine = "self" }
end

return M
