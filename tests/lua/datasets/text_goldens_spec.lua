-- Text datasets give NeMo Automodel's rows: ids, labels and attention for the same rows, tokenizer and
-- options. Two things differ on purpose. Where padding has the id of the end of sequence, the original's
-- attention_mask takes in one token of it, ours none. Where padding has id 0, the original's last one has the
-- id of the end of sequence; the goldens have no such padding.
local chat = require("am.chat")
local json = require("am.utils.json")
local path = require("am.utils.path")
local tokenizers = require("am.tokenizers")
local utils = require("am.datasets.utils")
local helpers = require("tests.lua.datasets.helpers")

local goldens = json.decode(assert(path.read_file("tests/lua/datasets/text_goldens.json")))

local builders = {
    column_mapped = require("am.datasets.column_mapped").ColumnMappedTextInstructionDataset,
    column_mapped_stream = require("am.datasets.column_mapped_stream").ColumnMappedTextInstructionIterableDataset,
    squad = require("am.datasets.squad").make_squad_dataset, hellaswag = require("am.datasets.hellaswag").HellaSwag,
    chat = require("am.datasets.chat_dataset").ChatDataset, xlam = require("am.datasets.xlam").make_xlam_dataset,
    agent = require("am.datasets.agent_chat").make_agent_chat_dataset, mrpc = require("am.datasets.seq_cls").GLUE_MRPC,
    mock_seq_cls = require("am.datasets.mock_seq_cls").MockSequenceClassificationDataset,
}
local path_keys = { squad = "dataset_name", hellaswag = "path_or_dataset", xlam = "dataset_name",
                    mrpc = "path_or_dataset", agent = "path" }

local function tokenizer_of(case)
    local dir = "tests/parity/golden/tokenizers/" .. goldens.files[case.tokenizer]
    local tokenizer = tokenizers.AutoTokenizer.from_pretrained(dir, { chat = chat })
    for key, value in pairs(goldens.tokenizers[case.tokenizer]) do
        tokenizer[key] = value
        if type(value) == "string" then
            tokenizer[key .. "_id"], tokenizer.description.special[key] = tokenizer.engine:id(value), value
        end
    end
    tokenizer.chat_template = case.template ~= json.null and goldens.templates[case.template] or nil
    return tokenizer
end

local function rows_of(case)
    local file = helpers.file(table.concat(case.rows, "\n"))
    local opts = { tokenizer = tokenizer_of(case), [path_keys[case.kind] or "path_or_dataset_id"] = file }
    for key, value in pairs(case.options) do
        if value ~= json.null then
            opts[key] = value
        end
    end
    if case.kind == "mrpc" and case.options.max_length == nil then
        opts.max_length = 256
    end
    local ok, rows = pcall(function()
        local dataset, out = builders[case.kind](opts), {}
        local iterator = dataset.is_iterable and dataset:iter()
        for i = 1, iterator and #case.golden or dataset:len() do
            out[i] = iterator and iterator:next() or dataset:get(i)
        end
        return out
    end)
    os.remove(file)
    return ok and rows or error(tostring(rows), 0)
end

local function attended(row)
    local count = 0
    for i = 1, #row.input_ids do
        count = count + (row.attention_mask and row.attention_mask[i] or 1)
    end
    return count
end

describe("text datasets and NeMo Automodel's:", function()
    for number, case in ipairs(goldens.cases) do
        local options = json.encode(case.options)
        it(string.format("%d: %s, %s, %s, %s", number, case.kind, case.tokenizer, tostring(case.template),
            #options > 120 and options:sub(1, 117) .. "…" or options), function()
            local rows = rows_of(case)
            assert.equal(#case.golden, #rows)
            local special = goldens.tokenizers[case.tokenizer]
            local same_pad = special.pad_token == special.eos_token and case.kind ~= "hellaswag"
            for i, golden in ipairs(case.golden) do
                local row, message = rows[i], "row " .. golden.row
                assert.same({ unpack(golden.input_ids) }, row.input_ids, message)
                assert.same({ unpack(golden.labels) }, row.labels, message)
                local one_more = same_pad and golden.attended < #row.input_ids and row.attention_mask
                assert.equal(golden.attended - (one_more and 1 or 0), attended(row), message)
                assert.is_true(utils.count_labels(row.labels) > 0)
            end
        end)
    end
end)
