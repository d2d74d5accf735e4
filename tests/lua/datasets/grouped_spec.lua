-- am.datasets.grouped, and the data loader's group_by_length: transformers' order; every row once; resuming.
local ffi = require("ffi")
local dataloader = require("am.datasets.dataloader")
local grouped = require("am.datasets.grouped")
local json = require("am.utils.json")
local path = require("am.utils.path")
local helpers = require("tests.lua.datasets.helpers")

describe("am.datasets.grouped", function()
    it("arranges as transformers does", function()
        local goldens = json.decode(assert(path.read_file("tests/lua/datasets/grouping_goldens.json")))
        assert.equal(6, #goldens)
        for _, golden in ipairs(goldens) do
            local n = #golden.lengths
            local order, lengths = ffi.new("int32_t[?]", n), ffi.new("int32_t[?]", n, golden.lengths)
            for i = 1, n do
                order[i - 1] = golden.permutation[i] + 1
            end
            grouped.arrange(order, n, lengths, golden.batch_size)
            for i = 1, n do
                assert.equal(golden.order[i] + 1, order[i - 1], "row " .. i .. " of " .. n)
            end
        end
    end)

    -- Row i has i % 37 + 1 tokens.
    local function loader(opts)
        local reads = 0
        opts.dataset = {
            len = function() return 500 end,
            get = function(_, i)
                local row = { number = i, input_ids = {}, labels = {} }
                for k = 1, i % 37 + 1 do
                    row.input_ids[k], row.labels[k] = i, i
                end
                reads = reads + 1
                return row
            end,
            reads = function() return reads end,
        }
        opts.collate_fn = function(rows)
            local batch = { tokens = 0, longest = 0, size = #rows }
            for k, row in ipairs(rows) do
                batch[k] = row.number
                batch.tokens, batch.longest = batch.tokens + #row.input_ids, math.max(batch.longest, #row.input_ids)
            end
            return batch
        end
        return dataloader.StatefulDataLoader(opts)
    end

    -- The rows of an epoch in order, and the share of padding in its batches.
    local function epoch(l)
        local rows, tokens, places = {}, 0, 0
        for batch in function() return l:next() end do
            for _, number in ipairs(batch) do
                rows[#rows + 1] = number
            end
            tokens, places = tokens + batch.tokens, places + batch.longest * batch.size
        end
        return rows, 1 - tokens / places
    end

    it("gives every row once, anew each epoch, with little padding", function()
        local plain = loader { batch_size = 4, shuffle = true, seed = 1 }
        local l = loader { batch_size = 4, step_rows = 8, shuffle = true, seed = 1, group_by_length = true }
        local _, padding = epoch(plain)
        local first, less = epoch(l)
        assert.is_true(padding > 0.3 and less < 0.06)
        assert.equal(37, first[1] % 37 + 1) -- the longest is in the first batch
        l:set_epoch(1)
        local second = epoch(l)
        assert.not_same(first, second)
        for _, rows in ipairs { first, second } do
            table.sort(rows)
            for i = 1, 500 do
                assert.equal(i, rows[i])
            end
        end
    end)

    it("asks a data set that knows them for lengths", function()
        local l = loader { batch_size = 4, shuffle = true, group_by_length = true }
        l.dataset.length = function(_, i) return i % 37 + 1 end
        l:next()
        assert.equal(4, l.dataset.reads())
    end)

    it("goes on from any position as if it had not stopped, also when the configuration says otherwise now", function()
        local opts = { batch_size = 4, step_rows = 8, shuffle = true, seed = 3, group_by_length = true }
        local whole = epoch(loader(opts))
        for _, k in ipairs { 0, 1, 57, 124, 125 } do
            local l = loader(opts)
            for _ = 1, k do
                l:next()
            end
            local state = json.decode(json.encode(l:state_dict()))
            for _, now in ipairs { opts, { batch_size = 4, shuffle = true, seed = 9 } } do
                local resumed = loader(now)
                resumed:load_state_dict(state)
                assert.same({ unpack(whole, 4 * k + 1) }, (epoch(resumed)))
            end
        end
        local plain = loader { batch_size = 4, shuffle = true, seed = 3 }
        local grouping = loader(opts)
        grouping:load_state_dict(plain:state_dict())
        assert.same(epoch(plain), (epoch(grouping)))
    end)

    it("changes nothing where all rows are equally long", function()
        local function equal(l)
            l.dataset.length = function() return 8 end
            return (epoch(l))
        end
        assert.same(equal(loader { batch_size = 4, shuffle = true, seed = 2 }),
            equal(loader { batch_size = 4, shuffle = true, seed = 2, group_by_length = true }))
    end)

    it("needs shuffle, and a sound state", function()
        helpers.fails("usage", "group_by_length needs shuffle", loader, { group_by_length = true })
        local l = loader { shuffle = true }
        for _, bad in ipairs { 0, -1, 1.5, "8" } do
            local state = l:state_dict()
            state.group_rows = bad
            helpers.fails("format", "group_rows", l.load_state_dict, l, state)
        end
    end)
end)
