-- A curve in bounded memory: as many points as fit a picture, however many steps there are.
-- Holds no drawing.
--
--   local s = series.new()   s:add(step, value)   s:buckets() -> { { first, last, sum, n, min, max }, … }
--
-- A bucket stands for a run of steps: their mean, least and greatest value. When there are LIMIT of them,
-- neighbours are joined and from then on each takes twice as many steps. Values that are no numbers, or
-- beyond 1e100 and so in no picture, are counted in `s.not_finite` and not drawn.

local M = { LIMIT = 400 }

local LARGEST = 1e100

local Series = {}
Series.__index = Series

function M.new()
    return setmetatable({ list = {}, per_bucket = 1, count = 0, not_finite = 0, min = math.huge, max = -math.huge },
                        Series)
end

local function join(a, b)
    return { first = a.first, last = b.last, sum = a.sum + b.sum, n = a.n + b.n, min = math.min(a.min, b.min),
             max = math.max(a.max, b.max) }
end

local function halve(self)
    local joined = {}
    for i = 1, #self.list, 2 do
        local a, b = self.list[i], self.list[i + 1]
        joined[#joined + 1] = b and join(a, b) or a
    end
    self.list, self.per_bucket = joined, self.per_bucket * 2
end

--- Add a value; steps only grow.
function Series:add(step, value)
    if not (value >= -LARGEST and value <= LARGEST) then
        self.not_finite = self.not_finite + 1
        return
    end
    local list = self.list
    local point = { first = step, last = step, sum = value, n = 1, min = value, max = value }
    local last = list[#list]
    if last and last.n < self.per_bucket then
        list[#list] = join(last, point)
    else
        list[#list + 1] = point
        if #list > M.LIMIT then
            halve(self)
        end
    end
    self.count, self.last = self.count + 1, value
    self.min, self.max = math.min(self.min, value), math.max(self.max, value)
end

--- The buckets in the order of their steps.
function Series:buckets()
    return self.list
end

return M
