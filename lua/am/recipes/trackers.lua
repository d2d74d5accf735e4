-- The hook (lua/am/training/hooks.lua) that hands what happens in a run to its trackers (am.loggers), to the
-- line on the terminal and to the estimate of the time left. Holds none of them.

local ffi = require("ffi")
local ahead = require("am.recipes.ahead")
local config = require("am.config")
local edge = require("am.core.ffi")
local eta = require("am.training.eta")
local loggers = require("am.loggers")
local preflight = require("am.recipes.preflight")
local path = require("am.utils.path")
local progress = require("am.loggers.progress")

local M = {}

local Hook = { name = "trackers" }
Hook.__index = Hook

-- The trackers' sections of a configuration as plain tables.
local function sections_of(cfg)
    local sections = {}
    for key in pairs(loggers.schema) do
        local node = cfg:child(key)
        sections[key] = node and node:to_table()
    end
    return sections
end

--- A hook; raises "usage" for a section that can't mean anything, before anything is loaded.
function M.new(cfg)
    return setmetatable({ trackers = loggers.new(sections_of(cfg)) }, Hook)
end

-- Trackers of one's own, which the `trackers` section lists.
local function custom_of(recipe)
    local node, out = recipe.cfg:child("trackers"), {}
    for i, child in ipairs(node and node.children or {}) do
        out[i] = { name = child:get("_target_"), tracker = config.instantiate(child, recipe.ctx) }
    end
    return out
end

-- What the run runs with, for the report.
local function environment_of(recipe)
    return { { "amlua", ffi.string(edge.C.am_version()) }, { "threads", tostring(edge.C.am_threads()) },
             { "instructions", ffi.string(edge.C.am_cpu_isa()) }, { "weights", recipe.model:dtype() } }
end

function Hook:setup(recipe)
    local text = config.print(recipe.cfg) -- without secrets, and with variables as they were written
    local plain = config.parse(text, { getenv = function(name) return "$" .. name end }):to_table()
    local scheduler = recipe.scheduler
    self.trackers:open {
        dir = recipe.log_dir, resumed_from = recipe.restored, config_text = text, config = plain,
        model_name = recipe.model.name_or_path, start_step = scheduler.step, total_steps = scheduler:total_steps(),
        remote_every = recipe.cfg:get("step_scheduler.log_remote_every_steps"), custom = custom_of(recipe),
        environment = environment_of(recipe),
    }
    self.progress = progress.open { total_steps = scheduler:total_steps(), log = recipe.log }
    self.eta = eta.new { total_steps = scheduler:total_steps(), done = scheduler.step }
end

function Hook:step(recipe, record)
    self.progress:train(record)
    self.trackers:train(record)
    local left, step = self.eta:tick(edge.C.am_clock())
    if left and left > 0 and not self.said then
        self.said = true
        left = left + (self.has_saved and 0 or ahead.saving(recipe))
            + (self.has_validated and 0 or ahead.validating(recipe, record.num_tokens_per_step, step))
        recipe.time_left = left -- seconds
        recipe.log:info("a step takes %s, the rest of the run about %s", preflight.duration(step),
                        preflight.duration(left))
    end
    recipe.timers:write(self.trackers, record.step, nil, false)
end

function Hook:validation(_, name, record)
    self.has_validated = true
    self.trackers:validation(name, record)
end

function Hook:sample(_, record, images)
    local row = record.row and record.row:match("[^/]*$")
    local prompt = row and row .. ": " .. record.prompt or record.prompt -- several rows may ask the same
    self.trackers:sample(record.step, prompt, record.text, { truth = record.truth, images = images })
end

function Hook:save()
    self.has_saved = true
    self.trackers:flush()
end

local status = { finished = "finished", failed = "failed", stopped = "killed" }

-- The line ends first, so that an error is not written over it.
function Hook:finish(recipe, how, message)
    if self.progress then
        self.progress:finish()
        self.progress = nil
        self.trackers:artifact(path.join(recipe.log_dir, "training.jsonl"))
    end
    self.trackers:finish(status[how], message)
end

function Hook:state_dict() return self.trackers:state_dict() end
function Hook:load_state_dict(state) self.trackers:load_state_dict(state) end

return M
