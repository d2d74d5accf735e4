-- The line at the bottom of a terminal that says how far a run is, redrawn after every step; where there is
-- no terminal, a plain line for each step.
-- Holds no metric; the plain line is console.lua's.
--
--   local bar = progress.open { total_steps = 1000, start_step = 0 }
--   bar:train(record)   bar:finish()
--
--   step 120/1000 | loss 1.2345 | 5321 tokens/s | 43.1 % of peak | 2.31 GiB | 0:12:34 left
--
-- Messages of the log are printed above the line, which stays whole. What does not fit the terminal is left
-- out, the least needed first. Colours are the log's: NO_COLOR and FORCE_COLOR count. With TERM=dumb there
-- is no line, since it could not be redrawn.

local console = require("am.loggers.console")
local edge = require("am.core.ffi")
local log = require("am.utils.log")
local posix = require("am.utils.posix")

local M = {}

local CLEAR = "\r\27[K"        -- to the beginning of the line, and all of it away
local REDRAW = 0.1             -- seconds between two drawings
local WIDTH = 80               -- columns when the terminal does not say

local Bar = {}
Bar.__index = Bar

--- Seconds as "0:12:34", from a day on "1d 02:03:04".
function M.duration(seconds)
    if seconds ~= seconds or seconds == math.huge then
        return "?"
    end
    local s = math.floor(math.max(seconds, 0) + 0.5)
    local days, hours, minutes = math.floor(s / 86400), math.floor(s / 3600) % 24, math.floor(s / 60) % 60
    if days > 0 then
        return string.format("%dd %02d:%02d:%02d", days, hours, minutes, s % 60)
    end
    return string.format("%d:%02d:%02d", hours, minutes, s % 60)
end

-- Parts of the line: { text, rank }; those of the highest rank go first when room is short.
local function parts_of(self, r)
    local total = self.total_steps
    local parts = {
        { total and string.format("step %d/%d", r.step + 1, total) or string.format("step %d", r.step + 1), 0 },
        { "loss " .. console.fixed(r.loss, 4), 1 },
        { console.fixed(r.tps, 0) .. " tokens/s", 3 },
    }
    if type(r.mfu) == "number" then
        parts[#parts + 1] = { console.fixed(r.mfu, 1) .. " % of peak", 5 }
    end
    parts[#parts + 1] = { console.fixed(r.mem, 2) .. " GiB", 4 }
    local left = total and self.seconds_per_step and (total - r.step - 1) * self.seconds_per_step
    if left then
        parts[#parts + 1] = { M.duration(left) .. " left", 2 }
    end
    return parts
end

local function joined(parts)
    local texts = {}
    for i, part in ipairs(parts) do
        texts[i] = part[1]
    end
    return table.concat(texts, " | ")
end

--- The line for a record, of at most `width` columns.
function Bar:line(record, width)
    local parts = parts_of(self, record)
    local text = joined(parts)
    while #text > width and #parts > 1 do
        local worst = 1
        for i, part in ipairs(parts) do
            worst = part[2] > parts[worst][2] and i or worst
        end
        table.remove(parts, worst)
        text = joined(parts)
    end
    return text:sub(1, width)
end

-- Seconds of a step, measured from step to step so that validations and checkpoints count as well.
local function measure(self, step)
    local now = self.clock()
    if self.last_at and step > self.last_step then
        local seconds = (now - self.last_at) / (step - self.last_step)
        self.seconds_per_step = self.seconds_per_step and 0.9 * self.seconds_per_step + 0.1 * seconds or seconds
    end
    self.last_at, self.last_step = now, step
end

local function draw(self)
    local width = (posix.terminal_width(self.file) or WIDTH) - 1 -- in the last column some terminals wrap
    local text = self:line(self.record, width)
    if self.color then
        text = text:gsub("^step %S+", "\27[1m%0\27[0m")
    end
    self.file:write(CLEAR, text)
    self.file:flush()
    self.drawn_at = self.clock()
end

-- What the log writes to: its messages go above the line.
local function stream_above(self)
    return {
        write = function(_, ...)
            self.file:write(CLEAR, ...)
            if self.record then
                draw(self)
            end
        end,
        flush = function() self.file:flush() end,
    }
end

--- opts: total_steps (nil: unknown), stream (a file; default: the log's), clock (for tests), log (a logger
--- for plain lines).
function M.open(opts)
    local file = opts.stream or log.redirect()
    local self = setmetatable({ total_steps = opts.total_steps, clock = opts.clock or edge.C.am_clock,
                                log = opts.log or log.get("am.recipe"), color = log.colored() }, Bar)
    if io.type(file) == "file" and posix.isatty(file) and os.getenv("TERM") ~= "dumb" then
        self.file = file
        self.before = log.redirect(stream_above(self))
    end
    return self
end

--- A step is done: a record as training.jsonl has it (mfu in percent, if it is known).
function Bar:train(record)
    measure(self, record.step)
    if not self.file then
        self.log:info("%s", console.train_line(record))
        return
    end
    self.record = record
    local is_last = self.total_steps and record.step + 1 >= self.total_steps
    if is_last or not self.drawn_at or self.clock() - self.drawn_at >= REDRAW then
        draw(self)
    end
end

--- Leave the terminal as it was: the line stays as the last step's, and messages go where they went.
function Bar:finish()
    if self.before then
        log.redirect(self.before)
        self.before = nil
        if self.record then
            draw(self)
            self.file:write("\n")
            self.file:flush()
        end
    end
end

return M
