-- am.datasets.column_mapped, formatting and conversation: what is learnt, with and without a chat template;
-- options; bad rows. Unless they say otherwise the tests take the options that NeMo Automodel does not have;
-- its rows, which the defaults give, are compared in text_goldens_spec.lua.
local column_mapped = require("am.datasets.column_mapped")
local conversation = require("am.datasets.conversation")
local utils = require("am.datasets.utils")
local helpers = require("tests.lua.datasets.helpers")

describe("am.datasets.column_mapped", function()
    local name, tok

    before_each(function()
        tok = helpers.tokenizer()
    end)

    after_each(function()
        if name then
            os.remove(name)
            name = nil
        end
    end)

    local ours = { add_eos = true, answer_boundary = "prefix", mask_generation_prompt = true, empty_messages = false }

    local function dataset(text, opts, base)
        name = name or helpers.file(text)
        local all = { path_or_dataset_id = name, tokenizer = tok, column_mapping = { question = "q", answer = "a" } }
        for key, value in pairs(base or ours) do
            all[key] = value
        end
        for key, value in pairs(opts or {}) do
            all[key] = value
        end
        return column_mapped.ColumnMappedTextInstructionDataset(all)
    end

    local function shown(row)
        return tok:text(row.input_ids) .. " -> " .. tok:text(row.labels)
    end

    it("learns the answer, from the token that reaches over the boundary on, and the end", function()
        local ds = dataset '{"q":"Who is he?","a":"A cook"}'
        assert.equal(1, ds:len())
        assert.equal("Who| is| he?| A| cook -> _|_| A| cook|</s>", shown(ds:get(1)))
    end)

    it("has NeMo Automodel's defaults: no end, no token over the boundary, the header, empty messages", function()
        local text = '{"q":"Who is he?","a":"A cook"}'
        assert.equal("Who| is| he?| A -> _|_|_| cook", shown(dataset(text, nil, {}):get(1)))
        assert.equal("Who| is| he?| A -> _|_| A| cook", shown(dataset(nil, { answer_boundary = "prefix" }, {}):get(1)))
        tok.chat_template = "chatml"
        local header = "<|start|>|user|<|sep|>|Who| is| he?|<|end|>|<|start|>|assistant|<|sep|>|"
        local row = dataset(nil, { use_hf_chat_template = true }, {}):get(1)
        assert.equal("<|start|>|system|<|sep|>|<|end|>|" .. header .. "A| cook", tok:text(row.input_ids))
        assert.equal(("_|"):rep(10) .. "<|start|>|assistant|<|sep|>|A| cook|<|end|>", tok:text(row.labels))
        row = dataset(nil, { use_hf_chat_template = true, empty_messages = false }, {}):get(1)
        assert.equal(header .. "A| cook", tok:text(row.input_ids))
        helpers.fails("data", "no row has a label.*answer_boundary", dataset, nil,
            { column_mapping = { question = "q", answer = "q" }, seq_length = 3, truncation = true }, {})
    end)

    it("takes the part of the rows that its split names", function()
        local lines = {}
        for i = 1, 10 do
            lines[i] = string.format('{"q":"%d?","a":"%d"}', i, i)
        end
        local text = table.concat(lines, "\n")
        for split, rows in pairs {
            train = "1 2 3 4 5 6 7 8 9 10", ["train[:3]"] = "1 2 3", ["train[8:]"] = "9 10", ["test[2:-6]"] = "3 4",
            ["train[:20%]"] = "1 2", ["train[50%:70%]"] = "6 7", ["train[-1:99]"] = "10",
        } do
            local ds, got = dataset(text, { split = split }), {}
            for i = 1, ds:len() do
                got[i] = ds:name(i):match("row (%d+)")
                assert.equal(got[i] .. "?", shown(ds:get(i)):match("^%d+%?"))
            end
            assert.equal(rows, table.concat(got, " "))
        end
        for _, split in ipairs { "train[3:3]", "train[:x]", "train[1]", "train[20:]", "a b" } do
            local ok, e = pcall(dataset, text, { split = split })
            assert.same({ false, "usage" }, { ok, e.code })
            assert.is_truthy(e.msg:find("dataset.split", 1, true))
        end
    end)

    it("joins context, question and answer", function()
        local row = '{"c":"Once.","q":"Who?","a":"Me"}'
        local both = { column_mapping = { context = "c", question = "q", answer = "a" } }
        assert.equal("Once.| Who?| Me -> _| Me|</s>", shown(dataset(row, both):get(1)))
        local only = { column_mapping = { context = "c", answer = "a" } }
        assert.equal("Once.| Me ->  Me|</s>", shown(dataset(row, only):get(1)))
        os.remove(name)
        name = nil
        assert.equal("Who?| Me ->  Me|</s>", shown(dataset('{"c":null,"q":"Who?","a":"Me"}', both):get(1)))
    end)

    it("takes add_eos, answer_only_loss_mask, a BOS and a tokenizer that adds EOS", function()
        local row = '{"q":"Hi you","a":"yes no"}'
        assert.equal("Hi| you| yes -> _| yes| no", shown(dataset(row, { add_eos = false }):get(1)))
        local all = dataset(row, { answer_only_loss_mask = false }):get(1)
        assert.equal("Hi| you| yes| no ->  you| yes| no|</s>", shown(all))
        tok = helpers.tokenizer { bos_token_id = 2, adds_eos = true }
        assert.equal("<s>|Hi| you| yes| no -> _|_| yes| no|</s>", shown(dataset(row):get(1)))
        tok.eos_token_id = nil
        tok.adds_eos = false
        helpers.fails("usage", "add_eos", dataset, row)
    end)

    it("truncates before shifting and pads", function()
        local row = '{"q":"one two","a":"three four five"}'
        local cut = dataset(row, { seq_length = 4, truncation = true })
        assert.equal("one| two| three -> _| three| four", shown(cut:get(1)))
        local padded = dataset(row, { seq_length = 8, padding = "max_length" }):get(1)
        assert.same({ 8, 8 }, { #padded.input_ids, #padded.labels })
        assert.same({ 1, 1, 1, 1, 1, 0, 0, 0 }, padded.attention_mask)
        assert.same({ 0, -100 }, { padded.input_ids[8], padded.labels[8] })
        assert.equal(1, padded.labels[5]) -- the end is learnt though padding may have its id
        local stats = dataset(row, { seq_length = 8, padding = "max_length" }):stats()
        assert.same({ 5, 4, 5 }, { stats.tokens, stats.label_tokens, stats.longest.length })
        for _, opts in ipairs {
            { truncation = true }, { padding = "max_length" }, { truncation = "only_first", seq_length = 3 },
            { padding = "left", seq_length = 3 }, { seq_length = 0 }, { seq_length = "8" },
        } do
            helpers.fails("usage", "dataset%.", dataset, row, opts)
        end
        for _, opts in ipairs {
            { truncation = "do_not_truncate", padding = "longest", seq_length = 2 }, { padding = true },
        } do
            assert.equal(5, #dataset(row, opts):get(1).input_ids)
        end
    end)

    it("skips, counts and names rows without a label, and fails when none is left", function()
        local ds = dataset('{"q":"a b c d","a":"x"}\n{"q":"a","a":"x y"}\n{"q":"a b c e","a":"z"}', {
            seq_length = 3, truncation = true,
        })
        local stats = ds:stats()
        assert.same({ 1, 2, 1, 2, 2 }, { ds:len(), stats.skipped, stats.rows, stats.tokens, stats.label_tokens })
        assert.equal("a| x -> x| y", (shown(ds:get(1)):gsub("-> +", "-> ")))
        assert.equal(name .. " row 2", ds:name(1))
        assert.same({ name .. " row 1 (no label left)", name .. " row 3 (no label left)" }, stats.skipped_names)
        assert.matches("1 rows, 2 tokens, 2 of them learnt %(100.0 %%%); 1 cut off; "
            .. "2 skipped: .*row 1 %(no label left%), .*row 3",
            utils.describe(stats))
        helpers.fails("data", "no row has a label", dataset, nil, { seq_length = 1, truncation = true })
    end)

    it("skips empty answers before an end or a template is added", function()
        tok.chat_template = "chatml"
        local text = '{"q":"a","a":"b"}\n{"q":"a","a":""}\n{"q":"a","a":"  \\t"}\n{"q":null,"a":null}'
        for use_chat, row in pairs {
            [false] = "a| b ->  b|</s>", [true] = "<|start|>|user|<|sep|>|a|<|end|>|<|start|>|assistant|<|sep|>|b -> "
                .. ("_|"):rep(7) .. "b|<|end|>",
        } do
            local ds = dataset(text, { use_hf_chat_template = use_chat })
            assert.equal(1, ds:len())
            assert.equal(row, shown(ds:get(1)))
            assert.same({ name .. " row 2 (empty answer)", name .. " row 3 (empty answer)",
                          name .. " row 4 (empty answer)" }, ds:stats().skipped_names)
        end
    end)

    it("takes cells of a CSV file as they are written, and leaves out rows without an answer", function()
        name = helpers.file("q,a,n\nWhat is 1+1?,2,7\n3,2.50,8\nWho?,,9\n", "csv")
        local ds = dataset()
        assert.equal("What| is| 1+1?| 2 -> _|_| 2|</s>", shown(ds:get(1)))
        assert.equal("3| 2.50 ->  2.50|</s>", shown(ds:get(2)))
        assert.same({ name .. " row 4 (empty answer)" }, ds:stats().skipped_names)
    end)

    it("limits the rows, before bad ones are met", function()
        local text = '{"q":"a","a":"b"}\n{"q":"a","a":"b"}\nnot json'
        assert.equal(2, dataset(text, { limit_dataset_samples = 2 }):len())
        helpers.fails("data", "row 3: not JSON", dataset, text)
    end)

    it("names row and column of what cannot be used", function()
        for text, pattern in pairs {
            ['{"q":"x","a":"y"}\n{"question":"x","a":"y"}'] = 'row 2: no column "q".*it has a, question',
            ['{"q":"x","ans":"y"}'] = 'row 1: no column "a"',
            ['{"q":"x","a":7}'] = 'row 1: column "a" holds a number, not text; .*quotes',
            ['{"q":null,"a":"y"}'] = "row 1: question and context",
            ['{"q":["x"],"a":"y"}'] = 'row 1: column "q" holds a table',
        } do
            helpers.fails("data", pattern, dataset, text)
            os.remove(name)
            name = nil
        end
    end)

    it("checks the mapping", function()
        for pattern, mapping in pairs {
            ["instruction: the names are"] = { instruction = "q", answer = "a" },
            ['mean "answer"'] = { answr = "a", question = "q" },
            ["answer is missing"] = { question = "q" }, ["question is missing"] = { answer = "a" },
            ["must name a column"] = { question = 3, answer = "a" },
        } do
            helpers.fails("usage", pattern, dataset, '{"q":"x","a":"y"}', { column_mapping = mapping })
        end
        helpers.fails("usage", "must map", dataset, nil, { column_mapping = "q" })
    end)

    it("learns the answer and its end with a chat template, not the header", function()
        tok.chat_template = "chatml"
        local ds = dataset('{"q":"Who?","a":"The cook","c":"Be brief"}', {
            use_hf_chat_template = true, column_mapping = { question = "q", answer = "a", context = "c" },
        })
        local row = ds:get(1)
        assert.equal("<|start|>|system|<|sep|>|Be| brief|<|end|>|<|start|>|user|<|sep|>|Who?|<|end|>|"
            .. "<|start|>|assistant|<|sep|>|The| cook", tok:text(row.input_ids))
        assert.equal(("_|"):rep(13) .. "The| cook|<|end|>", tok:text(row.labels))
        assert.equal(3, ds:stats().label_tokens)
        local no_context = dataset(nil, { use_hf_chat_template = true }):get(1)
        assert.equal("<|start|>|user|<|sep|>|Who?", tok:text(no_context.input_ids):sub(1, 27))
        assert.equal(3, utils.count_labels(no_context.labels))
        local all = dataset(nil, { use_hf_chat_template = true, answer_only_loss_mask = false }, {}):get(1)
        assert.equal(#all.labels, utils.count_labels(all.labels))
    end)

    it("finds the boundary though the answer repeats the prompt's text", function()
        tok.chat_template = "chatml"
        local ds = dataset('{"q":"<|start|>assistant<|sep|>x","a":"<|start|>assistant<|sep|>x"}', {
            use_hf_chat_template = true,
        })
        local row = ds:get(1)
        assert.equal("<|start|>|assistant|<|sep|>|x|<|end|>", tok:text({ unpack(row.labels, #row.labels - 4) }))
        assert.equal(5, utils.count_labels(row.labels))
    end)

    it("uses generation blocks when the template has them, else what it tells of its turns", function()
        tok.chat_template = "{%- generation -%}"
        local labels = dataset('{"q":"Who?","a":"The cook"}', { use_hf_chat_template = true }):get(1).labels
        assert.equal(("_|"):rep(7) .. "The| cook|<|end|>", tok:text(labels))
        tok.chat_template = "rewrites"
        local messages = {
            { role = "user", content = "a" }, { role = "assistant", content = "b" }, { role = "user", content = "c" },
            { role = "assistant", content = "d" },
        }
        local told = conversation.row(tok, messages, {}, "row 5")
        assert.equal(4, utils.count_labels(told.labels)) -- two answers, each with its end
        tok.tells_no_turns = true
        helpers.fails("data", "row 5: the chat template", conversation.row, tok, messages, {}, "row 5")
        tok.tells_no_turns = nil
        tok.chat_template = "chatml"
        local last = conversation.row(tok, messages, { last_turn_only = true, mask_generation_prompt = true }, "x")
        assert.equal(2, utils.count_labels(last.labels))
        tok.chat_template = nil
        helpers.fails("usage", "no chat template", dataset, nil, { use_hf_chat_template = true })
    end)

    it("takes a template of its own", function()
        local own = { use_hf_chat_template = true, chat_template = "{%- generation -%}" }
        local ds = dataset('{"q":"Who?","a":"The cook"}', own)
        assert.equal(("_|"):rep(7) .. "The| cook|<|end|>", tok:text(ds:get(1).labels))
        assert.equal(own.chat_template, tok.chat_template)
        own.streaming, tok = true, helpers.tokenizer()
        assert.equal(("_|"):rep(7) .. "The| cook|<|end|>", tok:text(dataset(nil, own):iter():next().labels))
        helpers.fails("usage", "chat_template: \"none.jinja\" is neither", dataset, nil,
            { use_hf_chat_template = true, chat_template = "none.jinja" })
        tok.chat_template = nil
        assert.equal("Who?| The| cook ->  The| cook|</s>", shown(dataset(nil, { chat_template = "{{ x }}" }):get(1)))
        assert.is_nil(tok.chat_template)
    end)

    it("gives the same rows from JSONL, Parquet and a compressed file", function()
        local folder = "tests/lua/datasets/parquet/"
        local zipped = helpers.file("", "jsonl.gz")
        finally(function() os.remove(zipped) end)
        assert(os.execute("gzip <" .. folder .. "squad.jsonl >" .. zipped) == 0)
        local expected
        for _, from in ipairs { folder .. "squad.jsonl", folder .. "squad.parquet", zipped } do
            local made = column_mapped.ColumnMappedTextInstructionDataset {
                path_or_dataset_id = from, tokenizer = helpers.tokenizer(), split = "train[3:20]", add_eos = true,
                column_mapping = { context = "context", question = "question", answer = "title" },
            }
            local rows = {}
            for i = 1, made:len() do
                rows[i] = table.concat(made:get(i).input_ids, " ")
            end
            expected = expected or rows
            assert.equal(17, #rows)
            assert.same(expected, rows)
        end
    end)
end)
