-- am.datasets.mock_packed and mock_iterable_dataset.
local iterable = require("am.datasets.mock_iterable_dataset")
local json = require("am.utils.json")
local mock_packed = require("am.datasets.mock_packed")
local path = require("am.utils.path")
local helpers = require("tests.lua.datasets.helpers")

describe("am.datasets.mock_packed", function()
    it("makes NeMo Automodel's blocks, labels shifted within sentences", function()
        local goldens = json.decode(assert(path.read_file("tests/lua/datasets/mock_goldens.json")))
        assert.equal(3, #goldens)
        for _, golden in ipairs(goldens) do
            local ds = mock_packed.build_packed_dataset(golden.options)
            assert.equal(#golden.rows, ds:len())
            for i, expected in ipairs(golden.rows) do
                local row, sum = ds:get(i), 0
                assert.same({ unpack(expected.input_ids) }, row.input_ids)
                assert.same({ unpack(expected.position_ids) }, row.position_ids)
                for k, id in ipairs(row.input_ids) do
                    assert.equal(id == 1 and -100 or row.input_ids[k + 1], row.labels[k])
                end
                for _, length in ipairs(row.seq_lens) do
                    sum = sum + length
                    assert.equal(1, row.input_ids[sum])
                end
                assert.equal(ds:length(), sum)
            end
        end
    end)

    it("has the defaults, and gives up where no sentences fit", function()
        local ds = mock_packed.build_packed_dataset {}
        assert.same({ 10, 128 }, { ds:len(), ds:length() })
        helpers.fails("data", "no sentences of about 20 tokens fill a block of 2", mock_packed.build_packed_dataset, {
            block_size = 2, std_len = 0,
        })
    end)
end)

describe("am.datasets.mock_iterable_dataset", function()
    it("makes the same rows by number and seed", function()
        local opts = { vocab_size = 7, seq_len = 50, num_samples = 3, batch_size = 2 }
        local a, b = iterable.MockIterableDataset(opts), iterable.MockIterableDataset(opts)
        assert.same({ 6, 50 }, { a:len(), a:length() })
        for i = 6, 1, -1 do
            local row = a:get(i)
            assert.same(row, b:get(i))
            assert.equal(-100, row.labels[50])
            for k = 1, 50 do
                assert.is_true(row.input_ids[k] >= 0 and row.input_ids[k] < 7 and row.input_ids[k] % 1 == 0)
                assert.equal(row.input_ids[k + 1] or -100, row.labels[k])
            end
        end
        assert.not_same(a:get(1), a:get(2))
        opts.seed = 1
        assert.not_same(a:get(1), iterable.MockIterableDataset(opts):get(1))
        local defaults = iterable.MockIterableDataset {}
        assert.same({ 1000000, 1024, 1024 }, { defaults:len(), defaults.vocab_size, defaults.seq_len })
    end)
end)
