-- am.datasets.mock and the counts of utils.
local mock = require("am.datasets.mock")
local utils = require("am.datasets.utils")
local helpers = require("tests.lua.datasets.helpers")

describe("am.datasets.mock", function()
    it("makes the same sentences by seed, within its limits", function()
        local opts = {
            num_sentences = 300, mean_len = 12, std_len = 5, vocab_size = 30, max_sentence_len = 20, seed = 4,
        }
        local a, b = mock.build_unpacked_dataset(opts), mock.build_unpacked_dataset(opts)
        local total, shortest, longest = 0, 99, 0
        for i = 1, a:len() do
            local row = a:get(i)
            assert.same(row, b:get(i))
            local n = #row.input_ids
            total, shortest, longest = total + n, math.min(shortest, n), math.max(longest, n)
            assert.equal(1, row.labels[n])
            for k = 1, n do
                assert.is_true(row.input_ids[k] >= 2 and row.input_ids[k] < 30)
                assert.equal(row.input_ids[k + 1] or 1, row.labels[k])
            end
        end
        assert.is_true(math.abs(total / 300 - 11.5) < 1.2 and shortest >= 1 and longest == 20)
        opts.seed = 5
        assert.not_same(a:get(1), mock.build_unpacked_dataset(opts):get(1))
    end)

    it("has the defaults and refuses what makes no sense", function()
        local ds = mock.build_unpacked_dataset {}
        assert.same({ 10, 100, 64 }, { ds:len(), ds.vocab_size, ds.max_sentence_len })
        for key, value in pairs {
            num_sentences = 0, vocab_size = 2, max_sentence_len = 0, std_len = -1, seed = 1.5, mean_len = "x",
        } do
            helpers.fails("usage", "dataset%." .. key, mock.build_unpacked_dataset, { [key] = value })
        end
    end)
end)

describe("am.datasets.utils", function()
    it("counts rows, what is learnt, and the longest", function()
        local stats = utils.new_stats()
        assert.is_true(utils.add_counts(stats, 3, 3, 3, "row 1"))
        assert.is_false(utils.add_counts(stats, 2, 0, 2, "row 2"))
        assert.is_true(utils.add_counts(stats, 2, 1, 2, "row 3"))
        assert.same({ rows = 2, tokens = 5, label_tokens = 4, truncated = 0, skipped = 1,
            skipped_names = { "row 2 (no label left)" },
            longest = { length = 3, name = "row 1" } }, stats)
        assert.equal(0.8, utils.label_share(stats))
        assert.equal(0, utils.label_share(utils.new_stats()))
    end)

    it("shortens a long list of skipped rows", function()
        local stats = utils.new_stats()
        for i = 1, 12 do
            utils.skip(stats, "row " .. i, "why")
        end
        assert.matches("12 skipped: row 1 %(why%), .*row 10 %(why%), …$", utils.describe(stats))
    end)
end)
