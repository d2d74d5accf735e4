-- BaseRecipe: what every training recipe shares, none of it about models: configuration, the list of
-- stateful parts, checkpoints and resume, logs, signals, the entry from the command line.
--
--   local Recipe = require("am.recipes.base").extend("name")   a recipe has setup, train, evaluate
--   self:track("step_scheduler.json", scheduler)               saved as JSON by state_dict/load_state_dict
--
-- A user's recipe extends another one and replaces what it wants to:
--   local Mine = require("recipes.llm_finetune"):extend("mine")
--   function Mine:build_loss() … end
--   return Mine

local args_parser = require("am.cli.args")
local checkpoint = require("am.checkpoint")
local command = require("am.recipes.command")
local config = require("am.config")
local cross_fields = require("am.recipes.cross_fields")
local distributed = require("am.distributed")
local err = require("am.core.error")
local hooks = require("am.training.hooks")
local json = require("am.utils.json")
local jsonl = require("am.loggers.jsonl")
local launch = require("am.recipes.launch")
local log = require("am.utils.log")
local path = require("am.utils.path")
local rehearsal = require("am.recipes.rehearsal")
local sections = require("am.recipes.sections")
local signals = require("am.training.signals")
local strings = require("am.utils.strings")
local targets = require("am.recipes.targets")

local Recipe = {}
Recipe.__index = Recipe

--- A recipe that inherits from this one.
function Recipe.extend(parent, name)
    local class = setmetatable({ name = name, parent = parent }, { __index = parent })
    class.__index = class
    --- Run from the command line.
    class.main = function(args) return Recipe.run(class, args) end
    --- A recipe to drive by hand: new("cfg.yaml", {"--optimizer.lr", "1e-4"}) or new(config node).
    class.new = function(source, overrides, opts) return Recipe.create(class, source, overrides, opts) end
    return class
end

-- Load what the configuration names: the class's setup(), once. One that failed can be tried again.
local function setup_once(self, ...)
    if self.is_set_up then
        err.raise("state", "setup() was called already: go on with step() or train(), or make a new recipe")
    end
    self:close_logs()
    self.parts = {}
    getmetatable(self).setup(self, ...)
    self.is_set_up = true
end

--- Make a recipe object; nothing is loaded before setup.
function Recipe.create(class, source, overrides, opts)
    opts = opts or {}
    local self = setmetatable({ parts = {}, logs = {}, hooks = hooks.new {}, setup = class.setup and setup_once },
                              class)
    if type(source) == "string" then
        local parsed = args_parser.parse(overrides or {})
        source = config.load(source, { overrides = parsed.overrides })
    elseif not config.is_node(source) then
        source = config.from_table(source, "recipe")
    end
    self.cfg = source
    for _, key in ipairs(source:keys()) do
        if source:get(key) == nil then -- a section of nothing is as good as none
            source:unset(key)
        end
    end
    self.log = log.get("am." .. (class.name or "recipe"))
    self.world = opts.world or distributed.alone()
    self.ctx = {
        registry = targets.registry(),
        roots = opts.roots,
        allow_user_code = opts.allow_user_code,
    }
    config.validate(self.cfg, { fields = self:schema() }, self.ctx)
    for _, note in ipairs(cross_fields.check(self.cfg, class)) do
        self.log:warning("%s", note)
    end
    rehearsal.run(self)
    if self.ctx.without_effect then
        self.log:info("without effect here: %s", table.concat(self.ctx.without_effect, ", "))
    end
    return self
end

--- Sections and keys that a configuration may have; recipes add theirs.
function Recipe.schema()
    return sections.with({
        seed = { type = "integer", default = 42, min = 0, doc = "seed of everything" },
        checkpoint = { fields = checkpoint.fields, doc = "saving and resuming" },
    }, sections.everywhere())
end

-- ---- stateful parts -------------------------------------------------------------------------

