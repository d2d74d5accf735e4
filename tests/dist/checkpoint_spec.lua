-- Checkpoints that several ranks write, each its shard: gone on from on any number of ranks by any strategy, whole as
-- others read them, and nothing lost when ranks are killed or have no room. Skipped, and counted, where there is no
-- mpirun or no amlua_mpi.so.
local am = require("am")
local checkpoint = require("am.checkpoint")
local faults = require("tests.support.faults")
local helper = require("tests.recipe.helper")
local io_core = require("am.core.io")
local json = require("am.utils.json")
local path = require("am.utils.path")
local ranks = require("tests.dist.ranks")
local tiny = require("tests.support.tiny")

local ddp, fsdp = { strategy = "ddp" }, { strategy = "fsdp2" }
local pp = { strategy = "ddp", pp_size = 2 }
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
        { "pp on 2", 2, pp, { { 1, ddp }, { 4, { strategy = "fsdp2", pp_size = 2 } } } },
        { "pp beside fsdp2 on 4, LoRA", 4, { strategy = "fsdp2", pp_size = 2 }, { { 1, ddp }, { 2, pp } },
          { peft = { target_modules = "*_proj", dim = 4 } } },
        { "one for pp", 1, ddp, { { 2, pp } } },
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

    local dropout = { peft = { target_modules = "*_proj", dim = 4, dropout = 0.2 } }
    for _, case in ipairs {
        { "fsdp2, averages", 4, fsdp, { ema = { decay = 0.9 }, optimizer = { state_dtype = "bfloat16" } } },
        { "pp, dropout", 2, pp, dropout },
        { "tp, dropout", 2, { strategy = "ddp", tp_size = 2 }, dropout },
    } do
        local name, n, distributed, changes = unpack(case)
        it("are gone on from bit for bit on the same ranks: " .. name, function()
            local unbroken, broken = helper.folder(), helper.folder()
            ranks.train(n, with(distributed, changes), words(unbroken, 12))
            ranks.train(n, with(distributed, changes), words(broken, 7))
            ranks.train(n, with(distributed, changes), words(broken, 12))
            assert.same(bits_of(helper.latest(unbroken)), bits_of(helper.latest(broken)))
        end)
    end

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

    it("are written beside the steps that follow, and published when all ranks have written", function()
        local changes = { checkpoint = { is_async = true }, ema = { decay = 0.9 } }
        local apart, beside = helper.folder(), helper.folder()
        local every = { "--step_scheduler.ckpt_every_steps", "3" }
        local _, _, errors = ranks.train(2, with(fsdp, changes), words(beside, 8, every))
        ranks.train(2, with(fsdp, { ema = changes.ema }), words(apart, 8, every))
        local names = {}
        for _, name in ipairs(path.list_dir(apart)) do
            if name:find("^epoch") then
                names[#names + 1] = name
                assert.same(bits_of(path.join(apart, name)), bits_of(path.join(beside, name)), errors)
                checkpoint.manifest.check(path.join(beside, name), function() return true end, 0, 1)
            end
        end
        assert.is_true(#names >= 3)
        assert.equal(path.basename(helper.latest(apart)), path.basename(helper.latest(beside)))
    end)

    -- Start a run in the background; each rank writes its process to dir/pid.RANK.
    local function start(n, dir, file, before)
        os.execute(("rm -f %s/rc %s/pid.*"):format(dir, dir))
        local run = ranks.mpirun(n) .. (" sh -c '%secho $$ >%s/pid.$OMPI_COMM_WORLD_RANK; exec %s %s %s'")
            :format(before or "", dir, helper.amlua, helper.finetune, file)
        os.execute(("(%s; echo $? >%s/rc) >%s/out 2>&1 </dev/null &"):format(run, dir, dir))
        return function()
            helper.until_true(function() return (helper.read(dir .. "/rc") or ""):match("\n") end, 60, "the end")
            return tonumber(helper.read(dir .. "/rc")), helper.read(dir .. "/out")
        end
    end

    local function config(dir, changes)
        return helper.config(dir, helper.changes({
            step_scheduler = { global_batch_size = 8, max_steps = 60, ckpt_every_steps = 1, num_epochs = 100 },
            distributed = fsdp, checkpoint = { save_consolidated = "every", max_recent_checkpoints = 3 },
        }, changes or {}))
    end

    for _, beside in ipairs { false, true } do
        it("lose nothing when ranks are killed at any moment" .. (beside and ", writing beside steps" or ""), function()
            math.randomseed(tonumber(os.getenv("AMLUA_SEED")) or os.time())
            local changes = { checkpoint = { is_async = beside } }
            local unbroken, dir, place = helper.folder(), helper.folder(), helper.folder()
            local wait = start(2, place, helper.yaml(helper.folder(), config(unbroken, changes)))
            assert.equal(0, wait(), helper.read(place .. "/out"))
            local file, last, ended = helper.yaml(helper.folder(), config(dir, changes)), -1, false
            for _ = 1, tonumber(os.getenv("AMLUA_KILLS")) or 4 do
                wait = start(2, place, file)
                local steps = #helper.jsonl(dir .. "/training.jsonl")
                helper.until_true(function()
                    ended = (helper.read(place .. "/rc") or "") ~= ""
                    return ended or #helper.jsonl(dir .. "/training.jsonl") ~= steps
                end, 60, "a step")
                helper.sleep(math.random() * 0.15)
                for rank = 0, 1 do
                    if math.random() < 0.7 or rank == 1 then
                        os.execute("kill -KILL " .. helper.read(place .. "/pid." .. rank) .. " 2>/dev/null")
                    end
                end
                wait()
                local latest = helper.latest(dir)
                local step = latest and tonumber(latest:match("step_(%d+)$")) or -1
                assert.is_true(step >= last)
                last = step
                if latest then
                    checkpoint.manifest.check(latest, function() return true end, 0, 1)
                end
            end
            wait = start(2, place, file)
            assert.equal(0, wait(), helper.read(place .. "/out"))
            assert.same(bits_of(helper.latest(unbroken)), bits_of(helper.latest(dir)))
            for _, name in ipairs(path.list_dir(dir)) do
                assert.is_nil(name:match("reserving"))
            end
        end)
    end

    it("of which one rank has no room end all ranks with one message, and nothing that is published changes", function()
        for _, changes in ipairs { {}, { checkpoint = { is_async = true } } } do
            local dir, place = helper.folder(), helper.folder()
            local cfg = config(dir, helper.changes({ step_scheduler = { max_steps = 3 } }, changes))
            local status, out = start(2, place, helper.yaml(helper.folder(), cfg))()
            assert.equal(0, status, out)
            local before = helper.copy(helper.latest(dir), helper.folder() .. "/before")
            cfg.step_scheduler.max_steps = 40
            local words_before = faults.preload(place) { under = dir, call = "pwrite", k = 5, errno = faults.ENOSPC,
                                                         forever = true }
            helper.write(place .. "/before", "test $OMPI_COMM_WORLD_RANK = 0 || export " .. words_before .. "\n")
            status, out = start(2, place, helper.yaml(helper.folder(), cfg), ". " .. place .. "/before; ")()
            assert.not_equal(0, status)
            assert.matches("rank 1 %(host [^\n]*%): [^\n]*%.safetensors: No space left on device: %d+ bytes are needed "
                           .. "%(in saving [^\n]*/epoch_%d+_step_3; earlier checkpoints are untouched%)", out)
            local _, count = out:gsub("| ERROR |", "")
            assert.equal(1, count, out)
            assert.equal("epoch_0_step_2", path.basename(helper.latest(dir)))
            assert.is_nil(helper.checkpoint_difference(before, helper.latest(dir)))
            assert.is_nil(table.concat(path.list_dir(dir), " "):match("step_3"))
            status, out = start(2, place, helper.yaml(helper.folder(), cfg))()
            assert.equal(0, status, out)
        end
    end)

    it("that are damaged are refused by the name of the file", function()
        local dir = helper.folder()
        ranks.train(2, with(fsdp), words(dir, 3))
        local shard = path.join(helper.latest(dir), "optim/shard-00002-optimizer-00001-of-00001.safetensors")
        local text = helper.read(shard)
        helper.write(shard, text:sub(1, -2) .. string.char((text:byte(-1) + 1) % 256))
        for _, n in ipairs { 1, 4 } do
            local status, out, errors = helper.train(helper.config(dir, with(fsdp, {
                step_scheduler = { global_batch_size = 8, max_steps = 5 },
            })), nil, { before = n > 1 and ranks.mpirun(n) or nil })
            assert.not_equal(0, status)
            assert.matches("is damaged: the checksum of optim/shard%-00002%-optimizer%-00001%-of%-00001.safetensors",
                           out .. errors)
        end
        os.remove(shard)
        local _, out, errors = helper.train(helper.config(dir, with(ddp)))
        assert.matches("lacks optim/shard%-00002%-optimizer%-00001%-of%-00001.safetensors", out .. errors)
    end)
end)
