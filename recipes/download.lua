-- Bring what a configuration names from the Hugging Face hub, on a login node, and say what compute nodes need.
--
--   amlua recipes/download.lua CONFIG.yaml… | NAME… [--revision REV] [--include PATTERN] [--exclude PATTERN]
--
-- NAME is a model (org/name) or a data set (datasets/org/name). The newest commit of the revision is asked for;
-- what is here already is read once and compared with its digest. docs/hub.md is the user's view.

local config = require("am.config")
local err = require("am.core.error")
local hub = require("am.utils.hub")
local hub_names = require("am.recipes.hub_names")
local options = require("am.cli.options")
local path = require("am.utils.path")
local targets = require("am.recipes.targets")

local M = {}

local specs = {
    { "what", words = true, required = true, doc = "configurations (.yaml), models (org/name), datasets/org/name" },
    { "revision", doc = "branch, tag or commit of the names (main)" },
    { "include", list = true, doc = "only files like this (* is any run); repeat it for more" },
    { "exclude", list = true, doc = "no files like this" },
    { "split", doc = "of data sets (all)" },
    { "name", doc = "of data sets: the configuration" },
}

local function size_of(files)
    local bytes = 0
    for _, file in ipairs(files) do
        bytes = bytes + (path.size(file) or 0)
    end
    return bytes
end

local function report(what, id, folder, files)
    print(string.format("%-9s %s: %d file%s, %s, verified\n          %s", what, id, #files, #files == 1 and "" or "s",
                        hub.amount(size_of(files)), folder))
end

-- Bring a split; returns the names of all that the data set has.
local function bring_split(item, split)
    local files, info = hub.dataset_files(item.id, { split = split, name = item.name, revision = item.revision,
                                                     verify = true })
    report("data set", string.format("%s, split %s as %s", item.id, split, info.format), path.dirname(files[1]), files)
    return info.splits
end

-- Bring one item of hub_names.find.
local function bring(item, opts)
    if item.kind == "dataset" and not opts.include then
        for _, split in ipairs(bring_split(item, item.split or "train")) do
            if not item.split and split ~= "train" then
                bring_split(item, split)
            end
        end
        return
    end
    local folder, names = hub.snapshot(item.id, {
        type = item.kind == "dataset" and "dataset" or "model", part = item.kind, revision = item.revision,
        include = opts.include, exclude = opts.exclude, verify = true,
    })
    local files = {}
    for i, name in ipairs(names) do
        files[i] = path.join(folder, name)
    end
    report(item.kind == "dataset" and "data set" or item.kind, item.id, folder, files)
end

-- What the words of the command line name.
local function items_of(args)
    local out = {}
    for _, word in ipairs(args.what) do
        local dataset = word:match("^datasets/(.+)$") or word:match("^hf://datasets/(.+)$")
        if word:find("%.ya?ml$") then
            local registry = targets.registry()
            local cfg = config.load(word):to_table()
            for _, item in ipairs(hub_names.find(cfg, function(name) return registry:lookup(name) end)) do
                out[#out + 1] = item
            end
        elseif dataset then
            out[#out + 1] = { kind = "dataset", id = dataset, revision = args.revision, split = args.split,
                              name = args.name, asked = true }
        else
            out[#out + 1] = { kind = "model", id = word, revision = args.revision, asked = true }
        end
    end
    return out
end

local function say_what_nodes_need()
    local cache = hub.cache_dir()
    print(string.format("\nCompute nodes read these from %s, which must be a folder that they share. Set there:\n"
        .. "  export HF_HUB_CACHE=%s\n  export HF_HUB_OFFLINE=1", cache, cache))
end

function M.main(argv)
    local args = options.parse(argv, "amlua recipes/download.lua WHAT… [--revision REV]", specs)
    if not args then
        return 0
    end
    local items, brought, failed = items_of(args), 0, 0
    local opts = { include = #args.include > 0 and args.include or nil, exclude = args.exclude }
    for _, item in ipairs(items) do
        if hub_names.is_local(item.id) then
            if item.asked and not path.exists(item.id) then
                err.raise("usage", "%s is no configuration, and no name on the hub (org/name, datasets/org/name)",
                          item.id)
            end
            print(string.format("%-9s %s: %s", item.kind == "dataset" and "data set" or item.kind, item.id,
                                path.exists(item.id) and "a path, here" or "a path, not here: bring it yourself"))
        elseif hub.offline() then
            err.raise("usage", "HF_HUB_OFFLINE is set: unset it to download %s", item.id)
        else
            local ok, problem = pcall(bring, item, opts)
            if not ok and (not err.is(problem) or problem.code == "interrupted") then
                error(problem, 0)
            elseif not ok then
                failed = failed + 1
                io.stderr:write(string.format("%s%s: %s\n", item.id, item.key and " (" .. item.key .. ")" or "",
                                              tostring(problem)))
            else
                brought = brought + 1
            end
        end
    end
    if brought > 0 then
        say_what_nodes_need()
    elseif failed == 0 then
        print("nothing of this lies on the hub")
    end
    return failed > 0 and 1 or 0
end

return M
