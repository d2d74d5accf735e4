-- Checkpoints that several ranks write, each its shard: gone on from on any number of ranks by any strategy, and whole
-- as others read them. Skipped, and counted, where there is no mpirun or no amlua_mpi.so.
local am = require("am")
local helper = require("tests.recipe.helper")
local io_core = require("am.core.io")
local json = require("am.utils.json")
local mixtures = require("tests.dist.mixtures")
local ranks = require("tests.dist.ranks")
local tiny = require("tests.support.tiny")

local ddp, fsdp = { strategy = "ddp" }, { strategy = "fsdp2" }
local hsdp = { strategy = "fsdp2", dp_replicate_size = 2 }

ranks.describe("checkpoints of several ranks", function()
    local lora = { peft = { target_modules = "*_proj", dim = 4 } }
    local mixture = { model = { pretrained_model_name_or_path = mixtures("qwen3_moe") } }
    local cases = {
        { "ddp on 4", 4, ddp, { { 2, fsdp } } },
        { "fsdp2 x tp on 4", 4, { strategy = "fsdp2", tp_size = 2 }, { { 1, ddp }, { 2, ddp }, { 4, hsdp } } },
        { "stages x fsdp2 on 4, LoRA", 4, { strategy = "fsdp2", pp_size = 2 }, { { 2, fsdp } }, lora },
        { "experts over 4", 4, { strategy = "fsdp2", ep_size = 2 }, { { 1, ddp } }, mixture },
        { "one rank", 1, ddp, { { 4, { strategy = "fsdp2", tp_size = 2 } },
                                { 4, { strategy = "ddp", pp_size = 2 } } } },
    }
    local wholes = {}
    for _, case in ipairs(cases) do
        local name, n, distributed, others, changes = unpack(case)
        it("are gone on from on any number by any strategy: " .. name, function()
            wholes[changes or 1] = wholes[changes or 1] or ranks.train(1, changes)
            local saved = helper.folder()
            ranks.train(n, ranks.with(distributed, changes), ranks.words(saved, 7))
            for _, other in ipairs(others) do
                local dir = helper.copy(saved, helper.folder() .. "/run")
                ranks.train(other[1], ranks.with(other[2], changes), ranks.words(dir, 20))
                ranks.compare(wholes[changes or 1], helper.jsonl(dir .. "/training.jsonl"))
            end
        end)
    end

    local dropout = { peft = { target_modules = "*_proj", dim = 4, dropout = 0.2 } }
    for _, case in ipairs {
        { "fsdp2, averages", 4, fsdp, { ema = { decay = 0.9 }, optimizer = { state_dtype = "bfloat16" } } },
        { "fsdp2, moments of 8 bits", 2, fsdp, { optimizer = { state_dtype = "int8" } } },
        { "pp, dropout", 2, { strategy = "ddp", pp_size = 2 }, dropout },
        { "tp, dropout", 2, { strategy = "ddp", tp_size = 2 }, dropout },
    } do
        local name, n, distributed, changes = unpack(case)
        it("are gone on from bit for bit on the same ranks: " .. name, function()
            local unbroken, broken = helper.folder(), helper.folder()
            ranks.train(n, ranks.with(distributed, changes), ranks.words(unbroken, 12))
            ranks.train(n, ranks.with(distributed, changes), ranks.words(broken, 7))
            ranks.train(n, ranks.with(distributed, changes), ranks.words(broken, 12))
            assert.same(ranks.bits(helper.latest(unbroken)), ranks.bits(helper.latest(broken)))
        end)
    end

    it("with moments of 8 bits say what does not go with them", function()
        local dir = helper.folder()
        local eight = { optimizer = { state_dtype = "int8" },
                        step_scheduler = { max_steps = 3, global_batch_size = 8 } }
        ranks.train(2, ranks.with(fsdp, eight), ranks.words(dir, 2))
        local _, out, errors = helper.train(helper.config(dir, ranks.with(ddp, eight)))
        assert.matches("moments of 8 bits of model.embed_tokens.weight are in blocks of parts of another size",
                       out .. errors)
        local cfg = helper.config(helper.folder(), ranks.with({ strategy = "ddp", tp_size = 2 }, eight))
        _, out, errors = helper.train(cfg, nil, { before = ranks.mpirun(2) })
        assert.matches("blocks of 256 numbers, and ranks share it by columns", out .. errors)
    end)

    it("hold the model as one rank writes it, and shards as torch reads them", function()
        local dir = helper.folder()
        ranks.train(4, ranks.with(fsdp), ranks.words(dir, 3, { "--checkpoint.save_consolidated", "true" }))
        local to, again = helper.latest(dir) .. "/model/", helper.folder()
        local file = "consolidated/model-00001-of-00001.safetensors"
        local model = am.AutoModelForCausalLM.from_pretrained(to .. "consolidated")
        model:save_pretrained(again, { numbered = true })
        model:close()
        for _, name in ipairs(helper.tree(again)) do
            assert.equal(helper.read(again .. "/" .. name), helper.read(to .. "consolidated/" .. name), name)
        end
        -- the shards say which rows they have, and together they are what is consolidated
        local tensors = io_core.load_safetensors(to .. file)
        local found = {}
        for k = 1, 4 do
            local archive = io_core.open(to .. ("shard-%05d-model-00001-of-00001.safetensors"):format(k))
            local info = json.decode(json.decode(archive:metadata_json()).DCP_SHARDING_INFO)
            for _, name in ipairs(archive:names()) do
                local at, t, whole = info[name].saved_offsets, archive:get(name), tensors[name]
                assert.equal(t:dim(), #at)
                assert.equal(tiny.bits(whole:narrow(0, at[1], t:size(0))), tiny.bits(t), name)
                found[name] = (found[name] or 0) + t:size(0)
            end
        end
        for name, t in pairs(tensors) do
            assert.equal(t:size(0), found[name], name)
        end
    end)
end)
