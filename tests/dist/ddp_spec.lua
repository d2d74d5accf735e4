-- Several ranks learn what one learns: the recipe under mpirun on 1, 2 and 4 ranks, the same global batch in the same
-- order. Skipped, and counted, where there is no mpirun or no amlua_mpi.so.
local helper = require("tests.recipe.helper")
local host = require("am.core.host")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local ranks = require("tests.dist.ranks")

local compare = ranks.compare

local train = ranks.train

local cases = {
    ["full, an epoch that does not fill its last step"] = {},
    ["LoRA"] = { peft = { target_modules = "*_proj", dim = 4 } },
    ["frozen and tied embeddings"] = { freeze_config = { freeze_embeddings = true } },
    ["packed rows"] = { packed_sequence = { packed_sequence_size = 48 } },
    ["small buckets"] = { distributed = { strategy = "ddp", bucket_cap_mb = 0.001 } },
}

ranks.describe("data parallel", function()
    for name, changes in pairs(cases) do
        it("learns what one rank learns: " .. name, function()
            local one = train(1, changes)
            for _, n in ipairs { 2, 4 } do
                local many, dir = train(n, changes)
                compare(one, many)
                assert.is_true(path.is_file(helper.latest(dir) .. "/rng/rng_dp_rank_" .. n - 1 .. ".json"))
            end
        end)
    end

    it("has the same bits on all ranks after every step", function()
        local cfg = helper.config(helper.folder(), { step_scheduler = { global_batch_size = 8, local_batch_size = 2,
                                                                        max_steps = 20 } })
        assert.equal(20, #ranks.run(4, cfg, { "--checkpoint.enabled", "false" }, "tests/dist/replicas.lua"))
        local spoilt = helper.write(helper.folder() .. "/spoilt.lua", [[
            local Recipe = require("tests.dist.replicas"):extend("spoilt")
            function Recipe:totals(...)
                if self.scheduler.step == 3 and self.world.rank == 1 then
                    for _, t in self.model:named_parameters() do
                        t:detach():narrow(0, 0, 1):copy_(t:detach():narrow(0, 0, 1) * (1 + 2 ^ -22))
                        break
                    end
                end
                return require("recipes.llm_finetune").totals(self, ...)
            end
            return Recipe]])
        local words = { spoilt, helper.yaml(helper.folder(), cfg) }
        local status, _, errors = helper.run(words, { before = ranks.mpirun(2) })
        assert.not_equal(0, status)
        assert.matches("the weights after step 3 of rank %d and rank %d differ", errors)
    end)

    it("goes on from a checkpoint with another number of ranks", function()
        local whole = train(1)
        for _, sizes in ipairs { { 2, 1 }, { 1, 4 } } do
            local dir = helper.folder()
            local words = { "--checkpoint.checkpoint_dir", dir }
            train(sizes[1], nil, { "--step_scheduler.max_steps", "7", unpack(words) })
            train(sizes[2], nil, words)
            compare(whole, helper.jsonl(dir .. "/training.jsonl"))
        end
    end)

    it("learns the same over Gloo, by a launcher that sets RANK and WORLD_SIZE", function()
        if not ranks.has_gloo then
            pending("there is no amlua_gloo.so")
            return
        end
        local one, dir = train(1), helper.folder()
        local cfg = helper.config(dir, { step_scheduler = { global_batch_size = 8, local_batch_size = 2,
                                                            max_steps = 20 } })
        local file = helper.yaml(helper.folder(), cfg)
        local rank = ("RANK=%%d WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=%d AMLUA_SECRET=theirs "
            .. "OMP_NUM_THREADS=1 timeout 100 %s %s %s")
            :format(20000 + posix.getpid() % 20000, helper.amlua, helper.finetune, file)
        local status, _, errors = helper.shell(("(%s & %s && wait $!)"):format(rank:format(1), rank:format(0)))
        assert.equal(0, status, errors)
        compare(one, helper.jsonl(dir .. "/training.jsonl"))
    end)

    it("is begun by --nproc-per-node", function()
        local one, dir = train(1), helper.folder()
        local cfg = helper.config(dir, { step_scheduler = { global_batch_size = 8, local_batch_size = 2,
                                                            max_steps = 20 } })
        local file = helper.yaml(helper.folder(), cfg)
        local status, _, errors = helper.run({ "finetune", "llm", "-c", file, "--nproc-per-node", "2" })
        assert.equal(0, status, errors)
        compare(one, helper.jsonl(dir .. "/training.jsonl"))
    end)

    it("divides the CPUs that ranks share, and leaves alone those that are theirs", function()
        local cpus = host.cpus()
        if cpus < 2 then
            pending("there is one CPU")
            return
        end
        for bind, threads in pairs { ["none"] = math.max(1, math.floor(cpus / 2)), ["hwthread"] = 1 } do
            local cfg = helper.config(helper.folder(), { step_scheduler = { max_steps = 1 } })
            local _, out, errors = helper.train(cfg, nil, { before = "env -u OMP_NUM_THREADS "
                .. ranks.mpirun(2):gsub("OMP_NUM_THREADS=1 ", "") .. " --use-hwthread-cpus --bind-to " .. bind })
            assert.matches("2 ranks, of which the first has " .. threads .. " threads", out .. errors)
        end
    end)

    it("ends after the same step on all ranks when one gets a signal, and goes on to the same end", function()
        local whole, dir = train(1, { step_scheduler = { max_steps = 400 } }), helper.folder()
        local cfg = helper.config(dir, { step_scheduler = { global_batch_size = 8, max_steps = 400 } })
        local file = helper.yaml(helper.folder(), cfg)
        local run = ranks.mpirun(2) .. (" sh -c 'echo $$ >%s/pid.$OMPI_COMM_WORLD_RANK; exec %s %s %s'")
            :format(dir, helper.amlua, helper.finetune, file)
        os.execute(("(%s; echo $? >%s/rc) >%s/out 2>&1 </dev/null &"):format(run, dir, dir))
        helper.until_true(function() return #helper.jsonl(dir .. "/training.jsonl") > 3 end, 30, "some steps")
        os.execute("kill -TERM " .. helper.read(dir .. "/pid.1")) -- not the one that writes
        helper.until_true(function() return (helper.read(dir .. "/rc") or ""):match("\n") end, 30, "the end")
        assert.equal("0\n", helper.read(dir .. "/rc"), helper.read(dir .. "/out"))
        assert.matches("a signal to another rank ended the run; the same command goes on", helper.read(dir .. "/out"))
        local stopped = #helper.jsonl(dir .. "/training.jsonl")
        assert.is_true(stopped < 400)
        assert.matches("step_" .. stopped - 1 .. "$", helper.latest(dir))
        local status, _, errors = helper.run({ helper.finetune, file }, { before = ranks.mpirun(2) })
        assert.equal(0, status, errors)
        assert.equal(#whole, #helper.jsonl(dir .. "/training.jsonl"))
    end)

    it("loses nothing published when a rank is killed", function()
        local dir = helper.folder()
        local cfg = helper.config(dir, { step_scheduler = { global_batch_size = 8, max_steps = 2000,
                                                            ckpt_every_steps = 10 } })
        local file = helper.yaml(helper.folder(), cfg)
        local run = ranks.mpirun(2) .. (" sh -c 'echo $$ >%s/pid.$OMPI_COMM_WORLD_RANK; exec %s %s %s'")
            :format(dir, helper.amlua, helper.finetune, file)
        os.execute(("(%s; echo $? >%s/rc) >%s/out 2>&1 </dev/null &"):format(run, dir, dir))
        helper.until_true(function() return #helper.jsonl(dir .. "/training.jsonl") > 25 end, 30, "some steps")
        os.execute("kill -KILL " .. helper.read(dir .. "/pid.1"))
        helper.until_true(function() return (helper.read(dir .. "/rc") or ""):match("\n") end, 30, "the end")
        assert.not_equal("0\n", helper.read(dir .. "/rc"))
        local at = tonumber(helper.latest(dir):match("_step_(%d+)$"))
        local status, _, errors = helper.run({ helper.finetune, file, "--step_scheduler.max_steps",
                                               tostring(at + 5) }, { before = ranks.mpirun(4) })
        assert.equal(0, status, errors)
        assert.equal(at + 5, #helper.jsonl(dir .. "/training.jsonl"))
    end)

    it("ends all ranks with the message of the one that fails", function()
        local dir = helper.folder()
        local cfg = helper.config(dir, { step_scheduler = { global_batch_size = 8 } })
        local file = helper.yaml(helper.folder(), cfg)
        local status, _, errors = helper.shell(("%s sh -c 'exec timeout 60 %s %s %s --seed $OMPI_COMM_WORLD_RANK'")
            :format(ranks.mpirun(2), helper.amlua, helper.finetune, file))
        assert.not_equal(0, status)
        assert.matches("the configuration of rank %d and rank %d differ", errors)
    end)
end)
