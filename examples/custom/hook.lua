-- A hook of one's own: says which validation was the best so far, also in a run that goes on.
--   hooks:
--     - _target_: hook.lua:best_so_far
-- Every method and when it is called: lua/am/training/hooks.lua.

local M = {}

function M.best_so_far()
    local hook = { name = "best_so_far", best = math.huge }

    function hook:validation(recipe, set, record)
        if record.val_loss < self.best then
            self.best = record.val_loss
            recipe.log:info("best of %s so far: %.4f at step %d", set, record.val_loss, record.step)
        end
    end

    -- What these two give and take is part of every checkpoint.
    function hook:state_dict() return { best = self.best < math.huge and self.best or nil } end
    function hook:load_state_dict(state) self.best = state.best or math.huge end

    return hook
end

return M
