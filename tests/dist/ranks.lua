-- How the specs here start ranks: mpirun, one thread each. Holds no tests.
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")

local M = {}

--- Can ranks be started? Needs mpirun and a build with MPI.
M.can_run = os.execute("command -v mpirun >/dev/null 2>&1") == 0
    and path.is_file(path.join(path.dirname(helper.amlua), "amlua_mpi.so"))

--- Can they meet over Gloo?
M.has_gloo = path.is_file(path.join(path.dirname(helper.amlua), "amlua_gloo.so"))

--- Shell words in front of a command that start it n times.
function M.mpirun(n)
    return "OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
        .. "mpirun --oversubscribe -n " .. n
end

return M
