-- am.datasets.file_names: files, patterns, folders with splits, the hub; and messages for names that are wrong.
local file_rows = require("am.datasets.file_rows")
local hub = require("am.utils.hub")
local path = require("am.utils.path")
local helpers = require("tests.lua.datasets.helpers")

describe("am.datasets.file_names", function()
    local folder

    -- Files of a temporary folder, each of one row.
    local function make(...)
        folder = os.tmpname()
        os.remove(folder)
        for _, name in ipairs { ... } do
            path.mkdir_p(path.join(folder, path.dirname(name)))
            local file = assert(io.open(path.join(folder, name), "wb"))
            file:write('{"a":1}\n')
            file:close()
        end
        return folder
    end

    after_each(function()
        if folder then
            path.remove_tree(folder)
        end
        folder = nil
    end)

    local function files(names, opts)
        local out = {}
        for i, name in ipairs(file_rows.files(names, opts)) do
            out[i] = name:sub(#folder + 2)
        end
        return table.concat(out, " ")
    end

    it("takes a file, or a list in its order", function()
        make("b.jsonl", "a.jsonl")
        assert.equal("b.jsonl", files(folder .. "/b.jsonl"))
        assert.equal("b.jsonl a.jsonl", files { folder .. "/b.jsonl", folder .. "/a.jsonl" })
    end)

    it("takes patterns", function()
        make("data/a1.jsonl", "data/a2.jsonl", "data/b.csv", "data/.hidden.jsonl", "x[1].jsonl", "data/deep/er/c.jsonl",
            "a+b.jsonl")
        assert.equal("data/a1.jsonl data/a2.jsonl", files(folder .. "/data/*.jsonl"))
        assert.equal("data/a2.jsonl", files(folder .. "/d*/a[2-9].jsonl"))
        assert.equal("data/a1.jsonl", files(folder .. "/data/a[!2].jsonl"))
        assert.equal("data/b.csv", files(folder .. "/*/?.csv"))
        assert.equal("data/a1.jsonl data/a2.jsonl data/deep/er/c.jsonl", files(folder .. "/data/**/*.jsonl"))
        assert.equal("data/deep/er/c.jsonl", files(folder .. "/data/deep/**"))
        assert.equal("data/.hidden.jsonl", files(folder .. "/data/.h*"))
        assert.equal("x[1].jsonl", files(folder .. "/x[1].jsonl")) -- a name that is there is no pattern
        assert.equal("a+b.jsonl", files(folder .. "/a+*.jsonl"))
        helpers.fails("data", "no file matches", file_rows.files, folder .. "/*.parquet")
    end)

    it("takes relative patterns", function()
        assert.same({ "examples/data/lighthouse.jsonl" }, file_rows.files("examples/data/lighthouse.json*"))
        assert.same({ "README.md" }, file_rows.files("README.m?"))
    end)

    it("takes a folder of files of one kind", function()
        make("a.jsonl", "sub/b.json.gz", "README.md", "dataset_info.json", ".cache/x.jsonl", "c.ndjson.zst")
        assert.equal("a.jsonl c.ndjson.zst sub/b.json.gz", files(folder))
        make("a.jsonl", "b.csv")
        helpers.fails("usage", "holds JSON and CSV files; name those to read", file_rows.files, folder)
        make("README.md")
        helpers.fails("data", "a folder without JSON, JSONL, CSV, TSV or Parquet files", file_rows.files, folder)
        make("data-00000-of-00001.arrow", "dataset_info.json", "state.json")
        helpers.fails("data", "save_to_disk.* not read; write the data set with to_parquet", file_rows.files, folder)
    end)

    it("takes the files of a split from a folder", function()
        make("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet",
            "data/test-00000-of-00001.parquet", "data/train_sft-00000-of-00001.parquet")
        assert.equal("data/train-00000-of-00002.parquet data/train-00001-of-00002.parquet",
            files(folder, { split = "train" }))
        assert.equal("data/test-00000-of-00001.parquet", files(folder, { split = "test[:10%]" }))
        assert.equal("data/train_sft-00000-of-00001.parquet", files(folder, { split = "train_sft" }))
        helpers.fails("usage", "no split \"validation\"; it has test, train, train_sft", file_rows.files, folder,
            { split = "validation" })
        helpers.fails("usage", "several splits; it has test, train, train_sft", file_rows.files, folder)
        make("my_dev.jsonl", "my-training.jsonl", "test/train_of_thought.jsonl", "notes.jsonl")
        assert.equal("my_dev.jsonl", files(folder, { split = "validation" }))
        assert.equal("my-training.jsonl", files(folder, { split = "train" }))
        assert.equal("test/train_of_thought.jsonl", files(folder, { split = "test" }))
        make("train.jsonl", "trainer.jsonl")
        assert.equal("train.jsonl", files(folder)) -- the only split that is named
        make("a.jsonl", "b.jsonl")
        assert.equal("a.jsonl b.jsonl", files(folder, { split = "train" })) -- none is
    end)

    it("asks the hub for a name that is nowhere here", function()
        local before = hub.dataset_files
        finally(function() hub.dataset_files = before end)
        hub.dataset_files = function(repo, opts)
            return { repo .. ":" .. opts.split .. ":" .. opts.name .. ":" .. opts.revision }
        end
        assert.same({ "some-org/some.data_set:train:main:v1" },
            file_rows.files("some-org/some.data_set", { split = "train[:10]", name = "main", revision = "v1" }))
        helpers.fails("data", "no such file or folder", file_rows.files, "tests/nothing.jsonl")
    end)

    it("says what is wrong with a name", function()
        helpers.fails("data", "no such file or folder %(JSON", file_rows.files, "/nowhere/x.jsonl")
        for _, name in ipairs { "~/x.jsonl", "~/data/*.jsonl" } do
            helpers.fails("data", "no .*; ~ is not expanded, write the whole path$", file_rows.files, name)
        end
        helpers.fails("usage", "file name or a list", file_rows.files, {})
        helpers.fails("usage", "file name or a list", file_rows.files, nil)
        helpers.fails("usage", "entry 1", file_rows.files, { 3 })
        helpers.fails("data", "no such file", file_rows.open, "/nowhere/x.jsonl")
    end)
end)
