-- CORD-v2 and its like: images with a ground truth in JSON, which the answer writes as a sequence of tags, as Donut
-- does: <s_key>value</s_key>, keys from the last to the first, lists joined by <sep/>.

local err = require("am.core.error")
local json = require("am.utils.json")
local number = require("am.utils.number")
local philox = require("am.datasets.philox")
local conversation = require("am.datasets.vlm.conversation")
local rows = require("am.datasets.vlm.rows")

local M = {}

--- What the `dataset` section may hold for this dataset.
M.fields = rows.file_fields("naver-clova-ix/cord-v2", {
    prompt = { type = "string", default = "Describe this image.", doc = "what the user says beside the image" },
    seed = { type = "integer", min = 0, default = 42, doc = "chooses among several ground truths of a row" },
})

local STREAM = 0x434f5244ULL * 0x100000000ULL -- of random numbers, beyond the engine's

-- A value that is no object and no list, as Python's str prints it.
local function text_of(value)
    if value == json.null then
        return "None"
    elseif type(value) == "boolean" then
        return value and "True" or "False"
    elseif type(value) == "number" then
        return number.text(value)
    elseif type(value) == "table" then -- a number that was read exactly; a float is printed as one
        return value.text:find("[.eE]") and number.float_text(value.value) or value.text
    end
    return value
end

local is_number = getmetatable(json.float(1))

--- A decoded JSON value as a sequence of tags. Numbers read with `exact_numbers` print as Python prints them.
function M.json2token(value)
    if type(value) ~= "table" or value == json.null or getmetatable(value) == is_number then
        return text_of(value)
    end
    local out = {}
    if json.is_array(value) then
        for i, item in ipairs(value) do
            out[i] = M.json2token(item)
        end
        return table.concat(out, "<sep/>")
    end
    local keys = json.keys(value)
    if #keys == 1 and keys[1] == "text_sequence" then
        return M.json2token(value.text_sequence)
    end
    table.sort(keys, function(a, b) return a > b end)
    for _, key in ipairs(keys) do
        out[#out + 1] = "<s_" .. key .. ">" .. M.json2token(value[key]) .. "</s_" .. key .. ">"
    end
    return table.concat(out)
end

local function is_object(x)
    return type(x) == "table" and x ~= json.null and not json.is_array(x)
end

-- The ground truths of a row: of gt_parses, or the one of gt_parse.
local function truths_of(truth, name)
    if type(truth) == "string" then
        local decoded, why = json.decode(truth, { exact_numbers = true })
        truth = decoded ~= nil and decoded or err.raise("data", "%s: ground_truth: %s", name, why)
    end
    local list = is_object(truth) and (truth.gt_parses or (is_object(truth.gt_parse) and { truth.gt_parse }))
    if type(list) ~= "table" or #list == 0 then
        err.raise("data", "%s: ground_truth has neither an object gt_parse nor a list gt_parses", name)
    end
    return list
end

--- A dataset of receipts. opts: the keys of `fields`.
function M.make_cord_v2_dataset(opts)
    local spec = { path = "naver-clova-ix/cord-v2", texts = { "ground_truth", "file_name" },
                   parse = { exact_numbers = true } }
    function spec.convert(raw, where, name, i)
        local list = truths_of(raw.ground_truth, name)
        local chosen = #list > 1 and philox.block(opts.seed or 42, STREAM, i) % #list + 1 or 1
        return conversation.question({ rows.image(raw, { "image", "file_name" }, name) },
            opts.prompt or "Describe this image.", M.json2token(list[chosen]), where, name)
    end
    return rows.open(opts, spec)
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.vlm.make_cord_v2_dataset",
    aliases = { "nemo_automodel.components.datasets.vlm.datasets.make_cord_v2_dataset",
                "nemo_automodel.components.datasets.vlm.datasets.CordV2DatasetConfig" },
    doc = "images with a ground truth in JSON (CORD-v2, receipts)",
    fields = M.fields,
    build = M.make_cord_v2_dataset,
} }

return M
