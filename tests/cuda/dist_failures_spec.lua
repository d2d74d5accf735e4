-- Several ranks on CUDA, each with a GPU of its own, of which one stays away, is killed or fails: the others say so,
-- name it and end. Over the tests' emulated CUDA and NCCL; skipped, counted, where AMLUA_CUDA names no module. What
-- ranks learn: dist_spec.lua.

local environment = require("tests.support.environment")
local helper = require("tests.recipe.helper")
local posix = require("am.utils.posix")
local ranks = require("tests.dist.ranks")

-- A rank of those that meet over Gloo, as a line of the shell: who is killed there takes no launcher along.
local function over_gloo(rank, size, words)
    return ("RANK=%d WORLD_SIZE=%d MASTER_ADDR=127.0.0.1 MASTER_PORT=%d AMLUA_SECRET=theirs "
        .. "OMP_NUM_THREADS=1 timeout 60 %s %s"):format(rank, size, 20000 + posix.getpid() % 20000, helper.amlua, words)
end

-- The ranks of such lines; what they print.
local function together(lines)
    local _, out, errors = helper.shell("export AMLUA_MEETING=" .. helper.folder() .. "; ("
        .. table.concat(lines, " & ") .. "; wait)")
    return out, errors
end

ranks.describe_on_gpus("ranks on CUDA", function()
    -- Streams that do at once what they can: what is still to be done for a group that was given up comes next.
    local function collectives(word, dtype)
        return helper.run({ "tests/dist/collectives.lua", word, "cuda", dtype },
                          { before = "AM_EMU_STREAMS=eager " .. ranks.meeting(3) })
    end

    it("name the rank that does not come, and end", function()
        local status, out
        for _, dtype in ipairs { "float32", "bfloat16" } do -- the second is two kernels around NCCL's
            environment.set { AM_SYNC = dtype == "bfloat16" and "1" or "0" } -- which wait for none of another rank
            status, out = collectives("late", dtype)
            assert.equal(5, status)
            for rank = 0, 1 do
                assert.matches("rank " .. rank .. ": all_reduce %d+ of group world did not end within 1 s: there "
                    .. "came no rank 2 %(host [^,]+, process %d+%)\n", out)
            end
        end
        environment.set { AM_SYNC = "0" }
        status, out = collectives("behind")
        assert.equal(5, status)
        assert.matches("rank 1: recv %d+ of group world did not end within 1 s: there came no "
            .. "rank 2 %(host [^,]+, process %d+%)\n", out)
    end)

    -- What the others print in a collective in which the last of three does `instead`.
    local function without_the_last(timeout, instead)
        local script = helper.write(helper.folder() .. "/without.lua", ([[
            local am = require("am")
            local world = require("am.distributed").join { timeout = %d }
            local t = am.ones({ 1000 }, { device = "cuda:" .. world.rank })
            world.group:all_reduce(t):wait()
            if world.rank == 2 then
                %s
            end
            local began = os.time()
            local ok, e = pcall(function() world.group:all_reduce(t):wait():sum():item() end)
            require("tests.dist.meeting").say(world.rank, 2, ("%%d: %%s, %%s\n")
                :format(world.rank, ok and "came" or e, os.time() - began < 10))
            world:abort(3, "over")]]):format(timeout, instead))
        local lines = {}
        for rank = 0, 2 do
            lines[3 - rank] = over_gloo(rank, 3, script)
        end
        return together(lines)
    end

    it("name over Gloo, too, who is killed and who does not come", function()
        if not ranks.has_gloo then
            pending("there is no amlua_gloo.so")
            return
        end
        local out, errors = without_the_last(20, 'os.execute("kill -KILL $PPID")')
        for rank = 0, 1 do
            assert.matches(rank .. ": all_reduce %d+ of group world: rank 2 %(host [^,]+, process %d+%) is gone, "
                .. "true\n", out, errors)
        end
        out, errors = without_the_last(2, 'require("am.utils.posix").sleep(8)')
        for rank = 0, 1 do
            assert.matches(rank .. ": all_reduce %d+ of group world did not end within 2 s: there came no rank 2 "
                .. "%(host [^,]+, process %d+%), true\n", out, errors)
        end
    end)

    local broken = { -- failure, collective, what the rank says that has it; does the other have its sum?
        { "comm:1", "sum", "NCCL: unhandled system error" },
        { "comm:1", "exchange", "NCCL: unhandled system error" },
        { "wire:1", "sum", "NCCL: unhandled system error" },
        { "wire:1", "half", "NCCL: unhandled system error" },
        { "wire:1", "matrix", "NCCL: unhandled system error" },
        { "memory:1", "half", "bytes on cuda could not be had" },
        { "device:1", "sum", "cuda: " },
        { "launch:2", "half", "cuda: unspecified launch failure", true }, -- behind NCCL's
        { "join:1", "meeting", "joining GPUs of group world: NCCL: unhandled system error" },
    }
    for _, kind in ipairs(broken) do
        local failure, what, says, other_comes = unpack(kind)
        it("say what failed, and hang nowhere: " .. failure .. ", " .. what, function()
            local began = posix.time()
            local status, out, errors = helper.run({ "tests/cuda/broken.lua", failure, what },
                                                   { before = ranks.meeting(2) })
            assert.equal(5, status, errors)
            assert(out:find("rank 1: [^\n]*" .. says), out)
            assert.matches(other_comes and "rank 0: came\n" or "rank 0: [^\n]+ of group world: [^\n]+\n", out)
            assert(posix.time() - began < 30)
        end)
    end

    -- Of three ranks the first sends and is idle, the second waits for the third, which never sends.
    it("are not named over Gloo when they are idle, and do nothing then", function()
        if not ranks.has_gloo then
            pending("there is no amlua_gloo.so")
            return
        end
        local script = helper.write(helper.folder() .. "/idle.lua", [[
            local am = require("am")
            local path, posix = require("am.utils.path"), require("am.utils.posix")
            local world = require("am.distributed").join { timeout = 5 }
            local function rounds() -- how often the thread of the group on GPUs has waited
                for _, id in ipairs(path.list_dir("/proc/self/task")) do
                    local status = io.open("/proc/self/task/" .. id .. "/status")
                    local text = status and status:read("*a") or ""
                    if text:find("Name:%s*ranks on GPUs\n") then
                        return tonumber(text:match("\nvoluntary_ctxt_switches:%s*(%d+)"))
                    end
                end
            end
            local t = am.ones({ 1000 }, { device = "cuda:" .. world.rank })
            world.group:all_reduce(t):wait():sum():item()
            if world.rank == 0 then
                world.group:send(t, 1):wait()
                posix.sleep(1.5) -- it has told the others
                local from = rounds()
                posix.sleep(2)
                print("0: " .. rounds() - from .. " rounds")
                posix.sleep(5)
            elseif world.rank == 1 then
                local _, e = pcall(function() world.group:recv(t, 2):wait():sum():item() end)
                print("1: " .. tostring(e))
            else
                posix.sleep(9)
            end
            io.stdout:flush()
            world:abort(3, "over")]])
        local lines = {}
        for rank = 0, 2 do
            lines[3 - rank] = over_gloo(rank, 3, script)
        end
        local out, errors = together(lines)
        assert.matches("1: recv %d+ of group world did not end within 5 s: there came no rank 2 "
            .. "%(host [^,]+, process %d+%)\n", out, errors)
        assert.matches("0: 0 rounds\n", out, errors)
    end)

    it("end with a message when one is killed in the middle of a run", function()
        if not ranks.has_gloo then
            pending("there is no amlua_gloo.so")
            return
        end
        local dir = helper.folder()
        local words = helper.finetune .. " " .. helper.yaml(helper.folder(), helper.config(dir, {
            device = "cuda", distributed = { strategy = "ddp" }, dist_env = { timeout_minutes = 0.2 },
            step_scheduler = { global_batch_size = 8, max_steps = 5000, ckpt_every_steps = 2 },
        }))
        local run = ("(%s & echo $! >%s/pid; %s; echo $? >%s/rc) >%s/out 2>&1 </dev/null &")
            :format(over_gloo(1, 2, words):gsub("timeout 60 ", ""), dir, over_gloo(0, 2, words), dir, dir)
        os.execute(run)
        helper.until_true(function() return #helper.jsonl(dir .. "/training.jsonl") > 3 end, 30, "some steps")
        os.execute("kill -KILL " .. helper.read(dir .. "/pid"))
        helper.until_true(function() return (helper.read(dir .. "/rc") or ""):match("\n") end, 30, "the end")
        assert.equal("1\n", helper.read(dir .. "/rc"), helper.read(dir .. "/out"))
        assert.matches("rank 1 %(host [^,]+, process %d+%)", helper.read(dir .. "/out"))
        assert.matches("_step_%d+$", helper.latest(dir))
    end)
end)
