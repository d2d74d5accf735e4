-- What a run will do between its steps and has not done yet: seconds of saving and of validation to come, for the
-- estimate of the time left. Holds no estimate of the steps themselves, which is am.training.eta's.

local edge = require("am.core.ffi")
local path = require("am.utils.path")
local preflight = require("am.recipes.preflight")

local M = {}

local PIECE, PIECES = 4 * 1024 * 1024, 32 -- bytes written to measure the disk, and how often
local SMALL = 256 * 1024 * 1024           -- bytes of all saves to come that are not worth a measurement
local FORWARD = 0.4                       -- of a training step's time for its tokens; a third with every weight trained

-- Bytes a second that a folder takes and syncs, or nil where it takes none.
local function disk_rate(dir)
    local name, piece = path.unique(path.join(dir, ".disk")), ("amlua "):rep(PIECE / 6)
    local started, file = edge.C.am_clock(), io.open(name, "wb")
    local ok = file and pcall(function()
        for _ = 1, PIECES do
            assert(file:write(piece))
        end
        assert(file:close())
        path.sync(name)
    end)
    os.remove(name)
    return ok and #piece * PIECES / (edge.C.am_clock() - started) or nil
end

--- Seconds that the saves of the rest of a recipe's run will take; 0 where they are small or not known.
function M.saving(recipe)
    if not recipe:checkpoint_setting("enabled") then
        return 0
    end
    local count = recipe.scheduler:to_come()
    local bytes, whole = preflight.checkpoint_bytes(recipe, recipe.model)
    local when = recipe:checkpoint_setting("save_consolidated")
    local all = count * (bytes + ((when == true or when == "every") and whole or 0)) + (when == "final" and whole or 0)
    local rate = all > SMALL and disk_rate(recipe:checkpoint_dir())
    return rate and all / rate or 0
end

--- Seconds that its validations will take, when a step of `tokens` tokens takes `seconds`.
function M.validating(recipe, tokens, seconds)
    local of_all = 0
    for _, set in ipairs(recipe.validation_sets) do
        local stats = set.loader.dataset.stats and set.loader.dataset:stats()
        of_all = of_all + (stats and stats.tokens or 0)
    end
    if of_all == 0 then
        return 0
    end
    local _, count = recipe.scheduler:to_come()
    return count * of_all / tokens * seconds * FORWARD
end

return M
