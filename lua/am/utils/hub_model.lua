-- Which files of a model's repository are needed, and whether a folder has them: configuration, tokenizer,
-- chat template, and weights as safetensors (where there are none, PyTorch's files or a single GGUF file). Holds
-- no downloads.

local json = require("am.utils.json")
local path = require("am.utils.path")
local strings = require("am.utils.strings")

local M = {}

local MAX_INDEX = 64 * 1024 * 1024

-- Lua patterns of names in the outermost folder.
local TOKENIZER = { "^tokenizer", "^special_tokens_map%.json$", "^added_tokens%.json$", "^chat_template",
                    "^vocab%.json$", "^vocab%.txt$", "^merges%.txt$", "%.model$", "^config%.json$",
                    "processor_config%.json$" } -- a processor is a tokenizer and more small files
local OTHERS = { "^generation_config%.json$", "^adapter_config%.json$", "^processor%.json$" }

local function any(name, list)
    for _, pattern in ipairs(list) do
        if name:find(pattern) then
            return true
        end
    end
    return false
end

local function fits(name, wildcards)
    for _, wildcard in ipairs(wildcards or {}) do
        if strings.wildcard(wildcard, name) then
            return true
        end
    end
    return false
end

local function there(names, pattern)
    local out = {}
    for _, name in ipairs(names) do
        out[#out + 1] = name:find(pattern) and not name:find("/", 1, true) and name or nil
    end
    return out
end

-- A file of transformers' name, else its parts and their index.
local function whole_or_parts(names, stem, extension)
    local out = there(names, "^" .. stem .. "%." .. extension .. "$")
    if #out == 0 then
        out = there(names, "^" .. stem .. "%-%d+%-of%-%d+%." .. extension .. "$")
        if #out > 0 then
            out[#out + 1] = there(names, "^" .. stem .. "%." .. extension .. "%.index%.json$")[1]
        end
    end
    return out
end

-- Weights: transformers' names where they are (repositories may hold the same once more under others), an
-- adapter's, else every safetensors file, else PyTorch's, else the only GGUF file.
local function weights(names)
    local out = whole_or_parts(names, "model", "safetensors")
    out[#out + 1] = there(names, "^adapter_model%.safetensors$")[1]
    if #out == 0 then
        out = there(names, "%.safetensors$")
        for _, index in ipairs(there(names, "%.safetensors%.index%.json$")) do
            out[#out + 1] = index
        end
    end
    if #out == 0 then
        out = whole_or_parts(names, "pytorch_model", "bin")
    end
    local gguf = #out == 0 and there(names, "%.gguf$") or {}
    return #gguf == 1 and gguf or out
end

--- The names to bring, of all (sorted). opts: part = "tokenizer", "processor" (no weights) or "model"; include,
--- exclude: lists of patterns in which * is any run; with include they alone decide.
function M.choose(names, opts)
    local wanted = {}
    for _, name in ipairs(names) do
        if opts.include then
            wanted[name] = fits(name, opts.include)
        elseif not name:find("/", 1, true) then
            wanted[name] = any(name, TOKENIZER) or (opts.part ~= "tokenizer" and any(name, OTHERS))
        end
    end
    if not opts.include and opts.part ~= "tokenizer" and opts.part ~= "processor" then
        for _, name in ipairs(weights(names)) do
            wanted[name] = true
        end
    end
    local out = {}
    for _, name in ipairs(names) do
        out[#out + 1] = wanted[name] and not fits(name, opts.exclude) and name or nil
    end
    return out
end

--- What a model is named by, of a snapshot's folder: its only GGUF file where it has no config.json.
function M.place(folder)
    local gguf = path.is_file(path.join(folder, "config.json")) and {} or there(path.list_dir(folder) or {}, "%.gguf$")
    return #gguf == 1 and path.join(folder, gguf[1]) or folder
end

--- True when a folder has all that its own files speak of: a tokenizer, a processor, or weights with every shard.
function M.complete(folder, part)
    local names = path.list_dir(folder) or {}
    if part == "processor" then
        return #there(names, "^preprocessor_config%.json$") + #there(names, "^processor_config%.json$") > 0
    elseif part == "tokenizer" then
        return #there(names, "^tokenizer%.json$") + #there(names, "%.model$") + #there(names, "^vocab%.") > 0
            or #there(names, "%.gguf$") > 0
    end
    local others = #there(names, "%.safetensors$") + #there(names, "%.gguf$") > 0
    local indices = there(names, "%.safetensors%.index%.json$")
    if not others then
        indices[#indices + 1] = there(names, "^pytorch_model%.bin%.index%.json$")[1]
    end
    for _, name in ipairs(indices) do
        local index = json.decode(path.read_file(path.join(folder, name), MAX_INDEX) or "")
        local map = type(index) == "table" and index.weight_map
        for _, shard in pairs(type(map) == "table" and map or {}) do
            if type(shard) ~= "string" or not path.exists(path.join(folder, shard)) then
                return false
            end
        end
    end
    return others or #there(names, "^pytorch_model.*%.bin$") > 0
end

return M
