-- Console logger: `2026-01-31 12:00:00 | INFO | am.recipe | message`.
-- Holds no metric writers; those are components.
--
--   local log = require("am.utils.log").get("am.recipe")
--   log:debug(fmt, …)  log:info(fmt, …)  log:warning(fmt, …)  log:error(fmt, …)
--   log:enabled("debug")
--   require("am.utils.log").redirect(stream)     another stream from now on; returns the one before
--   require("am.utils.log").setup{ level = "info", stream = io.stderr, color = true|false|nil }
--
-- The level comes from setup, else from LOGGING_LEVEL (a name, or Python's number: 10 debug, 20 info,
-- 30 warning, 40 error), else it is info. Warnings and errors are never filtered. Colours are used on
-- a terminal unless NO_COLOR is set; FORCE_COLOR uses them anyway. With arguments the first is a
-- format string, alone it is printed as it is.

local posix = require("am.utils.posix")
local err = require("am.core.error")

local M = {}

local levels = { debug = 10, info = 20, warning = 30, warn = 30, error = 40, critical = 50 }
local colors = { debug = "\27[2m", warning = "\27[33m", error = "\27[31m" }

local state -- threshold, stream, color: filled on first use, so that the environment is read late

--- The number of a level given by name or number ("info", "INFO", 20, "20"), or nil.
function M.level_number(level)
    if type(level) == "string" then
        return levels[level:lower()] or tonumber(level)
    end
    return type(level) == "number" and level or nil
end

local function set_in_environment(name)
    local value = os.getenv(name)
    return value ~= nil and value ~= ""
end

local function wants_color(stream)
    if set_in_environment("NO_COLOR") then
        return false
    elseif set_in_environment("FORCE_COLOR") then
        return true
    end
    return io.type(stream) == "file" and posix.isatty(stream)
end

--- Set level, stream (anything with a `write` method), colours, and what stands before each message; each is
--- optional.
function M.setup(opts)
    opts = opts or {}
    local stream = opts.stream or io.stderr
    local asked = opts.level or os.getenv("LOGGING_LEVEL")
    local threshold = asked and M.level_number(asked) or levels.info
    if asked and asked ~= "" and not M.level_number(asked) then
        err.raise("usage", 'unknown logging level "%s": write debug, info, warning, error or a number',
            tostring(asked))
    end
    local color = opts.color
    if color == nil then
        color = wants_color(stream)
    end
    state = { threshold = math.min(threshold, levels.warning), stream = stream, color = color,
              prefix = opts.prefix or "" }
end

--- Print to another stream from now on, with the level and the colours of the one before, which is
--- returned: for what shares a terminal with the messages. Without an argument nothing is changed.
function M.redirect(stream)
    if not state then
        M.setup()
    end
    local before = state.stream
    state.stream = stream or before
    return before
end

--- True when messages are coloured.
function M.colored()
    if not state then
        M.setup()
    end
    return state.color
end

-- Text may come from files: terminal control sequences in it are not passed on.
local function printable(text)
    return (text:gsub("[%z\1-\8\11-\31\127]", "?"))
end

local Logger = {}
Logger.__index = Logger

local function write(self, level, fmt, ...)
    if not state then
        M.setup()
    end
    if levels[level] < state.threshold then
        return
    end
    local text = select("#", ...) > 0 and string.format(fmt, ...) or tostring(fmt)
    local name = level:upper()
    if state.color and colors[level] then
        name = colors[level] .. name .. "\27[0m"
    end
    state.stream:write(os.date("%Y-%m-%d %H:%M:%S"), " | ", name, " | ", self.name, " | ", state.prefix,
                       printable(text), "\n")
    if state.stream.flush then
        state.stream:flush()
    end
end

function Logger:debug(fmt, ...) write(self, "debug", fmt, ...) end
function Logger:info(fmt, ...) write(self, "info", fmt, ...) end
function Logger:warning(fmt, ...) write(self, "warning", fmt, ...) end
function Logger:error(fmt, ...) write(self, "error", fmt, ...) end

--- True when messages of that level are printed; ask before building a costly one.
function Logger.enabled(_, level)
    if not state then
        M.setup()
    end
    return levels[level] >= state.threshold
end

--- A logger that signs with `name`.
function M.get(name)
    return setmetatable({ name = name }, Logger)
end

return M
