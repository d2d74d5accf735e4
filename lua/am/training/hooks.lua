-- Hooks: what happens at fixed points of a run, beside training itself. Holds the list and its state; hooks
-- are early_stopping.lua, ema.lua, those of am.recipes, and whatever a configuration's `hooks` names.
--
-- A hook is an object with a `name` and any of these methods, all of them with the recipe first. They are
-- called in the order of the list.
--   setup(recipe)                     everything is built, and the checkpoint to go on from is loaded
--   updated(recipe)                   an optimizer step was taken, also by hand
--   step(recipe, record)              it is logged; record is its line of training.jsonl
--   before_validation(recipe)         around all validation sets
--   validation(recipe, name, record)  one set is done; record is its line of validation.jsonl
--   after_validation(recipe, step)    step: what was validated, nil where validation did not come to its end
--   sample(recipe, record, images)    what the model answered to a prompt: { step, prompt, text }, of a row of data
--                                     also row (its name) and truth; images: its pictures as data: URIs, or nil
--   save(recipe, dir, is_last)        a checkpoint is being written into dir, which is not published yet; with several
--                                     ranks called on the first, and on all where the hook has every_rank = true
--   load(recipe, dir)                 a checkpoint was read, before setup
--   finish(recipe, how, message)      the run ends: how is "finished", "stopped" (by a signal) or "failed"
-- With several ranks all run the hooks, and what one decides (recipe:stop) all must: by numbers that they share, such
-- as a loss, not by a clock.
-- A hook with state_dict() and load_state_dict(state) is saved with every checkpoint, under its name.

local err = require("am.core.error")

local M = {}

local Hooks = {}
Hooks.__index = Hooks

--- A list of hooks. Names must differ, since their state is found by them.
function M.new(list)
    local by_name = {}
    for i, hook in ipairs(list) do
        if type(hook) ~= "table" then
            err.raise("usage", "hook %d is a %s, not a table with methods", i, type(hook))
        end
        hook.name = hook.name or "hook_" .. i
        if by_name[hook.name] then
            err.raise("usage", 'two hooks have the name "%s"', hook.name)
        end
        by_name[hook.name] = hook
    end
    return setmetatable({ list = list, by_name = by_name }, Hooks)
end

--- Call a method of all hooks that have it.
function Hooks:call(method, ...)
    for _, hook in ipairs(self.list) do
        if hook[method] then
            hook[method](hook, ...)
        end
    end
end

--- Call a method that is the first rank's affair: of all hooks there, on other ranks of those with every_rank.
function Hooks:call_on(is_main, method, ...)
    for _, hook in ipairs(self.list) do
        if hook[method] and (is_main or hook.every_rank) then
            hook[method](hook, ...)
        end
    end
end

--- The hook of that name, or nil.
function Hooks:get(name)
    return self.by_name[name]
end

--- { name = state } of the hooks that have one.
function Hooks:state_dict()
    local state = {}
    for _, hook in ipairs(self.list) do
        if hook.state_dict then
            state[hook.name] = hook:state_dict()
        end
    end
    return state
end

--- Give hooks their state. Those that the checkpoint does not know begin anew, and a note says so.
function Hooks:load_state_dict(state)
    local notes = {}
    for _, hook in ipairs(self.list) do
        if hook.load_state_dict then
            if type(state[hook.name]) == "table" then
                hook:load_state_dict(state[hook.name])
            else
                notes[#notes + 1] = string.format("%s was not there and begins now", hook.name)
            end
        end
    end
    return notes
end

return M
