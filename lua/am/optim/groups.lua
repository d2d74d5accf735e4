-- Parameter groups by the names of parameters: `param_group_overrides` of an optimizer section.
-- Holds no optimizer: it sorts (name, tensor) pairs into groups with multipliers.

local err = require("am.core.error")
local regex = require("am.core.pattern")

local M = {}

--- The field `param_group_overrides`.
M.field = {
    type = "list", doc = "groups of parameters with a rate and decay of their own; the first pattern that is found "
        .. "in a parameter's name counts",
    items = { type = "table", fields = {
        pattern = { type = "string", required = true, doc = "regular expression, searched as Python's re.search does" },
        lr_mult = { type = "number", default = 1, min = 0, doc = "times the learning rate" },
        wd_mult = { type = "number", default = 1, min = 0, doc = "times the weight decay" },
        max_lr = { type = "number", min = 0, doc = "the schedule's max_lr for this group" },
        min_lr = { type = "number", min = 0, doc = "the schedule's min_lr for this group" },
    } },
}

--- A function that says whether the regular expression `text` is found in a string.
---@param where string what to call it in messages
function M.searcher(text, where)
    if type(text) ~= "string" then
        err.raise("usage", "%s must be a regular expression, not %s", where, tostring(text))
    end
    local function checked(ok, result)
        if not ok then
            err.raise("usage", "%s %q: %s", where, text, tostring(result))
        end
        return result
    end
    local search = checked(pcall(regex.searcher, text))
    return function(s) return checked(pcall(search, s)) end
end

local function check_number(override, key, i)
    local v = override[key]
    if v ~= nil and (type(v) ~= "number" or v ~= v or v < 0) then
        err.raise("usage", "optimizer.param_group_overrides[%d].%s must be a number of at least 0, not %s", i, key,
                  tostring(v))
    end
    return v
end

--- Sort `entries` into groups: first the one with what no pattern matches (it may be empty), then one for each
--- override that matches something. The rate and decay of a group are the base's times its multipliers.
---@param entries table[] of { name, tensor }
---@param base {lr: number, weight_decay: number}
---@param overrides table[]? of { pattern, lr_mult, wd_mult, max_lr, min_lr }
---@return table[] of { entries, lr, weight_decay, lr_mult, wd_mult, max_lr, min_lr }
---@return string[] patterns that match nothing
function M.split(entries, base, overrides)
    local groups = { { entries = {}, lr = base.lr, weight_decay = base.weight_decay, lr_mult = 1, wd_mult = 1 } }
    local searchers, unused = {}, {}
    for i, override in ipairs(overrides or {}) do
        local lr_mult, wd_mult = check_number(override, "lr_mult", i) or 1, check_number(override, "wd_mult", i) or 1
        searchers[i] = M.searcher(override.pattern, ("optimizer.param_group_overrides[%d].pattern"):format(i))
        groups[i + 1] = { entries = {}, lr = base.lr * lr_mult, weight_decay = base.weight_decay * wd_mult,
                          lr_mult = lr_mult, wd_mult = wd_mult, max_lr = check_number(override, "max_lr", i),
                          min_lr = check_number(override, "min_lr", i) }
    end
    for _, entry in ipairs(entries) do
        local at = 1
        for i, found in ipairs(searchers) do
            if found(entry[1]) then
                at = i + 1
                break
            end
        end
        table.insert(groups[at].entries, entry)
    end
    local out = { groups[1] }
    for i = 2, #groups do
        if #groups[i].entries > 0 then
            out[#out + 1] = groups[i]
        else
            unused[#unused + 1] = overrides[i - 1].pattern
        end
    end
    return out, unused
end

return M
