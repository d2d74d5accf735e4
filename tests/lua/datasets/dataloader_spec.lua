-- am.datasets.dataloader and philox: order, epochs, resuming, the tail.
local dataloader = require("am.datasets.dataloader")
local philox = require("am.datasets.philox")
local json = require("am.utils.json")
local helpers = require("tests.lua.datasets.helpers")

local function dataset(n)
    return { len = function() return n end, get = function(_, i) return i end }
end

local function new(n, opts)
    opts = opts or {}
    opts.dataset, opts.collate_fn = dataset(n), function(rows)
        return { text = table.concat(rows, ",") }
    end
    return dataloader.StatefulDataLoader(opts)
end

local function read(loader)
    local out = {}
    for batch in function() return loader:next() end do
        out[#out + 1] = batch.text
    end
    return out
end

describe("am.datasets.philox", function()
    it("gives the published known answers", function()
        local function hex(...)
            return string.format("%08x %08x %08x %08x", philox.block(...))
        end
        assert.equal("6627e8d5 e169c58d bc57ac4c 9b00dbd8", hex(0, 0, 0))
        local ones = 0xffffffffffffffffULL
        assert.equal("408f276d 41c83b0e a20bc7c6 6d5451fd", hex(ones, ones, ones))
        assert.equal("d16cfe09 94fdcceb 5001e420 24126ea1",
            hex(0x299f31d0a4093822ULL, 0x0370734413198a2eULL, 0x85a308d3243f6a88ULL))
    end)

    it("permutes, differently by seed and epoch, each value equally likely", function()
        for _, n in ipairs { 1, 2, 7, 1000 } do
            local seen = {}
            for _, i in ipairs(helpers.list(philox.permutation(n, 42, 0), n)) do
                assert.is_nil(seen[i])
                seen[i] = true
                assert.is_true(i >= 1 and i <= n)
            end
        end
        local function text(seed, epoch)
            return table.concat(helpers.list(philox.permutation(50, seed, epoch), 50), " ")
        end
        assert.equal(text(1, 2), text(1, 2))
        assert.not_equal(text(1, 2), text(1, 3))
        assert.not_equal(text(1, 2), text(2, 2))
        local counts = { 0, 0, 0, 0 }
        for epoch = 1, 4000 do
            local first = philox.permutation(4, 5, epoch)[0]
            counts[first] = counts[first] + 1
        end
        for _, count in ipairs(counts) do
            assert.is_true(math.abs(count - 1000) < 120) -- over four standard deviations
        end
    end)
end)

describe("am.datasets.dataloader", function()
    it("keeps the tail unless drop_last", function()
        local loader = new(5, { batch_size = 2 })
        assert.same({ 3, 3 }, { loader:len(), loader:remaining() })
        assert.same({ "1,2", "3,4", "5" }, read(loader))
        assert.equal(0, loader:remaining())
        assert.is_nil(loader:next())
        loader = new(5, { batch_size = 2, drop_last = true })
        assert.equal(2, loader:len())
        assert.same({ "1,2", "3,4" }, read(loader))
        assert.same({ "1" }, read(new(1, { batch_size = 8 })))
        helpers.fails("data", "drop_last leaves nothing", new, 3, { batch_size = 4, drop_last = true })
        helpers.fails("data", "empty", new, 0)
        helpers.fails("usage", "batch_size", new, 3, { batch_size = 0 })
    end)

    it("shuffles anew every epoch, the same way by seed", function()
        local a, b = new(20, { shuffle = true, seed = 3 }), new(20, { shuffle = true, seed = 3 })
        local first = read(a)
        table.sort(first, function(x, y) return tonumber(x) < tonumber(y) end)
        assert.equal("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20", table.concat(first, " "))
        a:set_epoch(1)
        assert.equal(20, a:remaining())
        local second = read(a)
        assert.same(second, (function() b:set_epoch(1) return read(b) end)())
        assert.not_same(first, second)
        a:set_epoch(1) -- the epoch being read: stays where it is
        assert.equal(0, a:remaining())
    end)

    it("passes over all rows in order for validation, leaving the position alone", function()
        local loader = new(5, { batch_size = 2, shuffle = true, seed = 1 })
        loader:next()
        for _ = 1, 2 do
            local out = {}
            for batch in loader:batches() do
                out[#out + 1] = batch.text
            end
            assert.same({ "1,2", "3,4", "5" }, out)
        end
        assert.equal(2, loader:remaining())
    end)

    it("names a batch's rows", function()
        local loader = new(3, { batch_size = 2, shuffle = true })
        local first, second = loader:next(), loader:next()
        local names = { first.names[1], first.names[2], second.names[1] }
        assert.equal("row " .. first.text:gsub(",", " row "), names[1] .. " " .. names[2])
        assert.equal("row " .. second.text, names[3])
        loader.dataset.name = "mine" -- someone's own field
        assert.same({ "row 1", "row 2" }, loader:batches()().names)
        function loader.dataset.name(_, i) return "file row " .. 10 * i end
        assert.same({ "file row 10", "file row 20" }, loader:batches()().names)
    end)

    it("stops at Ctrl-C where ops do, at the prompt, and gives the same batch afterwards", function()
        local C = require("am.core.ffi").C
        local loader = new(5, { batch_size = 2 })
        assert.equal("1,2", loader:next().text)
        C.am_signals_watch(C.AM_SIGNALS_INTERRUPT)
        io.popen("kill -INT " .. require("am.utils.posix").getpid()):close() -- os.execute would ignore it
        local ok, e = pcall(loader.next, loader)
        local also, other = pcall(loader:batches())
        C.am_signals_clear()
        C.am_signals_watch(C.AM_SIGNALS_OFF)
        assert.same({ false, "interrupted", false, "interrupted" }, { ok, e.code, also, other.code })
        assert.equal("3,4", loader:next().text)
    end)

    it("goes on from any position with the saved order, whatever the seed says now", function()
        for _, drop_last in ipairs { false, true } do
            local opts = { batch_size = 3, shuffle = true, seed = 9, drop_last = drop_last }
            local whole = new(11, opts)
            whole:set_epoch(2)
            local all = read(whole)
            whole:set_epoch(3)
            local next_epoch = read(whole)
            for k = 0, #all do
                local first = new(11, opts)
                first:set_epoch(2)
                for _ = 1, k do
                    first:next()
                end
                local resumed = new(11, { batch_size = 3, shuffle = true, seed = 10, drop_last = drop_last })
                resumed:set_epoch(2)
                resumed:next() -- what was read before loading does not count
                resumed:load_state_dict(json.decode(json.encode(first:state_dict())))
                resumed:set_epoch(2)
                assert.equal(#all - k, resumed:remaining())
                assert.same({ unpack(all, k + 1) }, read(resumed))
                resumed:set_epoch(3)
                assert.same(next_epoch, read(resumed))
            end
        end
    end)

    it("goes on with another batch size, counting rows", function()
        local first = new(10, { batch_size = 4 })
        first:next()
        local resumed = new(10, { batch_size = 3 })
        resumed:load_state_dict(first:state_dict())
        assert.same({ "5,6,7", "8,9,10" }, read(resumed))
    end)

    it("refuses another dataset in the middle of an epoch, not at its end", function()
        local first = new(6, { batch_size = 2 })
        first:next()
        local other = new(8, { batch_size = 2 })
        helpers.fails("state", "6 rows, but the dataset has 8", other.load_state_dict, other, first:state_dict())
        read(first)
        other:load_state_dict(first:state_dict())
        assert.equal(0, other:remaining())
        other:set_epoch(1)
        assert.equal(4, other:remaining())
        for _, state in ipairs { {}, { epoch = 0, position = -1, num_rows = 8, seed = 0, shuffle = false },
            { epoch = 0, position = 0, num_rows = 8, seed = 0 } } do
            helpers.fails("format", "dataloader state", other.load_state_dict, other, state)
        end
    end)
end)
