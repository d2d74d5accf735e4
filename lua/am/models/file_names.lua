-- What parameters are called in files, where that is not their name in the model: families with pictures had other
-- names on the hub than transformers 5 gives their modules. Both spellings are read; the hub's is written.
--
--   file_names.new {
--       prefixes = { { "model.vision_tower.", "vision_tower.vision_model.", "vision_tower." }, … },
--       inside = { { ".attention.q_proj.", ".attention.attention.query." }, … },
--       stacked = { { { ".mlp.gate_proj.", ".mlp.up_proj." }, ".mlp.weights_in." }, … },
--   }
--
-- Of each list the first is the name in the model, the second that in files, further ones are read too. All are plain
-- text; a prefix is replaced at the start of a name, the first that fits, what is inside once anywhere. Of those that
-- are stacked, files have one tensor for several of the model's, which are equal parts of its first dim.

local ops = require("am.core.ops")

local M = {}

local FileNames = {}
FileNames.__index = FileNames

--- Rules from the two lists, each of which may be left out.
function M.new(rules)
    return setmetatable({ prefixes = rules.prefixes or {}, inside = rules.inside or {}, stacked = rules.stacked or {} },
                        FileNames)
end

local function starts(name, prefix)
    return name:sub(1, #prefix) == prefix
end

-- The name with old replaced, or nil where it does not have it; in names that begin with `under` (nil: all).
local function replaced(name, old, new, under)
    local first, last = name:find(old, 1, true)
    return first and starts(name, under or "") and name:sub(1, first - 1) .. new .. name:sub(last + 1) or nil
end

--- A parameter's name in the files that are written; where it is a part of a tensor there, also which, and of how many.
function FileNames:to_file(name)
    local part, parts
    for _, rule in ipairs(self.inside) do
        name = replaced(name, rule[1], rule[2], rule.under) or name
    end
    for _, rule in ipairs(self.stacked) do
        for i, one in ipairs(rule[1]) do
            local whole = replaced(name, one, rule[2], rule.under)
            if whole then
                name, part, parts = whole, i, #rule[1]
            end
        end
    end
    for _, rule in ipairs(self.prefixes) do
        if starts(name, rule[1]) then
            return rule[2] .. name:sub(#rule[1] + 1), part, parts
        end
    end
    return name, part, parts
end

--- A list of {name in the model, tensor} as {name in files, tensor}.
function FileNames:to_files(list)
    local out, stacks = {}, {}
    for _, item in ipairs(list) do
        local name, part, parts = self:to_file(item[1])
        if part then
            local stack = stacks[name] or {}
            stacks[name], stack[part] = stack, item[2]
            out[#out + 1] = #stack == parts and { name, ops.cat(stack, 0) } or nil
        else
            out[#out + 1] = { name, item[2] }
        end
    end
    return out
end

--- A name in a file as the model has it; a list of names where the model has parts of that tensor.
function FileNames:to_model(name)
    local found, by = nil, ""
    for _, rule in ipairs(self.prefixes) do
        for i = 2, #rule do
            if #rule[i] >= #by and starts(name, rule[i]) then -- the longest says most
                found, by = rule[1], rule[i]
            end
        end
    end
    name = found and not self:is_in_model(name, by) and found .. name:sub(#by + 1) or name
    for _, rule in ipairs(self.inside) do
        for i = 2, #rule do
            name = replaced(name, rule[i], rule[1], rule.under) or name
        end
    end
    for _, rule in ipairs(self.stacked) do
        if replaced(name, rule[2], "", rule.under) then
            local names = {}
            for i, part in ipairs(rule[1]) do
                names[i] = replaced(name, rule[2], part)
            end
            return names
        end
    end
    return name
end

-- Is it a name of the model's already, by a longer prefix than a file's?
function FileNames:is_in_model(name, by)
    for _, rule in ipairs(self.prefixes) do
        if #rule[1] > #by and starts(name, rule[1]) then
            return true
        end
    end
    return false
end

--- The rules of a part as those of the whole: what `model` and `file` (and further spellings of it) stand before.
--- Of a part without rules, that of its own prefix.
function M.under(rules, model, ...)
    local out, files = M.new {}, { ... }
    for _, kind in ipairs { "inside", "stacked" } do
        for i, rule in ipairs(rules and rules[kind] or {}) do
            out[kind][i] = { under = model .. (rule.under or ""), unpack(rule) }
        end
    end
    for _, rule in ipairs(rules and #rules.prefixes > 0 and rules.prefixes or { { "", "" } }) do
        local made = { model .. rule[1] }
        for i = 2, #rule do
            for _, file in ipairs(files) do
                made[#made + 1] = file .. rule[i]
            end
        end
        for _, file in ipairs(files) do
            made[#made + 1] = file .. rule[1]
        end
        out.prefixes[#out.prefixes + 1] = made
    end
    return out
end

--- Several parts' rules as one.
function M.joined(...)
    local out = M.new {}
    for _, rules in ipairs { ... } do
        for key, list in pairs { prefixes = out.prefixes, inside = out.inside, stacked = out.stacked } do
            for _, rule in ipairs(rules[key]) do
                list[#list + 1] = rule
            end
        end
    end
    return out
end

return M
