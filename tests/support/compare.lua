-- Comparing numbers so that a NaN, an infinity or a wrong shape always fails. Tolerances are the
-- caller's, who says why.

local M = {}

--- Raise `format` filled in unless `ok`.
function M.check(ok, format, ...)
    if not ok then
        error(string.format(format, ...), 2)
    end
end

--- |a - b|, infinite when either is no finite number.
function M.distance(a, b)
    local d = math.abs(a - b)
    return d < math.huge and d or math.huge
end

--- How far two tensors of one shape are apart: {worst, mean, at, norm} of |actual - expected| and
--- {largest, expected_norm} of |expected|. keep(i), when given, chooses the elements (row-major,
--- from 0) that count.
function M.difference(actual, expected, keep)
    local have, want = table.concat(actual:size(), ", "), table.concat(expected:size(), ", ")
    M.check(have == want, "the shape is [%s], not [%s]", have, want)
    local a, n = actual:to_buffer()
    local b = expected:to_buffer()
    local worst, at, sum, squares, largest, expected_squares, count = 0, -1, 0, 0, 0, 0, 0
    for i = 0, n - 1 do
        if not keep or keep(i) then
            local x, y = tonumber(a[i]), tonumber(b[i])
            local d = M.distance(x, y)
            if d > worst then
                worst, at = d, i
            end
            largest = math.max(largest, math.abs(y))
            sum, squares, expected_squares = sum + d, squares + d * d, expected_squares + y * y
            count = count + 1
        end
    end
    M.check(count > 0, "nothing to compare")
    return { worst = worst, at = at, mean = sum / count, norm = math.sqrt(squares), largest = largest,
             expected_norm = math.sqrt(expected_squares) }
end

--- Fails unless every element is within tolerance x scale of what is expected; scale is the largest
--- expected magnitude unless given. Returns the worst difference as a fraction of scale.
function M.within(what, actual, expected, tolerance, scale, keep)
    local ok, d = pcall(M.difference, actual, expected, keep)
    M.check(ok, "%s: %s", what, tostring(d))
    scale = scale or d.largest
    M.check(d.worst <= tolerance * scale, "%s: element %d is off by %.3g, which is %.3g of %.3g, above %g", what,
            d.at, d.worst, d.worst / scale, scale, tolerance)
    return scale > 0 and d.worst / scale or 0
end

--- Fails unless two numbers are within tolerance of each other.
function M.near(what, actual, expected, tolerance)
    M.check(M.distance(actual, expected) <= tolerance, "%s: %.9g is off %.9g by %.3g, above %.3g", what, actual,
            expected, M.distance(actual, expected), tolerance)
end

--- Fails unless two tensors have the same shape and the same numbers.
function M.same(what, actual, expected)
    return M.within(what, actual, expected, 0)
end

return M
