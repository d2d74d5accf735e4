-- Jobs of the section `slurm` on a real Slurm of two nodes (tests/support/slurm.lua): what ranks get, the signal
-- before the time limit, requeueing, resuming. Skipped where Slurm can't start. The scripts' texts are in
-- tests/lua/launcher/slurm_spec.lua.

local helper = require("tests.recipe.helper")
local path = require("am.utils.path")
local ranks = require("tests.dist.ranks")
local slurm = require("tests.support.slurm")

local cluster, why = slurm.start()

-- A program that takes amlua's place: notes what it is given, and ends on USR1 as a run that saves does.
local stand_in = [[#!/bin/bash
exec >>"$NOTES/$SLURM_RESTART_COUNT.$SLURM_PROCID" 2>&1
echo "words $*"
echo "rank $SLURM_PROCID of $SLURM_NTASKS on $SLURMD_NODENAME, threads $OMP_NUM_THREADS"
echo "meet at $MASTER_ADDR:$MASTER_PORT, secrets $WANDB_API_KEY $HF_TOKEN $AMLUA_SECRET_WANDB_CONFIG_API_KEY"
echo "admitted by $AMLUA_SECRET"
trap 'echo saved; exit 0' USR1
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then echo again; exit 0; fi
echo ready
for i in $(seq 300); do sleep 0.1; done
]]

local function submit(cfg, words, before)
    local file = helper.yaml(helper.folder(), cfg)
    local out, status = cluster:sh(string.format("%s %s %s %s %s", before or "", helper.quote(helper.amlua),
                                                 helper.finetune, helper.quote(file), table.concat(words or {}, " ")))
    assert.equal(0, status, out)
    local id, folder = out:match("Submitted batch job (%d+): (%S+)")
    return assert(id, out), folder
end

-- What Slurm says of a job that has ended, and what the job said.
local function ended(id)
    cluster:wait("squeue -h -j " .. id .. " -o %T", "^%s*$", 60)
    local shown = cluster:sh("scontrol show job " .. id)
    return shown .. (helper.read(shown:match("StdOut=(%S+)") or "") or "")
end

