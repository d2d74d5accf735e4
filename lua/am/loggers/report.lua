-- The tracker that keeps report.html: one file that shows a run to people, without a server and without network.
-- Holds the run's numbers; the page is report_page.lua's and its curves are report_chart.lua's.
--
--   report: { enabled: true }      on by default
--
-- It is rewritten as a whole, in one step, every half minute at most and at the end. A resumed run reads
-- what was before it from training.jsonl and validation*.jsonl, so that its curves are whole.

local history = require("am.loggers.history")
local json = require("am.utils.json")
local metrics = require("am.loggers.metrics")
local page = require("am.loggers.report_page")
local chart = require("am.loggers.report_chart")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local edge = require("am.core.ffi")
local progress = require("am.loggers.progress")
local series = require("am.loggers.series")
local strings = require("am.utils.strings")

local M = {}

--- Keys of the section.
M.fields = {
    enabled = { type = "boolean", default = true, doc = "write report.html" },
    file = { type = "string", doc = "where; absent: report.html in the folder of the checkpoints" },
}

local EVERY, SHARE = 30, 100 -- seconds between two writings; and so many times as long as one takes
local MAX_PROMPTS, MAX_TEXT, MAX_SETS, MAX_VALIDATIONS = 16, 4000, 16, 200
local MAX_CONFIG, MAX_IMAGES, MAX_IMAGE = 65536, 4, 65536

local Report = {}
Report.__index = Report

local curves = { "loss", "lr", "grad_norm", "tps", "mem" }

-- ---- what is kept ---------------------------------------------------------------------------

local function take_train(self, r)
    for _, key in ipairs(curves) do
        if type(r[key]) == "number" then
            self.series[key]:add(r.step, r[key])
        end
    end
    self.steps, self.last_step = self.steps + 1, r.step
    self.epoch = type(r.epoch) == "number" and r.epoch or self.epoch
    self.tokens = self.tokens + (tonumber(r.num_tokens_per_step) or 0)
    self.label_tokens = self.label_tokens + (tonumber(r.num_label_tokens) or 0)
    if type(r.tps) == "number" and r.tps > 0 and tonumber(r.num_tokens_per_step) then
        self.seconds = self.seconds + r.num_tokens_per_step / r.tps
    end
end

