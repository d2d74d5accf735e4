-- Pictures as grids of patches, of any sizes, in one flat sequence (Qwen2-VL and its kin): what order their patches
-- come in, where each is in its picture, and which see one another. No tensor is computed here.

local ffi = require("ffi")
local err = require("am.core.error")
local tensor = require("am.core.tensor")

local M = {}

local function text_of(grid)
    return string.format("[%s]", table.concat(grid, ", "))
end

--- image_grid_thw, a tensor [pictures, 3] or a table of {frames, height, width} in patches, as such a table. Height
--- and width must be multiples of `merge`.
function M.list(image_grid_thw, merge)
    local grids = image_grid_thw
    if tensor.is(grids) then
        if grids:dim() ~= 2 or grids:size(1) ~= 3 or grids:dtype():find("float") then
            err.raise("shape", "image_grid_thw must be whole numbers [pictures, 3], not %s [%s]", grids:dtype(),
                      table.concat(grids:size(), ", "))
        end
        grids = grids:totable()
    elseif type(grids) ~= "table" then
        err.raise("argument", "image_grid_thw must be a tensor or a table of {frames, height, width}, not a %s",
                  type(grids))
    end
    for i, grid in ipairs(grids) do
        local good = type(grid) == "table" and #grid == 3
        for k = 1, good and 3 or 0 do
            good = good and type(grid[k]) == "number" and grid[k] >= 1 and grid[k] % 1 == 0
        end
        if not good then
            err.raise("shape", "image_grid_thw: picture %d must be three whole numbers above 0: frames, height and "
                      .. "width in patches", i)
        elseif grid[2] % merge ~= 0 or grid[3] % merge ~= 0 then
            err.raise("shape", "image_grid_thw: picture %d is %s, but height and width must be multiples of %d "
                      .. "(\"spatial_merge_size\")", i, text_of(grid), merge)
        end
    end
    return grids
end

--- Raise "shape" unless the grids together have `patches` patches, which is what pixel_values has.
function M.check_patches(grids, patches)
    local sum = 0
    for i, grid in ipairs(grids) do
        sum = sum + grid[1] * grid[2] * grid[3]
        if sum > patches then
            err.raise("shape", "pixel_values has %d patches, but picture %d of image_grid_thw, %s, ends at %d", patches,
                      i, text_of(grid), sum)
        end
    end
    if sum < patches then
        err.raise("shape", "pixel_values has %d patches, but the %d pictures of image_grid_thw have %d; the last is %s",
                  patches, #grids, sum, #grids > 0 and text_of(grids[#grids]) or "none")
    end
end

--- How many tokens a picture becomes.
function M.tokens(grid, merge)
    return grid[1] * (grid[2] / merge) * (grid[3] / merge)
end

-- Pairs {first, last + 1} for the patches from first to last.
local function fill(ranges, first, stop)
    for i = first, stop - 1 do
        ranges[2 * i], ranges[2 * i + 1] = first, stop
    end
end

--- How patches of these grids lie, in squares of merge x merge as they come, or with `window` also ordered by windows
--- of window x window squares:
---   positions  int32 [2, patches], rows and columns in the picture
---   frames     int32 [patches, 2], the range of patches that each sees: those of its own frame
---   windows    the same of its window
---   order      int32 [squares], which of the squares as they come is where; nil when they stay in place
---   back       int32 [squares], the way back
function M.layout(grids, merge, window)
    local patches, square = 0, merge * merge
    for _, grid in ipairs(grids) do
        patches = patches + grid[1] * grid[2] * grid[3]
    end
    local positions, frames = ffi.new("int32_t[?]", 2 * patches), ffi.new("int32_t[?]", 2 * patches)
    local windows = window and ffi.new("int32_t[?]", 2 * patches)
    local order, back = ffi.new("int32_t[?]", patches / square), ffi.new("int32_t[?]", patches / square)
    local at, before, moved = 0, 0, false -- patches placed, squares of earlier frames

    local function place(number, row, column)
        local to = at / square
        order[to], back[number] = number, to
        moved = moved or to ~= number
        for y = row * merge, row * merge + merge - 1 do
            for x = column * merge, column * merge + merge - 1 do
                positions[at], positions[patches + at] = y, x
                at = at + 1
            end
        end
    end

    for _, grid in ipairs(grids) do
        local height, width = grid[2] / merge, grid[3] / merge
        local high, wide = window or height, window or width
        for _ = 1, grid[1] do
            local frame = at
            for top = 0, height - 1, high do
                for left = 0, width - 1, wide do
                    local first = at
                    for row = top, math.min(top + high, height) - 1 do
                        for column = left, math.min(left + wide, width) - 1 do
                            place(before + row * width + column, row, column)
                        end
                    end
                    if windows then
                        fill(windows, first, at)
                    end
                end
            end
            fill(frames, frame, at)
            before = before + height * width
        end
    end
    return { patches = patches, positions = positions, frames = frames, windows = windows,
             order = moved and order or nil, back = moved and back or nil }
end

return M
