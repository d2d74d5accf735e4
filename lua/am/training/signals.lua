-- Signals that end a run with a checkpoint: SIGTERM (preemption), SIGINT (Ctrl-C) and SIGHUP (the
-- terminal went away; under nohup it is ignored), and those that a scheduler may send as a warning: SIGUSR1,
-- SIGUSR2, SIGXCPU, when the configuration names them.
-- Holds no handlers: `engine` may stand for the C functions am_signals_watch, am_signals_add, am_signals_pending
-- and am_signals_clear (default: the engine's). A second Ctrl-C always ends the process.
--
--   local signals = require("am.training.signals").watch{ preemption_signal = "SIGTERM" }
--   … sched: stop_requested = function() return signals:pending() ~= nil end
--   signals:unwatch()   os.exit(signals:exit_status())

local err = require("am.core.error")

local M = {}

local OFF, FLAG = 0, 1 -- AM_SIGNALS_OFF, AM_SIGNALS_FLAG
local SIGINT = 2
local names = { [1] = "SIGHUP", [2] = "SIGINT", [10] = "SIGUSR1", [12] = "SIGUSR2", [15] = "SIGTERM",
                [24] = "SIGXCPU" } -- Linux
local always = { SIGHUP = true, SIGINT = true, SIGTERM = true }

local Signals = {}
Signals.__index = Signals

-- The number of a signal by its name, with or without SIG, or itself; nil for one that can't be watched.
local function number_of(wanted)
    local name = type(wanted) == "string" and "SIG" .. wanted:upper():gsub("^SIG", "")
    for number, known in pairs(names) do
        if number == wanted or known == name then
            return number
        end
    end
    return nil
end

-- Array of what the configuration names: nothing, one, or a list.
local function list_of(wanted)
    return type(wanted) == "table" and wanted or { wanted }
end

--- Refuse a preemption_signal (a name, number, or list of them) that holds a signal that can't be watched.
function M.check(wanted)
    for _, one in ipairs(list_of(wanted)) do
        if not number_of(one) then
            err.raise("usage", "%s can't end a run with a checkpoint; SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2 and "
                      .. "SIGXCPU can", tostring(one))
        end
    end
end

--- Watch from now on. opts.preemption_signal: the configuration's value, a name, number or list; nil
--- for none: then nothing is watched and signals end the process at once. Ctrl-C, SIGTERM and SIGHUP are
--- watched with any.
function M.watch(opts)
    local self = setmetatable({ engine = opts.engine or require("am.core.ffi").C }, Signals)
    if opts.preemption_signal == nil then
        self.off = true
        return self
    end
    M.check(opts.preemption_signal)
    self.engine.am_signals_clear()
    if self.engine.am_signals_watch(FLAG) ~= 0 then
        err.raise("internal", "the engine cannot watch signals")
    end
    for _, one in ipairs(list_of(opts.preemption_signal)) do
        local number = number_of(one)
        if not always[names[number]] and self.engine.am_signals_add(number) ~= 0 then
            err.raise("internal", "the engine cannot watch %s", names[number])
        end
    end
    return self
end

--- Number and name of the signal that came, or nil.
function Signals:pending()
    local number = not self.off and self.engine.am_signals_pending() or 0
    if number == 0 then
        return nil
    end
    return number, names[number] or ("signal " .. number)
end

--- Exit status of a run that ended well: 0, also after SIGTERM, or 130 after Ctrl-C.
function Signals:exit_status()
    return self:pending() == SIGINT and 130 or 0
end

--- Give signals back to the system's default; what came stays pending.
function Signals:unwatch()
    if not self.off then
        self.engine.am_signals_watch(OFF)
    end
end

return M
