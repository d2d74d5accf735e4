-- What a run that failed says beside the error itself: what was saved last, and of memory what would help. Holds no
-- saving (checkpoints.lua) and no estimates (memory.lua).

local err = require("am.core.error")
local memory = require("am.recipes.memory")

local M = {}

-- The machine's doing, not that of the data or the configuration: the same command may go well.
local machine = { memory = true, device = true, comm = true }

--- Add it to an error of a recipe's run, for the machine's errors. Returns the error.
function M.explain(recipe, e)
    if not (err.is(e) and machine[e.code]) then
        return e
    end
    if e.code == "memory" and not e.msg:find(memory.HELP, 1, true) then
        e.msg = e.msg .. ". " .. memory.HELP
        if recipe.graphs then -- whose memory is theirs alone
            e.msg = e.msg .. "; compile.enabled: false"
        end
    end
    if recipe.saved then
        e.msg = ("%s. The checkpoint %s is whole; the same command goes on from it"):format(e.msg, recipe.saved.dir)
    elseif recipe.is_set_up then
        e.msg = e.msg .. ". Nothing was saved yet"
    end
    return e
end

return M
