-- Sizes of resized pictures, by the rules of transformers and with Python's arithmetic. Sizes are whole numbers,
-- height before width as there. No pictures here.

local M = {}

local floor, ceil, sqrt, max, min = math.floor, math.ceil, math.sqrt, math.max, math.min

--- Python's round: halves to the even number.
function M.round(x)
    local low = floor(x)
    local rest = x - low
    if rest < 0.5 or (rest == 0.5 and low % 2 == 0) then
        return low
    end
    return low + 1
end
local round = M.round

-- The shorter edge becomes `size`.
local function to_shortest(height, width, size)
    if width <= height then
        return floor(size * height / width), size
    end
    return size, floor(size * width / height)
end

-- The same, but the longer edge no more than `longest`.
local function between(height, width, size, longest)
    local raw
    local short, long = min(height, width), max(height, width)
    if long / short * size > longest then
        raw = longest * short / long
        size = round(raw)
    end
    if (height <= width and height == size) or (width <= height and width == size) then
        return height, width
    elseif width < height then
        return floor((raw or size) * height / width), size
    end
    return size, floor((raw or size) * width / height)
end

local function within(height, width, max_height, max_width)
    local scale = min(max_height / height, max_width / width)
    return floor(height * scale), floor(width * scale)
end

--- What a picture is resized to by a size of preprocessor_config.json; nil where the size does not tell.
function M.target(size, height, width)
    if size.shortest_edge and size.longest_edge then
        return between(height, width, size.shortest_edge, size.longest_edge)
    elseif size.shortest_edge then
        return to_shortest(height, width, size.shortest_edge)
    elseif size.max_height then
        return within(height, width, size.max_height, size.max_width)
    elseif size.height then
        return size.height, size.width
    end
    return nil
end

--- Qwen's: multiples of `factor`, as near to the picture's aspect as can be, the area in between. Nil for pictures
--- that are more than 200 times as long as they are wide.
function M.smart(height, width, factor, min_pixels, max_pixels)
    if max(height, width) / min(height, width) > 200 then
        return nil
    end
    local h, w = round(height / factor) * factor, round(width / factor) * factor
    if h * w > max_pixels then
        local beta = sqrt(height * width / max_pixels)
        return max(factor, floor(height / beta / factor) * factor), max(factor, floor(width / beta / factor) * factor)
    elseif h * w < min_pixels then
        local beta = sqrt(min_pixels / (height * width))
        return ceil(height * beta / factor) * factor, ceil(width * beta / factor) * factor
    end
    return h, w
end

--- Idefics3's: the longer edge becomes `longest`, the other one even; no edge beyond 4096 then.
function M.longest(height, width, longest)
    local LARGEST = 4096
    local aspect = width / height
    if width >= height then
        width = longest
        height = floor(width / aspect)
        height = height + height % 2
    else
        height = longest
        width = floor(height * aspect)
        width = width + width % 2
    end
    height, width = max(height, 1), max(width, 1)
    aspect = width / height
    if width >= height and width > LARGEST then
        width = LARGEST
        height = floor(width / aspect)
    elseif height > width and height > LARGEST then
        height = LARGEST
        width = floor(height * aspect)
    end
    return max(height, 1), max(width, 1)
end

--- Idefics3's: multiples of a tile's side.
function M.tiled(height, width, side)
    local aspect = width / height
    if width >= height then
        width = ceil(width / side) * side
        height = ceil(floor(width / aspect) / side) * side
    else
        height = ceil(height / side) * side
        width = ceil(floor(height * aspect) / side) * side
    end
    return height, width
end

--- Gemma 3's pan and scan: { { x, y, width, height }, … } of the crops, which may reach over the picture's right
--- and lower edges; empty where the picture is not long enough for any.
function M.pan_and_scan(height, width, smallest, most, ratio)
    local long, short = max(width, height), min(width, height)
    if long / short < ratio then
        return {}
    end
    local n = min(floor(long / smallest), floor(long / short + 0.5))
    n = min(most, max(2, n))
    local across, down = width >= height and n or 1, width >= height and 1 or n
    local w, h = ceil(width / across), ceil(height / down)
    if min(w, h) < smallest then
        return {}
    end
    local crops = {}
    for i = 0, n - 1 do
        local x, y = across > 1 and w * i or 0, down > 1 and h * i or 0
        crops[#crops + 1] = { x = x, y = y, width = min(w, width - x), height = min(h, height - y) }
    end
    return crops
end

return M
