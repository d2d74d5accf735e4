-- Several ranks on CUDA, each with a GPU of its own, over the tests' emulated CUDA and NCCL: collectives, strategies
-- beside one rank, ranks that stay away or are killed, a checkpoint that a CPU goes on from, refusals. Skipped,
-- counted, where AMLUA_CUDA names no module.

local ffi = require("ffi")
local helper = require("tests.recipe.helper")
local mixture = require("tests.dist.mixtures")
local posix = require("am.utils.posix")
local ranks = require("tests.dist.ranks")

ffi.cdef "int setenv(const char *name, const char *value, int overwrite);"

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

-- A rank of those that meet over Gloo, as a line of the shell: who is killed there takes no launcher along.
local function over_gloo(rank, size, words)
    return ("RANK=%d WORLD_SIZE=%d MASTER_ADDR=127.0.0.1 MASTER_PORT=%d AMLUA_SECRET=theirs "
        .. "OMP_NUM_THREADS=1 timeout 60 %s %s"):format(rank, size, 20000 + posix.getpid() % 20000, helper.amlua, words)
end

ranks.describe("ranks on CUDA", function()
    if not os.getenv("AMLUA_CUDA") then
        pending("AMLUA_CUDA names no module")
        return
    end

    setup(function() ffi.C.setenv("AM_EMU_DEVICES", "4", 1) end)

    -- ranks.train on n GPUs.
    local function train(n, changes, overrides)
        return ranks.train(n, helper.changes({ device = "cuda" }, changes or {}), overrides)
    end

    local function collectives(n, word, streams, dtype)
        return helper.run({ "tests/dist/collectives.lua", word, "cuda", dtype },
                          { before = "AM_EMU_STREAMS=" .. (streams or "eager") .. " " .. ranks.mpirun(n) })
    end

    for _, streams in ipairs { "eager", "lazy", "rand" } do
        it("exchange tensors, streams " .. streams, function()
            for n = 1, 3 do
                local status, out, errors = collectives(n, "right", streams)
                assert.equal(0, status, errors)
                for rank = 0, n - 1 do
                    assert.matches("all is well on rank " .. rank, out)
                end
            end
        end)
    end

    it("name the rank that does not come, and end", function()
        local status, out
        for _, dtype in ipairs { "float32", "bfloat16" } do -- the second is two kernels around NCCL's
            ffi.C.setenv("AM_SYNC", dtype == "bfloat16" and "1" or "0", 1) -- which wait for none of another rank
            status, out = collectives(3, "late", nil, dtype)
            ffi.C.setenv("AM_SYNC", "0", 1)
            assert.equal(5, status)
            for rank = 0, 1 do
                assert.matches("rank " .. rank .. ": all_reduce %d+ of group world did not end within 1 s: there "
                    .. "came no rank 2 %(host [^,]+, process %d+%)\n", out)
            end
        end
        status, out = collectives(3, "behind")
        assert.equal(5, status)
        assert.matches("rank 1: recv %d+ of group world did not end within 1 s: there came no "
            .. "rank 2 %(host [^,]+, process %d+%)\n", out)
    end)

    for _, kind in ipairs(strategies) do
        local what, n, changes = unpack(kind)
        it("learn what one learns: " .. what, function()
            local given = helper.changes(kind.one or {}, kind.family and
                { model = { pretrained_model_name_or_path = mixture(kind.family) } } or {})
            local one = train(1, given)
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
        ffi.C.setenv("AM_EMU_STREAMS", "rand", 1)
        local records = ranks.run(2, cfg, { "--checkpoint.enabled", "false" }, "tests/dist/replicas.lua")
        ffi.C.setenv("AM_EMU_STREAMS", "eager", 1)
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
        ranks.train(1, nil, words)
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
            io.write(("%%d: %%s, %%s\n"):format(world.rank, ok and "came" or e, os.time() - began < 10))
            io.stdout:flush()
            require("am.utils.posix").sleep(4) -- the other says it, too
            world:abort(3, "over")]]):format(timeout, instead))
        local lines = {}
        for rank = 0, 2 do
            lines[3 - rank] = over_gloo(rank, 3, script)
        end
        local _, out, errors = helper.shell("(" .. table.concat(lines, " & ") .. "; wait)")
        return out, errors
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
                                                   { before = ranks.mpirun(2) })
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
        local _, out, errors = helper.shell("(" .. table.concat(lines, " & ") .. "; wait)")
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
