-- Where a model or a data set is on this machine: a directory, a file, or a name on the Hugging Face hub, whose
-- files are in the cache that Python's huggingface_hub uses, or are brought there.
-- Holds what to do in which order; the parts are hub_cache.lua (places), hub_api.lua (questions, tokens),
-- hub_download.lua (transfers), hub_model.lua and hub_dataset.lua (which files). docs/hub.md is the user's view.
--
--   hub.resolve(name, { part =, revision = }) -> path of a model ("tokenizer", "processor": these suffice)
--   hub.dataset_files(name, { split =, name =, revision = }) -> paths, { config, format, splits }
--   hub.snapshot(id, { type =, part =, revision =, include =, exclude =, verify = }) -> folder, names
--   hub.cache_dir()  hub.offline()  hub.amount(bytes) -> "1.5 GB"  hub.is_name(text): can it be on the hub?
--
-- What is cached and complete is used as it is, without asking: a run does not depend on the network, and a
-- revision that moved on the hub is brought by recipes/download.lua.

local api = require("am.utils.hub_api")
local cache = require("am.utils.hub_cache")
local datasets = require("am.utils.hub_dataset")
local download = require("am.utils.hub_download")
local err = require("am.core.error")
local log = require("am.utils.log").get("am.hub")
local models = require("am.utils.hub_model")
local path = require("am.utils.path")
local strings = require("am.utils.strings")

local M = { cache_dir = cache.cache_dir, offline = api.offline, amount = download.amount }

local MAX_README = 4 * 1024 * 1024
local CONVERTED = "refs/convert/parquet"

local function repository(type, id, revision)
    revision = revision or "main"
    cache.check_revision(revision)
    return { type = type, id = id, revision = revision }
end

-- Ends of names of files: "model.gguf" is no repository.
local function names_a_file(name)
    return ({ gguf = true, json = true, jsonl = true, yaml = true, yml = true, safetensors = true, parquet = true,
              csv = true, txt = true, gz = true, zst = true })[path.extension(name) or ""] or false
end

--- True for what can be a name on the hub, and is none of a file.
local function in_hub(name)
    return cache.is_repo_id(name) and not names_a_file(name)
end
M.is_name = in_hub

-- The cached folder of a revision, or nil. Without refs/main, as a copied cache may be, any that has the file
-- `sign`.
local function cached(repo, sign)
    local commit = cache.commit(repo)
    local folder = commit and cache.snapshot(repo, commit)
    if folder and path.is_dir(folder) then
        return folder, commit
    elseif repo.revision ~= "main" or not sign then
        return nil
    end
    local snapshots = path.join(cache.folder(repo), "snapshots")
    for _, name in ipairs(path.is_dir(snapshots) and path.list_dir(snapshots) or {}) do
        folder = path.join(snapshots, name)
        if cache.is_commit(name) and path.is_file(path.join(folder, sign)) then
            return folder, name
        end
    end
    return nil
end

-- What a revision holds, from the hub; the cache remembers it.
local function ask(repo)
    local info = api.info(repo)
    cache.make(repo)
    if info.complete then
        cache.write_tree(repo, info.commit, info.files)
    end
    return info
end

-- fn() -> two results; where it fails and `fallback()` gives something instead: that, and a warning.
local function or_else(fallback, fn)
    local ok, result, more = pcall(fn)
    if ok then
        return result, more
    end
    local found, info
    if err.is(result) and result.code ~= "interrupted" then
        found, info = fallback()
    end
    if found == nil then
        error(result, 0)
    end
    log:warning("%s; what is in the cache is used", tostring(result))
    return found, info
end

-- ---------------------------------------------------------------- models

--- Ask the hub for a model's files (or those that `include` and `exclude` say) and bring what is not here: the
--- snapshot's folder, and the names. opts.type: "model" or "dataset"; opts.verify: what is here is compared
--- with its digest.
function M.snapshot(id, opts)
    opts = opts or {}
    local repo = repository(opts.type or "model", id, opts.revision)
    local info = ask(repo)
    local names = models.choose(strings.sorted_keys(info.files), opts)
    if #names == 0 then
        err.raise("io", "%s holds no files that are wanted", id)
    end
    download.files(repo, info, names, opts.verify)
    cache.write_ref(repo, info.commit)
    return cache.snapshot(repo, info.commit), names
