-- BlendedDataset: rows of several datasets in turn, each as often as its weight says, in the order of
-- Megatron's and the original's class of this name.
--
-- Row k goes to the dataset that is furthest behind its share of k rows. Without a size each dataset gives
-- all of its rows once.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local utils = require("am.datasets.utils")

local M = {}

local MAX_DATASETS = 32766

-- Sum of values[first … last] as numpy.sum adds: in eight lanes, by halves where there are more than 128.
local function numpy_sum(values, first, last)
    local n = last - first + 1
    if n < 8 then
        local sum = 0
        for i = first, last do
            sum = sum + values[i]
        end
        return sum
    elseif n <= 128 then
        local r, at = {}, first + 8
        for k = 0, 7 do
            r[k] = values[first + k]
        end
        while at + 7 <= last do
            for k = 0, 7 do
                r[k] = r[k] + values[at + k]
            end
            at = at + 8
        end
        local sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]))
        for i = at, last do
            sum = sum + values[i]
        end
        return sum
    end
    local half = math.floor(n / 2)
    half = half - half % 8
    return numpy_sum(values, first, first + half - 1) + numpy_sum(values, first + half, last)
end

--- Weights divided by their sum, as NumPy adds it.
function M.normalize(weights)
    local sum, out = numpy_sum(weights, 1, #weights), {}
    for i, weight in ipairs(weights) do
        out[i] = weight / sum
    end
    return out
end

-- The dataset of each of `size` rows (from 0), and which of its rows it is (from 0). limits[d]: how many a
-- dataset gives at most, after which it is passed over; nil: no limit.
local function interleave(weights, size, limits)
    local n = #weights
    local share, taken, limit = ffi.new("double[?]", n), ffi.new("double[?]", n), ffi.new("double[?]", n)
    for d = 0, n - 1 do
        share[d], limit[d] = weights[d + 1], limits and limits[d + 1] or math.huge
    end
    local datasets, rows = ffi.new("int16_t[?]", size), ffi.new("int32_t[?]", size)
    for k = 0, size - 1 do
        local best, best_error = 0, -math.huge
        for d = 0, n - 1 do
            local behind = share[d] * math.max(k, 1) - taken[d]
            if behind > best_error and taken[d] < limit[d] then
                best, best_error = d, behind
            end
        end
        datasets[k], rows[k] = best, taken[best]
        taken[best] = taken[best] + 1
        if k % 1048576 == 0 then
            edge.check(edge.C.am_signals_check())
        end
    end
    return datasets, rows, taken
end

local BlendedDataset = { has_order = true }
BlendedDataset.__index = BlendedDataset

--- Rows of an array of datasets (len, get, name, length, stats), all of one length. weights: positive
--- numbers; size: how many rows; nil: as many as each dataset's weight says, which is then a number of rows.
--- Raises "data" when a dataset has less rows than its share.
function M.new(datasets, weights, size)
    if #datasets > MAX_DATASETS then
        err.raise("usage", "dataset.paths: a blend of %d datasets, more than %d", #datasets, MAX_DATASETS)
    end
    local total = 0
    for d, weight in ipairs(weights) do
        if not (weight > 0 and weight < math.huge) then
            err.raise("data", "dataset.paths: entry %d of the blend has %s, not a weight above 0", d, tostring(weight))
        end
        total = total + weight
    end
    local shares = M.normalize(weights)
    if not size then -- as the original divides here
        for d, weight in ipairs(weights) do
            shares[d] = weight / total
        end
    end
    if (size or total) > 2 ^ 31 - 1 then
        err.raise("usage", "dataset.paths: a blend of %.0f samples is more than an index holds", size or total)
    end
    local index, rows, taken = interleave(shares, size or total, not size and weights or nil)
    for d, dataset in ipairs(datasets) do
        if dataset:len() < taken[d - 1] then
            err.raise("data", "dataset.paths: the blend takes %.0f samples of %s, which has %d; ask for fewer samples",
                taken[d - 1], dataset:name(1), dataset:len())
        end
    end
    return setmetatable({ datasets = datasets, index = index, rows = rows, count = size or total }, BlendedDataset)
end

function BlendedDataset:len()
    return self.count
end

local function of(self, i)
    return self.datasets[self.index[i - 1] + 1], self.rows[i - 1] + 1
end

function BlendedDataset:get(i)
    local dataset, k = of(self, i)
    return dataset:get(k)
end

function BlendedDataset:name(i)
    local dataset, k = of(self, i)
    return dataset:name(k)
end

function BlendedDataset:length(i)
    local dataset, k = of(self, i)
    return dataset:length(k)
end

--- Counts by formula, from rows of one length: each token is taken for learnt.
function BlendedDataset:stats()
    local stats = utils.new_stats()
    stats.rows, stats.tokens = self.count, self.count * self:length(1)
    stats.label_tokens, stats.longest = stats.tokens, self.datasets[1]:stats().longest
    return stats
end

return M
