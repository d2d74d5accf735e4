-- A recipe's checkpoints: the list of stateful parts, saving and resuming, the folder that a run claims. Methods of
-- every recipe (base.lua); folders and publishing are am.checkpoint's, what of a model goes into one is
-- llm_checkpoint.lua's.

local checkpoint = require("am.checkpoint")
local config = require("am.config")
local err = require("am.core.error")
local json = require("am.utils.json")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local strings = require("am.utils.strings")

local Methods = {}

-- ---- stateful parts -------------------------------------------------------------------------

--- Save and restore a part with every checkpoint: `file` is its JSON file in the checkpoint's folder,
--- `part` has state_dict() and load_state_dict(state). optional: a checkpoint may be without it.
function Methods:track(file, part, optional)
    self.parts[#self.parts + 1] = { file = file, part = part, optional = optional }
    return part
end

--- A setting of the checkpoint section, defaults filled in.
function Methods:checkpoint_setting(key)
    local node, spec = self.cfg:child("checkpoint." .. key), checkpoint.fields[key]
    local value = node and config.leaf_value(node, spec)
    if value == nil then
        return spec.default
    end
    return value
end

--- The folder that checkpoints and logs are in.
function Methods:checkpoint_dir()
    return self:checkpoint_setting("checkpoint_dir")
end

--- Overridden by recipes: write the model and the optimizer into a folder / read them back, and what
--- identifies the model (a table of numbers and strings) so that another's checkpoint is refused.
function Methods.save_model() end
--- Overridden by recipes: see save_model.
function Methods.load_model() end
--- Overridden by recipes: see save_model.
function Methods.signature() return {} end

--- Overridden by recipes: the names of the validation sets, in order.
function Methods.validation_names() return {} end

--- What losses.json calls the loss of a validation set: "val_loss" when it is the only one, else its name.
function Methods:loss_key(name)
    return #self:validation_names() == 1 and "val_loss" or name
end

--- The key of losses.json that decides which checkpoint is the best: checkpoint.best_metric_key's, or the first.
function Methods:best_key()
    local names = self:validation_names()
    local wanted = self:checkpoint_setting("best_metric_key")
    for _, name in ipairs(names) do
        if name == wanted then
            return self:loss_key(name)
        end
    end
    return names[1] and self:loss_key(names[1]) or "val_loss"
end

-- True when no checkpoint has a lower validation loss.
function Methods:is_best(losses)
    local root, key = self:checkpoint_dir(), self:best_key()
    local best = checkpoint.pointed(root, "LOWEST_VAL")
    local text = best and path.read_file(path.join(root, best, "losses.json"), 65536)
    local saved = text and json.decode(text)
    local lowest = type(saved) == "table" and tonumber(saved[key]) or math.huge
    return losses ~= nil and losses[key] ~= nil and losses[key] < lowest
end

--- What losses.json of the checkpoint that this run came from holds; empty without one.
function Methods:saved_losses()
    local text = self.restored and path.read_file(path.join(self.restored, "losses.json"), 65536)
    local losses = text and json.decode(text)
    return type(losses) == "table" and losses ~= json.null and losses or {}
end

-- The number of the stream of random numbers that this rank has: ranks that share matrices (tp) have the same one.
local function stream_of(self)
    return self.mesh and self.mesh:rank("loss") or self.world.rank
end

-- What a part has to say of itself to a checkpoint: { { file, state }, … }. A part of each rank has a file for each
-- stream, with its number in place of "RANK".
local function states_of(self)
    local list = {}
    for _, p in ipairs(self.parts) do
        if not p.file:find("RANK", 1, true) then
            list[#list + 1] = { p.file, p.part:state_dict() }
        else
            local seen = {}
            for _, text in ipairs(self.world:gather(json.encode { stream_of(self), p.part:state_dict() })) do
                local stream, state = unpack(assert(json.decode(text)))
                list[#list + 1] = not seen[stream] and { (p.file:gsub("RANK", stream)), state } or nil
                seen[stream] = true
            end
        end
    end
    return list
end

-- ---- saving ---------------------------------------------------------------------------------

--- Which rows of tensors this rank writes, and into which file: see am.checkpoint.saving.
function Methods:writers()
    local world, mesh = self.world, self.mesh
    return { rank = mesh and mesh:rank("stage") or world.rank, count = mesh and mesh:size("stage") or world.size,
             number = world.rank + 1, total = world.size }
end

-- A save failed, on all ranks but where a rank died: what was written goes away.
local function remove_own(self, folder, saving)
    saving:close()
    if self.world:is_main() then
        checkpoint.abandon(folder)
    end
end

-- Run a step of a save; on an error nothing of it stays, and the error says what it was about.
local function guarded(self, save, fn, ...)
    local ok, e = pcall(fn, self, save, ...)
    if not ok then
        self.pending = nil
        remove_own(self, save.folder, save.saving)
        error(err.within(e, "saving " .. path.join(self:checkpoint_dir(), save.name)
                         .. "; earlier checkpoints are untouched"), 0)
    end
end

-- All files of a checkpoint; those of tensors may be written later.
local function write_files(self, save, losses, is_last)
    local folder = save.folder
    local states = states_of(self)
    self.saving = save.saving
    self:save_model(folder, is_last)
    self.hooks:call_on(self.world:is_main(), "save", self, folder, is_last)
    self.saving = nil
    if self.world:is_main() then
        for _, state in ipairs(states) do
            checkpoint.write_json(path.join(folder, state[1]), state[2])
        end
        checkpoint.write_json(path.join(folder, "signature.json"), self:signature())
        checkpoint.write_json(path.join(folder, "losses.json"), losses or {})
        path.write_unsynced(path.join(folder, "config.yaml"), config.print(self.cfg))
    end
    save.saving:begin(save.saving.later and self.world:is_main() and checkpoint.tree(folder) or nil)
end

-- All ranks have written: the first one publishes. Where one has failed, all raise what it says.
local function publish(self, save)
    self.world:together(save.saving.wait, save.saving)
    local known = {}
    for _, text in ipairs(self.world:gather(json.encode(save.saving.files))) do
        for _, file in ipairs(assert(json.decode(text))) do
            known[file.name] = { bytes = file.bytes, blake2b = file.blake2b }
        end
    end
    if self.world:is_main() then
        checkpoint.manifest.write(save.folder, known)
        checkpoint.publish(self:checkpoint_dir(), save.name, save.folder, save.pointers, save.saving.later)
        local keep = self:checkpoint_setting("max_recent_checkpoints")
        if keep and save.is_last then
            checkpoint.prune(self:checkpoint_dir(), keep)
        end
    end
    self.world:barrier()
    self.saved = { dir = path.join(self:checkpoint_dir(), save.name), step = save.step }
end

--- Publish epoch_E_step_S with everything tracked. losses: what losses.json holds. Every rank writes a part of the
--- tensors. With checkpoint.is_async they are written beside the steps that follow, and poll_saving publishes it.
function Methods:save_checkpoint(epoch, step, losses, is_last)
    if not self:checkpoint_setting("enabled") then
        return
    end
    self:finish_saving()
    local root, name = self:checkpoint_dir(), string.format("epoch_%d_step_%d", epoch, step)
    self:check_replicas()
    if self.world:is_main() then
        local keep = self:checkpoint_setting("max_recent_checkpoints")
        if keep then -- before saving: the newest there has proved good by the steps since
            checkpoint.prune(root, keep)
        end
        self.log:info("Saving checkpoint to %s", path.join(root, name))
        for _, file in pairs(self.logs) do
            file:sync() -- no resumed run writes the lines before the checkpoint again
        end
    end
    local folder = self.world:from_main(self.world:is_main() and checkpoint.begin(root, name) or "")
    local later = self:checkpoint_setting("is_async") and not is_last
    local save = { name = name, step = step, folder = folder, is_last = is_last,
                   saving = checkpoint.saving.new(folder, self:writers(), later),
                   pointers = self.world:is_main() and self:is_best(losses) and { "LOWEST_VAL" } or {} }
    guarded(self, save, write_files, losses, is_last)
    if later then
        self.pending = save
    else
        guarded(self, save, publish)
    end
    return path.join(root, name)
end

-- Ask all ranks whether they have written their files, without waiting for them: the answer is there by the next step.
local function ask(self, save)
    local written = save.saving:done()
    local state = written and (pcall(save.saving.wait, save.saving) and 1 or -1) or 0
    save.answer = self.world:begin_reduce({ state }, "min")
end

--- Between two steps: publish a checkpoint that was begun, as soon as all ranks have written it. All ranks call this
--- between the same steps. Raises the error of a file that could not be written.
function Methods:poll_saving()
    local save = self.pending
    if save and save.answer and save.answer()[1] ~= 0 then
        self.pending = nil
        guarded(self, save, publish)
    elseif save then
        ask(self, save)
    end
end

--- Wait until a checkpoint that was begun is published. All ranks call this together.
function Methods:finish_saving()
    local save = self.pending
    if save then
        if save.answer then
            save.answer()
        end
        self.pending = nil
        guarded(self, save, publish)
    end
end

--- Overridden by recipes: raise an error where the run has what no checkpoint can hold.
function Methods.check_saving() end

--- Overridden by recipes: raise an error where ranks that should hold the same do not.
function Methods.check_replicas() end

--- The state that this step began with is useless: a checkpoint of it is withdrawn. Returns the
--- newest good one, or nil.
function Methods:withdraw_checkpoint(step)
    local root, save = self:checkpoint_dir(), self.pending
    if save and save.step == step - 1 then
        self.pending = nil
        remove_own(self, save.folder, save.saving)
    else
        self:finish_saving()
    end
    if self.world:is_main() and self.saved and self.saved.step == step - 1 then
        local before, aside = checkpoint.withdraw(root, self.saved.dir)
        self.log:warning("checkpoint %s led to it, and is now %s", self.saved.dir, aside)
        self.saved = nil
        return before
    end
    return self:checkpoint_setting("enabled") and checkpoint.resolve(root) or nil
end

local function shown(value)
    return value == nil and "absent" or json.encode(value, { sort_keys = true })
end

local function check_signature(saved, own, dir)
    local differing = {}
    for _, key in ipairs(strings.sorted_keys(own)) do
        if shown(saved[key]) ~= shown(own[key]) then
            differing[#differing + 1] = string.format("%s is %s there and %s here", key, shown(saved[key]),
                                                      shown(own[key]))
        end
    end
    if #differing > 0 then
        err.raise("state", "checkpoint %s is of another model: %s. Choose another checkpoint.checkpoint_dir, or "
                  .. "restore_from a checkpoint of this model", dir, table.concat(differing, "; "))
    end
end

-- Hand a part its state; an error names the file. What the run that saved did not have begins as it is: a stream, and
-- what is optional.
local function load_part(self, p, dir)
    local stream = stream_of(self)
    local file = path.join(dir, (p.file:gsub("RANK", stream)))
    if (p.optional or stream > 0 and p.file:find("RANK", 1, true)) and not path.is_file(file) then
        return {}
    end
    local ok, notes = pcall(p.part.load_state_dict, p.part, checkpoint.read_json(file))
    if not ok then
        error(err.within(notes, file), 0)
    end
    return notes or {}
end

--- Refuse a checkpoint of another model, and one that is damaged. Ranks share the reading.
function Methods:check_checkpoint(dir)
    self.world:together(checkpoint.manifest.check, dir, function(name)
        return name:find("%.safetensors$") and not name:find("/consolidated/") and not name:find("^ema/model/")
    end, self.world.rank, self.world.size)
    check_signature(checkpoint.read_json(path.join(dir, "signature.json")), self:signature(), dir)
end

--- Keep other runs out of the folder that this one writes into, before anything is loaded.
function Methods:claim_folder()
    local root = self:checkpoint_dir()
    local enabled = self:checkpoint_setting("enabled")
    self.log_dir = root
    if not self.world:is_main() then
        return
    end
    if not enabled and path.is_dir(root) and checkpoint.resolve(root) then
        self.log_dir = path.join(root, "trial")
        self.log:warning("checkpoint.enabled is false, and %s holds another run's checkpoints: logs go to %s", root,
                         self.log_dir)
    end
    local ok, lock = pcall(checkpoint.lock, self.log_dir)
    if not ok then
        local key = "checkpoint.checkpoint_dir"
        error(err.within(lock, self.cfg:has(key) and key .. ", " .. self.cfg:where(key) or key), 0)
    end
    self.lock = lock
    if enabled then
        checkpoint.clean(root)
    end
end

-- Every rank leaves a file in the folder, and the first looks for them all.
local function leave_and_look(self, mark)
    local world = self.world
    world:together(function()
        local file, why = posix.open(mark, "create")
        if not (file and posix.close(file)) then
            err.raise("io", "checkpoint.checkpoint_dir: all ranks write into it, and this one cannot: %s", why)
        end
    end)
    local marks = world:gather(posix.hostname() .. "\n" .. mark)
    world:together(function()
        for i, text in ipairs(world:is_main() and marks or {}) do
            local host, name = text:match("^(.-)\n(.*)$")
            if not path.exists(name) then
                err.raise("usage", "checkpoint.checkpoint_dir: rank %d (host %s) wrote %s, which is not there: all "
                          .. "ranks must see the same folder", i - 1, host, name)
            end
        end
    end)
end

--- Raise an error where a rank can't write into the folder of checkpoints, or has another of its name: as every rank
--- will write a part of each, it is to be known before the first.
function Methods:check_folder()
    if self.world.size > 1 and self:checkpoint_setting("enabled") then
        local mark = path.unique(path.join(self:checkpoint_dir(), ".rank" .. self.world.rank))
        local ok, e = pcall(leave_and_look, self, mark)
        posix.unlink(mark)
        if not ok then
            error(e, 0)
        end
    end
end

--- The folder of the checkpoint to go on from, which the configuration names, or the newest; nil for a fresh start.
--- All ranks take the one that the first finds.
function Methods:find_checkpoint()
    if self:checkpoint_setting("enabled") then
        local found = self.world:is_main()
            and checkpoint.resolve(self:checkpoint_dir(), self.cfg:get("checkpoint.restore_from"))
        found = self.world:from_main(found or "")
        return found ~= "" and found or nil
    elseif self.cfg:get("checkpoint.restore_from") then
        self.log:warning("Enable checkpointing to resume from a checkpoint, skipping...")
    end
    return nil
end

--- Go on from the checkpoint of find_checkpoint. Returns its folder, or nil for a fresh start.
function Methods:load_checkpoint()
    if self:checkpoint_setting("enabled") then
        self.world:together(self.check_saving, self)
    end
    local dir = self:find_checkpoint()
    if not dir then
        return nil
    end
    self.log:info("Loading checkpoint from %s", dir)
    self:check_checkpoint(dir)
    self:load_model(dir)
    for _, p in ipairs(self.parts) do
        for _, note in ipairs(load_part(self, p, dir)) do
            self.log:warning("as in the checkpoint: %s", note)
        end
    end
    self.hooks:call("load", self, dir)
    local step = tonumber(path.basename(dir):match("_step_(%d+)$"))
    if step and path.dirname(dir) == self:checkpoint_dir() then -- withdrawn when the next step shows it is bad
        self.saved = { dir = dir, step = step }
    end
    return dir
end

return Methods
