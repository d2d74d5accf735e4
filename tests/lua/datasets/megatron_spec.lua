-- am.datasets.megatron_dataset and what it is made of: NeMo Automodel's rows in its order, blends, splits,
-- cached indices, hostile files.
local ffi = require("ffi")
local blended_dataset = require("am.datasets.blended_dataset")
local config = require("am.config")
local dataloader = require("am.datasets.dataloader")
local gpt_dataset = require("am.datasets.gpt_dataset")
local indexed_dataset = require("am.datasets.indexed_dataset")
local json = require("am.utils.json")
local log = require("am.utils.log")
local megatron = require("am.datasets.megatron_dataset")
local path = require("am.utils.path")
local helpers = require("tests.lua.datasets.helpers")

local function unhex(text)
    return (text:gsub("..", function(h) return string.char(tonumber(h, 16)) end))
end

local function write(name, bytes)
    local file = assert(io.open(name, "wb"))
    file:write(bytes)
    file:close()
end

local function read(name)
    local file = assert(io.open(name, "rb"))
    local text = file:read("*a")
    file:close()
    return text
end

-- The first token of a row, and the sum of all of them, each times its place.
local function summed(row)
    local sum, n = 0, #row.input_ids
    for t = 1, n do
        sum = sum + t * row.input_ids[t]
    end
    return { row.input_ids[1], sum + (n + 1) * row.labels[n] }
end

