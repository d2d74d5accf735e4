-- Rows of similar length beside one another, so that batches need little padding. Holds no random
-- numbers and no data: it arranges an order that is random already, as transformers' LengthGroupedSampler
-- does (get_length_grouped_indices).
--
-- The order is cut into groups of 50 steps, fewer for small data sets. In each the longest rows come
-- first. The longest of all is put at the very begin, so that memory which does not suffice is noticed at once.

local M = {}

local STEPS, LEAST_GROUPS = 50, 4

--- Rearrange order[0 … n-1], numbers of rows from 1, in place. lengths[i - 1]: the length of row i;
--- step_rows: rows in an optimizer step.
function M.arrange(order, n, lengths, step_rows)
    local steps = math.max(1, math.min(STEPS, math.floor(n / (step_rows * LEAST_GROUPS))))
    local size = steps * step_rows
    local best, best_at = -1, 0
    for first = 0, n - 1, size do
        local count, keys, rows, longest = math.min(size, n - first), {}, {}, 0
        for k = 0, count - 1 do
            rows[k] = order[first + k]
            longest = math.max(longest, lengths[rows[k] - 1])
        end
        for k = 0, count - 1 do -- one number a row: long before short, and as they were where equal
            keys[k + 1] = (longest - lengths[rows[k] - 1]) * count + k
        end
        table.sort(keys)
        for k = 0, count - 1 do
            order[first + k] = rows[keys[k + 1] % count]
        end
        if longest > best then
            best, best_at = longest, first
        end
    end
    order[0], order[best_at] = order[best_at], order[0]
end

return M
