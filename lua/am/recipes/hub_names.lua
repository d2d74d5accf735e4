-- What a configuration names that can lie on the Hugging Face hub: models, tokenizers, adapters, data sets.
-- Holds no downloads and no checks of the configuration: it is read as it is, so that what a later version or
-- another recipe knows is found, too.

local hub = require("am.utils.hub")
local path = require("am.utils.path")

local M = {}

local DATASET_KEYS = { "path_or_dataset_id", "path_or_dataset", "dataset_name", "dataset_path" }

local function is_text(value)
    return type(value) == "string" and value ~= ""
end

-- "train[:100]+test" names the splits train and test.
local function splits_of(text)
    local out = {}
    for one in (is_text(text) and text or "train"):gmatch("[^+]+") do
        out[#out + 1] = one:match("^%s*([^%[%s]+)")
    end
    return out
end

-- Is only the tokenizer, the processor, or the configuration, of a model meant?
local function part_of(section, key)
    local target = is_text(section._target_) and section._target_ or ""
    if key == "processor" or target:find("Processor") then
        return "processor"
    end
    return (key == "tokenizer" or target:find("Tokenizer") or target:find("Config")) and "tokenizer" or "model"
end

-- Values of the keys that a section's target has by default, for keys that the section leaves out.
local function defaults_of(section, lookup)
    local entry = is_text(section._target_) and lookup(section._target_)
    local out = {}
    for key, field in pairs(entry and entry.fields or {}) do
        out[key] = type(field) == "table" and field.default or nil
    end
    return out
end

--- All that `config` (a plain table, or the tables of a node) names, in a fixed order: an array of { kind =
--- "model", "tokenizer", "processor", "adapter" or "dataset", id, key = where it stands, revision, split, name }. A
--- data set of several splits is in it once for each. lookup(target) gives the registry's entry of a `_target_`, or
--- nil.
function M.find(config, lookup)
    local out, seen = {}, {}
    local function add(item)
        local mark = table.concat({ item.kind, item.id, item.revision or "", item.split or "", item.name or "" }, "\0")
        if not seen[mark] then
            seen[mark] = true
            out[#out + 1] = item
        end
    end
    local function add_datasets(section, place)
        local default = defaults_of(section, lookup)
        local revision = is_text(section.revision) and section.revision or nil
        local name = section.name or default.name
        for _, key in ipairs(DATASET_KEYS) do
            local value = section[key] or default[key]
            for _, id in ipairs(type(value) == "table" and value or { value }) do
                for _, split in ipairs(is_text(id) and splits_of(section.split or default.split) or {}) do
                    add { kind = "dataset", id = id, key = place .. key, split = split, revision = revision,
                          name = is_text(name) and name or nil }
                end
            end
        end
    end
    local function visit(section, key, place, depth)
        if is_text(section.pretrained_model_name_or_path) then
            add { kind = part_of(section, key), id = section.pretrained_model_name_or_path,
                  key = place .. "pretrained_model_name_or_path",
                  revision = is_text(section.revision) and section.revision or nil }
        end
        if is_text(section.tokenizer_name) then
            add { kind = "tokenizer", id = section.tokenizer_name, key = place .. "tokenizer_name" }
        end
        if is_text(section.adapter_path) then
            add { kind = "adapter", id = section.adapter_path, key = place .. "adapter_path" }
        end
        add_datasets(section, place)
        local keys = {}
        for child, value in pairs(section) do
            keys[#keys + 1] = type(value) == "table" and child or nil
        end
        table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
        for _, child in ipairs(keys) do
            if depth < 32 then
                visit(section[child], child, place .. tostring(child) .. ".", depth + 1)
            end
        end
    end
    visit(config, nil, "", 0)
    return out
end

--- True when a name is a place on this machine: nothing is to be brought.
function M.is_local(id)
    return path.exists(id) or not hub.is_name(id)
end

return M
