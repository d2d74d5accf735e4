-- What a path of a trained model means: a Hugging Face directory, an adapter, or a checkpoint of a run with one of
-- them, or with weights that only this program reads. Loads nothing but small JSON files.

local checkpoint = require("am.checkpoint")
local err = require("am.core.error")
local path = require("am.utils.path")

local M = {}

local function has(dir, name)
    return path.is_file(path.join(dir, name))
end

-- Where in a folder a model may be, the likeliest first: the folder itself, a checkpoint's parts, a run's newest.
local function places(dir)
    local list, newest = {}, checkpoint.pointed(dir, "LATEST")
    for _, at in ipairs { dir, newest and path.join(dir, newest) } do
        for _, part in ipairs { ".", "model", "model/consolidated", "consolidated" } do
            list[#list + 1] = part == "." and at or path.join(at, part)
        end
    end
    return list
end

-- The model that an adapter is of, by its own words.
local function base_of(dir)
    local base = checkpoint.read_json(path.join(dir, "adapter_config.json")).base_model_name_or_path
    return type(base) == "string" and base or nil
end

--- What to load for `dir`: { model = name, adapter = folder or nil, weights = files of this program's or nil }. base:
--- the model that it was trained from, where it can't say so itself. Raises "usage" where nothing is found.
function M.find(dir, base)
    if not path.exists(dir) then
        err.raise("io", "--checkpoint-path: there is no %s", dir)
    end
    local list = places(dir)
    for _, place in ipairs(list) do
        if has(place, "adapter_config.json") then
            return { adapter = place, model = base or base_of(place)
                     or err.raise("usage", "%s does not say which model it is an adapter of; give --base-model-path",
                                  place) }
        elseif has(place, "config.json") then
            return { model = place }
        end
    end
    for _, place in ipairs(list) do
        local shards = checkpoint.shards.find(place, "model")
        if #shards > 0 then
            return { weights = shards, model = base
                     or err.raise("usage", "%s holds weights alone (recipes/consolidate.lua makes a whole "
                                  .. "model of them); give --base-model-path, the model that was trained", place) }
        end
    end
    err.raise("usage", "--checkpoint-path: %s holds no model, no adapter and no checkpoint of a run", dir)
end

return M
