-- Which files of a data set are a split: by the configs of its README.md, else by their names, as the Python
-- package datasets chooses them. Works on names alone; hub.lua brings the files.
--
-- Where a file matches two patterns of a split, datasets reads its rows twice; here it counts once.

local card = require("am.utils.hub_card")
local err = require("am.core.error")
local patterns = require("am.utils.hub_patterns")
local strings = require("am.utils.strings")

local M = {}

local MAX_MAGIC = 2000 -- patterns with wildcards in one data_files
local IGNORED = { ["README.md"] = true, ["config.json"] = true, ["dataset_info.json"] = true,
                  ["dataset_infos.json"] = true, ["dummy_data.zip"] = true, ["dataset_dict.json"] = true }
local FORMATS = {} -- extension -> format, of what datasets would read
for format, extensions in pairs {
    parquet = "parquet geoparquet gpq", json = "json jsonl ndjson", csv = "csv tsv", text = "txt",
    arrow = "arrow", webdataset = "tar", xml = "xml", hdf5 = "hdf5 h5", zip = "zip",
    images = "jpg jpeg png gif webp bmp tif tiff", audio = "wav mp3 flac ogg opus m4a aac",
    video = "mp4 mkv avi mov webm", pdf = "pdf",
} do
    for extension in extensions:gmatch("%S+") do
        FORMATS[extension] = format
    end
end
local READABLE = { parquet = true, json = true, csv = true, text = true }
-- Of as many files of each, these come first.
local PREFERENCE = { "parquet", "arrow", "jsonl", "json", "csv" }

-- ---------------------------------------------------------------- files and patterns

