-- Positions of text with pictures in it for rotary embeddings with several rows of positions (Qwen2-VL, section 2.1 of
-- arXiv:2409.12191): a token of text has the same position in all three rows, a picture's tokens have those of their
-- frame, row and column, and text goes on behind the largest of them. As transformers' get_rope_index, and from 0 again
-- in each sample of a packed row.

local ffi = require("ffi")
local err = require("am.core.error")
local tokens_of = require("am.models.vision.grids").tokens

local M = {}

-- What is wrong where picture `number` should begin at place `at` of row i and only `count` of its tokens are there.
local function refuse(number, grid, tokens, i, at, count)
    if not grid then
        err.raise("data", "row %d has an image token at %d, but image_grid_thw has only %d pictures, which end "
                  .. "before it", i, at, number - 1)
    end
    err.raise("data", "picture %d of image_grid_thw, [%s], has %d features, but row %d has %d image tokens for it from "
              .. "%d on", number, table.concat(grid, ", "), tokens, i, count, at)
end

-- Positions of a picture's tokens from place `at` on in a row of n, the first being `from`; how far they reach.
local function place(out, plane, at, grid, merge, from)
    local height, width = grid[2] / merge, grid[3] / merge
    for frame = 0, grid[1] - 1 do
        for y = 0, height - 1 do
            for x = 0, width - 1 do
                out[at], out[plane + at], out[2 * plane + at] = from + frame, from + y, from + x
                at = at + 1
            end
        end
    end
    return from + math.max(grid[1], height, width)
end

--- ids: int32 [b, t], bounds: int32 [b, t, 2], the sample that each token is of (key ranges; empty ones are padding),
--- or nil. grids: {frames, height, width} of all pictures in their order, in patches; merge x merge are a token.
--- Returns int32 [3, b, t]; how far behind its place the next token of each row is, what transformers calls
--- rope_deltas; and one more than the largest position.
function M.rows(ids, b, t, bounds, grids, merge, image_token)
    local plane = b * t
    local out, deltas, longest, number = ffi.new("int32_t[?]", 3 * plane), {}, 0, 0
    for i = 0, b - 1 do
        local next_position, largest, sample, first, q = 0, 0, nil, 0, 0
        deltas[i + 1] = 0
        while q < t do
            local at = i * t + q
            local start, stop = 0, t
            if bounds then
                start, stop = bounds[2 * at], bounds[2 * at + 1]
            end
            if start >= stop then -- padding stays at 0
                q = q + 1
            else
                if start ~= sample then
                    sample, first, next_position, largest = start, q, 0, 0
                end
                local count = 0
                if ids[at] == image_token then
                    number = number + 1
                    local grid = grids[number]
                    local tokens = grid and tokens_of(grid, merge) or 1
                    while count < tokens and q + count < math.min(t, stop) and ids[at + count] == image_token do
                        count = count + 1
                    end
                    if not grid or count < tokens then
                        refuse(number, grid, tokens, i + 1, q + 1, count)
                    end
                    largest = math.max(largest, place(out, plane, at, grid, merge, next_position))
                    -- as transformers: a picture of more frames than rows and columns reaches into what follows it
                    next_position = next_position + math.max(grid[2], grid[3]) / merge
                    q = q + count
                else
                    out[at], out[plane + at], out[2 * plane + at] = next_position, next_position, next_position
                    next_position, q = next_position + 1, q + 1
                    largest = math.max(largest, next_position)
                end
                longest = math.max(longest, largest)
                deltas[i + 1] = largest - (q - first)
            end
        end
    end
    if number < #grids then
        err.raise("data", "picture %d of the %d in image_grid_thw, [%s], has no image tokens (id %d) in input_ids",
                  number + 1, #grids, table.concat(grids[number + 1], ", "), image_token)
    end
    return out, deltas, longest
end

return M
