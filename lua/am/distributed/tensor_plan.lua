-- Which modules ranks share, as distributed.tp_plan says it: { pattern of a module's name = style }, in transformers'
-- and torch's words. Without one every module is shared that can be. Changes no module.

local err = require("am.core.error")
local strings = require("am.utils.strings")

local M = {}

-- What a style means. replicate is what a module does that no pattern names; what of that has parts of a gradient is
-- known without being told.
local MEANINGS = {
    colwise = "column", packed_colwise = "column",
    rowwise = "row", packed_rowwise = "row",
    colwise_rep = "column_gathered", colwise_gather_output = "column_gathered",
    rowwise_rep = "row_split", rowwise_split_input = "row_split", embedding_rowwise = "row_split",
    moe_tp_experts = "experts",
    sequence_parallel = "sequence",
    replicate = "whole", replicated_with_grad_allreduce = "whole",
}

---@class am.distributed.TensorPlan
local Plan = {}
Plan.__index = Plan

-- A pattern as a Lua pattern: * is any run of characters.
local function lua_pattern(text)
    return "^" .. text:gsub("[^%w_]", "%%%0"):gsub("%%%*", ".*") .. "$"
end

--- given: the table, or nil. body: what the names of the body's modules begin with, which patterns may leave out.
---@return am.distributed.TensorPlan
function M.new(given, body)
    local self = setmetatable({ body = body .. ".", rules = given and {} }, Plan)
    for _, text in ipairs(strings.sorted_keys(given or {})) do
        local style = given[text]
        if not MEANINGS[style] then
            err.raise("usage", "distributed.tp_plan: %s: the style \"%s\" is not known%s; known are %s", text,
                      tostring(style), strings.did_you_mean(tostring(style), strings.sorted_keys(MEANINGS)),
                      table.concat(strings.sorted_keys(MEANINGS), ", "))
        end
        self.rules[#self.rules + 1] = { text = text, pattern = lua_pattern(text), style = style }
    end
    return self
end

--- What the longest pattern that a path matches says of it: "column", "row", "column_gathered", "row_split", "experts",
--- "sequence", "whole"; nil where none does, and where there is no plan.
function Plan:meaning(path)
    local short, best = path:sub(1, #self.body) == self.body and path:sub(#self.body + 1) or path, nil
    for _, rule in ipairs(self.rules or {}) do
        if path:find(rule.pattern) or short:find(rule.pattern) then
            rule.used = true
            best = (not best or #rule.text > #best.text) and rule or best
        end
    end
    return best and MEANINGS[best.style], best and best.style
end

--- Do ranks share the block that maps make, of which `columns` are cut along what they give and `rows` along what they
--- take (arrays of paths)? All or none must be.
function Plan:shares(columns, rows)
    if not self.rules then
        return true
    end
    local shared, other
    local function see(paths, wanted)
        for _, path in ipairs(paths) do
            local is_cut = self:meaning(path) == wanted
            shared, other = shared or is_cut and path or nil, other or not is_cut and path or nil
        end
    end
    see(columns, "column")
    see(rows, "row")
    if shared and other then
        err.raise("usage", "distributed.tp_plan: %s is cut and %s is not: of one block %s must be colwise and %s "
                  .. "rowwise", shared, other, table.concat(columns, ", "), table.concat(rows, ", "))
    end
    return shared ~= nil
end

--- Raise "usage" for a pattern that no module's name matches.
function Plan:check_used()
    for _, rule in ipairs(self.rules or {}) do
        if not rule.used then
            err.raise("usage", "distributed.tp_plan: no module is called %s", rule.text)
        end
    end
end

return M