-- A function of a pattern: the names that match it, sorted.
local function finder(names)
    local there, known = {}, {}
    for _, name in ipairs(names) do
        there[name] = true
    end
    return function(pattern)
        if known[pattern] then
            return known[pattern]
        end
        local out = {}
        local plain = pattern:gsub("^%./", "")
        if not patterns.has_magic(pattern) then
            out[1] = there[plain] and plain or nil
        else
            local matches, own = patterns.matcher(pattern), pattern:match("[^/]*$")
            for _, name in ipairs(names) do
                local base = name:match("[^/]*$")
                if matches(name) and (not IGNORED[base] or base == own) then
                    out[#out + 1] = name
                end
            end
        end
        known[pattern] = out
        return out
    end
end

-- The formats that a file's endings name: "a.jsonl.gz" is json.
local function extensions_of(name)
    local out = {}
    for extension in name:match("[^/]*$"):lower():gmatch("%.([^.]+)") do
        out[#out + 1] = FORMATS[extension] and extension or nil
    end
    return out
end

-- The format of most files; nil when none has one.
local function format_of(names)
    local counts, best = {}, nil
    for _, name in ipairs(names) do
        for _, extension in ipairs(extensions_of(name)) do
            counts[extension] = (counts[extension] or 0) + 1
        end
    end
    local function rank(extension)
        for i, one in ipairs(PREFERENCE) do
            if one == extension then
                return i
            end
        end
        return #PREFERENCE + 1
    end
    for _, extension in ipairs(strings.sorted_keys(counts)) do
        if not best or counts[extension] > counts[best]
            or (counts[extension] == counts[best] and rank(extension) < rank(best)) then
            best = extension
        end
    end
    return best and FORMATS[best]
end

-- The data files of a list of patterns, each once. A name without wildcards must be there.
local function resolve(list, base, find, where)
    local out, seen, magic = {}, {}, 0
    for _, pattern in ipairs(list) do
        if pattern:find("://", 1, true) or pattern:find("::", 1, true) then
            err.raise("unsupported", '%s names "%s", which is no file of the data set', where, pattern)
        end
        magic = magic + (patterns.has_magic(pattern) and 1 or 0)
        if magic > MAX_MAGIC then
            err.raise("format", "%s has more than %d patterns with wildcards", where, MAX_MAGIC)
        end
        local found, any = find(base .. pattern), false
        for _, name in ipairs(found) do
            if #extensions_of(name) > 0 then
                any = true
                if not seen[name] then
                    seen[name] = true
                    out[#out + 1] = name
                end
            end
        end
        if not any and not patterns.has_magic(pattern) then
            err.raise("data", '%s names the data file "%s", which is not there', where, base .. pattern)
        end
    end
    return out
end

-- ---------------------------------------------------------------- configurations and splits

local function names_of(list, key)
    local out = {}
    for i, one in ipairs(list) do
        out[i] = one[key]
    end
    return out
end

-- The configuration of that name, or the default one. datasets calls the only one of a data set "default".
local function choose_config(configs, name, where)
    if #configs == 0 then
        if name and name ~= "default" then
            err.raise("usage", '%s has no configuration "%s": leave it out', where, name)
        end
        return { name = "default" }
    end
    local default
    for _, config in ipairs(configs) do
        if config.name == name then
            return config
        elseif not name and (#configs == 1 or config.name == "default" or config.default) then
            if default then
                err.raise("format", '%s has two default configurations, "%s" and "%s": name one', where, default.name,
                          config.name)
            end
            default = config
        end
    end
    if name then
        err.raise("usage", '%s has no configuration "%s"%s: it has %s', where, name,
                  strings.did_you_mean(name, names_of(configs, "name")), table.concat(names_of(configs, "name"), ", "))
    end
    return default or err.raise("usage", "%s has several configurations, name one: %s", where,
                                table.concat(names_of(configs, "name"), ", "))
end

local function folder(text)
    text = text and text:gsub("^%./", ""):gsub("/+$", "") or ""
    return text ~= "" and text .. "/" or ""
end

--- Is the data set made by a Python program of its own, as they were once? Its name, or nil.
function M.script(names, id)
    local script = id:match("[^/]+$") .. ".py"
    for _, name in ipairs(names) do
        if name == script then
            return script
        end
    end
    return nil
end

-- The files of the format that most have, and that format.
local function of_one_format(files, split, where)
    local format = format_of(files)
    if not format then
        err.raise("data", '%s has no data files for the split "%s"', where, split)
    elseif not READABLE[format] then
        err.raise("unsupported", "%s holds %s (as %s), which amlua does not read: it reads Parquet, JSON, JSONL, CSV "
                  .. "and text", where, format, files[1])
    end
    local out = {}
    for _, file in ipairs(files) do
        for _, extension in ipairs(extensions_of(file)) do
            if FORMATS[extension] == format then
                out[#out + 1] = file
                break
            end
        end
    end
    return out, format
end

--- The files of a split: an array of `names` (sorted names of all files), and { config, format, splits = its
--- names }. opts: split ("train"), name (the configuration), where (what messages call the data set), readme
--- (the text of README.md, or nil).
function M.choose(names, opts)
    local where, split = opts.where, opts.split or "train"
    local configs = opts.readme and card.configs(opts.readme, where .. "/README.md") or {}
    local config = choose_config(configs, opts.name, where)
    local find, base = finder(names), folder(config.data_dir)
    local splits = config.splits or patterns.default_splits(function(pattern) return find(base .. pattern) end)
    for _, one in ipairs(splits) do
        if one.split == split then
            local files, format = of_one_format(resolve(one.patterns, base, find, where), split, where)
            return files, { config = config.name, format = format, splits = names_of(splits, "split") }
        end
    end
    err.raise("usage", '%s has no split "%s"%s: it has %s', where, split,
              strings.did_you_mean(split, names_of(splits, "split")), table.concat(names_of(splits, "split"), ", "))
end

--- The same of the branch refs/convert/parquet, which holds CONFIG/SPLIT/0000.parquet.
function M.choose_converted(names, opts)
    local by_config, order, split = {}, {}, opts.split or "train"
    for _, file in ipairs(names) do
        local config, part = file:match("^([^/]+)/([^/]+)/%d+%.parquet$")
        if config then
            if not by_config[config] then
                by_config[config] = {}
                order[#order + 1] = { name = config }
            end
            local splits = by_config[config]
            splits[part] = splits[part] or {}
            table.insert(splits[part], file)
        end
    end
    if #order == 0 then
        err.raise("data", "%s has no converted Parquet files", opts.where)
    end
    local splits = by_config[choose_config(order, opts.name, opts.where).name]
    if not splits[split] and splits["partial-" .. split] then
        err.raise("unsupported", '%s has only a part of the split "%s" as Parquet', opts.where, split)
    end
    return splits[split] or err.raise("usage", '%s has no split "%s": it has %s', opts.where, split,
                                      table.concat(strings.sorted_keys(splits), ", "))
end

return M
