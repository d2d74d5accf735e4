-- How rows come to a run: from the cache or not, grouped by length, packed, and in a run that goes on,
-- it ends with the same bits.
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")

describe("a run on rows of a file", function()
    local file

    setup(function()
        local lines = {}
        for i = 1, 40 do
            local ids = {}
            for k = 1, 2 + i * 7 % 23 do
                ids[k] = (i * 11 + k * 5) % 67
            end
            lines[i] = string.format('{"input_ids":[%s]}', table.concat(ids, ","))
        end
        file = helper.write(helper.folder() .. "/rows.jsonl", table.concat(lines, "\n"))
    end)
    teardown(helper.cleanup)

    -- Without num_sentences and the like, which helper.config's data set has.
    local function config(dir, cache_dir, changes)
        local cfg = helper.config(dir, helper.changes({ dataset = false }, changes))
        cfg.dataset = { _target_ = "am.datasets.PretokenizedDataset", path_or_dataset_id = file, cache_dir = cache_dir }
        return cfg
    end

    local ways = {
        ["as they come"] = {},
        ["grouped by length"] = { dataloader = { group_by_length = true } },
        ["packed"] = { packed_sequence = { packed_sequence_size = 32 } },
        ["packed and cut"] = { packed_sequence = { packed_sequence_size = 32, split_across_pack = true } },
    }
    for name, way in pairs(ways) do
        it("ends with the same bits with a cache, and when it goes on: " .. name, function()
            local plain, cached, cache = helper.folder(), helper.folder(), helper.folder() .. "/cache"
            helper.train_here(config(plain, nil, way))
            local stopped = helper.recipe(config(cached, cache, way))
            function stopped.stop_requested() return stopped.scheduler.step >= 2 end
            stopped:train()
            helper.close(stopped)
            assert.equal(3, #helper.curve(cached))
            assert.equal(1, #path.names(cache))
            helper.train_here(config(cached, cache, way))
            assert.same(helper.curve(plain), helper.curve(cached))
            assert.is_nil(helper.checkpoint_difference(helper.latest(plain), helper.latest(cached)))
            if name ~= "as they come" then
                local other = helper.folder()
                helper.train_here(config(other, cache))
                assert.not_same(helper.curve(plain), helper.curve(other))
            end
        end)
    end

    -- So many that several processes make them; they have no part in what follows.
    local function many(n)
        local lines = {}
        for i = 1, n do
            lines[i] = string.format('{"input_ids":[%d,%d,%d,%d]}', i % 67, i % 61, i % 59, i % 53)
        end
        return helper.write(helper.folder() .. "/many.jsonl", table.concat(lines, "\n"))
    end

    it("ends with the same bits whatever the number of processes that make them, in amlua and in LuaJIT", function()
        local here, name = helper.folder(), many(5000)
        local function on_many(dir)
            local cfg = config(dir)
            cfg.dataset.path_or_dataset_id = name
            return cfg
        end
        helper.train_here(on_many(here))
        for _, threads in ipairs { "1", "3" } do
            local dir = helper.folder()
            local status, out, errors = helper.train(on_many(dir), { "--threads", threads })
            assert.equal(0, status, out .. errors)
            assert.same(helper.curve(here), helper.curve(dir))
            assert.is_nil(helper.checkpoint_difference(helper.latest(here), helper.latest(dir)))
        end
    end)

    for signal, wanted in pairs { TERM = 0, INT = 130 } do
        it("is ended in order by SIG" .. signal .. " while they are made", function()
            local dir = helper.folder()
            local cfg = config(dir)
            cfg.dataset.path_or_dataset_id = many(60000)
            local run = helper.start { helper.finetune, helper.yaml(helper.folder(), cfg), "--threads", "2" }
            local function children()
                local pid = run.pid
                return (helper.read(string.format("/proc/%d/task/%d/children", pid, pid)) or ""):match("%d+")
            end
            helper.until_true(children, 30, "processes that make rows")
            run.stop(signal)
            assert.equal(wanted, run.wait())
            assert.equal(1, #helper.curve(dir))
            assert.matches("step_0$", helper.latest(dir))
        end)
    end

    it("does not mind a cache that was cut short", function()
        local plain, cached, cache = helper.folder(), helper.folder(), helper.folder() .. "/cache"
        helper.train_here(config(plain, cache))
        local name = path.join(cache, path.names(cache)[1])
        local text = helper.read(name)
        helper.write(name, text:sub(1, #text / 2))
        local status, out, errors = helper.train(config(cached, cache))
        assert.equal(0, status, out .. errors)
        assert.equal(1, select(2, errors:gsub("tokenised anew", "")))
        assert.same(helper.curve(plain), helper.curve(cached))
        assert.equal(text, helper.read(name))
    end)

    it("refuses to group rows that are to keep their order", function()
        local status, out, errors = helper.train(config(helper.folder(), nil, {
            dataloader = { group_by_length = true, shuffle = false },
        }))
        assert.is_nil(helper.refusal_problem(2, { "group_by_length", "shuffle" }, status, out, errors))
    end)

    it("comes from a data set of the hub by its name, as it lies in the cache", function()
        local cache, dir = helper.folder(), helper.folder()
        local repo, commit = cache .. "/datasets--some--questions", ("ab"):rep(20)
        helper.write(repo .. "/refs/main", commit)
        local rows = {}
        for i = 1, 12 do
            rows[i] = string.format('{"question": "What is %d?", "answer": "number %d"}', i, i)
        end
        helper.write(repo .. "/snapshots/" .. commit .. "/data/train-00000-of-00001.jsonl", table.concat(rows, "\n"))
        local cfg = helper.config(dir, { model = { pretrained_model_name_or_path = helper.text_model() } })
        cfg.dataset = { _target_ = "am.datasets.ColumnMappedTextInstructionDataset",
                        path_or_dataset_id = "some/questions", split = "train[:8]",
                        column_mapping = { question = "question", answer = "answer" } }
        local before = "HF_HUB_CACHE=" .. cache
        local status, _, errors = helper.train(cfg, { "--step_scheduler.max_steps", "2" }, { before = before })
        assert.equal(0, status, errors)
        assert.is_truthy(errors:find("data: 8 rows", 1, true), errors)
        cfg.dataset.path_or_dataset_id = "some/other"
        status, _, errors = helper.train(cfg, nil, { before = before })
        assert.not_equal(0, status)
        assert.is_truthy(errors:find("some/other", 1, true), errors)
    end)
end)
