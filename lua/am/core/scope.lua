-- Scopes: what is made inside loses its memory at the end, except what is returned. This, not the
-- garbage collector, keeps memory flat in loops.

local args = require("am.core.args")
local edge = require("am.core.ffi")
local tensor = require("am.core.tensor")

local C, check = edge.C, edge.check
local M = {}

-- Move tensors that a scope returns to the enclosing one; looks into tables of tensors.
local function keep(value, seen)
    if type(value) == "cdata" then
        if tensor.is(value) then
            C.am_scope_keep(value)
        end
    elseif type(value) == "table" and not seen[value] then
        seen[value] = true
        for _, v in pairs(value) do
            keep(v, seen)
        end
    end
end

local left = function() end

--- Have fn called whenever a scope was left; for autograd.lua, which this file does not know.
function M.when_left(fn)
    left = fn
end

local function finish(ok, ...)
    if ok then
        local seen = {}
        for i = 1, select("#", ...) do
            keep((select(i, ...)), seen)
        end
    end
    check(C.am_scope_pop())
    left()
    if not ok then
        error((...), 0)
    end
    return ...
end

--- Run fn(...) in a scope and return its results. Tensors among the results (also inside tables)
--- stay; all others made inside are released, unless backward still needs them.
function M.scope(fn, ...)
    args.callable("scope", fn)
    check(C.am_scope_push())
    return finish(pcall(fn, ...))
end

--- Let a tensor (or a table of them) outlive every scope.
function M.escape(value)
    if type(value) == "table" then
        for _, v in pairs(value) do
            M.escape(v)
        end
    else
        C.am_scope_escape(args.tensor("escape", value))
    end
    return value
end

return M
