-- Graphs: work that a GPU has recorded and does again at once (engine/api/graphs.h says what they can do). Which work
-- that is, and when a record holds, is am.training.graphs'.

local ffi = require("ffi")
local args = require("am.core.args")
local edge = require("am.core.ffi")
local err = require("am.core.error")

local C, check = edge.C, edge.check
local M = {}
local box, text, number = edge.box("am_graph"), ffi.new("const char *[1]"), ffi.new("uint64_t[1]")

---@class am.Graph
local Graph = {}
Graph.__index = Graph

--- Parameters as graphs take them, of an array of tensors on one device.
function M.parameters(list)
    local array = ffi.new("am_tensor *[?]", #list)
    for i, t in ipairs(list) do
        array[i - 1] = args.tensor("graph", t)
    end
    return { array = array, n = #list, list = list }
end

--- A string that is the same as long as records of work on these parameters hold: where they and their gradients lie,
--- which gradients there are, and the seed.
function M.state(parameters)
    check(C.am_graph_state(number, parameters.array, parameters.n))
    return tostring(number[0])
end

--- A graph of work on parameters(). Raises "unsupported" on a device that has none.
---@return am.Graph
function M.new(parameters)
    check(C.am_graph_new(box, parameters.array, parameters.n))
    return setmetatable({ handle = ffi.gc(box[0], C.am_graph_release), parameters = parameters }, Graph)
end

-- Do the work between begin and end. The garbage collector rests: what it releases would be a part of the record.
local function between(self, record, work)
    check(C.am_graph_begin(self.handle, record))
    local collects = collectgarbage("isrunning")
    collectgarbage("stop")
    local ok, e = pcall(work)
    local rc = C.am_graph_end(self.handle, text)
    if collects then
        collectgarbage("restart")
    end
    local unfit = rc == 0 and text[0] ~= nil and ffi.string(text[0]) or nil
    if not ok and not (record == 1 and unfit) then
        error(e, 0)
    end
    check(rc)
    return unfit
end

--- Do work() as ever. Returns why it can't be recorded, or nil.
function Graph:rehearse(work) return between(self, 0, work) end

--- Record work() without doing it. Returns why there is no record, or nil.
function Graph:record(work) return between(self, 1, work) end

--- After an error in a rehearsal: have gradients and random numbers be as before it. False where they can't be.
function Graph:undo() return C.am_graph_undo(self.handle) == 0 end

--- Do what was recorded.
function Graph:run() check(C.am_graph_run(self.handle)) end

--- Let go of it, and of its memory with the last one.
function Graph:release()
    if self.handle then
        C.am_graph_release(ffi.gc(self.handle, nil))
        self.handle = nil
    end
end

--- Is an error one of a device that has too little memory?
function M.is_memory(e) return err.is(e) and e.code == "memory" end

--- Is an error that new, rehearse or record raised one of a device that records nothing?
function M.is_unsupported(e) return err.is(e) and e.code == "unsupported" end

return M
