-- recipes/preprocess.lua as a user runs it, and training data read back from what it writes.
local am = require("am")
local datasets = require("am.datasets")
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")

describe("preprocess", function()
    local folder, text_model, tokenizer

    setup(function()
        folder, text_model = helper.folder(), helper.text_model()
        tokenizer = am.AutoTokenizer.from_pretrained(text_model)
        helper.write(path.join(folder, "rows.jsonl"), '{"text":"Hello there."}\n{"text":"And again, hello."}\n')
        helper.write(path.join(folder, "a.txt"), "One line.\nAnother.\n")
    end)
    teardown(helper.cleanup)

    local function run(...)
        return helper.run { "recipes/preprocess.lua", "--model", text_model, "--output-prefix",
                            path.join(folder, "out"), ... }
    end

    it("takes a CSV's column as JSON's, numbers in it as they are written", function()
        helper.write(path.join(folder, "rows.csv"), "n,text\n1,2.50\n2,007\n")
        helper.write(path.join(folder, "numbers.jsonl"), '{"text":"2.50"}\n{"text":"007"}\n')
        local files = {}
        for i, name in ipairs { "rows.csv", "numbers.jsonl" } do
            local status, out, errors = run("--input", path.join(folder, name))
            assert.equal(0, status, errors)
            assert.matches("out_text_document.bin and .idx: 2 documents", out)
            files[i] = helper.read(path.join(folder, "out_text_document.bin"))
        end
        assert.equal(files[2], files[1])
    end)

    it("writes Megatron's files of a column", function()
        local status, out, errors = run("--input", path.join(folder, "rows.jsonl"), "--append-eod")
        assert.equal(0, status, errors)
        assert.matches("out_text_document.bin and .idx: 2 documents", out)
        local dataset = datasets.MegatronPretraining {
            paths = { path.join(folder, "out_text_document") }, seq_length = 4, split = "1", tokenizer = tokenizer,
        }
        local expected, seen = {}, {}
        for _, text in ipairs { "Hello there.", "And again, hello." } do
            for _, id in ipairs(tokenizer:encode(text)) do
                expected[id] = true
            end
        end
        expected[tokenizer.eos_token_id] = true
        for i = 1, dataset:len() do
            for _, id in ipairs(dataset:get(i).input_ids) do
                assert.is_true(expected[id])
                seen[#seen + 1] = id
            end
        end
        assert(#seen >= 4)
    end)

    it("writes nanogpt's shards of lines", function()
        local status, out, errors = run("--input", path.join(folder, "*.txt"), "--split-by", "line", "--format",
                                        "nanogpt", "--shard-tokens", "1K")
        if tokenizer.bos_token_id then
            assert.equal(0, status, errors)
            assert.matches("wrote 1 shards", out)
            local dataset = datasets.NanogptDataset { file_pattern = path.join(folder, "out_*.bin"), seq_len = 3 }
            local row = dataset:iter():next()
            assert.equal(tokenizer.bos_token_id, row.input_ids[1])
            assert.equal(tokenizer:encode("One line.", { add_special_tokens = false })[1], row.labels[1])
        else
            assert.is_nil(helper.refusal_problem(2, { "bos_token" }, status, out, errors))
        end
    end)

    it("says what is wrong", function()
        local rows = path.join(folder, "rows.jsonl")
        for _, case in ipairs {
            { { "--input", rows, "--format", "parquet" }, 2, "megatron or nanogpt" },
            { { "--input", rows, "--input", path.join(folder, "a.txt") }, 2, "a run each" },
            { { "--input", path.join(folder, "*.none") }, 2, "no file is called" },
            { { "--input", rows, "--max-tokens", "many" }, 2, "such as 500M" },
            { { "--input", path.join(folder, "a.txt"), "--json-keys", "text" }, 2, "for files with columns" },
            { { "--input", rows, "--json-keys", "none" }, 1, "no column \"none\"; it has" },
        } do
            local status, out, errors = run(unpack(case[1]))
            assert.is_nil(helper.refusal_problem(case[2], { case[3] }, status, out, errors))
        end
    end)
end)