end

-- Has a cached folder all that is needed? And is that known, from the list of the commit's files?
local function is_whole(repo, folder, commit, opts)
    local tree = cache.read_tree(repo, commit)
    if not tree then
        return models.complete(folder, opts.part), false
    end
    for _, name in ipairs(models.choose(strings.sorted_keys(tree), opts)) do
        if not path.exists(path.join(folder, name)) then
            return false, true
        end
    end
    return true, true
end

local function where_looked(name)
    return string.format("%s is neither here nor in the Hugging Face cache (%s)", name, cache.cache_dir())
end

--- The local path of a model, tokenizer or adapter: name itself when it exists, else its snapshot in the
--- cache, brought from the hub when it is not there. Raises an error that says where it looked.
function M.resolve(name, opts)
    opts = opts or {}
    if type(name) ~= "string" or name == "" then
        err.raise("usage", "a model is named by a directory, a GGUF file or a hub name, not by %s",
                  tostring(name))
    end
    if path.exists(name) then
        return name
    elseif not in_hub(name) then
        err.raise("io", "%s does not exist", name)
    end
    local repo = repository("model", name, opts.revision)
    local folder, commit = cached(repo, "config.json")
    local whole, known
    if folder then
        whole, known = is_whole(repo, folder, commit, opts)
    end
    if whole or (folder and api.offline()) then
        return models.place(folder)
    elseif api.offline() then
        err.raise("io", "%s and HF_HUB_OFFLINE is set; download it with recipes/download.lua, or give its directory or "
                  .. "GGUF file", where_looked(name))
    end
    local found, problem = pcall(or_else, function() return not known and folder or nil end, function()
        return (M.snapshot(name, opts))
    end)
    if not found then
        if err.is(problem) and problem.code == "io" then
            problem.msg = where_looked(name) .. ", and it cannot be downloaded: " .. problem.msg
        end
        error(problem, 0)
    end
    return models.place(problem)
end

-- ---------------------------------------------------------------- data sets

local function read(file)
    local text, message = path.read_file(file, MAX_README)
    if not text then
        err.raise("io", message)
    end
    return text
end

-- A data set's files by its names, its README and its choice: chooser(names, opts), bring(names) -> paths.
local function select(names, opts, bring)
    local readme
    for _, name in ipairs(names) do
        if name == "README.md" then
            readme = read(bring({ name })[1])
        end
    end
    local files, info = datasets.choose(names, { split = opts.split, name = opts.name, where = opts.where,
                                                 readme = readme })
    return bring(files), info
end

-- A folder of one's own.
local function local_files(folder, opts)
    return select(cache.files_below(folder), opts, function(names)
        local out = {}
        for i, name in ipairs(names) do
            out[i] = path.join(folder, name)
        end
        return out
    end)
end

-- "data/train-00000-of-00003.parquet" whose sisters are not there: without a list of the commit's files only
-- their names tell.
local function check_shards(names, files, where)
    local there = {}
    for _, name in ipairs(names) do
        there[name] = true
    end
    for _, file in ipairs(files) do
        local head, count, tail = file:match("^(.*%-)%d%d%d%d%d%-of%-(%d%d%d%d%d)(.*)$")
        for i = 0, (tonumber(count) or 0) - 1 do
            local sister = string.format("%s%05d-of-%s%s", head, i, count, tail)
            if not there[sister] then
                err.raise("io", "%s is in the cache without %s: download it with recipes/download.lua", where, sister)
            end
        end
    end
end

-- Raised through select where the cache lacks a file.
local INCOMPLETE = {}

