-- Signals that end a run with a checkpoint: SIGTERM (preemption), SIGINT (Ctrl-C) and SIGHUP (the
-- terminal went away; under nohup it is ignored).
-- Holds no handlers: `engine` may stand for the C functions am_signals_watch, am_signals_pending and
-- am_signals_clear (default: the engine's). A second Ctrl-C always ends the process.
--
--   local signals = require("am.training.signals").watch{ preemption_signal = "SIGTERM" }
--   … sched: stop_requested = function() return signals:pending() ~= nil end
--   signals:unwatch()   os.exit(signals:exit_status())

local err = require("am.core.error")

local M = {}

local SIGHUP, SIGINT, SIGTERM = 1, 2, 15
local OFF, FLAG = 0, 1 -- AM_SIGNALS_OFF, AM_SIGNALS_FLAG
local names = { [SIGHUP] = "SIGHUP", [SIGINT] = "SIGINT", [SIGTERM] = "SIGTERM" }

local Signals = {}
Signals.__index = Signals

-- Refuses a name, number, or list of them that holds a signal the engine does not watch.
local function check_signal(wanted)
    if type(wanted) == "table" then
        for _, one in ipairs(wanted) do
            check_signal(one)
        end
        return
    end
    local name = type(wanted) == "string" and wanted:upper():gsub("^SIG", "") or wanted
    if name ~= "TERM" and name ~= "INT" and name ~= SIGTERM and name ~= SIGINT then
        err.raise("usage", "step_scheduler.preemption_signal %s: only SIGTERM and SIGINT can end a run "
            .. "with a checkpoint", tostring(wanted))
    end
end

--- Watch from now on. opts.preemption_signal: the configuration's value, a name, number or list; nil
--- for none: then nothing is watched and signals end the process at once. Ctrl-C is watched with any.
function M.watch(opts)
    local self = setmetatable({ engine = opts.engine or require("am.core.ffi").C }, Signals)
    if opts.preemption_signal == nil then
        self.off = true
        return self
    end
    check_signal(opts.preemption_signal)
    self.engine.am_signals_clear()
    if self.engine.am_signals_watch(FLAG) ~= 0 then
        err.raise("internal", "the engine cannot watch signals")
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
