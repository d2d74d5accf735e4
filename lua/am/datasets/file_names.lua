-- From what a configuration calls its data to names of files: a file, a pattern ("data/*.jsonl"), a folder
-- of data files, or a data set of the hub. Opens nothing.

local err = require("am.core.error")
local glob = require("am.utils.glob")
local hub = require("am.utils.hub")
local path = require("am.utils.path")

local M = {}

local kinds = { json = "JSON", jsonl = "JSON", ndjson = "JSON", csv = "CSV", tsv = "CSV", parquet = "Parquet" }
local compressed = { gz = true, zst = true, zstd = true }

-- Words in names of files and folders that say which split they hold, as `datasets` reads them.
local split_words = {
    train = "train", training = "train", validation = "validation", valid = "validation", dev = "validation",
    val = "validation", test = "test", testing = "test", eval = "test", evaluation = "test",
}

--- The extension that says what a file holds: "csv" of "rows.csv" and "rows.csv.gz"; nil without one.
function M.extension(name)
    local extension = path.extension(name)
    if compressed[extension] then
        return path.extension(path.basename(name):match("^(.*)%."))
    end
    return extension
end

-- ---------------------------------------------------------------- splits

-- The split that a part of a path names: "train-00000-of-00002.parquet", "my_dev.jsonl", "test".
local function split_of_part(part)
    local shard = part:match("^([%w_.]+)%-%d%d%d%d%d%-of%-%d%d%d%d%d")
    if shard then
        return split_words[shard] or shard
    end
    for word in part:gmatch("[^-._ %d]+") do
        if split_words[word] then
            return split_words[word]
        end
    end
end

-- Folders say more than names: "test/train_of_thought.jsonl" is a test file.
local function split_of(relative)
    local parts = {}
    for part in relative:gmatch("[^/]+") do
        parts[#parts + 1] = part
    end
    for i = 1, #parts - 1 do
        local split = split_of_part(parts[i])
        if split then
            return split
        end
    end
    return split_of_part(parts[#parts])
end

-- The files of a split, where names say which they are of; all of them where they do not.
local function of_split(folder, files, split)
    local by_split, splits = {}, {}
    for _, name in ipairs(files) do
        local of = split_of(name:sub(#folder + 1))
        if of then
            splits[#splits + 1] = not by_split[of] and of or nil
            by_split[of] = by_split[of] or {}
            table.insert(by_split[of], name)
        end
    end
    if #splits == 0 then
        return files
    end
    local wanted = split and split:match("^[%w_.]+")
    wanted = split_words[wanted] or wanted or (#splits == 1 and splits[1])
    if not wanted or not by_split[wanted] then
        table.sort(splits)
        err.raise("usage", "%s: %s; it has %s (dataset.split)", folder,
            wanted and "no split \"" .. wanted .. "\"" or "several splits", table.concat(splits, ", "))
    end
    return by_split[wanted]
end

-- ---------------------------------------------------------------- folders

local function check_one_kind(folder, files)
    local first
    for _, name in ipairs(files) do
        local kind = kinds[M.extension(name)]
        first = first or kind
        if kind ~= first then
            err.raise("usage", "%s holds %s and %s files; name those to read, as in \"%s\"", folder, first, kind,
                path.join(folder, "*." .. M.extension(files[1])))
        end
    end
end

-- What `datasets` writes beside data.
local about = { ["config.json"] = true, ["dataset_dict.json"] = true, ["dataset_info.json"] = true,
                ["dataset_infos.json"] = true, ["state.json"] = true }

local function is_data(name)
    local base = path.basename(name)
    return kinds[M.extension(name)] and not about[base]
end

-- The data files in a folder and those below.
local function folder_files(folder, split)
    local files, arrow = {}, false
    for _, name in ipairs(glob.files_below(folder)) do
        arrow = arrow or path.extension(name) == "arrow"
        files[#files + 1] = is_data(name) and name or nil
    end
    if #files == 0 then
        err.raise("data", arrow and "%s: Arrow files (of save_to_disk) are not read; write the data set with "
            .. "to_parquet or to_json" or "%s: a folder without JSON, JSONL, CSV, TSV or Parquet files", folder)
    end
    files = of_split(folder, files, split)
    check_one_kind(folder, files)
    return files
end

-- ---------------------------------------------------------------- names

-- "train" of "train[:100]": which rows of a split is said later, of the files' rows.
local function plain_split(split)
    return split and split:match("^[^%[]*")
end

local function about_home(name)
    return name:find("^~/") and "; ~ is not expanded, write the whole path" or ""
end

local function resolve(name, opts)
    if path.is_file(name) then
        return { name }
    elseif path.is_dir(name) then
        return folder_files(name, opts.split)
    elseif glob.is_pattern(name) then
        local files = glob.files(name)
        return #files > 0 and files or err.raise("data", "%s: no file matches%s", name, about_home(name))
    elseif hub.is_name(name) and not (name:find("/", 1, true) and path.exists(path.dirname(name))) then
        return (hub.dataset_files(name, { split = plain_split(opts.split), name = opts.name,
                                          revision = opts.revision }))
    end
    err.raise("data", "%s: no such file or folder (JSON, JSONL, CSV, TSV or Parquet expected)%s", name,
        about_home(name))
end

--- The names of files as a list. `names` is a file's, a folder's, a pattern or a hub data set's name, or a
--- list of these. opts: split, which names of files in a folder may tell ("train[:100]" is of "train"); for
--- the hub also name and revision. Raises where there is no such file.
function M.files(names, opts)
    if type(names) == "string" then
        names = { names }
    end
    if type(names) ~= "table" or #names == 0 then
        err.raise("usage", "path_or_dataset_id must be a file name or a list of them")
    end
    local list = {}
    for i, name in ipairs(names) do
        if type(name) ~= "string" then
            err.raise("usage", "path_or_dataset_id: entry %d is not a file name", i)
        end
        for _, file in ipairs(resolve(name, opts or {})) do
            list[#list + 1] = file
        end
    end
    return list
end

return M
