-- Make a Hugging Face directory of a checkpoint's shards, without the run or its configuration: what transformers
-- loads, and what the run itself writes with checkpoint.save_consolidated. Whole or not at all.
--
--   amlua recipes/consolidate.lua CHECKPOINT OUT      a checkpoint, or a run's folder for its newest

local consolidation = require("am.recipes.consolidation")
local err = require("am.core.error")
local options = require("am.cli.options")
local path = require("am.utils.path")
local ranks = require("am.distributed.ranks")

local M = {}

function M.main(argv)
    local args = options.parse(argv, "amlua recipes/consolidate.lua CHECKPOINT OUT", {
        { "CHECKPOINT OUT", words = true, doc = "a checkpoint (or a run's folder), and a new directory to write" },
    })
    if not args then
        return 0
    end
    local words = args["CHECKPOINT OUT"]
    if #words ~= 2 then
        err.raise("usage", "give a checkpoint and a new directory: amlua recipes/consolidate.lua CHECKPOINT OUT")
    end
    local place = ranks.find()
    if place.size > 1 then
        err.raise("usage", "consolidate.lua runs in one process, and %s started %d", place.by, place.size)
    end
    local out = words[2]
    if path.exists(out) and not (path.is_dir(out) and #path.names(out) == 0) then
        err.raise("usage", "%s is there already and not an empty folder; choose another", out)
    end
    local files, bytes = consolidation.consolidate(consolidation.find(words[1]), out)
    print(string.format("%s: %d file%s, %.3f GB of weights", out, files, files == 1 and "" or "s", bytes / 1e9))
    return 0
end

return M
