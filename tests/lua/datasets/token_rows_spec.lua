-- am.datasets.token_rows: rows from the cache are those without one; what makes another cache; caches
-- that are damaged, or made by two processes at once; nothing left after an error.
local column_mapped = require("am.datasets.column_mapped")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local pretokenized = require("am.datasets.pretokenized")
local token_rows = require("am.datasets.token_rows")
local helpers = require("tests.lua.datasets.helpers")

describe("am.datasets.token_rows", function()
    local dir, file, tok, said

    before_each(function()
        dir, tok, said = path.unique("/tmp/amlua-rows"), helpers.tokenizer(), {}
        function tok.content() return "words" end
        require("am.utils.log").setup { color = false, stream = { write = function(_, ...)
            said[#said + 1] = table.concat { ... }:match("(%u+ | .*)")
        end } }
        local lines = {}
        for i = 1, 200 do
            lines[i] = string.format('{"q":"%s %d?","a":"%s"}', ("why "):rep(i % 5), i,
                i % 9 == 0 and " " or "it is " .. i)
        end
        file = helpers.file(table.concat(lines, "\n"))
    end)

    after_each(function()
        path.remove_tree(dir)
        os.remove(file)
        require("am.utils.log").setup {}
    end)

    local function dataset(opts)
        local all = { path_or_dataset_id = file, tokenizer = tok, column_mapping = { question = "q", answer = "a" },
                      cache_dir = dir }
        for key, value in pairs(opts or {}) do
            all[key] = value
        end
        said = {}
        return column_mapped.ColumnMappedTextInstructionDataset(all)
    end

    local function rows_of(ds)
        local out = {}
        for i = 1, ds:len() do
            out[i] = { ds:get(i), ds:name(i), ds:length(i) }
        end
        return out
    end

    local function uncached(opts)
        opts = opts or {}
        opts.cache_dir = false
        return dataset(opts)
    end

    it("gives the same rows, names and stats with a cache, and from it without the tokenizer", function()
        local plain = uncached()
        local wanted, stats = rows_of(plain), plain:stats()
        assert.same({ 178, 22 }, { #wanted, stats.skipped })
        assert.equal(file .. " row 1", wanted[1][2])
        local made = dataset()
        assert.matches("INFO .* kept in " .. dir:gsub("%p", "%%%0"), said[1])
        assert.same({ wanted, stats }, { rows_of(made), made:stats() })
        tok.encode = nil
        local read = dataset { tokenizer = setmetatable({ encode = error }, { __index = tok }) }
        assert.matches("INFO .* read from", said[1])
        assert.same({ wanted, stats }, { rows_of(read), read:stats() })
        assert.equal(1, #path.names(dir))
    end)

    it("keeps masks and positions", function()
        local wanted = rows_of(uncached { seq_length = 12, padding = "max_length" })
        for _ = 1, 2 do
            assert.same(wanted, rows_of(dataset { seq_length = 12, padding = "max_length" }))
        end
        local name = helpers.file '{"input_ids":[5,6,7],"labels":[1,2,-100],"position_ids":[4,5,6]}'
        for _ = 1, 2 do
            local row = pretokenized.PretokenizedDataset { path_or_dataset_id = name, cache_dir = dir }:get(1)
            assert.same({ input_ids = { 5, 6, 7 }, labels = { 1, 2, -100 }, position_ids = { 4, 5, 6 } }, row)
        end
        os.remove(name)
    end)

    it("makes another one when anything that rows depend on changes", function()
        local ways = {
            function() return dataset() end,
            function() return dataset { add_eos = false } end,
            function() return dataset { column_mapping = { question = "a", answer = "q" } } end,
            function() return dataset { limit_dataset_samples = 50 } end,
            function() return dataset { split = "train[:60]" } end,
            function() return dataset { answer_only_loss_mask = false } end,
            function() function tok.content() return "other words" end return dataset() end,
            function() tok.eos_token_id = 7 return dataset() end,
            function()
                local text = path.read_file(file)
                path.write_file(file, (text:gsub("why", "how")))
                return dataset()
            end,
            function() return dataset { path_or_dataset_id = { file, file } } end,
        }
        for i, way in ipairs(ways) do
            local wanted = rows_of(way())
            assert.equal(i, #path.names(dir), "way " .. i)
            assert.same(wanted, rows_of(way()))
            assert.equal(i, #path.names(dir))
        end
    end)

    it("makes a cache anew that is cut short, damaged, of another version or of other data, and says so", function()
        local wanted = rows_of(dataset())
        local name = path.join(dir, path.names(dir)[1])
        local whole = path.read_file(name)
        for pattern, text in pairs {
            ["cut short"] = whole:sub(1, 50), ["checksum is wrong"] = whole:sub(1, -2),
            ["holds no token rows"] = ("x"):rep(500), ["version 9"] = whole:sub(1, 8) .. "\9" .. whole:sub(10),
            ["damaged"] = whole:sub(1, 1000) .. string.char((whole:byte(1001) + 1) % 256) .. whole:sub(1002),
        } do
            path.write_file(name, text)
            assert.same(wanted, rows_of(dataset()))
            assert.matches("WARNING .*" .. name:gsub("%p", "%%%0") .. ".*" .. pattern .. ".*tokenised anew", said[1])
            assert.equal(2, #said)
            assert.equal(whole, path.read_file(name))
        end
        dataset { add_eos = false }
        for _, other in ipairs(path.names(dir)) do
            path.write_file(path.join(dir, other), whole)
        end
        local again = rows_of(dataset { add_eos = false })
        assert.matches("WARNING .* of other data", said[1])
        assert.same(rows_of(uncached { add_eos = false }), again)
    end)

    it("leaves nothing when a row is wrong, and says the same as without a cache", function()
        path.write_file(file, '{"q":"x","a":"y"}\n{"q":"x"}\n')
        for _, cache in ipairs { dir, false } do
            helpers.fails("data", 'row 2: no column "a"', dataset, { cache_dir = cache })
        end
        path.write_file(file, '{"q":"x","a":""}\n')
        helpers.fails("data", "no row has a label to learn %(1 rows read%)", dataset)
        assert.same({}, path.names(dir))
    end)

    it("is not kept when a file changed while it was read", function()
        local plain = tok.encode
        local changed = setmetatable({ encode = function(...)
            local handle = assert(io.open(file, "a"))
            handle:write("\n")
            handle:close()
            return plain(...)
        end }, { __index = tok })
        local ok, e = pcall(dataset, { tokenizer = changed })
        assert.is_false(ok)
        assert.matches("changed while its rows were read for the cache", tostring(e))
        assert.same({}, path.names(dir))
    end)

    it("does without where it can't be had, and names a folder that can't be written to", function()
        tok.content = nil
        assert.equal(178, dataset():len())
        assert.matches("WARNING .* no content", said[1])
        assert.is_false(path.exists(dir))
        function tok.content() return "words" end
        helpers.fails("io", "folder", dataset, { cache_dir = file .. "/below" })
    end)

    it("says where else rows could go when they can't be written", function()
        local script = helpers.file(string.format([[
            local C = require("am.core.ffi").C
            C.am_signals_watch(C.AM_SIGNALS_FLAG) -- a file that grows too large is an error, not a signal
            local helpers = require "tests.lua.datasets.helpers"
            print(pcall(require("am.datasets.column_mapped").ColumnMappedTextInstructionDataset, {
                path_or_dataset_id = %q, tokenizer = helpers.tokenizer(),
                column_mapping = { question = "q", answer = "a" } }))
        ]], file), "lua")
        local pipe = io.popen("ulimit -f 8; exec luajit " .. script .. " 2>&1")
        local said_there = pipe:read("*a")
        pipe:close()
        os.remove(script)
        assert.matches("^false%s.*File too large.*TMPDIR or dataset.cache_dir", said_there)
    end)

    it("removes what a killed run left behind, and not what another one is writing", function()
        path.mkdir_p(dir)
        for _, name in ipairs { ".amlua-1-2.tmp", ".amlua-1-3.tmp", "mine.tmp" } do
            path.write_file(path.join(dir, name), "x")
        end
        assert.equal(0, os.execute("touch -d '3 days ago' " .. dir .. "/.amlua-1-2.tmp " .. dir .. "/mine.tmp"))
        dataset()
        local names = path.names(dir)
        assert.equal(".amlua-1-3.tmp mine.tmp", names[1] .. " " .. names[#names])
        assert.equal(3, #names)
    end)

    it("is made by two processes at once", function()
        local script = helpers.file(string.format([[
            local helpers = require "tests.lua.datasets.helpers"
            local tok = helpers.tokenizer()
            function tok.content() return "words" end
            local ds = require("am.datasets.column_mapped").ColumnMappedTextInstructionDataset {
                path_or_dataset_id = %q, tokenizer = tok, column_mapping = { question = "q", answer = "a" },
                cache_dir = %q }
            local sum = 0
            for i = 1, ds:len() do
                for _, id in ipairs(ds:get(i).input_ids) do sum = (sum * 31 + id) %% 1000003 end
            end
            print(ds:len(), sum)
        ]], file, dir), "lua")
        local pipes, answers = {}, {}
        for i = 1, 4 do
            pipes[i] = io.popen("luajit " .. script .. " 2>&1 | grep -v INFO")
        end
        for i, pipe in ipairs(pipes) do
            answers[i] = pipe:read("*a")
            pipe:close()
        end
        os.remove(script)
        assert.matches("^178%s+%d+\n$", answers[1])
        assert.same({ answers[1], answers[1], answers[1], answers[1] }, answers)
        assert.equal(1, #path.names(dir))
    end)

    it("copies any dataset, rows without a label and without tokens too", function()
        local copy = token_rows.copy(helpers.dataset { 3, { input_ids = {}, labels = {} },
            { input_ids = { 1, 2 }, labels = { -100, -100 }, attention_mask = { 1, 0 } } })
        assert.equal(3, copy:len())
        assert.same({ 101, 102, 103 }, copy:get(1).input_ids)
        assert.same({ 3, 0, 2, 1 }, { copy:length(1), copy:length(2), copy:length(3), (select(3, copy:sample(3))) })
    end)

    it("keeps files off the memory: they have no name, and end with the process", function()
        local before = io.open("/proc/self/maps"):read("*a"):find("%(deleted%)")
        local ds = uncached()
        assert.is_truthy(before or io.open("/proc/self/maps"):read("*a"):find("%.amlua%-" .. posix.getpid()
            .. "%-%d+%.tmp %(deleted%)"))
        assert.equal(178, ds:len())
    end)
end)
