-- Batches of rows with pictures of different sizes, and their rows alone. qwen_spec.lua compares with goldens,
-- random_qwen.lua with live transformers. Holds no comparison with these.

local am = require("am")
local ffi = require("ffi")
local grids = require("am.models.vision.grids")

local M = {}

--- The arguments of forward among a golden's tensors.
function M.inputs(golden)
    return { input_ids = golden.input_ids, attention_mask = golden.attention_mask, labels = golden.labels,
             pixel_values = golden.pixel_values, image_grid_thw = golden.image_grid_thw }
end

--- The rows of a golden without padding: {ids, first, pixel_values, image_grid_thw}; first: where the row begins
--- in the batch, from 0; the latter two are nil of text alone.
function M.rows(golden, model)
    local ids, mask = golden.input_ids:totable(), golden.attention_mask:totable()
    local list, token = golden.image_grid_thw and golden.image_grid_thw:totable(), model.config.image_token_id
    local rows, picture, patch = {}, 0, 0
    for i, row in ipairs(ids) do
        local kept, first, tokens = {}, nil, 0
        for k, id in ipairs(row) do
            if mask[i][k] == 1 then
                first = first or k - 1
                kept[#kept + 1] = id
                tokens = tokens + (id == token and 1 or 0)
            end
        end
        local from, patches = picture, 0
        while tokens > 0 do
            picture = picture + 1
            tokens = tokens - grids.tokens(list[picture], model.model.visual.merge)
            patches = patches + list[picture][1] * list[picture][2] * list[picture][3]
        end
        rows[i] = { ids = kept, first = first }
        if patches > 0 then
            rows[i].pixel_values = golden.pixel_values:narrow(0, patch, patches)
            rows[i].image_grid_thw = golden.image_grid_thw:narrow(0, from, picture - from)
        end
        patch = patch + patches
    end
    return rows
end

-- The bits of `count` rows of logits from place `start` in row `row` of a batch.
local function bits(logits, row, start, count)
    local buffer, width = logits:to_buffer(), logits:size(2)
    return ffi.string(buffer + (row * logits:size(1) + start) * width, count * width * 4)
end

--- What is wrong where a row's logits have other bits alone than in the padded batch, or than in a pack of all rows;
--- nil where they have the same. skip(row): do not compare that one with the others.
function M.other_in_company(model, golden, skip)
    local function logits(args)
        return am.no_grad(model.forward, model, args).logits
    end
    local inputs, rows = M.inputs(golden), M.rows(golden, model)
    inputs.labels = nil
    local batch, ids, positions = logits(inputs), {}, {}
    for _, row in ipairs(rows) do
        for k, id in ipairs(row.ids) do
            ids[#ids + 1], positions[#positions + 1] = id, k - 1
        end
    end
    local pack = logits { input_ids = { ids }, position_ids = { positions }, pixel_values = golden.pixel_values,
                          image_grid_thw = golden.image_grid_thw }
    local start = 0
    for i, row in ipairs(rows) do
        local alone = logits { input_ids = { row.ids }, pixel_values = row.pixel_values,
                               image_grid_thw = row.image_grid_thw }
        local want = bits(alone, 0, 0, #row.ids)
        if not (skip and skip(row)) then
            if bits(batch, i - 1, row.first, #row.ids) ~= want then
                return "row " .. i .. " has other bits in a padded batch"
            elseif bits(pack, 0, start, #row.ids) ~= want then
                return "row " .. i .. " has other bits in a pack"
            end
        end
        start = start + #row.ids
    end
    return nil
end

--- Ids of the golden's prompt and what follows it, up to `total`.
function M.greedy(model, golden, total, use_cache)
    local prompt = golden["prompt.input_ids"]:totable()[1]
    return model:generate(prompt, {
        max_new_tokens = total - #prompt, eos_token_id = false, use_cache = use_cache,
        inputs = { pixel_values = golden["prompt.pixel_values"], image_grid_thw = golden["prompt.image_grid_thw"] },
    })
end

return M