describe("a Slurm job", function()
    teardown(function()
        if cluster then
            cluster:stop()
        end
        helper.cleanup()
    end)

    if not cluster then
        pending(why)
        return
    end

    it("starts its ranks on two nodes, is warned, saves, and is queued again", function()
        local dir = helper.folder()
        helper.write(dir .. "/stand_in", stand_in)
        os.execute("chmod +x " .. dir .. "/stand_in")
        local cfg = helper.config(dir .. "/ck", {
            wandb = { mode = "offline", config = { api_key = "hunter2-c" } },
            slurm = { nodes = 2, ntasks_per_node = 2, time = "00:10:00", requeue = true, job_dir = dir .. "/jobs",
                      program = dir .. "/stand_in", wandb_key = "hunter2-a", job_name = "two",
                      env_vars = { NOTES = dir, SECRET_TOKEN = "hunter2-d" }, sbatch = { [[--comment=a "b" \c #d]] } },
        })
        local id, folder = submit(cfg, { "--optimizer.lr", "3e-3" }, "HF_TOKEN=hunter2-b")
        local function notes(start)
            return cluster:sh(string.format("cat %s/%s.*", dir, start))
        end
        cluster:wait("cat " .. dir .. "/.* 2>/dev/null | grep -c ready", "^4\n")
        local first = notes ""
        for rank = 0, 3 do
            assert.matches("rank " .. rank .. " of 4 on n" .. (rank < 2 and 1 or 2) .. ", threads 1\n", first)
        end
        assert.matches("meet at n1:13742, secrets hunter2%-a hunter2%-b hunter2%-c\n", first)
        local admitted = first:match("admitted by (%S+)\n") -- made in the job, and the same for all
        assert.equal(4, select(2, first:gsub("admitted by " .. admitted:gsub("%p", "%%%0") .. "\n", "")), first)
        assert.truthy(first:find("words " .. path.absolute(helper.finetune) .. " " .. folder .. "/job_config.yaml\n", 1,
                                 true), first)
        cluster:sh("scancel --signal=USR1 --batch " .. id)
        cluster:start_again(id)
        local shown = ended(id)
        assert.matches("JobState=COMPLETED", shown)
        assert.truthy(shown:find([[Comment=a "b" \c #d]], 1, true), shown)
        assert.equal(4, select(2, notes(""):gsub("saved\n", "")))
        assert.equal(4, select(2, notes("1"):gsub("again\n", "")))
        assert.matches("queued again", helper.read(folder .. "/slurm_two_" .. id .. ".out"))
        -- overrides went with it, secrets did not
        assert.matches("lr: 0.003\n", helper.read(folder .. "/job_config.yaml"))
        assert.is_nil(helper.read(folder .. "/job_config.yaml"):find("slurm", 1, true))
        assert.matches("Submitted batch job " .. id, helper.read(folder .. "/subproc_sbatch.stdout"))
        assert.equal("", helper.read(folder .. "/subproc_sbatch.stderr"))
        for _, name in ipairs(path.names(folder)) do
            assert.is_nil(helper.read(path.join(folder, name)):find("hunter2", 1, true), name)
        end
    end)

    it("has ranks on two nodes learn what one process learns", function()
        if not ranks.can_run then
            pending("there is no mpirun, or no amlua_mpi.so")
            return
        end
        local whole, dir = helper.folder(), helper.folder()
        local changes = { step_scheduler = { max_steps = 20, global_batch_size = 8 } }
        assert.equal(0, (helper.train(helper.config(whole, changes))))
        local id, folder = submit(helper.config(dir .. "/ck", helper.changes(changes, { slurm = {
            nodes = 2, ntasks_per_node = 2, job_dir = dir .. "/jobs", srun = { "--mpi=pmix" },
            env_vars = { OMPI_MCA_pml = "ob1", OMPI_MCA_btl = "self,tcp", OMPI_MCA_btl_tcp_if_include = "lo" },
        } })))
        local shown = ended(id)
        local said = helper.read(folder .. "/slurm_llm_finetune_" .. id .. ".out")
        assert.matches("JobState=COMPLETED", shown .. said)
        assert.matches("4 ranks", said)
        ranks.compare(helper.jsonl(whole .. "/training.jsonl"), helper.jsonl(dir .. "/ck/training.jsonl"))
    end)

    local function losses(root)
        local list = {}
        for _, record in ipairs(helper.jsonl(root .. "/training.jsonl")) do
            list[#list + 1] = string.format("%d %.17g %.17g", record.step, record.loss, record.grad_norm)
        end
        return list
    end

    -- Submit, send the signal after some steps, start again what is queued again; what the job said.
    local function broken(dir, cfg, words)
        local id, folder = submit(cfg, words)
        cluster:wait("wc -l <" .. dir .. "/ck/training.jsonl", "^%d%d+\n")
        cluster:sh("scancel --signal=USR1 --batch " .. id)
        cluster:start_again(id)
        assert.matches("JobState=COMPLETED", (ended(id)))
        local said = helper.read(folder .. "/slurm_llm_finetune_" .. id .. ".out")
        assert.matches("SIGUSR1 ended the run.*Loading checkpoint", said)
        return said
    end

    it("resumes bit for bit where the signal ended it", function()
        local whole, dir = helper.folder(), helper.folder()
        local changes = { step_scheduler = { max_steps = 400, ckpt_every_steps = 1000 } }
        assert.equal(0, (helper.train(helper.config(whole, changes), { "--threads=1" })))
        broken(dir, helper.config(dir .. "/ck", helper.changes(changes, {
            slurm = { requeue = true, job_dir = dir .. "/jobs", cpus_per_task = 1 },
        })), { "--threads=1" })
        assert.same(losses(whole), losses(dir .. "/ck"))
    end)

    for _, strategy in ipairs { "ddp", "fsdp2" } do
        it("of four ranks on two nodes does so, too: " .. strategy, function()
            if not ranks.can_run then
                pending("there is no mpirun, or no amlua_mpi.so")
                return
            end
            local whole, dir = helper.folder(), helper.folder()
            local changes = helper.changes(helper.lora, { -- each rank has random numbers of its own
                step_scheduler = { max_steps = 150, ckpt_every_steps = 1000, global_batch_size = 8 },
                distributed = { strategy = strategy },
                slurm = { nodes = 2, ntasks_per_node = 2, requeue = true, srun = { "--mpi=pmix" },
                          env_vars = { OMPI_MCA_pml = "ob1", OMPI_MCA_btl = "self,tcp",
                                       OMPI_MCA_btl_tcp_if_include = "lo", OMP_WAIT_POLICY = "passive" } } })
            changes.slurm.job_dir = whole .. "/jobs"
            assert.matches("JobState=COMPLETED", ended((submit(helper.config(whole .. "/ck", changes)))))
            changes.slurm.job_dir = dir .. "/jobs"
            assert.matches("4 ranks", broken(dir, helper.config(dir .. "/ck", changes)))
            local unbroken = losses(whole .. "/ck")
            assert.equal(150, #unbroken)
            assert.same(unbroken, losses(dir .. "/ck"))
        end)
    end

    it("is warned by its own time limit (AMLUA_TIME_LIMIT=1)", function()
        if not os.getenv("AMLUA_TIME_LIMIT") then
            pending("a time limit is a minute at least")
            return
        end
        local dir = helper.folder()
        helper.write(dir .. "/stand_in", stand_in)
        os.execute("chmod +x " .. dir .. "/stand_in")
        local id = submit(helper.config(dir .. "/ck", {
            slurm = { nodes = 2, time = "1", requeue = true, signal = "USR1@40", job_dir = dir .. "/jobs",
                      program = dir .. "/stand_in", env_vars = { NOTES = dir } } }))
        cluster:wait("scontrol show job " .. id, "JobState=PENDING.*Restarts=1", 120)
        cluster:start_again(id)
        ended(id)
        local notes = cluster:sh("cat " .. dir .. "/.* " .. dir .. "/1.* 2>/dev/null")
        assert.equal(2, select(2, notes:gsub("saved\n", "")), notes)
        assert.equal(2, select(2, notes:gsub("again\n", "")), notes)
    end)

    it("ends with the status of a run that failed, and is not queued again", function()
        local dir = helper.folder()
        helper.write(dir .. "/stand_in", "#!/bin/bash\ntrap 'exit 9' USR1\ntouch " .. dir .. "/ready\n"
                     .. "for i in $(seq 300); do sleep 0.1; done\n")
        os.execute("chmod +x " .. dir .. "/stand_in")
        local id = submit(helper.config(dir .. "/ck", {
            slurm = { requeue = true, job_dir = dir .. "/jobs", program = dir .. "/stand_in" } }))
        cluster:wait("ls " .. dir, "ready")
        cluster:sh("scancel --signal=USR1 --batch " .. id)
        local shown = ended(id)
        assert.matches("JobState=FAILED", shown)
        assert.matches("Restarts=0", shown)
        assert.matches("ExitCode=9:0", shown)
    end)

    it("lets ranks save when it is cancelled", function()
        local dir = helper.folder()
        helper.write(dir .. "/stand_in", "#!/bin/bash\ntrap 'sleep 2; touch " .. dir .. "/saved; exit 0' TERM\ntouch "
                     .. dir .. "/ready\nfor i in $(seq 300); do sleep 0.1; done\n")
        os.execute("chmod +x " .. dir .. "/stand_in")
        local id = submit(helper.config(dir .. "/ck", {
            slurm = { job_dir = dir .. "/jobs", program = dir .. "/stand_in" } }))
        cluster:wait("ls " .. dir, "ready")
        cluster:sh("scancel " .. id)
        ended(id)
        assert.is_true(path.exists(dir .. "/saved"))
    end)

    -- examples/slurm/NAME.sh on the stand-in: where its ranks run, and what it does when a signal comes
    local function example(name, tasks, limit, signal)
        it("by examples/slurm/" .. name .. ".sh runs, and saves on SIG" .. signal, function()
            local dir = helper.folder()
            helper.write(dir .. "/stand_in", (stand_in:gsub("exit 0' USR1", "exit 0' USR1 TERM")
                         :gsub("%.$SLURM_PROCID", ".$SLURM_PROCID.$SLURM_ARRAY_TASK_ID")))
            os.execute("chmod +x " .. dir .. "/stand_in")
            local out = cluster:sh(string.format("AMLUA=%s/stand_in NOTES=%s RUNS=/runs sbatch --output=%s/out.%%a "
                                                 .. "examples/slurm/%s.sh run.yaml --a.b 'c d'", dir, dir, dir, name))
            local id = assert(out:match("Submitted batch job (%d+)"), out)
            cluster:wait("cat " .. dir .. "/.* 2>/dev/null | grep -c ready", "^" .. limit .. "\n")
            cluster:sh("scancel --signal=" .. signal .. (signal == "USR1" and " --batch " or " ") .. id)
            if signal == "USR1" then
                cluster:start_again(id)
            end
            if limit < tasks then -- the rest of an array
                cluster:wait("cat " .. dir .. "/.* 2>/dev/null | grep -c ready", "^" .. tasks .. "\n")
                cluster:sh("scancel --signal=" .. signal .. " " .. id)
            end
            cluster:wait("squeue -h -j " .. id .. " -o %T", "^%s*$")
            local notes = cluster:sh("cat " .. dir .. "/.* " .. dir .. "/1.* 2>/dev/null")
            assert.equal(tasks, select(2, notes:gsub("saved\n", "")), notes)
            assert.matches("words run.yaml %-%-a.b c d", notes)
            assert.equal(signal == "USR1" and 1 or 0, select(2, notes:gsub("again\n", "")))
            if name == "array_sweep" then
                for _, rate in ipairs { "1e-5", "2e-5", "5e-5", "1e-4" } do
                    local words = "--optimizer.lr " .. rate .. " --checkpoint.checkpoint_dir /runs/lr-" .. rate .. "\n"
                    assert.truthy(notes:find(words, 1, true), notes)
                end
            elseif name == "two_nodes" then
                assert.matches("rank 3 of 4 on n2, threads 1\nmeet at n1:13742", notes)
            end
        end)
    end
    example("one_node", 1, 1, "TERM")
    example("two_nodes", 4, 4, "TERM")
    example("array_sweep", 4, 2, "TERM")
    example("requeue", 1, 1, "USR1")

    it("by examples/slurm/container.sh is one that Slurm takes", function()
        local out, status = cluster:sh("IMAGE=a sbatch --test-only examples/slurm/container.sh run.yaml")
        assert.equal(0, status, out)
        assert.matches("to start at", out)
    end)

    it("says what sbatch said against it", function()
        local file = helper.yaml(helper.folder(), helper.config(helper.folder(), {
            slurm = { partition = "nowhere", job_dir = helper.folder() } }))
        local out, status = cluster:sh(helper.amlua .. " " .. helper.finetune .. " " .. file)
        assert.equal(1, status)
        assert.matches("invalid partition", out)
    end)
end)
