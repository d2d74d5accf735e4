-- Data sets: which files are a split (against the Python package datasets), from folders, the cache and a hub
-- on loopback.

local card = require("am.utils.hub_card")
local datasets = require("am.utils.hub_dataset")
local err = require("am.core.error")
local hub = require("am.utils.hub")
local json = require("am.utils.json")
local patterns = require("am.utils.hub_patterns")
local path = require("am.utils.path")
local environment = require("tests.support.environment")
local hub_server = require("tests.support.hub_server")

local function refusal(...)
    local ok, e = pcall(...)
    assert.is_false(ok, "no error")
    assert.is_true(err.is(e), tostring(e))
    return tostring(e), e.code
end

local function has(part, text)
    assert.truthy(text:find(part, 1, true), text)
end

describe("the files of a data set", function()
    local goldens = assert(json.decode(assert(path.read_file("tests/lua/utils/dataset_files_goldens.json"))))

    for i, case in ipairs(goldens) do
        it(("are those that datasets takes (%d)"):format(i), function()
            local names = { unpack(case.files) }
            table.sort(names)
            local readme = case.configs ~= json.null
                and "---\nlicense: mit\nconfigs:" .. case.configs .. "---\n# Title\n"
            local function choose(split)
                return datasets.choose(names, { where = "x", split = split, readme = readme or nil,
                                                name = case.name ~= json.null and case.name or nil })
            end
            if case.splits.error then
                refusal(choose, "train")
                return
            end
            local seen
            for split, files in pairs(case.splits) do
                local found, info = choose(split)
                assert.same({ unpack(files) }, found)
                seen = info.splits
            end
            local expected = {}
            for split in pairs(case.splits) do
                expected[#expected + 1] = split
            end
            table.sort(expected)
            table.sort(seen)
            assert.same(expected, seen)
        end)
    end

    it("are named in messages", function()
        local names = { "a.jsonl", "test.jsonl", "train.jsonl" }
        local message, code = refusal(datasets.choose, names, { where = "x", split = "tset" })
        assert.equal("usage", code)
        assert.equal('x has no split "tset" (did you mean "test"?): it has train, test', message)
        has('"missing.jsonl", which is not there', (refusal(datasets.choose, names, {
            where = "x", readme = "---\nconfigs:\n- config_name: a\n  data_files: missing.jsonl\n---\n" })))
        has("which amlua does not read", (refusal(datasets.choose, { "a.tar", "b.tar" }, { where = "x" })))
        has("which is no file of the data set", (refusal(datasets.choose, names, {
            where = "x", readme = "---\nconfigs:\n- config_name: a\n  data_files: https://h/x.jsonl\n---\n" })))
        has("** can only stand for whole folders", (refusal(datasets.choose, names, {
            where = "x", readme = "---\nconfigs:\n- config_name: a\n  data_files: '**.jsonl'\n---\n" })))
    end)
end)

describe("patterns", function()
    it("match as they do in fsspec", function()
        for pattern, cases in pairs {
            ["*"] = { a = true, ["a/b"] = false }, ["**"] = { a = true, ["a/b"] = true },
            ["a/**"] = { a = false, ["a/b"] = true, ["a/b/c"] = true, ["b/a/c"] = false },
            ["**/a"] = { a = true, ["x/y/a"] = true, ["x/ab"] = false },
            ["a/**/b"] = { ["a/b"] = true, ["a/x/y/b"] = true, ["a/x/c"] = false },
            ["**/x*/**/b"] = { ["x/b"] = true, ["q/x1/r/b"] = true, ["q/b"] = false },
            ["[a-c]?"] = { bx = true, dx = false, b = false }, ["[]x]"] = { ["]"] = true, x = true, y = false },
            ["[!a]"] = { b = true, a = false }, ["[a"] = { ["[a"] = true, a = false },
            ["[a-]"] = { ["-"] = true, b = false },
            [".*"] = { [".x"] = true, x = false }, ["./a"] = { a = true },
            ["__x__/*"] = { ["__x__/a"] = true }, ["*/a"] = { ["__x__/a"] = false, ["b/a"] = true, [".b/a"] = false },
        } do
            for name, expected in pairs(cases) do
                assert.equal(expected, patterns.matcher(pattern)(name), pattern .. " on " .. name)
            end
        end
    end)

    it("cost no more than they are long", function()
        local from = os.clock()
        assert.is_false(patterns.matcher(("*a"):rep(100) .. "b")(("a"):rep(250)))
        assert.is_false(patterns.matcher(("**/a/"):rep(100) .. "b")(("a/"):rep(500) .. "c"))
        assert.is_true(os.clock() - from < 2)
    end)
end)

describe("a README", function()
    local function configs(yaml)
        return card.configs("---\n" .. yaml .. "\n---\n# Title\n", "README.md")
    end

    it("is read for its configs alone", function()
        assert.same({}, card.configs("# no front matter", "README.md"))
        assert.same({}, configs("license: mit\ndataset_info: [{a: [1, {b: c}]}]\ntags: &a [x]\nmore: *a"))
        assert.same({}, configs("configs:"))
        assert.same({ { name = "no", default = true, data_dir = "d",
                        splits = { { split = "train", patterns = { "1.csv", "2.csv" } } } } },
                    configs("a: {b: c}\nconfigs:\n- config_name: no\n  default: true\n  data_dir: d\n"
                            .. "  features: [x]\n  data_files: [1.csv, 2.csv]"))
        local one = configs("configs:\r\n- config_name: &n x.csv\r\n  data_files: *n\r")[1]
        assert.equal("x.csv", one.splits[1].patterns[1])
    end)

    it("is refused where it means nothing", function()
        for yaml, said in pairs {
            ["configs: 1"] = "configs must be a list", ["configs: [a]"] = "has no config_name",
            ["configs: [{config_name: [a]}]"] = "has no config_name",
            ["configs: [{config_name: a, data_dir: []}]"] = "must be a text",
            ["configs: [{config_name: a, data_files: {train: x}}]"] = "data_files must name files",
            ["configs: [{config_name: a, data_files: [{split: a-b, path: x}]}]"] = "must have a `split`",
            ["configs: [{config_name: a, data_files: [{split: a, path: x}, {split: a, path: y}]}]"] = "twice",
            ["configs: [{config_name: a, data_files: [{split: a, path: {}}]}]"] = "data_files must name files",
            ["configs: [*x]"] = "its YAML", ["configs: &a [*a]"] = "refers to *a", ["configs: ["] = "cannot be read",
            ["configs: " .. ("["):rep(100)] = "nested", ["? [a]\n: b\nconfigs: [{? [a] : b}]"] = "a key",
        } do
            local message, code = refusal(configs, yaml)
            assert.equal("format", code)
            has(said, message)
        end
    end)

    it("does not grow by aliases", function()
        local lines = { "configs:", "- config_name: a", "  data_files:" }
        local yaml = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        for i = 1, 9 do
            yaml = yaml .. ("b%d: &a%d [%s*a%d]\n"):format(i, i, ("*a" .. i - 1 .. ", "):rep(9), i - 1)
        end
        refusal(configs, table.concat(lines, "\n") .. " *a9\n" .. yaml)
        yaml = "configs:\n- config_name: a\n  data_files:\n  - {split: s0, path: &p [" .. ("x, "):rep(1000) .. "]}\n"
        for i = 1, 200 do
            yaml = yaml .. ("  - {split: s%d, path: *p}\n"):format(i)
        end
        has("more than 100000", (refusal(configs, yaml)))
    end)
end)

describe("hub.dataset_files", function()
    local server, home
    local COMMIT, OTHER, PARQUET = ("a"):rep(40), ("b"):rep(40), ("c"):rep(40)
    local README = "---\nconfigs:\n- config_name: main\n  data_files:\n"
        .. "  - split: train\n    path: data/train-*\n"
        .. "  - split: test\n    path: data/test.jsonl\n---\n"

    setup(function()
        home = os.tmpname()
        os.remove(home)
        server = hub_server.start {
            ["datasets/org/rows"] = { commit = COMMIT, lfs = { ["data/train-1.jsonl"] = true }, files = {
                ["README.md"] = README, ["data/train-1.jsonl"] = '{"a": 1}\n', ["data/train-2.jsonl"] = '{"a": 2}\n',
                ["data/test.jsonl"] = '{"a": 3}\n', ["big.bin"] = "never" } },
            ["datasets/org/script"] = { commit = COMMIT, files = { ["script.py"] = "print(1)", ["x.jsonl"] = "{}" },
                branches = { ["refs/convert/parquet"] = { commit = PARQUET, files = {
                    ["en/train/0000.parquet"] = "one", ["en/train/0001.parquet"] = "two",
                    ["en/test/0000.parquet"] = "t", ["de/partial-train/0000.parquet"] = "p" } } } },
            ["datasets/org/alone"] = { commit = COMMIT, files = { ["alone.py"] = "print(1)" } },
            ["datasets/org/plain"] = { commit = OTHER, files = { ["data/train-00000-of-00002.csv"] = "a\n1\n",
                ["data/train-00001-of-00002.csv"] = "a\n2\n" } },
            ["datasets/org/secret"] = { commit = COMMIT, gated = true, files = { ["a.jsonl"] = "{}" } },
        }
    end)
    teardown(function()
        server:stop()
        path.remove_tree(home)
        environment.restore()
        require("am.utils.log").setup()
    end)
    before_each(function()
        path.remove_tree(home)
        path.mkdir_p(home)
        server:forget()
        environment.set { HF_ENDPOINT = server.url, HF_HOME = home, HF_HUB_CACHE = false, HUGGINGFACE_HUB_CACHE = false,
                          HF_HUB_OFFLINE = false, TRANSFORMERS_OFFLINE = false, HF_TOKEN = false,
                          HUGGING_FACE_HUB_TOKEN = false, http_proxy = false, all_proxy = false, ALL_PROXY = false }
        require("am.utils.log").setup { stream = { write = function() end } }
    end)

    local function texts(files)
        local out = {}
        for i, file in ipairs(files) do
            out[i] = path.read_file(file)
        end
        return out
    end

    it("brings a split, and then finds it", function()
        local files, info = hub.dataset_files("org/rows")
        assert.same({ '{"a": 1}\n', '{"a": 2}\n' }, texts(files))
        assert.same({ config = "main", format = "json", splits = { "train", "test" } }, info)
        assert.equal(home .. "/hub/datasets--org--rows/snapshots/" .. COMMIT .. "/data/train-1.jsonl", files[1])
        server:forget()
        assert.same(files, (hub.dataset_files("org/rows", { name = "main", split = "train" })))
        assert.same({}, server:requests())
        environment.set { HF_HUB_OFFLINE = "1" }
        assert.same(files, (hub.dataset_files("org/rows")))
        local message = refusal(hub.dataset_files, "org/rows", { split = "test" })
        has("as a whole, and HF_HUB_OFFLINE is set; download it with recipes/download.lua", message)
        environment.set { HF_HUB_OFFLINE = false }
        assert.same({ '{"a": 3}\n' }, texts((hub.dataset_files("org/rows", { split = "test" }))))
        has('has no configuration "mian" (did you mean "main"?)',
            (refusal(hub.dataset_files, "org/rows", { name = "mian" })))
        for _, request in ipairs(server:requests()) do
            assert.is_nil(request.path:find("big", 1, true))
        end
    end)

    it("takes the converted branch of what a program makes", function()
        local files, info = hub.dataset_files("org/script", { name = "en" })
        assert.same({ "one", "two" }, texts(files))
        assert.equal("parquet", info.format)
        assert.equal(PARQUET, path.read_file(home .. "/hub/datasets--org--script/refs/refs/convert/parquet"))
        environment.set { HF_HUB_OFFLINE = "1" }
        assert.same({ "one", "two" }, texts((hub.dataset_files("org/script", { name = "en" }))))
        environment.set { HF_HUB_OFFLINE = false }
        has("several configurations, name one: de, en", (refusal(hub.dataset_files, "org/script")))
        has('only a part of the split "train"', (refusal(hub.dataset_files, "org/script", { name = "de" })))
        local message, code = refusal(hub.dataset_files, "org/alone")
        assert.equal("unsupported", code)
        has("org/alone is made by a program of its own, alone.py, which is not run", message)
        has("as Parquet: the data set org/alone has no revision", message)
    end)

    it("never takes a part for the whole", function()
        environment.set { HF_HUB_CACHE = home .. "/cache" }
        local files = hub.dataset_files("org/plain")
        assert.equal(2, #files)
        path.remove_tree(home .. "/cache/datasets--org--plain/trees") -- as older versions of huggingface_hub leave it
        os.remove(files[2])
        environment.set { HF_HUB_OFFLINE = "1" }
        has("is in the cache without data/train-00001-of-00002.csv", (refusal(hub.dataset_files, "org/plain")))
        environment.set { HF_HUB_OFFLINE = false }
        assert.same(files, (hub.dataset_files("org/plain")))
    end)

    it("reads a folder of one's own", function()
        path.mkdir_p(home .. "/mine/data")
        path.write_file(home .. "/mine/data/train-1.jsonl", "{}")
        path.write_file(home .. "/mine/README.md", README)
        assert.same({ home .. "/mine/data/train-1.jsonl" }, (hub.dataset_files(home .. "/mine")))
        has('"data/test.jsonl", which is not there', (refusal(hub.dataset_files, home .. "/mine", { split = "test" })))
        has("is no folder with data files", (refusal(hub.dataset_files, home .. "/nothing")))
        assert.same({}, server:requests())
    end)

    it("says what to do about a refusal", function()
        has("the data set org/secret is gated: ask for access on " .. server.url .. "/datasets/org/secret",
            (refusal(hub.dataset_files, "org/secret")))
        has("the data set org/none is not on " .. server.url, (refusal(hub.dataset_files, "org/none")))
    end)
end)
