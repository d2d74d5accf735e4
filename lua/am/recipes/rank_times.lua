-- What a run's ranks tell one another of their times: those of the timers, and who is slow. Methods of the recipes for
-- language models (llm.lua).

local json = require("am.utils.json")
local posix = require("am.utils.posix")
local stragglers = require("am.training.stragglers")
local timers = require("am.training.timers")

local Methods = {}

--- Keys of the section `timers`.
Methods.timer_fields = {}
for _, fields in ipairs { timers.fields, stragglers.fields } do
    for key, spec in pairs(fields) do
        Methods.timer_fields[key] = spec
    end
end

--- self.timers, and with several ranks self.stragglers.
function Methods:build_timers()
    local options, world = self:section("timers"), self.world
    if world.size > 1 then
        options.gather = function(times)
            local all = world:gather(json.encode(times))
            for i, text in ipairs(all) do
                all[i] = json.decode(text)
            end
            return all
        end
        options.waited, options.host = world.waited, posix.hostname()
        options.say = function(...) self.log:info(...) end
        options.warn = function(...)
            if world:is_main() then -- all know it
                self.log:warning(...)
            end
        end
        self.stragglers = stragglers.Stragglers(setmetatable({
            gather = function(text) return world:gather(text) end,
        }, { __index = options }))
    end
    self.timers = timers.Timers(options)
end

--- fn(…), counted as this rank's own time.
function Methods:timed_rank(fn, ...)
    if self.stragglers then
        return self.stragglers:timed(fn, ...)
    end
    return fn(...)
end

--- A step has ended: ranks compare their times. All do it at once.
function Methods:compare_ranks()
    self.timers:collect()
    if self.stragglers then
        self.stragglers:step(self.scheduler:is_last_step())
    end
end

return Methods
