-- Which samples share a pack, by the original's "neat" strategy (greedy_knapsack): the longest first, each
-- into the pack that is emptiest, a new one where it does not fit. Holds no tokens.

local ffi = require("ffi")

local M = {}

-- A heap of numbers, the least first: push, replace the least.
local Heap = {}
Heap.__index = Heap

local function new_heap(capacity)
    return setmetatable({ keys = ffi.new("double[?]", capacity + 1), count = 0 }, Heap)
end

function Heap:push(key)
    local keys, at = self.keys, self.count + 1
    self.count = at
    while at > 1 do
        local parent = math.floor(at / 2)
        if keys[parent] <= key then
            break
        end
        keys[at], at = keys[parent], parent
    end
    keys[at] = key
end

function Heap:replace_least(key)
    local keys, n, at = self.keys, self.count, 1
    while 2 * at <= n do
        local child = 2 * at
        if child < n and keys[child + 1] < keys[child] then
            child = child + 1
        end
        if keys[child] >= key then
            break
        end
        keys[at], at = keys[child], child
    end
    keys[at] = key
end

-- Rows 1 … n from the longest to the shortest, as they were where equal; those longer than `size` and empty
-- ones left out. Returns an int32_t array from 0, and how many.
local function by_length(lengths, n, size)
    local first = ffi.new("int32_t[?]", size + 2) -- of each length, where its rows begin
    local count = 0
    for r = 1, n do
        if lengths[r - 1] > 0 and lengths[r - 1] <= size then
            first[lengths[r - 1] - 1] = first[lengths[r - 1] - 1] + 1
            count = count + 1
        end
    end
    local at = 0
    for length = size, 1, -1 do
        first[length - 1], at = at, at + first[length - 1]
    end
    local order = ffi.new("int32_t[?]", count)
    for r = 1, n do
        local length = lengths[r - 1]
        if length > 0 and length <= size then
            order[first[length - 1]] = r
            first[length - 1] = first[length - 1] + 1
        end
    end
    return order, count
end

local BINS = 2 ^ 28 -- at most; a key is a bin's tokens times this, and its number

--- Packs of at most `size` tokens of n rows; lengths[r - 1]: tokens of row r. Returns { count, first, next }:
--- the first row of pack b is first[b - 1], the one behind row r in its pack next[r], or 0.
function M.choose(lengths, n, size)
    local order, count = by_length(lengths, n, size)
    local first, last = ffi.new("int32_t[?]", count), ffi.new("int32_t[?]", count)
    local bins = { count = 0, first = first, next = ffi.new("int32_t[?]", n + 1) }
    local heap = new_heap(count)
    for k = 0, count - 1 do
        local r = order[k]
        local length = lengths[r - 1]
        local fill = heap.count > 0 and math.floor(heap.keys[1] / BINS) or size
        if fill + length <= size then
            local b = heap.keys[1] % BINS
            bins.next[last[b]], last[b] = r, r
            heap:replace_least((fill + length) * BINS + b)
        else
            local b = bins.count
            first[b], last[b], bins.count = r, r, b + 1
            heap:push(length * BINS + b)
        end
    end
    return bins
end

return M
