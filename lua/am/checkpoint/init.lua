-- Checkpoints on disk: a folder for each, published in one rename, and LATEST, which names the newest.
-- Knows nothing of models: the recipe hands over functions that write and read the parts.
--
--   <root>/LATEST -> epoch_0_step_99      LATEST.txt with the name where links can't be made
--   <root>/LOWEST_VAL -> …                best validation loss so far
--   <root>/epoch_0_step_99/{model/, optim/, rng/, dataloader/, step_scheduler.json, manifest.json, …}
--   <root>/epoch_0_step_99.reserving-…    being written; means nothing, removed by the next run
--   <root>/epoch_0_step_99.removing-…     being removed; the same
--   <root>/epoch_0_step_99.not_finite-…   withdrawn: its next step had a loss that is no number
--
-- A save writes everything into the reserved folder with `.incomplete` in it, syncs it, removes the
-- marker, renames, syncs the root, then swaps LATEST. Killed at any moment, LATEST names a whole one.
--
-- What tensors are on disk says shards.lua, how they get there saving.lua, and what is in a whole one manifest.lua.

local err = require("am.core.error")
local json = require("am.utils.json")
local log = require("am.utils.log").get("am.checkpoint")
local path = require("am.utils.path")
local posix = require("am.utils.posix")

local M = { shards = require("am.checkpoint.shards"), saving = require("am.checkpoint.saving"),
            manifest = require("am.checkpoint.manifest") }

local MAX_BYTES = 64 * 1024 * 1024

-- ---- one run at a time ----------------------------------------------------------------------

local Lock = {}
Lock.__index = Lock

--- Let others in.
function Lock:release()
    if self.fd then
        posix.close(self.fd)
        self.fd = nil
    end
end

--- Keep other runs out of a folder while the lock is held; the system lets go of it when the process
--- ends, however it does. The file ".lock" stays and says who held it last.
function M.lock(root)
    path.mkdir_p(root)
    local file = path.join(root, ".lock")
    local fd, msg, busy = posix.lock_file(file, string.format("process %d on %s", posix.getpid(), posix.hostname()))
    if busy then
        err.raise("state", "%s is in use by %s; wait for it to end, or choose another checkpoint.checkpoint_dir", root,
                  (path.read_file(file, 256) or ""):match("%S[^\n]*") or "another run")
    elseif not fd then
        err.raise("io", "%s", msg)
    end
    return setmetatable({ fd = fd }, Lock)
end

-- ---- publishing -----------------------------------------------------------------------------

