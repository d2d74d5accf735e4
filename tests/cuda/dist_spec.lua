-- Several ranks on CUDA, each with a GPU of its own, over the tests' emulated CUDA and NCCL: collectives, strategies
-- beside one rank, a checkpoint that a CPU goes on from, refusals. Skipped, counted, where AMLUA_CUDA names no module.
-- Ranks that stay away or fail: dist_failures_spec.lua.

local environment = require("tests.support.environment")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local mixture = require("tests.dist.mixtures")
local ranks = require("tests.dist.ranks")

-- Strategies on so many ranks. one: what of the changes one rank has, too.
local strategies = {
    { "ddp", 2, { distributed = { strategy = "ddp" } } },
    { "ddp, LoRA, a bucket for each parameter", 2, { distributed = { strategy = "ddp", bucket_cap_mb = 0.001 } },
      one = { peft = { target_modules = "*_proj", dim = 4 } } },
    { "ddp, CUDA graphs", 2, { distributed = { strategy = "ddp" }, packed_sequence = { packed_sequence_size = 48 },
                               compile = { enabled = true, mode = "reduce-overhead" } },
      one = { packed_sequence = { packed_sequence_size = 48 } } },
    { "fsdp2", 2, { distributed = { strategy = "fsdp2" } } },
    { "tp, tokens between blocks shared", 2, { distributed = { tp_size = 2, sequence_parallel = true } } },
    { "cp", 2, { distributed = { cp_size = 2 } } },
    { "pp", 2, { distributed = { pp_size = 2 } } },
    { "tp and fsdp2", 4, { distributed = { tp_size = 2, strategy = "fsdp2" } } },
    { "ep", 2, { distributed = { strategy = "ddp", ep_size = 2 } }, family = "mixtral" },
}

ranks.describe_on_gpus("ranks on CUDA", function()
    -- ranks.train on n GPUs.
    local function train(n, changes, overrides)
        return ranks.train(n, helper.changes({ device = "cuda", step_scheduler = { max_steps = 10 } }, changes or {}),
                           overrides)
    end

    local function collectives(n, streams)
        return helper.run({ "tests/dist/collectives.lua", "right", "cuda" },
                          { before = "AM_EMU_STREAMS=" .. streams .. " " .. ranks.mpirun(n) })
    end

    for _, streams in ipairs { "eager", "lazy", "rand" } do
        it("exchange tensors, streams " .. streams, function()
            for n = 1, 3 do
                local status, out, errors = collectives(n, streams)
                assert.equal(0, status, errors)
                for rank = 0, n - 1 do
                    assert.matches("all is well on rank " .. rank, out)
                end
            end
        end)
    end

    local alone = {} -- what one rank learns, by its changes
    for _, kind in ipairs(strategies) do
        local what, n, changes = unpack(kind)
        it("learn what one learns: " .. what, function()
            local given = helper.changes(kind.one or {}, kind.family and
                { model = { pretrained_model_name_or_path = mixture(kind.family) } } or {})
            local key = json.encode(given)
            alone[key] = alone[key] or train(1, given)
            local one = alone[key]
            local many, _, said = train(n, helper.changes(given, changes))
            assert.matches("cuda:0 is emulated GPU", said)
            assert.equal(changes.compile ~= nil, said:find("are CUDA graphs", 1, true) ~= nil)
            ranks.compare(one, many)
        end)
    end

    it("have the same bits after every step, in any legal order of streams", function()
        local cfg = helper.config(helper.folder(), { device = "cuda", distributed = { strategy = "ddp" },
                                                     step_scheduler = { global_batch_size = 8, local_batch_size = 2,
                                                                        max_steps = 5 } })
        environment.set { AM_EMU_STREAMS = "rand" }
        local records = ranks.run(2, cfg, { "--checkpoint.enabled", "false" }, "tests/dist/replicas.lua")
        assert.equal(5, #records)
    end)

    -- The GPU's stream waits for the works: a host that does leaves its GPU idle.
    for strategy, steps in pairs { ddp = 1, fsdp2 = 2 } do -- steps: micro-batches
        it("are waited for in a step only where it reads: " .. strategy, function()
            for _, streams in ipairs { "eager", "lazy" } do
                local cfg = helper.config(helper.folder(), {
                    device = "cuda", distributed = { strategy = strategy },
                    step_scheduler = { global_batch_size = 8, local_batch_size = 4 / steps, max_steps = 4 },
                })
                local status, out, errors = helper.run({ "tests/cuda/ahead.lua", helper.yaml(helper.folder(), cfg) },
                    { before = "AM_EMU_STREAMS=" .. streams .. " " .. ranks.mpirun(2) })
                assert.equal(0, status, errors)
                assert.matches(("a host was held up by 0 works, its GPU by %d waits; the last rank was late: true\n")
                    :format(1 + steps), out)
            end
        end)
    end

    it("leave a checkpoint that a CPU goes on from", function()
        local whole, dir = train(1), helper.folder()
        local words = { "--checkpoint.checkpoint_dir", dir }
        train(2, { distributed = { strategy = "fsdp2" } }, { "--step_scheduler.max_steps", "7", unpack(words) })
        ranks.train(1, { step_scheduler = { max_steps = 10 } }, words)
        ranks.compare(whole, helper.jsonl(dir .. "/training.jsonl"))
    end)

    it("sum in memory that the engine kept for reuse", function()
        local script = helper.write(helper.folder() .. "/room.lua", [[
            local am = require("am")
            local world = require("am.distributed.comm").open("mpi", { timeout = 20 })
            am.set_default_device("cuda:0")
            local t = am.ones({ 5000000 }, { dtype = "bfloat16" }) -- 10 MB, and 20 MB for its sum
            am.zeros({ 10000000 }):release()
            world:all_reduce(t):wait()
            assert(t:to("float32"):sum():item() == 5000000)
            world:close()
            print("there was room")]])
        local _, out, errors = helper.run({ script }, { before = "AM_EMU_MEMORY=64M " .. ranks.mpirun(1) })
        assert.matches("there was room", out, errors)
    end)

    it("compute on the CPU where one has no GPU and nobody asked for it", function()
        local dir = helper.folder()
        local cfg = helper.config(dir, { step_scheduler = { global_batch_size = 8, max_steps = 1 } })
        local status, out, errors = helper.shell(
            ("%s sh -c 'AM_EMU_DEVICES=$((1 - OMPI_COMM_WORLD_RANK)) exec timeout 60 %s %s %s'")
            :format(ranks.mpirun(2), helper.amlua, helper.finetune, helper.yaml(helper.folder(), cfg)))
        assert.equal(0, status, errors)
        assert.matches("not all ranks have a GPU; computing on the CPU", out .. errors)
        assert.equal(1, #helper.jsonl(dir .. "/training.jsonl"))
    end)

    it("are refused where two have one GPU", function()
        local cfg = helper.config(helper.folder(), { device = "cuda", step_scheduler = { global_batch_size = 8 } })
        local status, out, errors = helper.run({ helper.finetune, helper.yaml(helper.folder(), cfg) },
                                               { before = "AM_EMU_DEVICES=1 " .. ranks.mpirun(2) })
        assert.not_equal(0, status)
        assert.matches("rank 0 and rank 1 have the same GPU of host [^:]+: start one rank for each "
            .. "GPU; device: cpu trains on CPUs", out .. errors)
    end)
end)
