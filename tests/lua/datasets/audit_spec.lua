-- am.datasets.audit: each finding, the sample with what is learnt, bounds, refusal when nothing is learnt.
local audit = require("am.datasets.audit")
local column_mapped = require("am.datasets.column_mapped")
local hellaswag = require("am.datasets.hellaswag")
local helpers = require("tests.lua.datasets.helpers")

-- A tokenizer whose ids are letters; 1 ends, 2 begins, 3 is special.
local function letters(fields)
    local tokenizer = { eos_token_id = 1, bos_token_id = 2, engine = {} }
    function tokenizer.engine.is_special(_, id) return id <= 3 end
    function tokenizer.decode(_, ids)
        local out = {}
        for i, id in ipairs(ids) do
            out[i] = ({ "</s>", "<s>", "<|end|>" })[id] or string.char(id)
        end
        return table.concat(out)
    end
    for key, value in pairs(fields or {}) do
        tokenizer[key] = value
    end
    return tokenizer
end

-- A row of text, of which what follows `prompt` letters is learnt, and then the ids of `ending`.
local function row_of(text, prompt, ending)
    local ids = { text:byte(1, -1) }
    for _, id in ipairs(ending or {}) do
        ids[#ids + 1] = id
    end
    local row = { input_ids = {}, labels = {} }
    for i = 1, #ids - 1 do
        row.input_ids[i], row.labels[i] = ids[i], i + 1 > prompt and ids[i + 1] or -100
    end
    return row
end

local function run(rows, opts, tokenizer)
    return audit.run(helpers.dataset(rows), tokenizer or letters(), opts)
end

describe("am.datasets.audit", function()
    it("shows a sample with what is learnt, and says what share that is", function()
        local report = run { row_of("Who? Me", 5, { 1 }), row_of("Hi you", 3, { 1 }) }
        assert.same({ 2, 2, 13, 7 }, { report.rows, report.looked_at, report.tokens, report.label_tokens })
        assert.same({}, report.warnings)
        assert.same({ { text = "Who? ", trained = false }, { text = "Me</s>", trained = true } }, report.sample.pieces)
        assert.same({
            "data audit: 2 of 2 rows, 13 tokens, 7 of them learnt (53.8 %)",
            "row 1, what is learnt between ⟦ and ⟧:", "  | Who? ⟦Me</s>⟧",
        }, report:lines())
        local colored = report:lines { color = true }
        assert.equal("  | Who? \27[32mMe</s>\27[0m", colored[3])
    end)

    it("leaves no control character of the data, marks every line, and bounds the sample", function()
        local report = run { row_of("a\27[2J\nb\nc\r", 2, { 1 }) }
        local lines = report:lines()
        assert.equal("  | a\\x1b⟦[2J", lines[3])
        assert.equal("  | b", lines[4])
        assert.equal("  | c\\x0d</s>⟧", lines[5])
        lines = report:lines { color = true }
        assert.equal("  | \27[32mb\27[0m", lines[4])
        local long = run { row_of(("x"):rep(3000), 2, { 1 }) }
        lines = long:lines()
        assert.equal("  | … and 2489 tokens more", lines[#lines])
        assert.is_true(#table.concat(lines) < 1000)
    end)

    it("shows a token that comes again and again once, where it is not learnt", function()
        local report = run { row_of("a" .. ("#"):rep(256) .. "?" .. ("z"):rep(9), 258, { 1 }) }
        assert.equal("  | a# (x256)?⟦zzzzzzzzz</s>⟧", report:lines()[3])
    end)

    it("looks at a bounded number of rows, spread over the dataset", function()
        local rows = {}
        for i = 1, 1000 do
            rows[i] = row_of("ab" .. i, 1, { 1 })
        end
        local read = {}
        local dataset = helpers.dataset(rows)
        local get = dataset.get
        function dataset.get(self, i)
            read[#read + 1] = i
            return get(self, i)
        end
        local report = audit.run(dataset, letters(), { rows = 10 })
        assert.same({ 10, 1000 }, { report.looked_at, report.rows })
        assert.same({ 1, 101, 201, 301, 401, 501, 601, 701, 801, 901 }, read)
    end)

    it("warns of two beginnings", function()
        local twice = row_of("\2\2ab", 2, { 1 })
        local report = run { twice, row_of("\2ab", 2, { 1 }) }
        assert.equal(1, report.double_bos)
        assert.matches("1 of 2 rows begin with two beginning%-of%-sequence tokens", report.warnings[1])
        assert.equal(0, run({ twice }, nil, letters { bos_token_id = 1 }).double_bos)
    end)

    it("warns of answers without an end", function()
        local report = run { row_of("abc", 1), row_of("abc", 1, { 3 }), row_of("abc", 1, { 3, 10 }),
                             row_of("a", 1, { 1 }) }
        assert.equal(1, report.missing_end)
        assert.matches("1 of 4 rows learn no token that ends the answer.*add_eos: true", report.warnings[1])
        assert.equal(0, run({ row_of("abc", 1) }, { check_end = false }).missing_end)
        -- an end that is only in the prompt, or long before the last token, does not count
        assert.equal(2, run { row_of("a\1bc", 2), row_of("a\1bcdef", 1) }.missing_end)
    end)

    it("warns of labels that are not shifted, of rows without labels and of few labels", function()
        local report = run { { input_ids = { 50, 51, 52 }, labels = { 50, 51, 52 } } }
        assert.matches("1 of 1 rows have labels that equal their own input ids", report.warnings[#report.warnings])
        report = run { row_of("abc", 1, { 1 }), row_of("abc", 9) }
        assert.equal(1, report.without_label)
        assert.matches("1 of 2 rows have nothing to learn", report.warnings[1])
        report = run { row_of(("x"):rep(400), 400, { 1 }) }
        assert.matches("only 0.25 %% of the tokens are learnt", report.warnings[1])
        assert.same({}, run { row_of("aaaa", 1, { 1 }) }.warnings)
    end)

    it("says what the dataset has cut off and left out", function()
        local name = helpers.file '{"q":"a","a":"b c d e f"}\n{"q":"a","a":"b"}\n{"q":"a","a":" "}\n'
        local tokenizer = helpers.tokenizer()
        local dataset = column_mapped.ColumnMappedTextInstructionDataset {
            path_or_dataset_id = name, column_mapping = { question = "q", answer = "a" }, tokenizer = tokenizer,
            answer_boundary = "prefix", add_eos = true, seq_length = 4, truncation = true,
        }
        os.remove(name)
        local report = audit.run(dataset, tokenizer)
        assert.same({ 1, 1, 1 }, { report.truncated, report.dropped, report.missing_end })
        local text = table.concat(report:lines(), "\n")
        assert.matches("warning: 1 of 2 rows are cut off %(50.0 %%%)", text)
        assert.matches("warning: 1 rows are left out: .*row 3 %(empty answer%)", text)
        assert.matches("what is learnt between", text) -- and ids where there is no decode
    end)

    it("takes padding, packs, streams and classes", function()
        local padded = row_of("abc", 1, { 1 })
        padded.input_ids[4], padded.labels[4], padded.attention_mask = 0, -100, { 1, 1, 1, 0 }
        local report = run { padded }
        assert.same({ 3, 3 }, { report.tokens, report.label_tokens })
        assert.equal("bc</s>", report.sample.pieces[2].text)
        local packed = row_of("abc", 1)
        packed.seq_lens = { 1, 1 }
        assert.equal(0, run({ packed }).missing_end)

        local stream = { is_iterable = true }
        function stream.iter(_, opts)
            assert.is_true(opts.once)
            local i = 0
            return { next = function()
                i = i + 1
                return i <= 5 and row_of("abc", 1, { 1 }) or nil
            end }
        end
        report = audit.run(stream, letters(), { rows = 3 })
        assert.same({ nil, 3 }, { report.rows, report.looked_at })
        assert.matches("3 rows of a stream", report:lines()[1])
        assert.equal(5, audit.run(stream, letters()).looked_at)

        report = run { { input_ids = { 65, 66 }, labels = { 1 } }, { input_ids = { 67, 68, 69 }, labels = { 0 } },
                       { input_ids = { 67, 68, 69 }, labels = { 1 } } }
        assert.same({ [0] = 1, 2 }, report.classes)
        assert.same({ "data audit: 3 of 3 rows, 8 tokens; class 0: 1, class 1: 2", "row 1, class 1:", "  | AB" },
            report:lines())
    end)

    it("sees no fault in HellaSwag's own way of labels", function()
        local name = helpers.file '{"ctx":"a b","endings":["c d","x","y","z"],"label":"0"}\n'
        local tokenizer = helpers.tokenizer()
        local dataset = hellaswag.HellaSwag { path_or_dataset = name, tokenizer = tokenizer }
        os.remove(name)
        local report = audit.run(dataset, tokenizer, { check_end = false })
        assert.same({}, report.warnings)
    end)

    it("refuses when nothing is learnt", function()
        helpers.fails("data", "nothing would be trained: none of the 2 rows", run, { row_of("ab", 9), row_of("ab", 9) })
        helpers.fails("data", "no rows", run, {})
    end)
end)
