-- What the ops of a stretch of work took: fn(...) under the engine's profiler, its events summed up by
-- op, as a table to read, and as a trace that Perfetto and chrome://tracing open.
--
--   local p = profile.run(function() recipe:step() end)
--   print(profile.table(p))   profile.write_trace(p, "trace.json")

local ffi = require("ffi")
local edge = require("am.core.ffi")
local json = require("am.utils.json")
local path = require("am.utils.path")
local C = edge.C

local M = {}

local MAX_EVENTS, running = 1000000, false
local phases = { [C.AM_PHASE_FORWARD] = "forward", [C.AM_PHASE_BACKWARD] = "backward",
                 [C.AM_PHASE_OPTIMIZER] = "optimizer" }

--- Profile fn(...). Returns { seconds, start, events }; an event is { what, phase, start, seconds, flops,
--- bytes }, times in seconds from the start.
function M.run(fn, ...)
    edge.check(C.am_profile_start(MAX_EVENTS))
    running = true
    local start = C.am_clock()
    local ok, e = pcall(fn, ...)
    running = false
    local seconds = C.am_clock() - start
    local list = ffi.new("const am_profile_event *[1]")
    local n = tonumber(C.am_profile_stop(list))
    if not ok then
        error(e, 0)
    end
    local events = {}
    for i = 0, n - 1 do
        local ev = list[0][i]
        events[i + 1] = { what = ffi.string(ev.what), phase = phases[ev.phase], start = ev.start - start,
                          seconds = ev.seconds, flops = tonumber(ev.flops), bytes = tonumber(ev.bytes) }
    end
    return { seconds = seconds, events = events }
end

--- Is there an fn that is being profiled?
function M.is_running() return running end

--- Events summed up by op and phase, the longest first, and what no op accounts for ("the rest": Lua,
--- data, allocation). Items are { what, phase, calls, seconds, flops, bytes }.
function M.sums(p)
    local sums, by_key, rest = {}, {}, p.seconds
    for _, ev in ipairs(p.events) do
        local key = ev.what .. " " .. ev.phase
        local sum = by_key[key]
        if not sum then
            sum = { what = ev.what, phase = ev.phase, calls = 0, seconds = 0, flops = 0, bytes = 0 }
            by_key[key] = sum
            sums[#sums + 1] = sum
        end
        sum.calls = sum.calls + 1
        for _, field in ipairs { "seconds", "flops", "bytes" } do
            sum[field] = sum[field] + ev[field]
        end
        rest = rest - ev.seconds
    end
    table.sort(sums, function(a, b) return a.seconds > b.seconds end)
    sums[#sums + 1] = { what = "the rest", phase = "", calls = 0, seconds = rest, flops = 0, bytes = 0 }
    return sums
end

--- The sums as text, a line each.
function M.table(p)
    local lines = { string.format("%-22s %-9s %7s %10s %6s %9s %7s", "op", "", "calls", "ms", "share", "GFLOP/s",
                                  "GB/s") }
    for _, s in ipairs(M.sums(p)) do
        lines[#lines + 1] = string.format("%-22s %-9s %7d %10.2f %5.1f%% %9s %7.1f", s.what, s.phase, s.calls,
                                          1000 * s.seconds, 100 * s.seconds / p.seconds,
                                          s.flops > 0 and string.format("%.0f", s.flops / s.seconds / 1e9) or "",
                                          s.bytes / s.seconds / 1e9)
    end
    return table.concat(lines, "\n")
end

--- Write the events in Chrome's trace format, times in microseconds.
function M.write_trace(p, file)
    local list = {}
    for i, ev in ipairs(p.events) do
        list[i] = { name = ev.what, cat = ev.phase, ph = "X", pid = 1, tid = 1, ts = ev.start * 1e6,
                    dur = ev.seconds * 1e6, args = { flops = ev.flops, bytes = ev.bytes } }
    end
    path.write_file(file, json.encode({ displayTimeUnit = "ms", traceEvents = json.array(list) }))
end

return M
