-- Data that is kept in a folder is prepared by the first rank of a host, before the others look for it.
local helper = require("tests.recipe.helper")
local ranks = require("tests.dist.ranks")

-- A dataset that notes when each rank makes it, and whether another had.
local noted = [[
local mock = require("am.datasets.mock")
return { rows = function(opts)
    local file = io.open(opts.cache_dir .. "/notes", "a")
    local function note(what)
        file:write(what, " ", os.getenv("OMPI_COMM_WORLD_RANK"), "\n")
        file:flush()
    end
    note("begin")
    require("am.utils.posix").sleep(0.2)
    note("end")
    file:close()
    return mock.build_unpacked_dataset { num_sentences = 24, vocab_size = 67, mean_len = 14, max_sentence_len = 40 }
end }
]]

ranks.describe("data that is kept", function()
    local function run(n, dataset)
        local dir = helper.folder()
        local cfg = helper.config(dir .. "/ck", { step_scheduler = { global_batch_size = 8, max_steps = 3 } })
        cfg.dataset = dataset
        local status, out, errors = helper.train(cfg, { "--allow-user-code" }, { before = ranks.mpirun(n) })
        assert.equal(0, status, out .. errors)
        return dir .. "/ck/training.jsonl"
    end

    it("is made by the first rank, then by the others", function()
        local dir = helper.folder()
        local file = helper.write(dir .. "/noted.lua", noted)
        run(4, { _target_ = file .. ":rows", cache_dir = dir })
        local notes = helper.read(dir .. "/notes")
        assert.equal("begin 0\nend 0\n", notes:sub(1, 14), notes)
        assert.equal(3, select(2, notes:sub(15):gsub("end %d", "")), notes)
    end)

    it("is one file, and the same rows", function()
        local dir = helper.folder()
        local rows = {}
        for i = 1, 24 do
            rows[i] = ('{"input_ids": [%d, 2, %d], "labels": [1, 2, %d]}'):format(i, i % 7, i % 5)
        end
        local file = helper.write(dir .. "/rows.jsonl", table.concat(rows, "\n"))
        local section = { _target_ = "am.datasets.PretokenizedDataset", path_or_dataset_id = file }
        local own = run(2, section)
        section.cache_dir = dir .. "/kept"
        local kept = run(2, section)
        ranks.compare(helper.jsonl(own), helper.jsonl(kept))
        assert.equal(1, #require("am.utils.path").names(dir .. "/kept"))
    end)
end)
