-- am.datasets.packed: against NeMo Automodel's packs; splitting; limits; counts.
local packed = require("am.datasets.packed")
local json = require("am.utils.json")
local path = require("am.utils.path")
local helpers = require("tests.lua.datasets.helpers")

local function plain(t)
    return { unpack(t) }
end

describe("am.datasets.packed", function()
    it("gives NeMo Automodel's packs", function()
        local goldens = json.decode(assert(path.read_file("tests/lua/datasets/packing_goldens.json"))).packing
        assert.equal(7, #goldens)
        for i, golden in ipairs(goldens) do
            local ds = packed.pack_dataset(helpers.dataset(golden.rows), {
                packed_sequence_size = golden.size, max_packs = golden.options.max_packs,
                padding_id = golden.options.padding_idx,
            })
            assert.equal(#golden.packs, ds:len())
            for k, expected in ipairs(golden.packs) do
                local got = ds:get(k)
                for _, key in ipairs { "input_ids", "labels", "position_ids", "seq_lens" } do
                    assert.same(plain(expected[key]), got[key], string.format("case %d pack %d %s", i, k, key))
                end
            end
        end
    end)

    it("cuts samples when asked, positions counting on", function()
        local ds = packed.pack_dataset(helpers.dataset { 3, 4, 10 }, {
            packed_sequence_size = 5, split_across_pack = true,
        })
        assert.equal(4, ds:len())
        local seen = {}
        for i = 1, 4 do
            local row = ds:get(i)
            seen[i] = { row.input_ids, row.position_ids, row.seq_lens }
        end
        assert.same({
            { { 101, 102, 103, 201, 202 }, { 0, 1, 2, 0, 1 }, { 3, 2 } },
            { { 203, 204, 301, 302, 303 }, { 2, 3, 0, 1, 2 }, { 2, 3 } },
            { { 304, 305, 306, 307, 308 }, { 3, 4, 0, 1, 2 }, { 5 } }, -- positions modulo the pack's length
            { { 309, 310, 0, 0, 0 }, { 3, 4, 4, 4, 4 }, { 2 } },
        }, seen)
        assert.same({ 3, 17 }, { ds:stats().samples, ds:stats().label_tokens })
    end)

    it("drops, counts and names long samples, or refuses them", function()
        local ds = packed.pack_dataset(helpers.dataset { 3, 9, 2 }, { packed_sequence_size = 5, padding_id = 7 })
        local stats = ds:stats()
        assert.same({ "row 2 (9 tokens, more than a pack)" }, stats.skipped_names)
        assert.same({ 1, 1, 2, 5 }, { ds:len(), stats.skipped, stats.samples, stats.label_tokens })
        ds = packed.pack_dataset(helpers.dataset { 3, 1, 9, 2 }, { packed_sequence_size = 5, padding_id = 7 })
        assert.same({ 6, 3, "pack 1" }, { ds:stats().tokens, ds:stats().longest.length, ds:stats().longest.name })
        helpers.fails("data", "row 2: 9 tokens, more than a pack of 5", packed.pack_dataset,
            helpers.dataset { 3, 9, 2 }, { packed_sequence_size = 5, drop_long_samples = false })
        helpers.fails("data", "all 2 samples", packed.pack_dataset, helpers.dataset { 9, 9 }, {
            packed_sequence_size = 5,
        })
        for _, size in ipairs { 0, -1, 1.5, 2 ^ 25, "8" } do
            helpers.fails("usage", "packed_sequence_size", packed.pack_dataset, helpers.dataset { 1 }, {
                packed_sequence_size = size,
            })
        end
    end)

    it("leaves out padding at a row's end and stops at max_packs", function()
        local rows = { { input_ids = { 5, 6, 0 }, labels = { 6, 7, -100 }, attention_mask = { 1, 1, 0 } }, 2, 2, 2 }
        local ds = packed.pack_dataset(helpers.dataset(rows), { packed_sequence_size = 4, max_packs = 1 })
        assert.equal(1, ds:len())
        assert.same({ 5, 6, 201, 202 }, ds:get(1).input_ids)
        assert.same({ 2, 2 }, ds:get(1).seq_lens)
        assert.equal(2, ds:stats().samples)
    end)

    it("grows beyond its first room", function()
        local lengths = {}
        for i = 1, 100 do
            lengths[i] = 3
        end
        local ds = packed.pack_dataset(helpers.dataset(lengths), { packed_sequence_size = 3 })
        assert.equal(100, ds:len())
        for _, i in ipairs { 1, 16, 17, 64, 65, 100 } do
            assert.same({ 100 * i + 1, 100 * i + 2, 100 * i + 3 }, ds:get(i).input_ids)
        end
    end)
end)
