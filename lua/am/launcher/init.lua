-- Launchers: what starts the ranks of a run, on this host or in a cluster's queue. What the ranks do together is
-- not theirs. Which launcher a configuration asks for is decided in lua/am/recipes/launch.lua.
--   local.lua       N ranks here, by mpirun
--   slurm.lua       a batch script, and its submission
--   kubernetes.lua  a manifest
--   text.lua        quoting

local M = {}

--- What started this process as a rank, for messages, or nil. A launched process launches nothing.
function M.started_by(getenv)
    getenv = getenv or os.getenv
    if getenv("RANK") and getenv("WORLD_SIZE") then
        return "torchrun or its like"
    elseif getenv("OMPI_COMM_WORLD_SIZE") then
        return "mpirun"
    elseif getenv("PMI_RANK") and getenv("PMI_SIZE") then
        return "mpiexec"
    elseif getenv("SLURM_STEP_ID") and getenv("SLURM_STEP_NUM_TASKS") then -- unset in a batch script itself
        return "srun"
    end
    return nil
end

return M
