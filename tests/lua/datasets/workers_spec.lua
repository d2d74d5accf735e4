-- am.datasets.workers: order, errors, ends of processes; and rows made by several, which are the same.
local ffi = require("ffi")
local column_mapped = require("am.datasets.column_mapped")
local err = require("am.core.error")
local log = require("am.utils.log")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local processes = require("am.utils.processes")
local workers = require("am.datasets.workers")
local C = require("am.core.ffi").C
local helpers = require("tests.lua.datasets.helpers")

local function children(pid)
    pid = pid or posix.getpid()
    return path.read_file(string.format("/proc/%d/task/%d/children", pid, pid)) or ""
end

describe("am.datasets.workers", function()
    after_each(function()
        assert.equal("", children())
    end)

    -- Block b as b numbers b, b, …; `at` gives what else a block does.
    local function make(at)
        return function(b)
            if at and at[b] then
                at[b]()
            end
            return ffi.new("double[?]", b, b), 8 * b
        end
    end

    it("takes blocks in order, whatever the number of processes", function()
        for _, count in ipairs { 1, 2, 3, 50 } do
            local seen = {}
            assert.is_true(workers.each(20, count, make(), function(data, bytes)
                seen[#seen + 1] = data[0]
                assert.equal(8 * data[0], bytes)
                assert.equal(data[0], data[data[0] - 1])
            end))
            assert.equal(20, #seen)
            for b = 1, 20 do
                assert.equal(b, seen[b])
            end
        end
    end)

    it("passes blocks that are larger than a pipe", function()
        local sum = 0
        workers.each(6, 3, function(b)
            return ffi.new("double[?]", 300000, b), 2400000
        end, function(data, bytes) sum = sum + data[bytes / 8 - 1] end)
        assert.equal(21, sum)
    end)

    it("raises the first error in the order of blocks, after what comes before it", function()
        for _, count in ipairs { 1, 2, 4 } do
            local taken = 0
            helpers.fails("data", "^row 7 is wrong$", workers.each, 20, count, make {
                [7] = function() err.raise("data", "row 7 is wrong") end,
                [8] = function() err.raise("usage", "row 8, too") end,
            }, function() taken = taken + 1 end)
            assert.equal(6, taken)
        end
        local ok, e = pcall(workers.each, 4, 2, make { [3] = function() error("a defect") end }, function() end)
        assert.is_false(ok)
        assert.matches("a defect", e)
    end)

    it("says when a process was ended, and ends the others", function()
        helpers.fails("memory", "ended by signal 9; is there too little memory%?", workers.each, 20, 3, make {
            [5] = function() processes.kill { pid = posix.getpid() } end,
        }, function() end)
    end)

    it("ends them when what is made can't be taken, and at Ctrl-C at the prompt", function()
        local ok, e = pcall(workers.each, 1e6, 3, make(), function(data) return data[0] == 9 and error("full", 0) end)
        assert.same({ false, "full" }, { ok, e })
        C.am_signals_watch(C.AM_SIGNALS_INTERRUPT)
        ok, e = pcall(workers.each, 1e6, 3, make(), function(data)
            if data[0] == 9 then
                io.popen("kill -INT " .. posix.getpid()):close()
            end
        end)
        C.am_signals_clear()
        C.am_signals_watch(C.AM_SIGNALS_OFF)
        assert.same({ false, "interrupted" }, { ok, e.code })
    end)

    it("leaves it to the caller when there can be no processes", function()
        local fork, forks = processes.fork, 0
        finally(function() processes.fork = fork end)
        function processes.fork(fn)
            forks = forks + 1
            return forks < 3 and fork(fn) or nil
        end
        assert.is_false(workers.each(20, 4, make(), error))
    end)

    it("leaves none behind when it is killed", function()
        local script = helpers.file([[
            local ffi = require "ffi"
            print(require("am.utils.posix").getpid())
            io.stdout:flush()
            require("am.datasets.workers").each(1e9, 3, function() return ffi.new("double[1]"), 8 end, function() end)
        ]], "lua")
        local pipe = io.popen("exec luajit " .. script)
        local pid = pipe:read("*n")
        local pids = ""
        for _ = 1, 1000 do
            pids = children(pid)
            if select(2, pids:gsub("%d+", "")) == 3 then
                break
            end
            os.execute("sleep 0.01")
        end
        assert.equal(3, select(2, pids:gsub("%d+", "")))
        processes.kill { pid = pid }
        pipe:close()
        os.remove(script)
        for child in pids:gmatch("%d+") do
            for _ = 1, 1000 do
                local state = (path.read_file("/proc/" .. child .. "/stat") or ""):match("%) (%u)")
                if not state or state == "Z" then
                    break
                end
                os.execute("sleep 0.01")
            end
            assert.is_nil((path.read_file("/proc/" .. child .. "/stat") or ""):match("%) ([^Z])"))
        end
    end)
end)

describe("rows made by several processes", function()
    local dir, file, threads
    local tok = helpers.tokenizer()
    tok.encode = function(_, text) return { text:byte(1, 100) } end -- no state: each process has its own
    tok.content = function() return "bytes" end

    setup(function()
        threads = C.am_threads()
        log.setup { stream = { write = function() end } }
    end)
    teardown(function() log.setup {} end)
    before_each(function() dir = path.mkdir_p(path.unique("/tmp/amlua-workers")) end)
    after_each(function()
        C.am_threads_set(threads)
        path.remove_tree(dir)
        os.remove(file)
        assert.equal("", children())
    end)

    local function lines(n, odd)
        local out = {}
        for i = 1, n do
            out[i] = odd[i] or string.format('{"q":"%s","a":"%s"}', ("q"):rep(i % 41 + 1),
                i % 50 == 0 and " " or "a" .. i)
        end
        file = helpers.file(table.concat(out, "\n"))
    end

    local function dataset(count, opts)
        C.am_threads_set(count)
        local all = { path_or_dataset_id = file, tokenizer = tok, column_mapping = { question = "q", answer = "a" } }
        for key, value in pairs(opts or {}) do
            all[key] = value
        end
        return column_mapped.ColumnMappedTextInstructionDataset(all)
    end

    it("are the same bytes", function()
        lines(5003, {})
        local padded = { seq_length = 60, padding = "max_length", truncation = true }
        for _, opts in ipairs { {}, padded, { split = "x[7:]" } } do
            local files = {}
            for _, count in ipairs { 1, 2, 5 } do
                opts.cache_dir = path.join(dir, tostring(count))
                dataset(count, opts)
            end
            for _, name in ipairs(path.names(path.join(dir, "1"))) do
                files[1] = path.read_file(path.join(dir, "1", name))
                assert.is_true(#files[1] > 100000)
                for _, count in ipairs { 2, 5 } do
                    assert.is_true(files[1] == path.read_file(path.join(dir, tostring(count), name)))
                end
            end
        end
        assert.same(dataset(1):stats(), dataset(3):stats())
        assert.equal(100, dataset(3):stats().skipped)
    end)

    it("fail with the same message", function()
        lines(5000, { [4500] = '{"q":"x"}', [4530] = "[", [4700] = '{"a":"x"}' })
        for _, count in ipairs { 1, 2, 5 } do
            helpers.fails("data", 'row 4500: no column "a"', dataset, count)
            helpers.fails("data", 'row 4500: no column "a"', dataset, count, { cache_dir = dir })
        end
        assert.same({}, path.names(dir))
    end)
end)
