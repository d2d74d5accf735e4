-- Curves as inline SVG: axes with round numbers, a line for each series, a band from least to greatest where a
-- point stands for several steps.
-- Holds no page and no series; colours are the page's CSS classes s1 to s4.
--
--   chart.svg { title = "Loss", series = { { name = "training", data = series, class = "s1" } } } -> text
--
-- The script of the page reads the points back from `points` and the scale from data-*, so that numbers are in
-- the file once.

local number = require("am.utils.number")
local posix = require("am.utils.posix")

local M = {}

local WIDTH, HEIGHT = 560, 260
local LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 34

local entities = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }

--- Text that HTML shows as it is, also within quotes. Control characters, which HTML has no place for, are
--- replaced.
function M.escape(text)
    return (tostring(text):gsub("[%z\1-\8\11\12\14-\31\127]", "\239\191\189"):gsub("[&<>\"']", entities))
end

--- A number for people: four digits, without a tail of zeros; powers of ten far from 1.
function M.number(x)
    if x == 0 then
        return "0"
    end
    local size = math.abs(x)
    if size >= 1e6 or size < 1e-3 then
        return (posix.scientific(x, 3):gsub("%.?0*e([-+])0*(%d+)$", "e%1%2"):gsub("e%+", "e"))
    elseif x % 1 == 0 then
        return number.text(x)
    end
    local text = posix.fixed(x, math.max(0, 3 - math.floor(math.log10(size))))
    return text:find(".", 1, true) and (text:gsub("%.?0+$", "")) or text
end

local MAX_TICKS = 12

-- Round numbers between low and high, four to nine of them: multiples of 1, 2, 2.5 or 5 times a power of ten.
local function ticks(low, high, whole)
    local most = (high - low) / 4
    local power = 10 ^ math.floor(math.log10(most))
    local step = power
    for _, factor in ipairs { 2, 2.5, 5 } do
        step = factor * power <= most and factor * power or step
    end
    step = whole and math.max(1, math.floor(step + 0.5)) or step
    local list, first = {}, math.ceil(low / step - 1e-9)
    for i = 0, math.min(math.floor(high / step + 1e-9) - first, MAX_TICKS) do
        list[#list + 1] = (first + i) * step
    end
    return list
end

-- Least and greatest step and value over all series, never equal.
local function ranges(list)
    local x0, x1, y0, y1 = math.huge, -math.huge, math.huge, -math.huge
    for _, s in ipairs(list) do
        for _, b in ipairs(s.data:buckets()) do
            x0, x1 = math.min(x0, b.first), math.max(x1, b.last)
            y0, y1 = math.min(y0, b.min), math.max(y1, b.max)
        end
    end
    if x0 == x1 then
        x1 = x0 + 1
    end
    local pad, size = (y1 - y0) * 0.05, math.max(math.abs(y0), math.abs(y1))
    if pad <= size * 1e-9 then -- a constant: digits that a double does not have are no curve
        pad = size > 1e-300 and size * 0.05 or 1
    end
    local low = y0 - pad
    return x0, x1, (y0 >= 0 and low < 0) and 0 or low, y1 + pad
end

local function coordinate(x)
    return (posix.fixed(x, 1):gsub("%.0$", ""))
end

local function axes(out, x0, x1, y0, y1, px, py, title)
    for _, y in ipairs(ticks(y0, y1)) do
        local at = coordinate(py(y))
        out[#out + 1] = string.format('<line class="grid" x1="%d" x2="%d" y1="%s" y2="%s"/>', LEFT, WIDTH - RIGHT,
                                      at, at)
        out[#out + 1] = string.format('<text class="tick" x="%d" y="%s" text-anchor="end" dy="0.32em">%s</text>',
                                      LEFT - 6, at, M.number(y))
    end
    for _, x in ipairs(ticks(x0, x1, true)) do
        local at = coordinate(px(x))
        out[#out + 1] = string.format('<line class="axis" x1="%s" x2="%s" y1="%d" y2="%d"/>', at, at, HEIGHT - BOTTOM,
                                      HEIGHT - BOTTOM + 4)
        out[#out + 1] = string.format('<text class="tick" x="%s" y="%d" text-anchor="middle">%s</text>', at,
                                      HEIGHT - BOTTOM + 16, M.number(x))
    end
    out[#out + 1] = string.format('<line class="axis" x1="%d" x2="%d" y1="%d" y2="%d"/>', LEFT, WIDTH - RIGHT,
                                  HEIGHT - BOTTOM, HEIGHT - BOTTOM)
    out[#out + 1] = string.format('<text class="label" x="%d" y="%d" text-anchor="end">step</text>', WIDTH - RIGHT,
                                  HEIGHT - 3)
    out[#out + 1] = string.format("<title>%s</title>", M.escape(title))
end

local function middle(b)
    return (b.first + b.last) / 2
end

-- The band of a series, when any point of it stands for several values.
local function band(s, px, py)
    local upper, lower, wide = {}, {}, false
    local buckets = s.data:buckets()
    for i, b in ipairs(buckets) do
        wide = wide or b.n > 1
        upper[i] = coordinate(px(middle(b))) .. "," .. coordinate(py(b.max))
        lower[#buckets - i + 1] = coordinate(px(middle(b))) .. "," .. coordinate(py(b.min))
    end
    return wide and string.format('<polygon class="band %s" points="%s %s"/>', s.class, table.concat(upper, " "),
                                  table.concat(lower, " ")) or nil
end

local function line(s, px, py)
    local points = {}
    for i, b in ipairs(s.data:buckets()) do
        points[i] = coordinate(px(middle(b))) .. "," .. coordinate(py(b.sum / b.n))
    end
    local out = { string.format('<polyline class="line %s" data-name="%s" points="%s"/>', s.class, M.escape(s.name),
                                table.concat(points, " ")) }
    for i = 1, #points <= 25 and #points or 0 do -- so few that each is shown, and one alone seen at all
        out[#out + 1] = string.format('<circle class="dot %s" cx="%s" cy="%s" r="2.5"/>', s.class,
                                      points[i]:match("^[^,]+"), points[i]:match("[^,]+$"))
    end
    return table.concat(out)
end

--- A chart; series without points are left out, and a chart without series is nil. c: title, series (an array
--- of { name, class, data }).
function M.svg(c)
    local list = {}
    for _, s in ipairs(c.series) do
        if #s.data:buckets() > 0 then
            list[#list + 1] = s
        end
    end
    if #list == 0 then
        return nil
    end
    local x0, x1, y0, y1 = ranges(list)
    local function px(x) return LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT) end
    local function py(y) return TOP + (y1 - y) / (y1 - y0) * (HEIGHT - TOP - BOTTOM) end
    local out = { string.format('<svg viewBox="0 0 %d %d" role="img" aria-label="%s" data-x0="%s" data-x1="%s" '
                                .. 'data-y0="%s" data-y1="%s" data-box="%d %d %d %d">', WIDTH, HEIGHT,
                                M.escape(c.title), number.text(x0), number.text(x1), number.text(y0), number.text(y1),
                                LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM) }
    axes(out, x0, x1, y0, y1, px, py, c.title)
    for _, s in ipairs(list) do
        out[#out + 1] = band(s, px, py)
    end
    for _, s in ipairs(list) do
        out[#out + 1] = line(s, px, py)
    end
    out[#out + 1] = '<g class="hover"></g></svg>'
    return table.concat(out, "\n")
end

return M
