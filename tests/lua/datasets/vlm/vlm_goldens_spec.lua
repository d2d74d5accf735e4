-- Rows with images as NeMo Automodel makes them of the same rows (make_vlm_goldens.py), with real processors.
-- Where the template's prompt ends in "Assistant:" and its turns go on with a space (SmolVLM, Idefics3) the original
-- searches for the answer's text, which it does not always find, and does not learn that space; here it is learnt,
-- since nobody else writes it.
local am = require("am")
local json = require("am.utils.json")
local path = require("am.utils.path")
local vlm = require("am.datasets.vlm")
local base64 = require("am.utils.base64")
local helpers = require("tests.lua.datasets.helpers")

local golden = assert(json.decode(assert(path.read_file("tests/lua/datasets/vlm/vlm_goldens.json")),
                                  { exact_numbers = true }))
local TOKENIZERS = "tests/parity/golden/processors/tokenizers/"
local searched = { smolvlm = true, idefics3 = true }
local folder = helpers.folder(before_each, after_each)

-- "user: <a.png> What?" for each message, of the original's parts or ours.
local function shown(messages, images)
    local out, at = {}, 0
    for i, message in ipairs(messages) do
        local parts = {}
        for k, part in ipairs(message.content) do
            if part.type == "image" then
                at = at + 1
                parts[k] = "<" .. (images and path.basename(images[at].path) or part.image) .. ">"
            else
                parts[k] = part.text
            end
        end
        out[i] = message.role .. ": " .. table.concat(parts, "|")
    end
    return table.concat(out, "\n")
end

describe("am.datasets.vlm beside NeMo Automodel", function()
    it("writes the same tags", function()
        for _, case in ipairs(golden.json2token) do
            assert.equal(case.text, vlm.json2token(assert(json.decode(case.tree, { exact_numbers = true }))))
        end
    end)

    for name, cases in pairs(golden.conversations) do
        it("makes the same conversations of rows: " .. name, function()
            local lines = {}
            for i, case in ipairs(cases) do
                lines[i] = json.encode(case.row)
            end
            path.write_file(folder .. "/rows.jsonl", table.concat(lines, "\n"))
            local make = vlm[name] or vlm.make_conversation_dataset
            local dataset = make { path_or_dataset = folder .. "/rows.jsonl" }
            assert.equal(#cases, dataset:len())
            for i, case in ipairs(cases) do
                local row = dataset:get(i)
                assert.equal(shown(case.conversation), shown(row.conversation, row.images))
            end
        end)
    end

    it("reads pictures out of Parquet files", function()
        local dataset = vlm.make_rdr_dataset { path_or_dataset = "tests/lua/datasets/vlm/pictures.parquet" }
        assert.equal(3, dataset:len())
        for i, bytes in ipairs(golden.pictures) do
            local row = dataset:get(i)
            assert.equal(base64.decode(bytes), row.images[1].data)
            assert.equal(i - 1 .. ".png", row.images[1].name)
            assert.equal("picture " .. i - 1, row.conversation[2].content[1].text)
        end
        assert.matches("neither path nor url", dataset:get(3).images[1].problem) -- it is null
    end)

    for name, batch in pairs(golden.batches) do
        it("learns the same tokens: " .. name, function()
            for file, text in pairs(batch.files) do
                path.write_file(path.join(folder, file), text)
            end
            path.write_file(folder .. "/tokenizer.json", assert(path.read_file(TOKENIZERS .. name .. ".json")))
            local processor = am.AutoProcessor.from_pretrained(folder)
            for i, case in ipairs(batch.cases) do
                local messages = assert(json.decode(json.encode(golden.messages[i])))
                for _, message in ipairs(messages) do
                    for _, part in ipairs(message.content) do
                        if part.type == "image" then
                            part.image = { bytes = base64.decode(golden.pictures[part.image + 1]) }
                        end
                    end
                end
                local made = vlm.default_collate_fn({ { conversation = messages } }, processor)
                local n = #case.input_ids -- the original leaves the last token out, as an input
                assert.equal(n + 1, made.T)
                local found = false
                for _, label in ipairs(case.labels) do
                    found = found or label ~= -100
                end
                for k = 1, n do
                    assert.equal(case.input_ids[k], made.input_ids[k - 1])
                    local is_space = searched[name] and case.labels[k] == -100 and (case.labels[k + 1] or -100) ~= -100
                    if found and not is_space then
                        assert.equal(case.labels[k], made.labels[k - 1], ("case %d, label %d"):format(i, k))
                    end
                end
                assert.is_true(made.num_label_tokens > 3)
                assert.equal(#made.plans > 0, made:finish().fields.pixel_values ~= nil)
            end
        end)
    end
end)
