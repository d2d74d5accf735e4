-- t[{…}] and t[{…}] = value. The table has one item for each dim: a number (that index, the dim goes),
-- {} (all), {start, stop, step} (a slice; start 0, stop the end and step 1 unless given) or "..." (all
-- dims that are not named). Indices count from 0, negative ones from the end. What is read is a view
-- that gradients flow through. A plain t[0] is not possible: LuaJIT takes it for arithmetic on the
-- pointer before anybody is asked, and raises an error.

local args = require("am.core.args")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local ops = require("am.core.ops")
local tensor = require("am.core.tensor")

local C = edge.C

local function whole(value, what)
    return args.whole("t[{...}]", what, value)
end

-- A slice's start and length, by Python's rules: what lies outside is left out.
local function slice(item, size)
    for key in pairs(item) do
        if key ~= 1 and key ~= 2 and key ~= 3 then
            err.raise("argument", "a slice is {start, stop, step}; it has no %s", tostring(key))
        end
    end
    local step = whole(item[3] or 1, "the step of a slice")
    if step < 1 then
        err.raise("argument", "the step of a slice is %d; it must be positive", step)
    end
    local function bound(value)
        whole(value, "the bound of a slice")
        return math.min(math.max(value < 0 and value + size or value, 0), size)
    end
    local start = bound(item[1] or 0)
    return start, math.max(math.ceil((bound(item[2] or size) - start) / step), 0), step
end

local function get(t, items)
    local n, dim, dots = #items, 0, 0
    for _, item in ipairs(args.dense("an index", items)) do
        if item == "..." then n, dots = n - 1, dots + 1 end
    end
    if dots > 1 then
        err.raise("argument", "an index has \"...\" twice")
    end
    local rest = t:dim() - n
    if rest < 0 then
        err.raise("shape", "%d indices for a tensor with %d dims", n, t:dim())
    end
    for _, item in ipairs(items) do
        if item == "..." then
            dim = dim + rest
        elseif type(item) == "table" then
            if next(item) ~= nil then
                local start, length, step = slice(item, t:size(dim))
                t = ops.narrow(t, dim, start, length, step)
            end
            dim = dim + 1
        else
            local index, size = whole(item, "an index"), t:size(dim)
            if index < -size or index >= size then
                err.raise("shape", "index %d is outside a dim of size %d", index, size)
            end
            t = ops.select(t, dim, index)
        end
    end
    return t
end

local function set(t, items, value)
    tensor.check_history(t, "assignment")
    if tensor.is(value) and C.am_tensor_requires_grad(value) ~= 0 and C.am_grad_mode() == C.AM_GRAD_ON then
        err.raise("state", "assignment is not recorded, so the value's gradient would be lost; "
            .. "use where or cat, or assign value:detach()")
    elseif type(value) == "boolean" then
        value = value and 1 or 0
    end
    get(t:detach(), items):copy_(value)
end

tensor.get_items, tensor.set_items = get, set
