-- What parameters are called in files, where that is not their name in the model: families with pictures had other
-- names on the hub than transformers 5 gives their modules. Both spellings are read; the hub's is written.
--
--   file_names.new {
--       prefixes = { { "model.vision_tower.", "vision_tower.vision_model.", "vision_tower." }, … },
--       inside = { { ".attention.q_proj.", ".attention.attention.query." }, … },
--   }
--
-- Of each list the first is the name in the model, the second that in files, further ones are read too. All are plain
-- text; a prefix is replaced at the start of a name, the first that fits, what is inside once anywhere.

local M = {}

local FileNames = {}
FileNames.__index = FileNames

--- Rules from the two lists, each of which may be left out.
function M.new(rules)
    return setmetatable({ prefixes = rules.prefixes or {}, inside = rules.inside or {} }, FileNames)
end

local function starts(name, prefix)
    return name:sub(1, #prefix) == prefix
end

local function replace_inside(name, old, new)
    local first, last = name:find(old, 1, true)
    return first and name:sub(1, first - 1) .. new .. name:sub(last + 1) or name
end

--- A parameter's name in the files that are written.
function FileNames:to_file(name)
    for _, rule in ipairs(self.inside) do
        name = replace_inside(name, rule[1], rule[2])
    end
    for _, rule in ipairs(self.prefixes) do
        if starts(name, rule[1]) then
            return rule[2] .. name:sub(#rule[1] + 1)
        end
    end
    return name
end

--- A name in a file as the model has it.
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
            name = replace_inside(name, rule[i], rule[1])
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
    local out, files = M.new { inside = rules and rules.inside }, { ... }
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
        for key, list in pairs { prefixes = out.prefixes, inside = out.inside } do
            for _, rule in ipairs(rules[key]) do
                list[#list + 1] = rule
            end
        end
    end
    return out
end

return M