describe("am.datasets.megatron_dataset", function()
    local goldens, folder

    setup(function()
        log.setup { stream = { write = function() end } }
        goldens = json.decode(assert(path.read_file("tests/lua/datasets/megatron_goldens.json")))
        folder = os.tmpname()
        os.remove(folder)
        path.mkdir_p(folder)
        for _, file in ipairs(goldens.files) do
            write(path.join(folder, file.name .. ".idx"), unhex(file.idx))
            write(path.join(folder, file.name .. ".bin"), unhex(file.bin))
        end
        local function at(name) return path.join(folder, name) end
        write(at "blend.json", json.encode { 30, at "a", 70, at "b" })
        write(at "splits.json", json.encode { train = { "0.2", at "c", "0.8", at "a" }, valid = { at "b" } })
    end)

    teardown(function()
        log.setup {}
        path.remove_tree(folder)
    end)

    local function absolute(paths)
        if type(paths) == "number" or (type(paths) == "string" and tonumber(paths)) then
            return paths
        elseif type(paths) == "string" then
            return path.join(folder, paths)
        end
        local out = json.is_array(paths) and json.array() or {}
        for key, value in pairs(paths) do
            out[key] = absolute(value)
        end
        return out
    end

    local function options(golden)
        local opts = { paths = absolute(golden.paths), splits_to_build = golden.split_to_build }
        opts.tokenizer = { pad_token_id = golden.pad ~= json.null and golden.pad or nil,
                           eos_token_id = golden.eos ~= json.null and golden.eos or nil }
        for key, value in pairs(golden.options) do
            opts[key] = value
        end
        return opts
    end

    it("gives NeMo Automodel's rows in its order", function()
        assert.equal(24, #goldens.cases)
        for c, golden in ipairs(goldens.cases) do
            local dataset = megatron.MegatronPretraining(options(golden))
            assert.equal(#golden.rows, dataset:len(), "case " .. c)
            for i, expected in ipairs(golden.rows) do
                local row, message = dataset:get(i), string.format("case %d row %d", c, i)
                if type(expected[1]) == "table" then
                    assert.same({ unpack(expected[1]) }, row.input_ids, message)
                    assert.same({ unpack(expected[2]) }, row.labels, message)
                else
                    assert.same({ unpack(expected) }, summed(row), message)
                end
            end
        end
    end)

    it("takes what a configuration makes of its options", function()
        local registry = config.new_registry()
        registry:define_all(megatron.targets)
        local section = config.parse("_target_: nemo_automodel.components.datasets.llm.megatron_dataset."
            .. "MegatronPretraining\npaths: [\"30\", " .. path.join(folder, "a") .. ", \"70\", "
            .. path.join(folder, "b") .. "]\nsplit: \"0.99, 0.01, 0.00\"\nsplits_to_build: \"train\"\n"
            .. "seq_length: 8\nmmap_bin_files: true\n")
        local dataset = config.instantiate(section, { registry = registry }, {
            tokenizer = { eos_token_id = 3 }, global_batch_size = 2, trainer_max_steps = 5, vocab_size = 100000,
        })
        assert.equal(10, dataset:len())
        local loader = dataloader.targets[1].build { dataset = dataset, batch_size = 2 }
        assert.same(dataset:get(2).input_ids, helpers.list(loader:next().input_ids, 8, 8)) -- not shuffled
        assert.is_true(dataloader.targets[1].build({ dataset = dataset, dataloader_type = "cyclic" }).shuffle)
        helpers.fails("usage", "is for Megatron", dataloader.StatefulDataLoader, {
            dataset = helpers.dataset { 3 }, dataloader_type = "single",
        })
    end)

    it("keeps indices in a folder, which NumPy can read, and does without damaged ones", function()
        local golden = goldens.cases[5]
        local opts = options(golden)
        opts.index_mapping_dir = path.join(folder, "indices")
        for round = 1, 3 do
            local dataset = megatron.MegatronPretraining(opts)
            for i, expected in ipairs(golden.rows) do
                assert.same({ unpack(expected) }, summed(dataset:get(i)))
            end
            local names = path.names(opts.index_mapping_dir)
            assert.equal(3, #names)
            if round == 1 then
                local text = read(path.join(opts.index_mapping_dir, names[3]))
                assert.equal("\147NUMPY\1\0", text:sub(1, 8))
                assert.matches("^{'descr': '<i4', 'fortran_order': False, 'shape': %(%d+, 2%), } *\n", text:sub(11))
                assert.equal(0, (10 + text:byte(9) + 256 * text:byte(10)) % 64)
            elseif round == 2 then -- one of another length
                write(path.join(opts.index_mapping_dir, names[1]), "x")
            end
        end
        opts.seed = 5 -- has others
        megatron.MegatronPretraining(opts)
        assert.equal(6, #path.names(opts.index_mapping_dir))
    end)

    it("refuses an index that says what cannot be", function()
        local opts = options(goldens.cases[5])
        opts.index_mapping_dir = path.join(folder, "hostile")
        local dataset = megatron.MegatronPretraining(opts)
        local base = path.join(opts.index_mapping_dir, path.names(opts.index_mapping_dir)[1]):gsub("documents.npy$", "")
        for _, case in ipairs {
            { "order", "order is damaged" }, { "samples", "damaged" }, { "documents", "which are not there" },
        } do
            local name = base .. case[1] .. ".npy"
            local text = read(name)
            local head = 10 + text:byte(9) + 256 * text:byte(10)
            for _, word in ipairs { "\255\255\255\127", "\0\0\0\128", "\255\255\255\255" } do
                write(name, text:sub(1, head) .. word:rep((#text - head) / 4))
                local bad = megatron.MegatronPretraining(opts)
                local ok, e = pcall(bad.get, bad, 1)
                assert.is_false(ok)
                assert.matches("damaged", e.msg .. (case[1] == "documents" and e.msg:find(case[2]) and "damaged" or ""))
            end
            write(name, text)
        end
        assert.equal(dataset:len(), megatron.MegatronPretraining(opts):len())
    end)

    it("keeps documents apart as the original's masks do", function()
        for _, golden in ipairs(goldens.boundaries) do
            local n = #golden.ids
            local prefix = path.join(folder, "own")
            local ids = { unpack(golden.ids) }
            ids[n + 1] = 9
            write(prefix .. ".bin", ffi.string(ffi.new("int32_t[?]", n + 1, ids), 4 * n + 4))
            write(prefix .. ".idx", indexed_dataset.MAGIC .. "\1\0\0\0\0\0\0\0\4\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0"
                .. string.char(n + 1) .. ("\0"):rep(3) .. ("\0"):rep(16) .. "\1" .. ("\0"):rep(7))
            local function row(opts)
                opts.indexed, opts.first, opts.stop, opts.split = indexed_dataset.open(prefix), 0, 1, "train"
                opts.seq_length, opts.seed, opts.eos_token_id, opts.vocab_size = n, 1, 3, 100
                return gpt_dataset.new(opts):get(1)
            end
            local found = row { reset_position_ids = true, reset_attention_mask = true, eod_mask_loss = true }
            assert.same({ unpack(golden.positions) }, found.position_ids)
            local first_seen, learnt = {}, {}
            for _, length in ipairs(found.seq_lens) do
                local start = #first_seen
                for _ = 1, length do
                    first_seen[#first_seen + 1] = start
                end
            end
            for t = 1, n do
                learnt[t] = found.labels[t] == -100 and 0 or 1
            end
            assert.same({ unpack(golden.first_seen) }, first_seen)
            assert.same({ unpack(golden.loss_mask) }, learnt)
            assert.is_nil(row({ reset_position_ids = true }).seq_lens)
            assert.same(n - 1, row({ reset_attention_mask = true }).position_ids[n])
            assert.is_nil(row({}).position_ids)
        end
    end)

    it("divides weights as NumPy does", function()
        for _, golden in ipairs(goldens.normalized) do
            local found = blended_dataset.normalize { unpack(golden.weights) }
            assert.same({ unpack(golden.expected) }, { unpack(found, 1, 3) })
        end
    end)

    it("says what is wrong with its options", function()
        local a, b = path.join(folder, "a"), path.join(folder, "b")
        for _, case in ipairs {
            { "usage", "splits_to_build must be one of", { splits_to_build = { "train", "test" } } },
            { "usage", "splits_to_build must be one of .* not dev", { splits_to_build = "dev" } },
            { "usage", "gives nothing to test", { split = "1,1", splits_to_build = "test" } },
            { "usage", "gives nothing to any", { split = "0,0" } },
            { "usage", "one to three shares", { split = "1,1,1,1" } },
            { "usage", "\"1%.2%.3\" is no share", { split = "1.2.3,4" } },
            { "usage", "\"%-1\" is no share", { split = { 1, -1 } } },
            { "unsupported", "object storage", { object_storage_config = { path_to_idx_cache = "x" } } },
            { "usage", "weights need a number of samples", { paths = { 1, a, 2, b } } },
            { "usage", "entry 3 should be a weight", { paths = { 1, a, "x", b } } },
            { "usage", "entry 3 should be a weight", { paths = { 1, a, -1, b } } },
            { "usage", "entry 2 should be a prefix", { paths = { a, 3, b } } },
            { "usage", "expected a list", { paths = json.array {} } },
            { "usage", "nothing for the split train", { paths = { validation = { a } } } },
            { "usage", "x is no split", { paths = { x = { a } } } },
            { "data", "no %.bin or %.idx file is called", { paths = path.join(folder, "z*") } },
            { "data", "none%.idx", { paths = { path.join(folder, "none") } } },
            { "data", "none%.json", { paths = path.join(folder, "none.json") } },
            { "usage", "num_train_samples is 3, less than the 16", { num_train_samples = 3, trainer_max_steps = 2 } },
            { "usage", "leaves no validation", { splits_to_build = "validation", trainer_max_steps = 10 } },
            { "usage", "needs `paths` by split", { splits_to_build = "validation", trainer_limit_val_batches = 0.5 } },
            { "data", "less than a row of seq_length 4096", { seq_length = 4096 } },
            { "data", "is it of another tokenizer", { vocab_size = 20 } },
        } do
            local opts = { paths = { a }, seq_length = 8, tokenizer = {} }
            for key, value in pairs(case[3]) do
                opts[key] = value
            end
            helpers.fails(case[1], case[2], function()
                local dataset = megatron.MegatronPretraining(opts)
                for i = 1, dataset:len() do
                    dataset:get(i)
                end
            end)
        end
    end)

    it("refuses files that are no index, by name", function()
        local prefix = path.join(folder, "bad")
        local good = unhex(goldens.files[3].idx)
        write(prefix .. ".bin", unhex(goldens.files[3].bin))
        local function changed(at, bytes)
            return good:sub(1, at) .. bytes .. good:sub(at + #bytes + 1)
        end
        local huge = "\255\255\255\255\255\255\255\255"
        for _, case in ipairs {
            { "", "0 bytes, less than a header" },
            { changed(0, "X"), "does not begin with MMIDIDX" },
            { changed(9, "\2"), "its version is not 1" },
            { changed(17, "\6"), "dtype code 6" },
            { changed(17, "\0"), "dtype code 0" },
            { changed(17, "\255"), "dtype code 255" },
            { changed(18, huge), "do not fit into its" },
            { changed(26, huge), "do not fit into its" },
            { changed(26, ("\0"):rep(8)), "names no document" },
            { changed(18, "\8"), "" }, -- what follows is shifted: some check finds it
            { good:sub(1, -2), "do not fit into its" },
            { changed(17, "\4"), "does not lie within .*bad%.bin" }, -- tokens of 4 bytes
            { changed(34, "\255\255\255\255"), "sequence 0 of %-1 tokens" },
            { changed(34 + 36, "\255\255\255\255\255\255\255\127"), "sequence 0 of 4 tokens at byte 92" },
            { changed(34 + 36, huge), "at byte %-1 does not lie" },
            { changed(#good - 8, huge), "documents end at sequence %-1, but there are 9" },
        } do
            write(prefix .. ".idx", case[1])
            helpers.fails("data", "bad%.idx: .*" .. case[2], indexed_dataset.open, prefix)
        end
        write(prefix .. ".idx", good)
        local indexed = indexed_dataset.open(prefix .. ".bin")
        assert.equal(9, indexed.count)
        for _, call in ipairs { { 9, 0, 1 }, { -1, 0, 1 }, { 0, 0, 5 }, { 0, -1, 2 }, { 0, 3, -1 } } do
            helpers.fails("data", "which are not there", indexed.get, indexed, unpack(call))
        end
        write(prefix .. ".bin", "")
        helpers.fails("io", "became shorter", indexed.get, indexed, 0, 0, 2)
        indexed:close()
        os.remove(prefix .. ".bin")
        helpers.fails("data", "bad%.bin", indexed_dataset.open, prefix)
    end)
end)
