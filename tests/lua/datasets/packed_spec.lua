-- am.datasets.packed: against NeMo Automodel's packs; splitting; limits; counts.
require("am")
local collate = require("am.datasets.collate").default_collater
local config = require("am.config")
local masks = require("am.datasets.block_causal_mask")
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

    local function given(key)
        return json.decode(assert(path.read_file("tests/lua/datasets/packing_goldens.json")))[key]
    end

    it("folds a loss_mask into the labels, as collating does", function()
        local row = { input_ids = { 5, 6, 7 }, labels = { 6, 7, 8 }, loss_mask = { 0, 1, 0 } }
        local pack = packed.pack_dataset(helpers.dataset { row }, { packed_sequence_size = 3 }):get(1)
        assert.same({ -100, 7, -100 }, pack.labels)
        local batch = collate({ { input_ids = { 5, 6, 7 }, labels = { 6, 7, 8 }, loss_mask = { 0, 1, 0 } } }, {})
        assert.same({ -100, 7, -100 }, { batch.labels[0], batch.labels[1], batch.labels[2] })
        assert.equal(1, batch.num_label_tokens)
    end)

    it("packs no packs, and counts those without a label of their own", function()
        local packs = { { input_ids = { 5, 6, 7 }, labels = { 6, 7, 8 }, seq_lens = { 1, 2 } } }
        local ok, e = pcall(packed.pack_dataset, helpers.dataset(packs), { packed_sequence_size = 8 })
        assert.is_false(ok)
        assert.matches("is a pack of several samples already; set prepacked: true", tostring(e))
        local halves = packed.pack_dataset(helpers.dataset {
            { input_ids = { 1, 2, 3, 4 }, labels = { -100, -100, 5, 6 } },
        }, { packed_sequence_size = 2, split_across_pack = true })
        local stats = halves:stats()
        assert.same({ 2, 2, 4, 2, 0 }, { halves:len(), stats.rows, stats.tokens, stats.label_tokens, stats.skipped })
    end)

    it("pads samples for context parallelism as NeMo Automodel does", function()
        for i, golden in ipairs(given "context_parallel") do
            local ds = packed.pack_dataset(helpers.dataset(golden.rows), {
                packed_sequence_size = golden.size, cp_size = golden.options.cp_size,
                padding_idx = golden.options.padding_idx,
            })
            assert.equal(#golden.packs, ds:len())
            for k, expected in ipairs(golden.packs) do
                local got = ds:get(k)
                for _, key in ipairs { "input_ids", "labels", "position_ids", "seq_lens", "seq_lens_padded" } do
                    assert.same(plain(expected[key]), got[key], string.format("case %d pack %d %s", i, k, key))
                end
            end
        end
        local bounds = collate({ { input_ids = { 1, 2, 0, 0, 3, 0 }, labels = { 2, 3, -100, -100, 4, -100 },
                                   seq_lens = { 2, 1 }, seq_lens_padded = { 4, 2 } } }).bounds
        assert.same({ 0, 2, 0, 2, 0, 0, 0, 0, 4, 5, 0, 0 }, helpers.list(bounds, 12))
    end)

    it("fills packs as NeMo Automodel's neat strategy does", function()
        for i, golden in ipairs(given "neat") do
            local ds = packed.pack_dataset(helpers.dataset(golden.rows), {
                packing_strategy = "neat", packed_sequence_size = golden.size, max_packs = golden.options.max_packs,
                padding_id = golden.options.padding_idx,
            })
            assert.equal(#golden.packs, ds:len())
            for k, expected in ipairs(golden.packs) do
                local got = ds:get(k)
                for _, key in ipairs { "input_ids", "labels", "position_ids" } do
                    assert.same(plain(expected[key]), got[key], string.format("case %d pack %d %s", i, k, key))
                end
                local own, theirs = collate { got }, collate { expected } -- whose mask numbers the samples
                assert.same(helpers.list(theirs.bounds, 2 * own.T), helpers.list(own.bounds, 2 * own.T))
            end
        end
        local ds = packed.pack_dataset(helpers.dataset { 3, 9, 2 }, {
            packing_strategy = "neat", packed_sequence_size = 5,
        })
        assert.same({ 1, 1, 2, 5 }, { ds:len(), ds:stats().skipped, ds:stats().samples, ds:stats().label_tokens })
        helpers.fails("data", "row 2: 9 tokens", packed.pack_dataset, helpers.dataset { 3, 9, 2 }, {
            packing_strategy = "neat", packed_sequence_size = 5, drop_long_samples = false,
        })
    end)

    it("makes NeMo Automodel's mask of packs", function()
        for _, golden in ipairs(given "masks") do
            local mask = masks.create_block_causal_mask(golden.seq_lens)
            assert.equal("bool", mask:dtype())
            assert.same(plain(golden.shape), mask:shape())
            local values, n = mask:reshape(mask:numel()):to("float64"):to_buffer()
            local text = {}
            for i = 1, n do
                text[i] = string.format("%d", values[i - 1])
            end
            assert.equal(golden.mask, table.concat(text))
        end
        for _, bad in ipairs { {}, { { 2 }, { 3 } }, { { 2 }, { 1 } }, { { -1 } }, { { 2, 0.5, -0.5 } } } do
            helpers.fails("argument", "create_block_causal_mask", masks.create_block_causal_mask, bad)
        end
    end)

    it("leaves packs that are packed already, and says what does not go together", function()
        local rows = helpers.dataset { 3 }
        assert.equal(rows, packed.pack_dataset(rows, { packed_sequence_size = 5, prepacked = true }))
        for pattern, opts in pairs {
            ["thd or neat"] = { packing_strategy = "tight" },
            ["split_across_pack goes neither"] = { packing_strategy = "neat", split_across_pack = true },
            ["split_across_pack goes"] = { cp_size = 2, split_across_pack = true },
            ["multiple of twice cp_size"] = { cp_size = 3 },
        } do
            opts.packed_sequence_size = 8
            helpers.fails("usage", pattern, packed.pack_dataset, rows, opts)
        end
        helpers.fails("usage", "this one is a stream", packed.pack_dataset, { is_iterable = true },
            { packed_sequence_size = 8 })
    end)

    it("is a dataset of another's packs in a configuration", function()
        local registry = config.new_registry()
        registry:define_all(packed.targets)
        registry:define { name = "rows", build = function() return helpers.dataset { 3, 2, 2 } end }
        local function built(name, size)
            return config.instantiate(config.from_table {
                _target_ = "nemo_automodel.components.datasets.llm." .. name, split = "train",
                packed_sequence_size = size, dataset = { _target_ = "rows" },
            }, { registry = registry })
        end
        assert.same({ 3 }, built("packed_sequence.PackedSequence", 4):pack():get(1).seq_lens)
        assert.same({ 2, 2 }, built("packed_sequence.PackedSequence", 4):get(2).seq_lens)
        assert.same({ 3 }, built("neat_packing.neat_pack_dataset", 4):get(1).seq_lens)
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
