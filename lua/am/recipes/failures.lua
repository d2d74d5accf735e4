-- What a run that failed says beside the error itself: what was saved last, and of memory what would help. Holds no
-- saving (checkpoints.lua) and no estimates (memory.lua).

local checkpoint = require("am.checkpoint")
local err = require("am.core.error")
local memory = require("am.recipes.memory")

local M = {}

-- The machine's doing, not that of the data or the configuration: the same command may go well.
local machine = { memory = true, device = true, comm = true }

-- Of memory that ran out before there was anything to train with.
local LOADING = "What would help: model.torch_dtype: bfloat16; a peft section, with quantization.load_in_4bit; "
    .. "distributed.strategy: fsdp2 on more ranks; optimizer.state_dtype: int8"

-- The checkpoint that a run wanted to go on from, if there is one.
local function resumed_from(recipe)
    local found, dir = pcall(function()
        return recipe:checkpoint_setting("enabled")
            and checkpoint.resolve(recipe:checkpoint_dir(), recipe.cfg:get("checkpoint.restore_from"))
    end)
    return found and dir or nil
end

--- Add it to an error of a recipe's run, for the machine's errors. Returns the error.
function M.explain(recipe, e)
    if not (err.is(e) and machine[e.code]) then
        return e
    end
    if e.code == "memory" and not e.msg:find(memory.HELP, 1, true) then
        e.msg = e.msg .. ". " .. (recipe.is_set_up and memory.HELP or LOADING)
        if recipe.graphs then -- whose memory is theirs alone
            e.msg = e.msg .. "; compile.enabled: false"
        end
    end
    if recipe.saved then
        e.msg = ("%s. The checkpoint %s is whole; the same command goes on from it"):format(e.msg, recipe.saved.dir)
    elseif recipe.is_set_up then
        e.msg = e.msg .. ". Nothing was saved yet"
    else
        local from = resumed_from(recipe)
        e.msg = from and ("%s. The checkpoint %s is as it was; the same command goes on from it"):format(e.msg, from)
            or e.msg
    end
    return e
end

return M