local function take_validation(self, name, r)
    if not self.sets[name] then
        if #self.set_names == MAX_SETS then
            return
        end
        self.sets[name] = { data = series.new() }
        self.set_names[#self.set_names + 1] = name
    end
    local set, loss = self.sets[name], r.val_loss
    if type(loss) ~= "number" then
        return
    end
    set.data:add(r.step, loss)
    if loss == loss and (not set.best or loss < set.best) then
        set.best, set.best_step = loss, r.step
    end
    if #self.validations < MAX_VALIDATIONS then
        self.validations[#self.validations + 1] = { name, r.step, chart.number(loss) }
    end
end

-- Those of a prompt's pictures that the page shows: what is small and nothing but a picture.
local function shown_images(images)
    local list = {}
    for _, uri in ipairs(type(images) == "table" and images or {}) do
        if type(uri) == "string" and #uri <= MAX_IMAGE and #list < MAX_IMAGES
            and (uri:find("^data:image/jpeg;base64,[%w+/=]+$") or uri:find("^data:image/png;base64,[%w+/=]+$")) then
            list[#list + 1] = uri
        end
    end
    return #list > 0 and json.array(list) or nil
end

local function known_sample(s)
    local function part(p)
        return type(p) == "table" and type(p.text) == "string" and type(p.step) == "number"
    end
    return type(s) == "table" and type(s.prompt) == "string" and part(s.first) and (s.last == nil or part(s.last))
        and (s.truth == nil or type(s.truth) == "string")
end

--- See init.lua for `run`. state: the samples of the run before.
function M.open(section, run, state)
    local self = setmetatable({
        file = section.file or path.join(run.dir, "report.html"), run = run, clock = run.clock or edge.C.am_clock,
        time = run.time or posix.time, status = "running", series = {}, sets = {}, set_names = {}, samples = {},
        validations = {}, steps = 0, tokens = 0, label_tokens = 0, seconds = 0, next_at = 0,
    }, Report)
    for _, key in ipairs(curves) do
        self.series[key] = series.new()
    end
    if run.resumed_from then
        history.train(run.dir, 0, run.start_step - 1, function(r) take_train(self, r) end)
        history.validations(run.dir, function(name, r) take_validation(self, name, r) end)
        for _, s in ipairs(state and type(state.samples) == "table" and state.samples or {}) do
            if known_sample(s) and #self.samples < MAX_PROMPTS then
                s.images = shown_images(s.images)
                self.samples[#self.samples + 1] = s
            end
        end
    end
    return self
end

function Report:train(record)
    take_train(self, record)
end

function Report:validation(name, record)
    take_validation(self, name, record)
end

--- The first answer to a prompt and the last one are shown.
function Report:sample(step, prompt, text, more)
    local own = { step = step, text = metrics.text(text, MAX_TEXT) }
    prompt = metrics.text(prompt, MAX_TEXT)
    for _, s in ipairs(self.samples) do
        if s.prompt == prompt then
            s.last = own
            return
        end
    end
    if #self.samples < MAX_PROMPTS then
        self.samples[#self.samples + 1] = { prompt = prompt, first = own, images = shown_images(more and more.images),
                                            truth = more and more.truth and metrics.text(more.truth, MAX_TEXT) }
    end
end

-- ---- the page -------------------------------------------------------------------------------

local THIN = "\226\128\175" -- a narrow space at which no line breaks

-- 1234567 as 1 234 567.
local function grouped(n)
    local text = string.format("%.0f", n):reverse():gsub("(%d%d%d)", "%1 "):reverse()
    return (strings.trim(text):gsub(" ", THIN))
end

local function summary(self)
    local run, s = self.run, self.series
    local list = { { "Model", run.model_name or "(new)" } }
    local function fact(name, text)
        list[#list + 1] = { name, text }
    end
    for _, item in ipairs(run.facts or {}) do
        fact(item[1], item[2])
    end
    fact("Steps", grouped(self.last_step and self.last_step + 1 or 0)
         .. (run.total_steps and " of " .. grouped(run.total_steps) or ""))
    fact("Tokens", grouped(self.tokens) .. (self.label_tokens > 0 and ", " .. grouped(self.label_tokens)
                                            .. " of them learnt" or ""))
    fact("Time in steps", progress.duration(self.seconds))
    if s.loss.last then
        fact("Last loss", chart.number(s.loss.last))
    end
    for _, name in ipairs(self.set_names) do
        local set = self.sets[name]
        if set.best then
            fact(name == "default" and "Best validation" or "Best validation, " .. name,
                 string.format("%s at step %d", chart.number(set.best), set.best_step))
        end
    end
    if self.seconds > 0 then
        fact("Throughput", grouped(self.tokens / self.seconds) .. " tokens/s")
    end
    if s.mem.count > 0 then
        fact("Peak memory", string.format("%.2f GiB", s.mem.max))
    end
    return list
end

local function note(data)
    local parts = {}
    if data.per_bucket > 1 then
        parts[1] = string.format("mean of %d steps, band: least to greatest", data.per_bucket)
    end
    if data.not_finite > 0 then
        parts[#parts + 1] = string.format("%d values are no finite numbers", data.not_finite)
    end
    return table.concat(parts, "; ")
end

local function charts(self)
    local s, sets = self.series, {}
    local loss = { { name = "training", class = "s1", data = s.loss } }
    for i, name in ipairs(self.set_names) do
        local shown = { name = name == "default" and "validation" or name, class = "s" .. (i % 4 + 1),
                        data = self.sets[name].data }
        sets[i] = shown
        loss[#loss + 1] = i <= 3 and shown or nil
    end
    local list = { { title = "Loss", series = loss, note = note(s.loss) },
                   { title = "Validation loss", series = sets } }
    for _, item in ipairs { { "lr", "Learning rate" }, { "grad_norm", "Gradient norm" }, { "tps", "Tokens per second" },
                            { "mem", "Peak memory, GiB" } } do
        local data = s[item[1]]
        list[#list + 1] = { title = item[2], note = note(data),
                            series = { { name = item[2]:lower(), class = "s1", data = data } } }
    end
    return list
end

local function environment(self)
    local list = {}
    for _, item in ipairs(self.run.environment or {}) do
        list[#list + 1] = item
    end
    list[#list + 1] = { "host", posix.hostname() or "" }
    if self.run.resumed_from then
        list[#list + 1] = { "resumed from", self.run.resumed_from }
    end
    return list
end

--- Write the page now.
function Report:write()
    local started = self.clock()
    path.mkdir_p(path.dirname(self.file))
    path.write_file(self.file, page.html {
        title = self.run.name or "run", status = self.status, message = self.message, summary = summary(self),
        charts = charts(self), samples = self.samples, validations = self.validations,
        environment = environment(self), config_text = self.run.config_text
            and metrics.text(self.run.config_text, MAX_CONFIG), written = os.date("%Y-%m-%d %H:%M:%S", self.time()),
    })
    local took = self.clock() - started
    self.next_at = self.clock() + math.max(EVERY, SHARE * took)
end

function Report:poll()
    if self.clock() >= self.next_at then
        self:write()
    end
end

function Report:finish(status, message)
    self.status, self.message = status, message
    self:write()
end

function Report:state_dict()
    return { samples = json.array(self.samples) }
end

return M
