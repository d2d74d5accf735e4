-- Checks a syntax tree before it runs: filters and tests that do not exist are mistakes already then, except
-- in the branches of an `if` (as jinja2 has it), and nodes are not nested so deeply that walking them would
-- overflow the stack. Evaluates nothing.

local err = require "am.core.error"

local M = {}

-- The evaluator stops at a smaller depth; this is a tree that it is never given.
local MAX_NESTING = 1500

-- What runs in a frame of its own, in which jinja2 is strict again.
local own_frames = {
    ["for"] = { body = true, otherwise = true, test = true }, macro = { body = true, parameters = true },
    call_block = { body = true, parameters = true }, generation = { body = true }, with = { body = true },
    set_block = { body = true, filter = true }, filter_block = { body = true, filter = true },
}

local function fail(line, fmt, ...)
    err.raise("format", "chat template, line %d: " .. fmt, line, ...)
end

local function check(part, soft, registries, depth, line)
    line = part.line or line
    if depth > MAX_NESTING then fail(line, "expressions are nested too deeply") end
    local kind = part.kind
    local registry = not soft and (kind == "filter" and registries.filters or kind == "test" and registries.tests)
    if registry and not registry[part.name] then fail(line, "no %s named '%s'", kind, part.name) end
    if kind == "if" or kind == "conditional" then soft = true end
    local frames = kind and own_frames[kind] or {}
    for name, child in pairs(part) do
        if type(child) == "table" and not getmetatable(child) then -- values have one
            check(child, soft and not frames[name], registries, depth + 1, line)
        end
    end
end

--- Checks the nodes that parser.parse returns. registries: {filters =, tests =}. Raises "format" with the line.
function M.check(tree, registries)
    check(tree, false, registries, 0, 1)
end

return M
