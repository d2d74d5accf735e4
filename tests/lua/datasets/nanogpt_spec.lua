-- am.datasets.nanogpt_dataset: NeMo Automodel's rows, resuming, hostile shards.
local ffi = require("ffi")
local json = require("am.utils.json")
local nanogpt = require("am.datasets.nanogpt_dataset")
local dataloader = require("am.datasets.dataloader")
local path = require("am.utils.path")
local helpers = require("tests.lua.datasets.helpers")

local function int32s(...)
    local values = { ... }
    return ffi.string(ffi.new("int32_t[?]", #values, values), 4 * #values)
end

-- The bytes of a shard: its header's first numbers, then tokens.
local function shard(head, tokens)
    return int32s(unpack(head)) .. ("\0"):rep(1024 - 4 * #head) .. tokens
end

local function write(name, bytes)
    local file = assert(io.open(name, "wb"))
    file:write(bytes)
    file:close()
end

describe("am.datasets.nanogpt_dataset", function()
    local goldens, folder

    setup(function()
        goldens = json.decode(assert(path.read_file("tests/lua/datasets/nanogpt_goldens.json")))
        folder = os.tmpname()
        os.remove(folder)
        path.mkdir_p(folder)
        for _, spec in ipairs(goldens.shards) do
            local tokens = spec.hex:gsub("..", function(h) return string.char(tonumber(h, 16)) end)
            write(path.join(folder, spec.name), shard({ unpack(spec.head) }, tokens))
        end
    end)

    teardown(function()
        path.remove_tree(folder)
    end)

    local function pattern(files)
        if type(files) == "string" then
            return path.join(folder, files)
        end
        local names = {}
        for i, name in ipairs(files) do
            names[i] = path.join(folder, name)
        end
        return names
    end

    local function new(golden)
        local opts = { file_pattern = pattern(golden.files), dp_rank = golden.rank, dp_world_size = golden.world }
        for key, value in pairs(golden.options) do
            opts[key] = value
        end
        return nanogpt.NanogptDataset(opts)
    end

    it("gives NeMo Automodel's rows", function()
        assert.equal(8, #goldens.cases)
        for c, golden in ipairs(goldens.cases) do
            local iterator = new(golden):iter()
            for r, expected in ipairs(golden.rows) do
                local row, n = iterator:next(), #expected
                assert.same({ unpack(expected, 1, n - 1) }, row.input_ids, string.format("case %d row %d", c, r))
                assert.same({ unpack(expected, 2) }, row.labels, string.format("case %d row %d", c, r))
            end
        end
    end)

    it("goes on from any row", function()
        for _, golden in ipairs(goldens.cases) do
            local dataset, states = new(golden), {}
            local iterator = dataset:iter()
            for r = 1, #golden.rows do
                states[r] = json.encode(iterator:state_dict())
                iterator:next()
            end
            for r, state in ipairs(states) do
                local again = dataset:iter()
                again:load_state_dict(json.decode(state))
                for k = r, #golden.rows do
                    local expected = golden.rows[k]
                    assert.same({ unpack(expected, 1, #expected - 1) }, again:next().input_ids)
                end
            end
        end
    end)

    it("reads whole files where there are as many as processes, each row once", function()
        local seen = 0
        for rank = 0, 3 do
            local iterator = nanogpt.NanogptDataset {
                file_pattern = path.join(folder, "*.bin"), seq_len = 4, dp_rank = rank, dp_world_size = 4,
            }:iter { once = true }
            for _ in function() return iterator:next() end do
                seen = seen + 1
            end
        end
        assert.equal(8 + 6 + 4 + 1, seen)
    end)

    it("is a stream for the loader, and ends after one pass in validation", function()
        local loader = dataloader.StatefulDataLoader {
            dataset = new(goldens.cases[1]), batch_size = 3, seed = 1,
        }
        assert.is_nil(loader:len())
        assert.is_nil(loader:remaining())
        local batch = loader:next()
        assert.same({ 3, 8, 24 }, { batch.B, batch.T, batch.num_label_tokens })
        assert.matches("a%.bin token 9$", batch.names[2])
        local count = 0
        for b in loader:batches() do
            count = count + b.B
        end
        assert.equal(4 + 3 + 2, count)
    end)

    it("refuses shards that are none, by name", function()
        local name = path.join(folder, "bad")
        local magic = nanogpt.MAGIC
        for _, case in ipairs {
            { "", "bad: 0 bytes, less than a header" },
            { shard({ 1, 1, 2, 2 }, "abcd"), "bad: begins with the number 1, not" },
            { shard({ magic, 2, 2, 2 }, "abcd"), "bad: version 2" },
            { shard({ magic, 1, 2, 3 }, "abcdef"), "bad: tokens of 3 bytes" },
            { shard({ magic, 1, 2, -2 }, "abcdef"), "bad: tokens of %-2 bytes" },
            { shard({ magic, 1, -1, 2 }, "abcd"), "bad: %-1 tokens" },
            { shard({ magic, 1, 2147483647, 4 }, "abcd"), "bad: 2147483647 tokens of 4 bytes do not fit" },
            { shard({ magic, 1, 3, 2 }, "abcde"), "bad: 3 tokens of 2 bytes do not fit" },
        } do
            write(name, case[1])
            helpers.fails("data", case[2], nanogpt.NanogptDataset, { file_pattern = name, seq_len = 1 })
        end
        write(name, shard({ magic, 1, 3, 2 }, "\1\0\2\0\3\0"))
        local function first(opts)
            opts.file_pattern = { name }
            return nanogpt.NanogptDataset(opts):iter():next()
        end
        assert.same({ 2, 3 }, first({ seq_len = 2 }).labels)
        helpers.fails("data", "no shard has a row of 3 tokens and one more", first, { seq_len = 3 })
        helpers.fails("data", "behind a bos_token", first, { seq_len = 1, align_to_bos = true, bos_token = 9 })
        helpers.fails("data", "bad: token 2 is 3, but ids end at 2", first, { seq_len = 2, vocab_size = 3 })
        write(name, shard({ magic, 1, 2, 4 }, "\1\0\0\0\255\255\255\255"))
        helpers.fails("data", "bad: token 1 is 4294967295", first, { seq_len = 1 })
        helpers.fails("usage", "needs bos_token", first, { seq_len = 1, align_to_bos = true })
        helpers.fails("data", "no file is called", nanogpt.NanogptDataset, {
            file_pattern = path.join(folder, "*.none"), seq_len = 1,
        })
        helpers.fails("data", "is no file", nanogpt.NanogptDataset, { file_pattern = { folder }, seq_len = 1 })
    end)

    it("notices that shards are others than when it was saved", function()
        local name = path.join(folder, "bad")
        write(name, shard({ nanogpt.MAGIC, 1, 4, 2 }, "\1\0\2\0\3\0\4\0"))
        local dataset = nanogpt.NanogptDataset { file_pattern = name, seq_len = 1 }
        local iterator = dataset:iter()
        iterator:next()
        local state = iterator:state_dict()
        write(name, shard({ nanogpt.MAGIC, 1, 3, 2 }, "\1\0\2\0\3\0"))
        local function load(changes)
            local other = {}
            for key, value in pairs(state) do
                other[key] = value
            end
            for key, value in pairs(changes) do
                other[key] = value
            end
            dataset:iter():load_state_dict(other)
        end
        helpers.fails("state", "has 3 tokens, but had others", load, {})
        helpers.fails("state", "at shard 2, but file_pattern has 1", load, { file = 2 })
        for _, changes in ipairs { { pass = -1 }, { file = 0 }, { position = 1.5 }, { pass = 1e9 } } do
            helpers.fails("format", "must be whole numbers", load, changes)
        end
        write(name, shard({ nanogpt.MAGIC, 1, 4, 2 }, "\1\0"))
        helpers.fails("data", "do not fit", load, {})
    end)
end)
