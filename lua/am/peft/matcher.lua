-- Which modules an adapter goes to: by wildcard, by exclusion, or all linear maps.

local err = require("am.core.error")
local strings = require("am.utils.strings")

local M = {}

-- A pattern list from a string, a list, or nil.
local function list_of(value)
    if value == nil then
        return {}
    end
    return type(value) == "table" and value or { value }
end

local function any_match(patterns, path, name)
    for _, pattern in ipairs(patterns) do
        if pattern == name or pattern == path or strings.wildcard(pattern, path) then
            return true
        end
    end
    return false
end

--- A function (path, module) -> boolean from a PeftConfig's target_modules, exclude_modules and
--- match_all_linear. Patterns are full names, last names, or wildcards over the dotted path
--- ("*_proj", "*.layers.0.*"). Without any of the three, every "*_proj" is taken.
function M.new(config)
    local targets, excluded = list_of(config.target_modules), list_of(config.exclude_modules)
    if config.match_all_linear and (#targets > 0 or #excluded > 0) then
        err.raise("usage", "peft: match_all_linear cannot be combined with target_modules or "
                  .. "exclude_modules; give one of them")
    end
    if #targets > 0 and #excluded > 0 then
        err.raise("usage", "peft: target_modules and exclude_modules cannot be combined; give one")
    end
    if not config.match_all_linear and #targets == 0 and #excluded == 0 then
        targets = { "*_proj" }
    end
    return function(path, module)
        if module.class_name ~= "Linear" then
            return false
        end
        local name = path:match("[^.]+$")
        if config.match_all_linear then
            return true
        elseif #targets > 0 then
            return any_match(targets, path, name)
        end
        return name ~= "lm_head" and not any_match(excluded, path, name)
    end
end

return M