-- From the cache alone: paths, info; nil when it does not hold all of them, or only a program that makes them.
local function cached_files(repo, folder, tree, opts)
    local here = cache.files_below(folder)
    local names = tree and strings.sorted_keys(tree) or here
    if datasets.script(names, repo.id) then
        return nil
    end
    local chosen
    local ok, files, info = pcall(select, names, opts, function(wanted)
        local out = {}
        chosen = wanted
        for i, name in ipairs(wanted) do
            out[i] = path.join(folder, name)
            if not path.exists(out[i]) then
                error(INCOMPLETE, 0)
            end
        end
        return out
    end)
    if not ok and files == INCOMPLETE then
        return nil
    elseif not ok then
        error(files, 0)
    elseif not tree then
        check_shards(here, chosen, opts.where)
    end
    return files, info
end

-- The branch that the hub makes of data sets that are not Parquet.
local function converted_files(repo, opts)
    local branch = repository("dataset", repo.id, CONVERTED)
    local folder, commit = cached(branch)
    local info = folder and api.offline() and { commit = commit, files = cache.read_tree(branch, commit) or {} }
        or ask(branch)
    local names = datasets.choose_converted(strings.sorted_keys(info.files), opts)
    local files = download.files(branch, info, names, opts.verify)
    cache.write_ref(branch, info.commit)
    return files, { config = opts.name or "default", format = "parquet", splits = { opts.split or "train" } }
end

-- From the hub; what it holds in a format that nothing here reads may be there as Parquet, too.
local function hub_files(repo, opts)
    local info = ask(repo)
    local names = strings.sorted_keys(info.files)
    local script = datasets.script(names, repo.id)
    local ok, files, more = pcall(function()
        if script then
            err.raise("unsupported", "%s is made by a program of its own, %s, which is not run (today's datasets does "
                      .. "not either)", opts.where, script)
        end
        return select(names, opts, function(wanted) return download.files(repo, info, wanted, opts.verify) end)
    end)
    if ok then
        cache.write_ref(repo, info.commit)
        return files, more
    elseif not err.is(files) or files.code ~= "unsupported" or repo.revision ~= "main" then
        error(files, 0)
    end
    local converted, paths, what = pcall(converted_files, repo, opts)
    if not converted then
        if err.is(paths) and paths.code ~= "interrupted" then
            files.msg = files.msg .. "; as Parquet: " .. paths.msg
            paths = files
        end
        error(paths, 0)
    end
    return paths, what
end

--- The files of a split of a data set: a folder here, or a name on the hub. opts: split ("train"), name (its
--- configuration), revision, verify (ask the hub even if all is here, and compare what is here with its digest).
--- Returns paths in the order of rows, and { config, format = "parquet", "json", "csv" or "text", splits = the
--- names that there are }. Files that end in .gz, .zst and the like keep their format.
function M.dataset_files(name, opts)
    opts = opts or {}
    if type(name) ~= "string" or name == "" then
        err.raise("usage", "a data set is named by a folder or a hub name, not by %s", tostring(name))
    end
    opts = { split = opts.split, name = opts.name, revision = opts.revision, verify = opts.verify, where = name }
    if path.is_dir(name) then
        return local_files(name, opts)
    elseif path.exists(name) or not in_hub(name) then
        err.raise("io", "%s is no folder with data files, and no name of a data set on the hub", name)
    end
    local repo = repository("dataset", name, opts.revision)
    if opts.verify then
        return hub_files(repo, opts)
    end
    local folder, commit = cached(repo)
    local tree = folder and cache.read_tree(repo, commit)
    local function from_cache()
        if folder then
            return cached_files(repo, folder, tree, opts)
        end
        return nil
    end
    if api.offline() then
        local files, info = from_cache()
        if files then
            return files, info
        elseif cached(repository("dataset", name, CONVERTED)) then
            return converted_files(repo, opts)
        end
        err.raise("io", "%s%s, and HF_HUB_OFFLINE is set; download it with recipes/download.lua", where_looked(name),
                  folder and " as a whole" or "")
    elseif tree then -- without a list of all files only the hub knows whether they are all here
        local files, info = from_cache()
        if files then
            return files, info
        end
    end
    return or_else(from_cache, function() return hub_files(repo, opts) end)
end

return M
