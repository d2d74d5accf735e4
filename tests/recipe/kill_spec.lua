-- kill -9 at random moments, saving included: what LATEST names always loads, and the run's end equals
-- that of a run nobody killed. AMLUA_KILLS and AMLUA_SEED choose how many and which moments (20, by
-- the clock); tests/kill_random.sh does.
local checkpoint = require("am.checkpoint")
local edge = require("am.core.ffi")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")
local posix = require("am.utils.posix")

local KILLS = tonumber(os.getenv("AMLUA_KILLS")) or 20
local seed = tonumber(os.getenv("AMLUA_SEED")) or os.time()

local STEPS = 4 * KILLS

local kinds = {
    { name = "LoRA", changes = helper.lora },
    -- consolidated too, and only the newest two are kept: long saves that also remove
    { name = "full", changes = { checkpoint = { save_consolidated = "every", max_recent_checkpoints = 2 } } },
}

local function config(dir, changes)
    return helper.config(dir, helper.changes({
        step_scheduler = { max_steps = STEPS, ckpt_every_steps = 1, num_epochs = 1000 },
        dataset = { num_sentences = 31 },
        validation_dataset = { _target_ = "am.datasets.build_unpacked_dataset", num_sentences = 3, seed = 1,
                               vocab_size = 67 },
        lr_scheduler = { lr_decay_style = "cosine" },
    }, changes))
end

-- Every file of the checkpoint that LATEST names is whole.
local function check_latest(dir)
    local latest = helper.latest(dir)
    if not latest then
        return nil
    end
    assert.is_true(path.is_dir(latest), "LATEST names " .. latest .. ", which is not there")
    assert.is_false(path.exists(path.join(latest, ".incomplete")))
    local names = helper.tree(latest)
    assert.is_true(#names >= 10, table.concat(names, " "))
    for _, name in ipairs(names) do
        local file = path.join(latest, name)
        if name:match("%.safetensors$") then
            assert.is_truthy(next(helper.tensors(file)))
        elseif name:match("%.json$") then
            assert.is_table(json.decode(helper.read(file)), file)
        end
    end
    return tonumber(latest:match("step_(%d+)$"))
end

describe("kill -9", function()
    teardown(helper.cleanup)

    for _, kind in ipairs(kinds) do
        it("loses nothing that was saved: " .. kind.name, function()
            local unbroken, dir = helper.folder(), helper.folder()
            local file = helper.yaml(helper.folder(), config(dir, kind.changes))
            -- the time from the first save to the last tells how long a step takes here
            local begun = edge.C.am_clock()
            local status, _, errors = helper.train(config(unbroken, kind.changes), {}, { limit = 60 + STEPS })
            assert.equal(0, status, errors)
            local per_step = (edge.C.am_clock() - begun) / STEPS

            math.randomseed(seed)
            local kills, in_save, reached = 0, 0, -1
            while kills < KILLS / #kinds do
                local run = helper.start { helper.finetune, file }
                helper.until_true(function()
                    return not run.running() or (helper.read(run.out) or ""):find("step %d+ | epoch")
                end, 60, "the first step")
                helper.sleep(math.random() * 4 * per_step)
                local alive = run.running() and run.stop("KILL")
                run.wait()
                assert.is_true(alive, string.format("over after %d kills, seed %d:\n%s", kills, seed,
                                                    helper.read(run.out)))
                kills = kills + 1
                for _, name in ipairs(path.list_dir(dir)) do
                    if name:match("%.reserving%-") then
                        in_save = in_save + 1
                    end
                end
                local step = check_latest(dir)
                assert.is_true((step or -1) >= reached, "LATEST went back; seed " .. seed)
                reached = step or -1
            end
            status, _, errors = helper.run({ helper.finetune, file }, { limit = 60 + STEPS })
            assert.equal(0, status, errors)
            assert.same(helper.curve(unbroken), helper.curve(dir))
            assert.is_nil(helper.checkpoint_difference(helper.latest(unbroken), helper.latest(dir)))
            assert.same(#helper.jsonl(path.join(unbroken, "validation.jsonl")),
                        #helper.jsonl(path.join(dir, "validation.jsonl")))
            if os.getenv("AMLUA_KILLS") then
                print(string.format("%s: %d kills, %d of them in a save, seed %d", kind.name, kills, in_save, seed))
            end
        end)
    end
end)

-- What a kill between two renames leaves, on file systems that can and can't swap two names.
describe("an interrupted publishing", function()
    teardown(helper.cleanup)

    local function save(root, name, text)
        return checkpoint.save(root, name, function(dir) helper.write(path.join(dir, "state"), text) end)
    end

    it("is put right by the next run", function()
        local root = helper.folder()
        save(root, "epoch_0_step_1", "one")
        save(root, "epoch_0_step_2", "two")
        path.mkdir_p(path.join(root, "epoch_0_step_3.reserving-1-1-1.tmp"))
        path.rename(path.join(root, "epoch_0_step_2"), path.join(root, "epoch_0_step_2.replaced-1-1-1.tmp"))
        checkpoint.clean(root)
        assert.equal(path.join(root, "epoch_0_step_2"), checkpoint.resolve(root))
        assert.equal("two", helper.read(path.join(root, "LATEST/state")))
        assert.same({ "LATEST", "epoch_0_step_1", "epoch_0_step_2" }, path.list_dir(root))
    end)

    it("replaces a checkpoint of the same name in one step", function()
        for _, can_swap in ipairs { true, false } do
            local root = helper.folder()
            save(root, "epoch_0_step_1", "old")
            local exchange = posix.exchange
            posix.exchange = can_swap and exchange or function() return nil end
            save(root, "epoch_0_step_1", "new")
            posix.exchange = exchange
            assert.equal("new", helper.read(path.join(root, "LATEST/state")))
            assert.same({ "LATEST", "epoch_0_step_1" }, path.list_dir(root))
        end
    end)

    it("leaves no trace of a save that failed", function()
        local root = helper.folder()
        save(root, "epoch_0_step_1", "old")
        local ok, e = pcall(checkpoint.save, root, "epoch_0_step_1", function() error("no", 0) end)
        assert.is_false(ok)
        assert.matches("no", tostring(e))
        assert.equal("old", helper.read(path.join(root, "LATEST/state")))
        assert.same({ "LATEST", "epoch_0_step_1" }, path.list_dir(root))
    end)
end)
