-- BaseRecipe: what every training recipe shares, none of it about models: configuration, logs, signals, the entry
-- from the command line. Stateful parts, checkpoints and resume are checkpoints.lua's.
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
local edge = require("am.core.ffi")
local err = require("am.core.error")
local failures = require("am.recipes.failures")
local hooks = require("am.training.hooks")
local jsonl = require("am.loggers.jsonl")
local launch = require("am.recipes.launch")
local log = require("am.utils.log")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local rehearsal = require("am.recipes.rehearsal")
local sections = require("am.recipes.sections")
local signals = require("am.training.signals")
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
        if self.world:is_main() then -- all ranks have the same configuration
            self.log:warning("%s", note)
        end
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

-- Let seconds pass, whatever signals come.
local function wait(seconds)
    local began = edge.C.am_clock()
    while edge.C.am_clock() - began < seconds do
        posix.sleep(0.1)
    end
end

local FIRST_TO_SAY = 2 -- seconds that the first rank has for saying what may have gone wrong on all

-- End all ranks for an error of this one, for which the others would wait, or of all. Returns where there is one rank.
local function end_all(world, e)
    if world.size == 1 then
        return
    elseif world:is_main() or not (err.is(e) and e.agreed) then
        if not world:is_main() and err.is(e) and e.code ~= "comm" then
            wait(FIRST_TO_SAY) -- where it went wrong there, too, that ends this one
        end
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
    local minutes = found and tonumber(cfg:get("dist_env.timeout_minutes")) or 0
    local world = only_shown and distributed.alone() or distributed.join(found and {
        backend = cfg:get("dist_env.backend"), timeout = 60 * math.max(0, minutes), -- one below 0 is refused below
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
        self:finish_saving()
    end, traced)
    if not ok and world.size == 1 then
        pcall(self.finish_saving, self) -- of the state before what failed
        e = failures.explain(self, e)
    elseif not ok then
        end_all(world, failures.explain(self, e))
    end
    local stopped = self.stops or self:stop_requested()
    local how = not ok and "failed" or stopped and "stopped" or "finished"
    local told, why = pcall(self.hooks.call, self.hooks, "finish", self, how, not ok and tostring(e) or nil)
    self:close_logs()
    self:leave_groups()
    world:close()
    local status = self.signals:exit_status()
    self.signals:unwatch()
    if not (ok and told) then
        error(ok and why or e, 0)
    end
    if stopped then
        local _, name = self.signals:pending()
        self.log:info("%s ended the run%s", name or "a signal to another rank", self:checkpoint_setting("enabled")
                      and "; the same command goes on where it stopped" or "")
    end
    return status
end

--- Overridden by recipes: leave the groups of ranks that were made of the world.
function Recipe.leave_groups() end

--- True once this rank was asked to end by a signal.
function Recipe:stop_requested()
    return self.signals ~= nil and self.signals:pending() ~= nil
end

--- True once any rank was; all ranks ask at the same time.
function Recipe:all_stop()
    self.stops = self.world:any(self:stop_requested())
    return self.stops
end

for name, method in pairs(require("am.recipes.checkpoints")) do
    Recipe[name] = method
end

return setmetatable({
    --- A new recipe; as Recipe:extend.
    extend = function(name) return Recipe:extend(name) end,
    Recipe = Recipe,
}, { __index = Recipe })
