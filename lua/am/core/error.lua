-- Error objects: what every failure in amlua raises, and how it reads when printed.
-- Holds no error catalogue; each component words its own messages.
--
-- Codes and what they mean to the caller (recipes turn them into exit statuses):
--   usage        a mistake in the command line or the configuration   -> exit status 2
--   data         a row, file content or sample that cannot be used    -> 1
--   io           the operating system refused                         -> 1
--   format       a checkpoint, tokenizer or template file is damaged  -> 1
--   argument     a value out of range in a call                      -> 1
--   shape        operands do not fit                                  -> 1
--   device, comm a device or the link between ranks failed            -> 1
--   state        called at the wrong moment (closed, released, …)     -> 1
--   memory       not enough memory                                    -> 1
--   unsupported  valid, but not something amlua does                  -> 1
--   interrupted  SIGINT or SIGTERM asked for an end                   -> 130 or 143
--   internal     a defect in amlua                                    -> 1

local M = {}

---@class am.Error
---@field code string
---@field msg string
---@field where string? breadcrumbs added while the error climbed, innermost first
local Error = {}
Error.__index = Error

function Error:__tostring()
    if self.where then
        return self.msg .. " (in " .. self.where .. ")"
    end
    return self.msg
end

--- A new error object; raise it with `error(e)`.
---@param code string one of the codes above
---@param msg string complete sentence or clause naming the thing and the remedy
function M.new(code, msg)
    return setmetatable({ code = code, msg = msg }, Error)
end

--- Raise an error object built from a format string.
function M.raise(code, fmt, ...)
    error(M.new(code, select("#", ...) > 0 and string.format(fmt, ...) or fmt), 0)
end

--- True when `e` is an error object of this module.
function M.is(e)
    return getmetatable(e) == Error
end

--- What fn(...) returns, or its error, after undo() in both cases.
function M.finally(undo, fn, ...)
    local function finish(ok, ...)
        undo()
        if not ok then
            error((...), 0)
        end
        return ...
    end
    return finish(pcall(fn, ...))
end

--- Add where an error passed through ("layers.3", then "model") and return it for re-raising.
function M.within(e, place)
    if M.is(e) then
        e.where = e.where and (e.where .. " < " .. place) or place
    end
    return e
end

return M