--- Save and restore a part with every checkpoint: `file` is its JSON file in the checkpoint's folder,
--- `part` has state_dict() and load_state_dict(state).
function Recipe:track(file, part)
    self.parts[#self.parts + 1] = { file = file, part = part }
    return part
end

--- A setting of the checkpoint section, defaults filled in.
function Recipe:checkpoint_setting(key)
    local node, spec = self.cfg:child("checkpoint." .. key), checkpoint.fields[key]
    local value = node and config.leaf_value(node, spec)
    if value == nil then
        return spec.default
    end
    return value
end

--- The folder that checkpoints and logs are in.
function Recipe:checkpoint_dir()
    return self:checkpoint_setting("checkpoint_dir")
end

--- Overridden by recipes: write the model and the optimizer into a folder / read them back, and what
--- identifies the model (a table of numbers and strings) so that another's checkpoint is refused.
function Recipe.save_model() end
--- Overridden by recipes: see save_model.
function Recipe.load_model() end
--- Overridden by recipes: see save_model.
function Recipe.signature() return {} end

--- Overridden by recipes: the names of the validation sets, in order.
function Recipe.validation_names() return {} end

--- What losses.json calls the loss of a validation set: "val_loss" when it is the only one, else its name.
function Recipe:loss_key(name)
    return #self:validation_names() == 1 and "val_loss" or name
end

--- The key of losses.json that decides which checkpoint is the best: checkpoint.best_metric_key's, or the first.
function Recipe:best_key()
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
function Recipe:is_best(losses)
    local root, key = self:checkpoint_dir(), self:best_key()
    local best = checkpoint.pointed(root, "LOWEST_VAL")
    local text = best and path.read_file(path.join(root, best, "losses.json"), 65536)
    local saved = text and json.decode(text)
    local lowest = type(saved) == "table" and tonumber(saved[key]) or math.huge
    return losses ~= nil and losses[key] ~= nil and losses[key] < lowest
end

--- What losses.json of the checkpoint that this run came from holds; empty without one.
function Recipe:saved_losses()
    local text = self.restored and path.read_file(path.join(self.restored, "losses.json"), 65536)
    local losses = text and json.decode(text)
    return type(losses) == "table" and losses ~= json.null and losses or {}
end

-- What a part has to say of itself to a checkpoint: { { file, state }, … }. A part of each rank has a file for each,
-- with its number in place of "RANK".
local function states_of(self)
    local list = {}
    for _, p in ipairs(self.parts) do
        if not p.file:find("RANK", 1, true) then
            list[#list + 1] = { p.file, p.part:state_dict() }
        else
            for i, text in ipairs(self.world:gather(json.encode(p.part:state_dict()))) do
                list[#list + 1] = { (p.file:gsub("RANK", i - 1)), assert(json.decode(text)) }
            end
        end
    end
    return list
end

--- Publish epoch_E_step_S with everything tracked. losses: what losses.json holds. Of several ranks the first writes.
function Recipe:save_checkpoint(epoch, step, losses, is_last)
    if not self:checkpoint_setting("enabled") then
        return
    end
    local root = self:checkpoint_dir()
    local name = string.format("epoch_%d_step_%d", epoch, step)
    local states = states_of(self)
    self:check_replicas()
    if self.world:is_main() then
        self:write_checkpoint(root, name, states, losses, is_last)
    end
    self.world:barrier()
    self.saved = { dir = path.join(root, name), step = step }
    return self.saved.dir
end

--- Overridden by recipes: leave the groups of ranks that were made of the world.
function Recipe.leave_groups() end

--- Overridden by recipes: raise an error where ranks that should hold the same do not.
function Recipe.check_replicas() end

-- The files of a checkpoint, and the older ones that go.
function Recipe:write_checkpoint(root, name, states, losses, is_last)
    local keep = self:checkpoint_setting("max_recent_checkpoints")
    if keep then -- before saving: the newest there has proved good by the steps since
        checkpoint.prune(root, keep)
    end
    self.log:info("Saving checkpoint to %s", path.join(root, name))
    for _, file in pairs(self.logs) do
        file:sync() -- no resumed run writes the lines before the checkpoint again
    end
    checkpoint.save(root, name, function(folder)
        self:save_model(folder, is_last)
        for _, state in ipairs(states) do
            checkpoint.write_json(path.join(folder, state[1]), state[2])
        end
        checkpoint.write_json(path.join(folder, "signature.json"), self:signature())
        checkpoint.write_json(path.join(folder, "losses.json"), losses or {})
        path.write_file(path.join(folder, "config.yaml"), config.print(self.cfg))
        self.hooks:call("save", self, folder, is_last)
    end, self:is_best(losses) and { "LOWEST_VAL" } or {})
    if keep and is_last then
        checkpoint.prune(root, keep)
    end
end

--- The state that this step began with is useless: a checkpoint of it is withdrawn. Returns the
--- newest good one, or nil.
function Recipe:withdraw_checkpoint(step)
    local root = self:checkpoint_dir()
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

-- Hand a part its state; an error names the file. A rank that the run that saved did not have begins as it is.
local function load_part(self, p, dir)
    local file = path.join(dir, (p.file:gsub("RANK", self.world.rank)))
    if self.world.rank > 0 and p.file:find("RANK", 1, true) and not path.is_file(file) then
        return {}
    end
    local ok, notes = pcall(p.part.load_state_dict, p.part, checkpoint.read_json(file))
    if not ok then
        error(err.within(notes, file), 0)
    end
    return notes or {}
end

--- Refuse a checkpoint of another model.
function Recipe:check_checkpoint(dir)
    check_signature(checkpoint.read_json(path.join(dir, "signature.json")), self:signature(), dir)
end

--- Keep other runs out of the folder that this one writes into, before anything is loaded.
function Recipe:claim_folder()
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

--- The folder of the checkpoint to go on from, which the configuration names, or the newest; nil for a fresh start.
--- All ranks take the one that the first finds.
function Recipe:find_checkpoint()
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
function Recipe:load_checkpoint()
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

-- ---- logs -----------------------------------------------------------------------------------

--- Open training.jsonl and validation.jsonl (validation_NAME.jsonl for a set with a name) beside the
--- checkpoints; lines of `step` (in the latter `validation_step`) and later go.
function Recipe:open_logs(step, validation_step)
    if not self.world:is_main() then
        return
    end
    local root = self.log_dir
    self.logs.training = jsonl.open(path.join(root, "training.jsonl"),
                                    { keys = jsonl.TRAINING, resume_step = step })
    for _, name in ipairs(self:validation_names()) do
        local file = name == "default" and "validation.jsonl" or "validation_" .. name .. ".jsonl"
        self.logs["validation " .. name] = jsonl.open(path.join(root, file), {
            keys = jsonl.VALIDATION, resume_step = validation_step or step,
        })
    end
    if self.cfg:has("samples") then
        self.logs.samples = jsonl.open(path.join(root, "samples.jsonl"), { keys = jsonl.SAMPLES,
                                                                           resume_step = validation_step or step })
    end
end

--- Write a record to the log of that name, if there is one: "training", "validation NAME" or "samples".
function Recipe:log_record(name, record)
    if self.logs[name] then
        self.logs[name]:write(record)
    end
end

--- Close the logs and let other runs into the folder.
function Recipe:close_logs()
    if self.lock then
        self.lock:release()
        self.lock = nil
    end
    for _, file in pairs(self.logs) do
        file:close()
    end
    self.logs = {}
end

-- ---- from the command line ------------------------------------------------------------------

local function traced(e)
    return err.is(e) and e or debug.traceback(tostring(e), 2)
end

-- End all ranks for an error of this one, for which the others would wait, or of all. Returns where there is one rank.
local function end_all(world, e)
    if world.size == 1 then
        return
    elseif world:is_main() or not (err.is(e) and e.agreed) then
        log.get("am.recipe"):error("%s", tostring(e))
    else -- the first rank says it, and ends this one
        pcall(world.barrier, world)
    end
    world:abort(err.is(e) and e.code == "usage" and 2 or 1, tostring(e))
end

--- Parse, set up, train; SIGTERM and Ctrl-C save and end with status 0 and 130.
function Recipe.run(class, argv)
    local args = args_parser.parse(argv)
    if args.options.help then
        return command.help(class, argv[0] or class.name, args.options.help)
    end
    command.check(args, argv[0] or "recipe.lua")
    if args.options.threads then
        require("am.cli").set_threads(args.options.threads)
    end
    local found, cfg = pcall(config.load, args.config, { overrides = args.overrides })
    local only_shown = args.options["print-config"] or args.options["dry-run"]
    if not found and (only_shown or distributed.find().size == 1) then
        error(cfg, 0)
    end
    local world = only_shown and distributed.alone() or distributed.join(found and {
        backend = cfg:get("dist_env.backend"), timeout = 60 * (tonumber(cfg:get("dist_env.timeout_minutes")) or 0),
    })
    if world.size > 1 then
        command.divide_threads(world.on_cpus, args.options.threads)
    end
    if not world:is_main() then
        log.setup { level = "warning", prefix = ("[rank %d] "):format(world.rank) }
    end
    local ok, self = xpcall(world.together, traced, world, function()
        return found and Recipe.create(class, cfg, nil, {
            roots = { path.dirname(argv[0] or ".") }, world = world,
            allow_user_code = args.options["allow-user-code"],
        }) or error(cfg, 0)
    end)
    if not ok then
        end_all(world, self)
        error(self, 0)
    end
    if only_shown then
        return command.show(self, args.options)
    end
    local launched = launch.start(self, args, argv[0] or class.name)
    if launched then
        return launched
    end
    local signal = "SIGTERM"
    if cfg:has("step_scheduler.preemption_signal") then
        signal = cfg:get("step_scheduler.preemption_signal") -- null: none
    end
    self.signals = signals.watch { preemption_signal = signal }
    local e
    ok, e = xpcall(function()
        self:setup()
        self:train()
    end, traced)
    if not ok then
        end_all(world, e)
    end
    local how = not ok and "failed" or self:stop_requested() and "stopped" or "finished"
    local told, why = pcall(self.hooks.call, self.hooks, "finish", self, how, not ok and tostring(e) or nil)
    self:close_logs()
    self:leave_groups()
    world:close()
    local status = self.signals:exit_status()
    self.signals:unwatch()
    if not (ok and told) then
        error(ok and why or e, 0)
    end
    local _, name = self.signals:pending()
    if name then
        self.log:info("%s ended the run%s", name, self:checkpoint_setting("enabled")
                      and "; the same command goes on where it stopped" or "")
    end
    return status
end

--- True once this rank was asked to end by a signal.
function Recipe:stop_requested()
    return self.signals ~= nil and self.signals:pending() ~= nil
end

--- True once any rank was; all ranks ask at the same time.
function Recipe:all_stop()
    return self.world:any(self:stop_requested())
end

return setmetatable({
    --- A new recipe; as Recipe:extend.
    extend = function(name) return Recipe:extend(name) end,
    Recipe = Recipe,
}, { __index = Recipe })
