-- am.datasets.stream_loader: batches of datasets without a length; the end of an epoch, the shuffle buffer,
-- resuming.
local dataloader = require("am.datasets.dataloader")
local json = require("am.utils.json")
local step_scheduler = require("am.training.step_scheduler")
local helpers = require("tests.lua.datasets.helpers")

-- A stream of n numbered rows; or without end.
local function stream(n)
    local dataset = { is_iterable = true, reads = 0 }
    function dataset.iter(_, opts)
        local limit = n or (opts and opts.once and 5) or math.huge
        local iterator, at = {}, 0
        function iterator.next()
            dataset.reads = dataset.reads + 1
            at = at + 1
            return at <= limit and { input_ids = { at, at }, labels = { at, -100 } } or nil
        end
        function iterator.state_dict() return { at = math.min(at, limit) } end
        function iterator.load_state_dict(_, state) at = state.at end
        return iterator
    end
    return dataset
end

local function new(n, opts)
    opts = opts or {}
    opts.dataset = stream(n)
    opts.collate_fn = function(rows)
        local ids = {}
        for i, row in ipairs(rows) do
            assert(#row.input_ids == 2 and row.labels[2] == -100)
            ids[i] = row.input_ids[1]
        end
        return { text = table.concat(ids, ",") }
    end
    return dataloader.StatefulDataLoader(opts)
end

local function read(loader, limit)
    local out = {}
    while #out < (limit or math.huge) do
        local batch = loader:next()
        if not batch then
            break
        end
        out[#out + 1] = batch.text
    end
    return out
end

describe("am.datasets.stream_loader", function()
    it("makes batches until the end, which it knows with the last", function()
        local loader = new(5, { batch_size = 2 })
        assert.is_nil(loader:len())
        assert.equal("1,2", loader:next().text)
        assert.is_nil(loader:remaining())
        assert.same({ "row 3", "row 4" }, loader:next().names)
        assert.equal("5", loader:next().text)
        assert.equal(0, loader:remaining())
        assert.is_nil(loader:next())
        loader:set_epoch(1)
        assert.is_nil(loader:remaining())
        assert.same({ "1,2", "3,4", "5" }, read(loader))
        assert.same({ "1,2", "3,4" }, read(new(5, { batch_size = 2, drop_last = true })))
        assert.same({ "1,2", "3,4" }, read(new(4, { batch_size = 2 })))
        helpers.fails("data", "no row", read, new(0))
    end)

    it("passes over the rows in order for validation, leaving the position alone", function()
        local loader = new(nil, { batch_size = 2, shuffle = true, shuffle_buffer_size = 3 })
        local first = loader:next().text
        for _ = 1, 2 do
            local out = {}
            for batch in loader:batches() do
                out[#out + 1] = batch.text
            end
            assert.same({ "1,2", "3,4", "5" }, out)
        end
        assert.not_equal(first, loader:next().text)
        assert.same({ 1, 1 }, loader:sample_row().input_ids)
    end)

    it("shuffles a buffer at a time, by seed and epoch", function()
        local function order(opts, epoch)
            opts.shuffle, opts.shuffle_buffer_size = true, 8
            local loader = new(20, opts)
            loader:set_epoch(epoch)
            return read(loader)
        end
        local first = order({ seed = 3 }, 0)
        assert.same(first, order({ seed = 3 }, 0))
        assert.not_same(first, order({ seed = 3 }, 1))
        assert.not_same(first, order({ seed = 4 }, 0))
        for block = 0, 2 do
            local numbers, expected = {}, {}
            for k = 8 * block + 1, math.min(8 * block + 8, 20) do
                numbers[#numbers + 1], expected[#expected + 1] = tonumber(first[k]), k
            end
            assert.not_same(expected, numbers)
            table.sort(numbers)
            assert.same(expected, numbers)
        end
    end)

    it("goes on from any batch with the same rows, whatever the seed says now", function()
        for _, opts in ipairs {
            { batch_size = 3 }, { batch_size = 3, shuffle = true, shuffle_buffer_size = 5, seed = 9 },
            { batch_size = 1, shuffle = true, shuffle_buffer_size = 4, seed = 2 },
            { batch_size = 2, shuffle = true, shuffle_buffer_size = 100 },
        } do
            local function loader(seed)
                return new(13, { batch_size = opts.batch_size, shuffle = opts.shuffle, seed = seed,
                                 shuffle_buffer_size = opts.shuffle_buffer_size })
            end
            local whole = loader(opts.seed)
            whole:set_epoch(2)
            local all = read(whole)
            whole:set_epoch(3)
            local next_epoch = read(whole)
            for k = 0, #all do
                local before = loader(opts.seed)
                before:set_epoch(2)
                read(before, k)
                local after = loader(77)
                after:set_epoch(2)
                after:next() -- what was read before loading does not count
                after:load_state_dict(json.decode(json.encode(before:state_dict())))
                after:set_epoch(2)
                assert.equal(k == #all and 0 or nil, after:remaining())
                assert.same({ unpack(all, k + 1) }, read(after))
                after:set_epoch(3)
                assert.same(next_epoch, read(after))
            end
        end
    end)

    it("refuses states of other data", function()
        local loader = new(13, { shuffle = true, shuffle_buffer_size = 4 })
        read(loader, 6)
        local state = json.encode(loader:state_dict())
        local other = new(5)
        helpers.fails("state", "fewer rows", other.load_state_dict, other, json.decode(state))
        local rows = helpers.dataset { 3, 2 }
        local map = dataloader.StatefulDataLoader { dataset = rows }
        helpers.fails("state", "was a stream", map.load_state_dict, map, json.decode(state))
        helpers.fails("state", "read by row numbers", other.load_state_dict, other, map:state_dict())
        for key, value in pairs { epoch = -1, count = "x", seed = 1.5, buffer_size = 0, shuffle = 1, iterator = 3,
                                  done = "no", taken = 5 } do
            local bad = json.decode(state)
            bad[key] = value
            helpers.fails("format", "dataloader state", other.load_state_dict, other, bad)
        end
        local done = json.decode(state)
        done.done = true
        helpers.fails("state", "does not end where it did", loader.load_state_dict, loader, done)
    end)

    it("keeps no more rows than its buffer", function()
        local loader = new(nil, { shuffle = true, shuffle_buffer_size = 6, batch_size = 2 })
        read(loader, 2)
        assert.equal(6, loader.dataset.reads)
    end)

    it("needs a dataset with a length for what looks at all rows", function()
        helpers.fails("usage", "group_by_length needs a dataset that knows its length", new, 5,
            { group_by_length = true, shuffle = true })
        helpers.fails("usage", "dataloader_type", new, 5, { dataloader_type = "single" })
    end)

    it("runs under the step scheduler, which needs max_steps", function()
        local loader = new(7, { batch_size = 2 })
        helpers.fails("usage", "max_steps", step_scheduler.new, { batches_per_epoch = loader:len() })
        local s = step_scheduler.new { batches_per_epoch = loader:len(), grad_acc_steps = 2, num_epochs = 2,
                                       max_steps = 50, ckpt_every_steps = 100 }
        local seen = {}
        for _ in s:epochs() do
            for window in s:windows(loader) do
                local texts = {}
                for i, batch in ipairs(window) do
                    texts[i] = batch.text
                end
                seen[#seen + 1] = table.concat(texts, ";") .. (s:is_ckpt_step() and " saved" or "")
                    .. (s:is_last_step() and " last" or "")
            end
        end
        assert.same({ "1,2;3,4", "5,6;7 saved", "1,2;3,4", "5,6;7 saved last" }, seen)
    end)
end)
