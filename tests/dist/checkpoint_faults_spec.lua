-- Checkpoints of several ranks in trouble: killed at any moment, without room, damaged; and written beside the steps.
-- Skipped, and counted, where there is no mpirun or no amlua_mpi.so.
local checkpoint = require("am.checkpoint")
local faults = require("tests.support.faults")
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")
local ranks = require("tests.dist.ranks")

local ddp, fsdp = { strategy = "ddp" }, { strategy = "fsdp2" }

ranks.describe("checkpoints of several ranks", function()
    it("are written beside the steps that follow, and published when all ranks have written", function()
        local changes = { checkpoint = { is_async = true }, ema = { decay = 0.9 } }
        local apart, beside = helper.folder(), helper.folder()
        local every = { "--step_scheduler.ckpt_every_steps", "3" }
        local _, _, errors = ranks.train(2, ranks.with(fsdp, changes), ranks.words(beside, 8, every))
        ranks.train(2, ranks.with(fsdp, { ema = changes.ema }), ranks.words(apart, 8, every))
        local names = {}
        for _, name in ipairs(path.list_dir(apart)) do
            if name:find("^epoch") then
                names[#names + 1] = name
                assert.same(ranks.bits(path.join(apart, name)), ranks.bits(path.join(beside, name)), errors)
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
            for _ = 1, tonumber(os.getenv("AMLUA_KILLS")) or 3 do
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
            assert.same(ranks.bits(helper.latest(unbroken)), ranks.bits(helper.latest(dir)))
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
        ranks.train(2, ranks.with(fsdp), ranks.words(dir, 3))
        local shard = path.join(helper.latest(dir), "optim/shard-00002-optimizer-00001-of-00001.safetensors")
        local text = helper.read(shard)
        helper.write(shard, text:sub(1, -2) .. string.char((text:byte(-1) + 1) % 256))
        for _, n in ipairs { 1, 4 } do
            local status, out, errors = helper.train(helper.config(dir, ranks.with(fsdp, {
                step_scheduler = { global_batch_size = 8, max_steps = 5 },
            })), nil, { before = n > 1 and ranks.mpirun(n) or nil })
            assert.not_equal(0, status)
            assert.matches("is damaged: the checksum of optim/shard%-00002%-optimizer%-00001%-of%-00001.safetensors",
                           out .. errors)
        end
        os.remove(shard)
        local _, out, errors = helper.train(helper.config(dir, ranks.with(ddp)))
        assert.matches("lacks optim/shard%-00002%-optimizer%-00001%-of%-00001.safetensors", out .. errors)
    end)
end)
