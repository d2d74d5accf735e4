-- What goes between the stages of a pipeline (pipeline.lua): states and router logits forward, their gradients back.
-- Neighbours have a group of two for each direction; nobody waits for what he sends, but for the oldest of many.

local ops = require("am.core.ops")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")

local M = {}

local DTYPES = { "float32", "bfloat16", "float16", "float64" }
local HEADER = 8 -- numbers: B, T, C, dtype, then how many router logits there are, and their shape [N, E]

--- Groups of two with the neighbours: { forward_in, forward_out, backward_in, backward_out }, those that there are.
--- All ranks of the pp group call this together.
function M.links(group, stage, stages)
    local links = {}
    for _, direction in ipairs { "forward", "backward" } do
        for odd = 0, math.min(1, stages - 2) do -- pairs 0-1, 2-3, …; then 1-2, 3-4, …
            local lower = stage - (stage + odd) % 2
            local pair = group:split(lower + 1, stage, ("pp %s %d-%d"):format(direction, lower, lower + 1))
            if pair:size() == 1 then
                pair:close()
            elseif (lower == stage) == (direction == "forward") then
                links[direction .. "_out"] = pair
            else
                links[direction .. "_in"] = pair
            end
        end
    end
    return links
end

-- Router logits of several layers in one tensor f32 [n, N, E].
local function joined(list)
    local out = {}
    for i, t in ipairs(list) do
        out[i] = t:detach():to("float32"):unsqueeze(0)
    end
    return #out == 1 and out[1] or ops.cat(out, 0)
end

-- The reverse.
local function parted(t)
    local out = {}
    for i = 1, t and t:size(0) or 0 do
        out[i] = t:select(0, i - 1)
    end
    return out
end

-- ---- sending --------------------------------------------------------------------------------

local Outbox = {}
Outbox.__index = Outbox

--- What is sent by a group to its other rank. most: works that may be under way at once.
function M.outbox(group, most)
    return setmetatable({ group = group, peer = 1 - group:rank(), works = {}, most = most }, Outbox)
end

-- What is sent is this box's until it is there.
local function send(self, t)
    local sent = scope.escape(t:detach():contiguous())
    self.works[#self.works + 1] = self.group:send(sent, self.peer)
    while #self.works > self.most or self.works[1] and self.works[1]:done() do
        table.remove(self.works, 1):wait():release()
    end
end

--- Send states [B, T, C] and a list of router logits [N, E], and before them what they are.
function Outbox:send_states(x, logits)
    local header = { x:size(0), x:size(1), x:size(2), 0, #logits, 0, 0, 0 }
    for i, name in ipairs(DTYPES) do
        header[4] = x:dtype() == name and i or header[4]
    end
    if logits[1] then
        header[6], header[7] = logits[1]:size(0), logits[1]:size(1)
    end
    send(self, tensor.tensor(header, { dtype = "int64", device = "cpu" }))
    self:send_gradients(x, logits)
end

--- Send two of the same shapes, of which the other rank knows them.
function Outbox:send_gradients(x, logits)
    send(self, x)
    if #logits > 0 then
        send(self, joined(logits))
    end
end

--- Wait until all of it is there.
function Outbox:flush()
    for _, work in ipairs(self.works) do
        work:wait():release()
    end
    self.works = {}
end

-- ---- receiving ------------------------------------------------------------------------------

local Inbox = {}
Inbox.__index = Inbox

--- What a group's other rank sends, on a device.
function M.inbox(group, device)
    return setmetatable({ group = group, peer = 1 - group:rank(), device = device }, Inbox)
end

-- Begin to receive a tensor, which is this box's until it is taken.
local function receive(self, shape, dtype, device)
    return self.group:recv(scope.escape(tensor.empty(shape, { dtype = dtype, device = device })), self.peer)
end

-- Begin to receive states and, if there are any, n router logits [rows, experts].
local function begin(self, shape, dtype, n, rows, experts)
    self.works = { receive(self, shape, dtype, self.device),
                   n > 0 and receive(self, { n, rows, experts }, "float32", self.device) or nil }
end

local function begin_states(self)
    local header = self.header:wait()
    local h = header:totable()
    header:release()
    self.header = nil
    begin(self, { h[1], h[2], h[3] }, DTYPES[h[4]], h[5], h[6], h[7])
end

--- States are to come: begin to receive what they are, and them as soon as that is known.
function Inbox:expect_states()
    if not (self.header or self.works) then
        self.header = receive(self, { HEADER }, "int64", "cpu")
    elseif self.header and self.header:done() then
        begin_states(self)
    end
end

--- Gradients of states and of a list of router logits are to come.
function Inbox:expect_gradients(x, logits)
    local first = logits[1]
    begin(self, x:size(), x:dtype(), #logits, first and first:size(0), first and first:size(1))
end

-- What has come, as tensors of the innermost scope.
local function take(self)
    local list = {}
    for i, work in ipairs(self.works) do
        local got = work:wait()
        list[i] = got:detach()
        got:release()
    end
    self.works = nil
    return list[1], parted(list[2])
end

--- The states and the list of router logits that come next.
function Inbox:take_states()
    self:expect_states()
    if self.header then
        begin_states(self)
    end
    return take(self)
end

--- The gradients that are expected.
function Inbox:take_gradients()
    return take(self)
end

return M
