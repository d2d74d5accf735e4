-- Batches of rows with pictures of one size, and their rows alone. vlm_spec.lua compares with goldens, random_vlms.lua
-- with live transformers. Holds no comparison with these.

local am = require("am")
local ffi = require("ffi")

local M = {}

local INPUTS = { "input_ids", "attention_mask", "token_type_ids", "labels", "pixel_values", "pixel_attention_mask" }

--- The arguments of forward among a golden's tensors, those whose names begin with a prefix.
function M.inputs(golden, prefix)
    local out = {}
    for _, name in ipairs(INPUTS) do
        out[name] = golden[(prefix or "") .. name]
    end
    return out
end

--- Ids of the golden's prompt and what follows it, up to `total`.
function M.greedy(model, golden, total, use_cache)
    local inputs = M.inputs(golden, "prompt.")
    local prompt = inputs.input_ids:totable()[1]
    inputs.input_ids, inputs.attention_mask = nil, nil
    return model:generate(prompt, { max_new_tokens = total - #prompt, eos_token_id = false, use_cache = use_cache,
                                    inputs = inputs })
end

--- {name -> tensor} as files of the hub call them, which is how they are written here; transformers saves others.
function M.renamed(tensors)
    local out = {}
    for name, t in pairs(tensors) do
        out[name:gsub("^vision_tower%.", "vision_tower.vision_model.")
                :gsub("^(%l+)%.vision_tower%.", "%1.vision_tower.vision_model.")] = t
    end
    return out
end

-- How many tokens a picture has.
local function tokens_of(golden, model)
    local c = model.config
    if golden.pixel_values:dim() == 4 then -- one size for all
        return golden.input_ids:eq(model.model.image_token):sum():item() / golden.pixel_values:size(0)
    end
    return (golden.pixel_values:size(3) / c.vision_config.patch_size / c.scale_factor) ^ 2
end

-- Add the pictures of a row to its arguments: n of them, from the `first` of all. Those of one row lie together, in a
-- dim of their own where the model wants one.
local function add_pictures(one, golden, row, first, n)
    if n == 0 then
        return
    elseif golden.pixel_values:dim() == 4 then
        one.pixel_values = golden.pixel_values:narrow(0, first, n)
    else
        one.pixel_values = golden.pixel_values:narrow(0, row, 1):narrow(1, 0, n)
        one.pixel_attention_mask = golden.pixel_attention_mask:narrow(0, row, 1):narrow(1, 0, n)
    end
end

-- One of the lists of rows' tensors along a dim, or nil of none.
local function joined(list, dim)
    return #list > 0 and am.cat(list, dim) or nil
end

--- The rows of a golden's batch, each as arguments of forward without padding and with its first place in the batch
--- and its length; and one pack of them all.
function M.rows(golden, model)
    local ids, mask, labels = golden.input_ids:totable(), golden.attention_mask:totable(), golden.labels:totable()
    local types = golden.token_type_ids and golden.token_type_ids:totable()
    local start = model.config.model_type == "paligemma" and 1 or 0 -- of positions, where none are given
    local token, each, at = model.model.image_token, tokens_of(golden, model), 0
    local rows, pictures, masks = {}, {}, {}
    local pack = { input_ids = { {} }, position_ids = { {} }, labels = { {} }, token_type_ids = types and { {} } }
    for i, row in ipairs(ids) do
        local one, length, tokens = { input_ids = { {} }, position_ids = { {} }, labels = { {} },
                                      token_type_ids = types and { {} } }, 0, 0
        for k, id in ipairs(row) do
            if mask[i][k] == 1 then
                length, one.first = length + 1, one.first or k - 1
                tokens = tokens + (id == token and 1 or 0)
                one.input_ids[1][length], one.position_ids[1][length] = id, k - 1 + start -- as in the batch
                one.labels[1][length] = labels[i][k]
                table.insert(pack.input_ids[1], id)
                table.insert(pack.position_ids[1], k - 1 + start)
                for _, args in ipairs(types and { one, pack } or {}) do
                    table.insert(args.token_type_ids[1], types[i][k])
                end
                table.insert(pack.labels[1], length == 1 and -100 or labels[i][k])
            end
        end
        add_pictures(one, golden, i - 1, at, tokens / each)
        table.insert(pictures, one.pixel_values)
        table.insert(masks, one.pixel_attention_mask)
        rows[i], one.length, at = one, length, at + tokens / each
    end
    local dim = golden.pixel_values:dim() == 5 and 1 or 0
    pack.pixel_values, pack.pixel_attention_mask = joined(pictures, dim), joined(masks, dim)
    return rows, pack
end

-- The bits of `count` rows of logits from place `start` in row `row` of a batch.
local function bits(logits, row, start, count)
    local buffer, width = logits:to_buffer(), logits:size(2)
    return ffi.string(buffer + (row * logits:size(1) + start) * width, count * width * 4)
end

--- What is wrong where a row's logits have other bits alone than in the padded batch, or than in a pack of all rows;
--- nil where they have the same.
function M.other_in_company(model, golden)
    local function logits(args)
        return am.no_grad(model.forward, model, args).logits
    end
    local rows, pack = M.rows(golden, model)
    local batch, packed, start = logits(M.inputs(golden)), logits(pack), 0
    for i, row in ipairs(rows) do
        local want = bits(logits(row), 0, 0, row.length)
        if bits(batch, i - 1, row.first, row.length) ~= want then
            return "row " .. i .. " has other bits in a padded batch"
        elseif bits(packed, 0, start, row.length) ~= want then
            return "row " .. i .. " has other bits in a pack"
        end
        start = start + row.length
    end
    return nil
end

return M
