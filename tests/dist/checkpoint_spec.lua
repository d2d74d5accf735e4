-- Checkpoints that several ranks write, each its shard: gone on from on any number of ranks by any strategy, whole as
-- others read them, and nothing lost when ranks are killed or have no room. Skipped, and counted, where there is no
-- mpirun or no amlua_mpi.so.
local am = require("am")
local helper = require("tests.recipe.helper")
local io_core = require("am.core.io")
local json = require("am.utils.json")
local path = require("am.utils.path")
local ranks = require("tests.dist.ranks")
local tiny = require("tests.support.tiny")

local ddp, fsdp = { strategy = "ddp" }, { strategy = "fsdp2" }
local hsdp = { strategy = "fsdp2", dp_replicate_size = 2 }

-- Overrides of a run in a folder.
local function words(dir, steps, more)
    return { "--checkpoint.checkpoint_dir", dir, "--step_scheduler.max_steps", tostring(steps), unpack(more or {}) }
end

local function with(distributed, changes)
    return helper.changes({ distributed = distributed }, changes or {})
end

-- All of a folder's tensors, of its safetensors files: { name = bits }.
local function bits_of(dir)
    local out = {}
    for _, name in ipairs(helper.tree(dir)) do
        if name:find("%.safetensors$") then
            for key, t in pairs(io_core.load_safetensors(path.join(dir, name))) do
                out[name .. " " .. key] = tiny.bits(t)
            end
        end
    end
    return out
end

describe("checkpoints of several ranks", function()
    if not ranks.can_run then
        pending("there is no mpirun, or no amlua_mpi.so")
        return
    end

    teardown(helper.cleanup)

    local cases = {
        { "ddp on 4", 4, ddp, { { 1, ddp }, { 2, fsdp } } },
        { "fsdp2 on 4", 4, fsdp, { { 1, ddp }, { 2, ddp }, { 4, hsdp } } },
        { "HSDP on 4, LoRA", 4, hsdp, { { 1, ddp }, { 2, fsdp } }, { peft = { target_modules = "*_proj", dim = 4 } } },
        { "one rank", 1, ddp, { { 4, fsdp } } },
    }
    for _, case in ipairs(cases) do
        local name, n, distributed, others, changes = unpack(case)
        it("are gone on from on any number by any strategy: " .. name, function()
            local whole, saved = ranks.train(1, changes), helper.folder()
            ranks.train(n, with(distributed, changes), words(saved, 7))
            for _, other in ipairs(others) do
                local dir = helper.copy(saved, helper.folder() .. "/run")
                ranks.train(other[1], with(other[2], changes), words(dir, 20))
                ranks.compare(whole, helper.jsonl(dir .. "/training.jsonl"))
            end
        end)
    end

    it("are gone on from bit for bit on the same ranks", function()
        local changes = { ema = { decay = 0.9 }, optimizer = { state_dtype = "bfloat16" } }
        local unbroken, broken = helper.folder(), helper.folder()
        ranks.train(4, with(fsdp, changes), words(unbroken, 12))
        ranks.train(4, with(fsdp, changes), words(broken, 7))
        ranks.train(4, with(fsdp, changes), words(broken, 12))
        assert.same(bits_of(helper.latest(unbroken)), bits_of(helper.latest(broken)))
    end)

    it("hold the model as one rank writes it, and shards as torch reads them", function()
        local dir = helper.folder()
        ranks.train(4, with(fsdp), words(dir, 3, { "--checkpoint.save_consolidated", "true" }))
        local to, again = helper.latest(dir) .. "/model/", helper.folder()
        local file = "consolidated/model-00001-of-00001.safetensors"
        local model = am.AutoModelForCausalLM.from_pretrained(to .. "consolidated")
        model:save_pretrained(again, { numbered = true })
        model:close()
        for _, name in ipairs(helper.tree(again)) do
            assert.equal(helper.read(again .. "/" .. name), helper.read(to .. "consolidated/" .. name), name)
        end
        -- the shards say which rows they have, and together they are what is consolidated
        local wholes = io_core.load_safetensors(to .. file)
        local found = {}
        for k = 1, 4 do
            local archive = io_core.open(to .. ("shard-%05d-model-00001-of-00001.safetensors"):format(k))
            local info = json.decode(json.decode(archive:metadata_json()).DCP_SHARDING_INFO)
            for _, name in ipairs(archive:names()) do
                local at, t, whole = info[name].saved_offsets, archive:get(name), wholes[name]
                assert.equal(t:dim(), #at)
                assert.equal(tiny.bits(whole:narrow(0, at[1], t:size(0))), tiny.bits(t), name)
                found[name] = (found[name] or 0) + t:size(0)
            end
        end
        for name, t in pairs(wholes) do
            assert.equal(t:size(0), found[name], name)
        end
    end)
end)
