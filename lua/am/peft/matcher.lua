-- Which modules an adapter goes to: by pattern, by exclusion, or all linear maps. The rules are those of
-- NeMo Automodel's ModuleMatcher (nemo_automodel/components/_peft/module_matcher.py), with two more:
-- a plain last name means every module of that name, as in HF PEFT, where the original finds nothing;
-- and an embedding is taken where a pattern of target_modules names it. Puts nothing into a model.

local err = require("am.core.error")
local regex = require("am.core.pattern")

local M = {}

-- A pattern list from a string, a list, or nil.
local function list_of(key, value)
    local list = type(value) == "table" and value or { value }
    for _, pattern in ipairs(list) do
        if type(pattern) ~= "string" then
            err.raise("usage", "peft.%s: %s is a %s, not the name or pattern of a module", key, tostring(pattern),
                      type(pattern))
        end
    end
    return list
end

--- A pattern as the regular expression that has to match a module's whole dotted name. `*` is any run of
--- characters, also with a dot before it, as in ".*fc.*"; but behind a whole part of a dotted name, as in
--- "*.layers.1.*", the dot is kept: it means what is below that part, or the part itself, and not layers.10.
--- All else is as in a regular expression, so a dot is any one character.
function M.regex(pattern)
    local out, text, is_first = {}, pattern:match("^[^*]*"), true
    for rest in pattern:gmatch("%*([^*]*)") do
        local dotted = text:sub(-1) == "."
        text = dotted and text:sub(1, -2) or text
        local is_part = text:sub(1, 1) == "." or (is_first and text ~= "") or text:find("%.%d+$")
        if text ~= "" or is_first or out[#out] ~= "(.*)" then -- two runs in a row are one
            out[#out + 1] = text
            out[#out + 1] = dotted and is_part and "(\\..*)?" or "(.*)"
        end
        text, is_first = rest, false
    end
    return "^" .. table.concat(out) .. text .. "$"
end

-- A function (path, name) -> does one of the patterns match; name is the last one of the path.
local function any_of(key, patterns)
    local matchers = {}
    for i, pattern in ipairs(patterns) do
        local ok, matcher = pcall(regex.matcher, M.regex(pattern))
        if not ok then
            err.raise("usage", "peft.%s: \"%s\" is no pattern: %s", key, pattern, tostring(matcher))
        end
        matchers[i] = matcher
    end
    return function(path, name)
        for i, pattern in ipairs(patterns) do
            if pattern == path or pattern == name or matchers[i](path) then
                return true
            end
        end
        return false
    end
end

-- Does a pattern end in a module's own name ("embed_tokens", "*.embed_tokens"; not "*")?
local function names_it(patterns, name)
    for _, pattern in ipairs(patterns) do
        if pattern:match("[%w_]*$") == name then
            return true
        end
    end
    return false
end

-- Do patterns take a stack of experts: by its own path ("….experts.w1"), or by that of each expert
-- ("….experts.0.w1"), as it was in transformers 4?
local function takes_stack(takes, path, module)
    local name = path:match("[^.]+$")
    if takes(path, name) then
        return true
    end
    local stem, count = path:match("^(.*)%.[^.]+$"), 0
    for e = 0, stem and module.num_experts - 1 or -1 do
        count = count + (takes(string.format("%s.%d.%s", stem, e, name), name) and 1 or 0)
    end
    if count > 0 and count < module.num_experts then
        err.raise("usage", "peft: patterns name %d of the %d experts of %s; they can only be adapted together", count,
                  module.num_experts, path)
    end
    return count > 0
end

local ALL_LINEAR = "all-linear" -- PEFT's word

local linear = { Linear = true, Conv1D = true, GroupedLinear = true }

--- A function (path, module) -> boolean from a PeftConfig's target_modules, exclude_modules and
--- match_all_linear. Patterns are full names, last names, or as M.regex says. Without any of the three, every
--- "*_proj" is taken. All rules but the first take the model's head like any other linear map; target_modules:
--- all-linear leaves it out, as PEFT does.
function M.new(config, model)
    local targets = list_of("target_modules", config.target_modules)
    local excluded = list_of("exclude_modules", config.exclude_modules)
    if config.match_all_linear and (#targets > 0 or #excluded > 0) then
        err.raise("usage", "peft: match_all_linear cannot be combined with target_modules or "
                  .. "exclude_modules; give one of them")
    end
    if #targets > 0 and #excluded > 0 then
        err.raise("usage", "peft: target_modules and exclude_modules cannot be combined; give one")
    end
    if M.is_default(config) then
        targets = { "*_proj" }
    end
    local is_target = any_of("target_modules", targets)
    local is_excluded = any_of("exclude_modules", excluded)
    return function(path, module)
        local name = path:match("[^.]+$") or path
        local function takes(rule)
            return module.num_experts and takes_stack(rule, path, module) or rule(path, name)
        end
        if module.class_name == "Embedding" then
            return names_it(targets, name) and is_target(path, name)
        elseif not linear[module.class_name] then
            return false
        elseif #targets == 1 and targets[1] == ALL_LINEAR then
            return module ~= model:get_output_embeddings()
        elseif #targets > 0 then
            return takes(is_target)
        end
        return config.match_all_linear or not takes(is_excluded)
    end
end

--- Does a PeftConfig name the experts of a parameter that is in no map of its own?
function M.names_experts(config, path, name)
    local targets = M.is_default(config) and { "*_proj" } or list_of("target_modules", config.target_modules)
    return M.by_exclusion(config) or targets[1] == ALL_LINEAR or any_of("target_modules", targets)(path .. "." .. name,
                                                                                                    name)
end

local function is_empty(value)
    return value == nil or (type(value) == "table" and #value == 0)
end

--- True when a PeftConfig takes every linear map that it doesn't exclude.
function M.by_exclusion(config)
    return config.match_all_linear or not is_empty(config.exclude_modules)
end

--- True when a PeftConfig names no modules, so that "*_proj" is taken.
function M.is_default(config)
    return not M.by_exclusion(config) and is_empty(config.target_modules)
end

--- Those of the patterns (target_modules' value) that match none of the paths.
function M.unused(patterns, paths)
    local out = {}
    for _, pattern in ipairs(list_of("target_modules", patterns)) do
        local matches, found = any_of("target_modules", { pattern }), pattern == ALL_LINEAR
        for _, path in ipairs(paths) do
            local stem, name = path:match("^(.*)%.([^.]+)$")
            found = found or matches(path, name or path)
                or stem ~= nil and matches(stem .. ".0." .. name, name) -- one of a stack of experts
        end
        out[#out + 1] = not found and pattern or nil
    end
    return out
end

return M
