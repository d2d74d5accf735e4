-- am.datasets.collate: padding, bounds, counts; against NeMo Automodel's default_collater.
local collate = require("am.datasets.collate").default_collater
local classes = require("am.datasets.collate").sequence_classification_collater
local json = require("am.utils.json")
local path = require("am.utils.path")
local helpers = require("tests.lua.datasets.helpers")

local list = helpers.list

describe("am.datasets.collate", function()
    local function rows(lengths)
        local ds, out = helpers.dataset(lengths), {}
        for i = 1, #lengths do
            out[i] = ds:get(i)
        end
        return out
    end

    it("pads as NeMo Automodel does", function()
        local goldens = json.decode(assert(path.read_file("tests/lua/datasets/packing_goldens.json"))).collating
        assert.equal(4, #goldens)
        for _, golden in ipairs(goldens) do
            local batch = collate(golden.rows, golden.options)
            assert.same({ #golden.batch.labels, #golden.batch.labels[1] }, { batch.B, batch.T })
            for _, key in ipairs { "input_ids", "labels" } do
                for b, expected in ipairs(golden.batch[key]) do
                    assert.same({ unpack(expected) }, list(batch[key], batch.T, (b - 1) * batch.T))
                end
            end
        end
    end)

    it("gives each token its row's range and padding none", function()
        local batch = collate(rows { 3, 1 }, { pad_token_id = 9 })
        assert.same({ 2, 3, 4, 4 }, { batch.B, batch.T, batch.num_label_tokens, batch.num_tokens })
        assert.same({ 101, 102, 103, 201, 9, 9 }, list(batch.input_ids, 6))
        assert.same({ 102, 103, 104, 202, -100, -100 }, list(batch.labels, 6))
        assert.same({ 0, 1, 2, 0, 0, 0 }, list(batch.position_ids, 6))
        assert.same({ 0, 3, 0, 3, 0, 3, 0, 1, 0, 0, 0, 0 }, list(batch.bounds, 12))
        assert.equal(2, batch.samples)
    end)

    it("keeps the samples of a pack apart", function()
        local batch = collate { {
            input_ids = { 1, 2, 3, 4, 5, 0 }, labels = { 2, -100, 4, -100, -100, -100 },
            position_ids = { 0, 1, 0, 1, 2, 3 }, seq_lens = { 2, 3 },
        } }
        assert.same({ 0, 2, 0, 2, 2, 5, 2, 5, 2, 5, 0, 0 }, list(batch.bounds, 12))
        assert.equal(2, batch.samples)
        assert.same({ 0, 1, 0, 1, 2, 3 }, list(batch.position_ids, 6))
        assert.same({ 2, 3 }, { batch.num_label_tokens, batch.num_tokens })
    end)

    it("reads attention_mask with padding at either end", function()
        local batch = collate { {
            input_ids = { 0, 0, 5, 6, 0 }, labels = { -100, -100, 6, 7, -100 }, attention_mask = { 0, 0, 1, 1, 0 },
        }, { input_ids = { 4 }, labels = { -100 }, attention_mask = { 0 } } }
        assert.same({ 0, 0, 0, 0, 2, 4, 2, 4, 0, 0 }, list(batch.bounds, 10))
        assert.same({ 0, 0, 0, 1, 0 }, list(batch.position_ids, 5))
        assert.same({ 0, 0 }, list(batch.bounds, 2, 10))
        helpers.fails("data", "attention_mask", collate, { { input_ids = { 1, 2, 3 }, labels = { 1, 2, 3 },
            attention_mask = { 1, 0, 1 } } })
    end)

    it("reads the numbers of samples in attention_mask", function()
        local batch = collate { {
            input_ids = { 5, 6, 7, 8, 0 }, labels = { 6, 7, 8, 9, -100 }, attention_mask = { 1, 1, 2, 3, 0 },
        } }
        assert.same({ 0, 2, 0, 2, 2, 3, 3, 4, 0, 0 }, list(batch.bounds, 10))
        assert.same({ 0, 1, 0, 0, 0 }, list(batch.position_ids, 5))
        for _, mask in ipairs { { 1, 3 }, { 2, 2 }, { 2, 1 }, { 1, -1 } } do
            helpers.fails("data", "attention_mask", collate, { { input_ids = { 1, 2 }, labels = { 1, 2 },
                attention_mask = mask } })
        end
    end)

    it("pads with the ids that the data names", function()
        local given = rows { 3, 1 }
        given[1].___PAD_TOKEN_IDS___ = { input_ids = 7, labels = -100 }
        assert.same({ 201, 7, 7 }, list(collate(given, { pad_token_id = 9 }).input_ids, 3, 3))
    end)

    it("makes batches of rows with a class each", function()
        local function batch_of(labels, opts)
            return classes({
                { input_ids = { 4, 5, 6 }, labels = labels }, { input_ids = { 7 }, labels = { 2 } },
                { input_ids = { 0, 8, 9 }, labels = 1, attention_mask = { 0, 1, 1 } },
            }, opts)
        end
        local batch = batch_of(0, { pad_token_id = 3, pad_seq_len_divisible = 4 })
        assert.same({ 3, 4, 3, 7 }, { batch.B, batch.T, batch.num_label_tokens, batch.num_tokens })
        assert.same({ 0, 2, 1 }, list(batch.labels, 3))
        assert.same({ 2, 4, 10 }, list(batch.last_tokens, 3))
        assert.same({ 4, 5, 6, 3, 7, 3, 3, 3 }, list(batch.input_ids, 8))
        assert.same({ 0, 1, 0, 0 }, list(batch.bounds, 4, 8))
        for _, labels in ipairs { -1, 0.5, "1", { 1, 2 }, 3 } do
            helpers.fails("data", "row 1 of the batch: labels must be one class", batch_of, labels, { num_labels = 3 })
        end
    end)

    it("rounds up to a multiple and no further", function()
        for n, T in pairs { [1] = 8, [7] = 8, [8] = 8, [9] = 16 } do
            assert.equal(T, collate(rows { n }, { pad_seq_len_divisible = 8 }).T)
        end
    end)

    it("refuses rows that do not fit together", function()
        for _, row in ipairs {
            { input_ids = {}, labels = {} }, { labels = { 1 } }, { input_ids = { 1 } },
            { input_ids = { 1, 2 }, labels = { 1 } }, { input_ids = { 1 }, labels = { 1 }, position_ids = {} },
            { input_ids = { 1 }, labels = { 1 }, seq_lens = { 2 } },
        } do
            helpers.fails("data", ".", collate, { row })
        end
    end)
end)