--- The files and folders below a folder, and it itself, last.
function M.tree(dir, list)
    list = list or {}
    for _, name in ipairs(path.names(dir)) do
        local p = path.join(dir, name)
        if path.is_dir(p) and not path.is_link(p) then
            M.tree(p, list)
        else
            list[#list + 1] = p
        end
    end
    list[#list + 1] = dir
    return list
end

--- Put right what an interrupted save left behind.
function M.clean(root)
    for _, name in ipairs(path.is_dir(root) and path.names(root) or {}) do
        local final, how = name:match("^(epoch_%d+_step_%d+)%.(%l+)%-")
        local left = path.join(root, name)
        if how == "replaced" and not path.exists(path.join(root, final)) then
            path.rename(left, path.join(root, final))
        elseif how == "replaced" or how == "reserving" or how == "removing" then
            path.remove_tree(left)
        elseif name:find("%.%d+%-%d+%-%d+%.tmp$") and (path.is_link(left) or not path.is_dir(left)) then
            path.remove_tree(left) -- a link or file that was to be renamed
        end
    end
end

-- Make `pointer` (LATEST, LOWEST_VAL) name a checkpoint, in one step.
local function point(root, pointer, final)
    local link = path.join(root, pointer)
    if pcall(path.symlink_swap, final, link) then
        posix.unlink(link .. ".txt")
    else
        path.write_file(link .. ".txt", path.basename(final) .. "\n")
        path.remove_tree(link) -- an older link would be believed
        path.sync(root)
    end
end

--- The checkpoint's name that a pointer holds, or nil.
function M.pointed(root, pointer)
    local link = path.join(root, pointer)
    local name = posix.readlink(link) or path.read_file(link .. ".txt", 256)
    return name and path.basename((name:gsub("%s+$", "")))
end

-- Rename the finished folder to its name. One of that name exists when a run goes on from an older
-- checkpoint: the two are swapped, so that LATEST, which may name it, always names a whole one.
-- Where the file system can't swap, a run killed between two renames is put right by `clean`.
local function publish(reserved, final, root, pointers)
    local old
    if not path.exists(final) then
        path.rename(reserved, final)
    elseif posix.exchange(reserved, final) then
        old = reserved
    else
        old = path.unique(final .. ".replaced-")
        path.rename(final, old)
        local ok, e = pcall(path.rename, reserved, final)
        if not ok then
            posix.rename(old, final)
            error(e, 0)
        end
    end
    for _, pointer in ipairs(pointers or {}) do
        point(root, pointer, final)
    end
    point(root, "LATEST", final) -- last: without it, the run saves this one again; syncs the root
    if old then
        pcall(path.remove_tree, old) -- the next run removes what stays
    end
end

-- A new folder, marked as not finished.
local function begin(dir)
    path.mkdir_p(dir)
    path.write_unsynced(path.join(dir, ".incomplete"), "")
    return dir
end

-- All of it is there, and on disk when this returns. synced: all but what lies in the folder itself is on disk already.
local function finish(dir, synced)
    path.remove_tree(path.join(dir, ".incomplete"))
    for _, p in ipairs(M.tree(dir)) do
        if not synced or p == dir or path.dirname(p) == dir and not path.is_dir(p) then
            path.sync(p)
        end
    end
end

--- Write a folder that stands alone, as a merged model's: write(dir) fills it. It gets its name, which must be free
--- or an empty folder's, when it is complete and on disk; on an error nothing is there. What a killed write of the
--- same name left beside it goes away.
function M.write_folder(final, write)
    final = path.normalize(final) -- without a slash at its end
    local parent, begun = path.dirname(path.absolute(final)), path.basename(path.absolute(final)) .. ".reserving-"
    path.mkdir_p(parent)
    for _, name in ipairs(path.names(parent)) do
        if name:sub(1, #begun) == begun then
            path.remove_tree(path.join(parent, name))
        end
    end
    local reserved = path.unique(final .. ".reserving-")
    local ok, e = pcall(function()
        write(begin(reserved))
        finish(reserved)
        path.rename(reserved, final)
        path.sync(path.dirname(path.absolute(final)))
    end)
    if not ok then
        pcall(path.remove_tree, reserved)
        error(err.within(e, "writing " .. final), 0)
    end
end

-- An error of a save, with its place.
local function of_saving(e, final)
    return err.within(e, "saving " .. final .. "; earlier checkpoints are untouched")
end

--- Begin a checkpoint that is published later: its reserved folder, which is there.
function M.begin(root, name)
    local final = path.join(root, name)
    local reserved = path.unique(final .. ".reserving-")
    local ok, e = pcall(function()
        path.mkdir_p(root)
        begin(reserved)
    end)
    if not ok then
        M.abandon(reserved)
        error(of_saving(e, final), 0)
    end
    return reserved
end

--- Publish what M.begin has begun: all of it is written. On an error nothing is published, what was there stays, and
--- the reserved folder is removed. pointers: names beside LATEST that shall mean it too. synced: what lies
--- in folders of it is on disk already. Returns the published folder.
function M.publish(root, name, reserved, pointers, synced)
    local final = path.join(root, name)
    local ok, e = pcall(function()
        finish(reserved, synced)
        publish(reserved, final, root, pointers)
    end)
    if not ok then
        M.abandon(reserved)
        error(e, 0)
    end
    return final
end

--- Remove what M.begin has begun.
function M.abandon(reserved)
    pcall(path.remove_tree, reserved)
end

--- Write a checkpoint and publish it: write(dir) fills the folder. As M.publish.
function M.save(root, name, write, pointers)
    local reserved = M.begin(root, name)
    local ok, result = pcall(function()
        write(reserved)
        return M.publish(root, name, reserved, pointers)
    end)
    if not ok then
        M.abandon(reserved)
        error(of_saving(result, path.join(root, name)), 0)
    end
    return result
end

-- ---- finding --------------------------------------------------------------------------------

local function complete(dir)
    return path.is_dir(dir) and not path.exists(path.join(dir, ".incomplete"))
end

--- Names of complete checkpoints under root, oldest step first.
function M.list(root)
    local found = {}
    for _, name in ipairs(path.is_dir(root) and path.names(root) or {}) do
        local step = name:match("^epoch_%d+_step_(%d+)$")
        if step and complete(path.join(root, name)) then
            found[#found + 1] = { name = name, step = tonumber(step) }
        end
    end
    table.sort(found, function(a, b) return a.step < b.step end)
    local names = {}
    for i, f in ipairs(found) do
        names[i] = f.name
    end
    return names
end

--- The folder to go on from. restore_from: nil for the newest under root (nil when there is none), a
--- pointer ("LATEST", "LOWEST_VAL"), a checkpoint's name under root, or a path. A named one that is not
--- there is an error that lists those that are.
function M.resolve(root, restore_from)
    if restore_from == nil then
        local latest, names = M.pointed(root, "LATEST"), M.list(root)
        if latest and complete(path.join(root, latest)) then
            return path.join(root, latest)
        elseif latest then
            log:warning("%s was not finished: %s", path.join(root, latest), #names > 0 and "going on from "
                        .. names[#names] or "there is no other")
        end
        return #names > 0 and path.join(root, names[#names]) or nil
    end
    local name = tostring(restore_from)
    if not name:find("/", 1, true) then
        name = M.pointed(root, name:upper()) or name
    end
    for _, dir in ipairs { path.join(root, name), name } do
        if path.is_dir(dir) then
            if not complete(dir) then
                err.raise("format", "checkpoint %s was not finished (it holds .incomplete); choose another",
                          dir)
            end
            return dir
        end
    end
    local names = M.list(root)
    err.raise("usage", "checkpoint.restore_from: there is no checkpoint %s; under %s there %s", name, root,
              #names > 0 and "are " .. table.concat(names, ", ") or "is none")
end

-- ---- parts ----------------------------------------------------------------------------------

--- Write a table of numbers, strings and booleans as a JSON file in a folder of a checkpoint, which publishing syncs.
function M.write_json(file, value)
    path.mkdir_p(path.dirname(file), true)
    path.write_unsynced(file, json.encode(value, { indent = 2, sort_keys = true }) .. "\n")
end

--- Read what write_json wrote.
function M.read_json(file)
    local text, why = path.read_file(file, MAX_BYTES)
    if not text then
        err.raise("format", "the checkpoint lacks %s", why)
    end
    local value, msg = json.decode(text)
    if type(value) ~= "table" or value == json.null then
        err.raise("format", "%s: %s", file, msg or "not a JSON object")
    end
    return value
end

--- Fields of the `checkpoint` section.
M.fields = {
    enabled = { type = "boolean", default = true, doc = "save and resume" },
    checkpoint_dir = { type = "string", default = "checkpoints", doc = "folder of all checkpoints and logs" },
    model_save_format = { type = "string", default = "safetensors", enum = { "safetensors", "torch_save" },
                          doc = "always safetensors; torch_save is accepted with a warning" },
    save_consolidated = { type = "boolean|string", default = "final", enum = { true, false, "final", "every" },
                          doc = "a Hugging Face directory too: at the end, at every save, or never" },
    restore_from = { type = "string", doc = "LATEST, LOWEST_VAL, a name, or a path; the newest by default" },
    model_repo_id = { type = "string", no_effect = "the model section names it" },
    model_cache_dir = { type = "string", no_effect = "see HF_HUB_CACHE" },
    is_peft = { type = "boolean", no_effect = "a peft section says it" },
    is_async = { type = "boolean", default = false, doc = "write from copies in memory while training goes on" },
    v4_compatible = { type = "boolean", no_effect = "files have the hub's spelling anyway" },
    best_metric_key = { type = "string", default = "default",
                        doc = "name of the validation set that LOWEST_VAL goes by, where there are several" },
    max_recent_checkpoints = { type = "integer", min = 1, doc = "keep only so many of the newest" },
    staging_dir = { type = "string", no_effect = "a save is staged beside its final place" },
    consolidation_timeout_minutes = { type = "number", min = 0, no_effect = "dist_env.timeout_minutes is for all" },
    cpu_offload = { type = "boolean", no_effect = "weights are in the host's memory" },
    wait_for_staging = { type = "boolean", no_effect = "the next step begins when copies are made" },
    single_rank_consolidation = { type = "boolean", no_effect = "all ranks write" },
    allow_legacy_pickle_restore = { type = "boolean", no_effect = "checkpoints hold no pickles" },
    model_state_dict_keys = { type = "list", no_effect = "the model says what it holds" },
    original_model_root_dir = { type = "string", no_effect = "the model section names it" },
    diffusers_compatible = { type = "boolean", no_effect = "diffusion models are not trained here" },
    dequantize_base_checkpoint = { type = "boolean", no_effect = "weights are read in the dtype that is asked for" },
    skip_task_head_prefixes_for_base_model = { type = "list", no_effect = "a new head is no part of a checkpoint" },
}

--- Take back a checkpoint whose state turned out to be useless: it gets another name, and LATEST the
--- newest of the others. Returns that one's folder, or nil, and the new name.
function M.withdraw(root, dir)
    local aside = path.unique(path.join(root, path.basename(dir)) .. ".not_finite-")
    local names, before = M.list(root), nil
    for _, name in ipairs(names) do
        before = name ~= path.basename(dir) and name or before
    end
    if before and M.pointed(root, "LATEST") == path.basename(dir) then
        point(root, "LATEST", path.join(root, before))
    end
    path.rename(dir, aside) -- before pointers go: without them, the newest of the others would be it
    for _, pointer in ipairs { "LATEST", "LOWEST_VAL" } do
        if M.pointed(root, pointer) == path.basename(dir) then
            path.remove_tree(path.join(root, pointer))
            path.remove_tree(path.join(root, pointer .. ".txt"))
        end
    end
    return before and path.join(root, before), aside
end

--- Remove all but the newest `keep` checkpoints and those that LATEST and LOWEST_VAL name.
function M.prune(root, keep)
    local names, kept = M.list(root), {}
    for _, pointer in ipairs { "LATEST", "LOWEST_VAL" } do
        kept[M.pointed(root, pointer) or ""] = true
    end
    for i = 1, #names - keep do
        if not kept[names[i]] then -- by another name first: half of one must not pass for a checkpoint
            local final = path.join(root, names[i])
            local removing = path.unique(final .. ".removing-")
            path.rename(final, removing)
            path.remove_tree(removing)
        end
    end
end

return M
