-- The rows of a golden's batch alone and in one pack, with their pictures, and whether they have the same bits in any
-- company. Holds no comparison with transformers.

local am = require("am")
local ffi = require("ffi")
local grids = require("am.models.vision.grids")
local run = require("tests.parity.models.run")

local M = {}

-- One row, or a pack of rows, as arguments of forward.
local function empty(golden)
    return { input_ids = { {} }, position_ids = { {} }, labels = { {} },
             token_type_ids = golden.token_type_ids and { {} } }
end

-- Rows and a pack of them, without pictures. position(row, k, n): that of the n-th token, in the batch's place k.
local function words(golden, position)
    local ids, mask, labels = golden.input_ids:totable(), golden.attention_mask:totable(), golden.labels:totable()
    local types = golden.token_type_ids and golden.token_type_ids:totable()
    local rows, pack = {}, empty(golden)
    for i, row in ipairs(ids) do
        local one = empty(golden)
        one.length = 0
        for k, id in ipairs(row) do
            if mask[i][k] == 1 then
                one.length, one.first = one.length + 1, one.first or k - 1
                for _, args in ipairs { one, pack } do
                    table.insert(args.input_ids[1], id)
                    table.insert(args.position_ids[1], position(i, k, one.length))
                    table.insert(args.labels[1], args == pack and one.length == 1 and -100 or labels[i][k])
                    if types then
                        table.insert(args.token_type_ids[1], types[i][k])
                    end
                end
            end
        end
        rows[i] = one
    end
    return rows, pack
end

-- Give each row the pictures that its `tokens(row)` image tokens stand for, of grids of patches.
local function add_grids(rows, pack, golden, model, tokens)
    local list, picture, patch = golden.image_grid_thw:totable(), 0, 0
    for _, row in ipairs(rows) do
        local left, from, patches = tokens(row), picture, 0
        while left > 0 do
            picture = picture + 1
            left = left - grids.tokens(list[picture], model.model.visual.merge)
            patches = patches + list[picture][1] * list[picture][2] * list[picture][3]
        end
        if patches > 0 then
            row.pixel_values = golden.pixel_values:narrow(0, patch, patches)
            row.image_grid_thw = golden.image_grid_thw:narrow(0, from, picture - from)
        end
        patch = patch + patches
    end
    pack.pixel_values, pack.image_grid_thw = golden.pixel_values, golden.image_grid_thw
end

-- The same of pictures of one size.
local function add_pictures(rows, pack, golden, _, tokens)
    local total, at = 0, 0
    for _, row in ipairs(rows) do
        total = total + tokens(row)
    end
    for _, row in ipairs(rows) do
        local n = tokens(row) * golden.pixel_values:size(0) / total
        row.pixel_values = n > 0 and golden.pixel_values:narrow(0, at, n) or nil
        at = at + n
    end
    pack.pixel_values = golden.pixel_values
end

-- The same of frames of one size, a row's together in a dim of their own.
local function add_frames(rows, pack, golden, model, tokens)
    local c, pixels, masks = model.config, {}, {}
    local each = (golden.pixel_values:size(3) / c.vision_config.patch_size / c.scale_factor) ^ 2
    for i, row in ipairs(rows) do
        local n = tokens(row) / each
        if n > 0 then
            row.pixel_values = golden.pixel_values:narrow(0, i - 1, 1):narrow(1, 0, n)
            row.pixel_attention_mask = golden.pixel_attention_mask:narrow(0, i - 1, 1):narrow(1, 0, n)
            pixels[#pixels + 1], masks[#masks + 1] = row.pixel_values, row.pixel_attention_mask
        end
    end
    pack.pixel_values, pack.pixel_attention_mask = am.cat(pixels, 1), am.cat(masks, 1)
end

--- The rows of a golden's batch, each as arguments of forward without padding and with its first place in the batch
--- and its length; and one pack of them all.
function M.of(golden, model)
    local positions = golden.position_ids and golden.position_ids:totable()
    local start = model.config.model_type == "paligemma" and 1 or 0 -- of positions, where none are given
    local rows, pack = words(golden, function(row, k, n)
        return positions and positions[row][k] or (golden.image_grid_thw and n or k) - 1 + start
    end)
    if golden.pixel_values then
        local add = golden.image_grid_thw and add_grids or golden.pixel_values:dim() == 5 and add_frames or add_pictures
        add(rows, pack, golden, model, function(row)
            local count = 0
            for _, id in ipairs(row.input_ids[1]) do
                count = count + (id == model.model.image_token and 1 or 0)
            end
            return count
        end)
    end
    return rows, pack
end

-- The bits of `count` rows of logits from place `start` in row `row` of a batch.
local function bits(logits, row, start, count)
    local buffer, width = logits:to_buffer(), logits:size(2)
    return ffi.string(buffer + (row * logits:size(1) + start) * width, count * width * 4)
end

--- What is wrong where a row's logits have other bits alone than in the padded batch, or than in a pack of all rows;
--- nil where they have the same. skip(row): do not compare that one with the others; unpacked: try no pack.
function M.other_in_company(model, golden, skip, unpacked)
    local function logits(args)
        return am.no_grad(model.forward, model, args).logits
    end
    local rows, pack = M.of(golden, model)
    local batch, packed, start = logits(run.inputs(golden)), not unpacked and logits(pack), 0
    for i, row in ipairs(rows) do
        local want = not (skip and skip(row)) and bits(logits(row), 0, 0, row.length)
        if want and bits(batch, i - 1, row.first, row.length) ~= want then
            return "row " .. i .. " has other bits in a padded batch"
        elseif want and packed and bits(packed, 0, start, row.length) ~= want then
            return "row " .. i .. " has other bits in a pack"
        end
        start = start + row.length
    end
    return nil
end

return M
