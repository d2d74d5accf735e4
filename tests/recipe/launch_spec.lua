-- How runs are started from the command line: the original's commands, several processes by mpirun and what signals
-- do to them, what the sections slurm and k8s print and write, secrets, refusals. A real Slurm: slurm_spec.lua.

local helper = require("tests.recipe.helper")
local path = require("am.utils.path")

local function config(changes)
    return helper.yaml(helper.folder(), helper.config(helper.folder(), changes))
end

-- Standard output of a command that succeeds.
local function printed(args, opts)
    local status, out, errors = helper.run(args, opts)
    assert.equal(0, status, errors)
    return out
end

local function refused(args, status, ...)
    local got, _, errors = helper.run(args)
    assert.equal(status, got, errors)
    for _, pattern in ipairs { ... } do
        assert.matches(pattern, errors)
    end
end

local has_mpirun = os.execute("command -v mpirun >/dev/null") == 0

describe("a command of the original's", function()
    teardown(helper.cleanup)

    local named = { finetune = "llm_finetune", pretrain = "llm_pretrain", kd = "llm_kd", benchmark = "benchmark" }
    for command, recipe in pairs(named) do
        it(command .. " llm is its recipe", function()
            local file = helper.yaml(helper.folder(), { recipe = nil, model = {} })
            local _, _, errors = helper.run { command, "llm", "-c", file, "--print-launch" }
            local _, _, own = helper.run { "recipes/" .. recipe .. ".lua", file, "--print-launch" }
            assert.equal(own, errors)
        end)
    end

    it("takes overrides, --config, and agrees with the key recipe", function()
        local file = config { recipe = { _target_ = "nemo_automodel.recipes.llm.train_ft."
                                         .. "TrainFinetuneRecipeForNextTokenPrediction" } }
        for _, args in ipairs { { "finetune", "llm", "-c", file }, { "finetune", "llm", "--config=" .. file }, { file },
                                { "-c", file }, { "--config", file }, { "pretrain", "llm", "--config", file } } do
            args[#args + 1], args[#args + 2], args[#args + 3] = "--optimizer.lr", "3e-3", "--print-config"
            assert.matches("lr: 0.003\n", printed(args))
        end
        refused({ "kd", "llm", "-c", file }, 2, "names recipes/llm_finetune.lua, and kd llm is recipes/llm_kd.lua")
        refused({ "kd", "vlm", "-c", file }, 1, "kd vlm is not there yet")
    end)

    it("finds the recipe that the command line names", function()
        local file = config()
        assert.matches("recipe: FinetuneRecipeForNextTokenPrediction\n", printed {
            file, "--recipe", "FinetuneRecipeForNextTokenPrediction", "--print-config" })
        refused({ file, "--recipe=TrainFinetuneRecipeForNextTokenPredictions" }, 2,
                'did you mean "TrainFinetuneRecipeForNextTokenPrediction"')
        refused({ file, "--recipe", "nemo_automodel.recipes.diffusion.train.TrainDiffusionRecipe" }, 1,
                "not there yet: diffusion")
    end)
end)

describe("several processes", function()
    teardown(helper.cleanup)

    it("are printed, in front of a script or behind a configuration", function()
        local file = config { recipe = "LLMFinetuneRecipe" }
        local pattern = "mpirun %-n 3 .*/amlua recipes/llm_finetune.lua " .. file:gsub("%p", "%%%0")
        for _, args in ipairs {
            { file, "--nproc-per-node", "3", "--print-launch" }, { "--nproc-per-node=3", "--print-launch", file },
            { "--print-launch", "--nproc_per_node", "3", helper.finetune, file },
            { "finetune", "llm", "-c", file, "--nproc_per_node=3", "--print-launch" },
        } do
            assert.matches(pattern, printed(args))
        end
        assert.matches(pattern .. " %-%-threads 2 %-%-allow%-user%-code '%-%-a=b c' %-%-d\n$", printed({
            helper.finetune, file, "--nproc-per-node", "3", "--print-launch", "--threads", "2", "--allow-user-code",
            "--seed=7" }):gsub("%-%-seed=7", "'--a=b c' --d"))
        assert.equal(path.absolute(helper.amlua) .. " recipes/llm_finetune.lua " .. file .. "\n",
                     printed { helper.finetune, file, "--print-launch" })
    end)

    it("are a number that can be, and of ranks none", function()
        local file = config()
        for _, bad in ipairs { "0", "-1", "1.5", "many", "100000" } do
            refused({ helper.finetune, file, "--nproc-per-node", bad }, 2, "needs a whole number from 1 to 4096, not")
            refused({ "--nproc-per-node", bad, helper.finetune, file }, 2, "needs a whole number from 1 to 4096, not")
        end
        refused({ "--nproc-per-node", "2" }, 2, "needs a script or a configuration")
        local _, _, errors = helper.run({ helper.finetune, file, "--nproc-per-node", "2" },
                                        { before = "RANK=0 WORLD_SIZE=1" })
        assert.matches("this process is one of the ranks that torchrun or its like started", errors)
    end)

    it("are a mistake's end before they begin", function()
        refused({ helper.finetune, config { optimizer = { lrr = 1 } }, "--nproc-per-node", "2" }, 2, "did you mean")
    end)

    if not has_mpirun then
        pending("there is no mpirun")
        return
    end

    it("run, each with its number, its share of the CPUs and its words", function()
        local dir = helper.folder()
        helper.write(dir .. "/rank.lua", [[
            local file = assert(io.open(arg[1] .. "/" .. os.getenv("OMPI_COMM_WORLD_RANK"), "w"))
            file:write(os.getenv("OMP_NUM_THREADS"), " ", tostring(os.getenv("OMP_WAIT_POLICY")), " ", arg[2], " ",
                       os.getenv("GIVEN"), " ", require("am.core.ffi").C.am_threads())
            file:close()]])
        printed({ "--nproc-per-node", "4", dir .. "/rank.lua", dir, "a b" }, { before = "GIVEN=x" })
        local cpus = tonumber(io.popen("nproc"):read("*n"))
        local threads = math.max(1, math.floor(cpus / 4))
        for rank = 0, 3 do
            assert.equal(string.format("%d %s a b x %d", threads, cpus < 4 and "passive" or "nil", threads),
                         helper.read(dir .. "/" .. rank))
        end
    end)

    it("give back the status of the one that fails", function()
        local dir = helper.folder()
        helper.write(dir .. "/fail.lua", 'return os.getenv("OMPI_COMM_WORLD_RANK") == "1" and 7 or 0')
        local status = helper.run { "--nproc-per-node", "2", dir .. "/fail.lua" }
        assert.equal(7, status)
    end)

    -- longer than the second that mpirun gives
    local slow = [[#!/bin/bash
trap 'sleep 2; echo saved >>DIR/saved; exit 0' TERM USR1
trap 'sleep 2; echo saved >>DIR/saved; sleep 0.5; exit 130' INT # mpirun ends the others when the first fails
touch DIR/ready.$OMPI_COMM_WORLD_RANK
for i in $(seq 300); do sleep 0.1; done
]]
    for signal, status in pairs { TERM = 0, USR1 = 0, INT = 130 } do
        it("get SIG" .. signal .. " and the time to save", function()
            local dir = helper.folder()
            helper.write(dir .. "/slow", (slow:gsub("DIR", dir)))
            helper.write(dir .. "/run.lua", string.format([[
                local here = require("am.launcher.local")
                return here.run(here.plan { ranks = 2, words = { "bash", "%s/slow" } })]], dir))
            local run = helper.start { dir .. "/run.lua" }
            helper.until_true(function()
                return path.exists(dir .. "/ready.0") and path.exists(dir .. "/ready.1")
            end, 20, "the ranks to start")
            run.stop(signal)
            assert.equal(status, run.wait(20))
            assert.equal("saved\nsaved\n", helper.read(dir .. "/saved"))
        end)
    end

    it("end on a third Ctrl-C, also while mpirun ends them", function()
        local dir = helper.folder()
        helper.write(dir .. "/deaf", string.format([[#!/bin/bash
trap '' TERM
if [ $OMPI_COMM_WORLD_RANK = 0 ]; then trap 'exit 130' INT; else trap '' INT; fi
touch %s/ready.$OMPI_COMM_WORLD_RANK
for i in $(seq 300); do sleep 0.1; done
]], dir))
        helper.write(dir .. "/run.lua", string.format([[
            local here = require("am.launcher.local")
            return here.run(here.plan { ranks = 2, words = { "bash", "%s/deaf" } })]], dir))
        local run = helper.start { dir .. "/run.lua" }
        helper.until_true(function()
            return path.exists(dir .. "/ready.0") and path.exists(dir .. "/ready.1")
        end, 20, "the ranks to start")
        for _ = 1, 3 do
            run.stop("INT")
            helper.sleep(0.3)
        end
        assert.equal(130, run.wait(20), helper.read(run.out))
        assert.is_nil(helper.read(run.out):find("Segmentation fault", 1, true))
    end)
end)

describe("a job", function()
    teardown(helper.cleanup)

    local function job(section, changes)
        return config(helper.changes({ slurm = section }, changes or {}))
    end

    it("is printed and not submitted", function()
        local dir = helper.folder()
        local file = job({ job_dir = dir, nodes = 2, time = "1:30:00" })
        local text = printed({ helper.finetune, file, "--print-launch", "--nproc-per-node", "4", "--threads=2",
                               "--slurm.account", "proj", "--seed", "5" }, { before = "PATH=/nowhere:/usr/bin" })
        for _, line in ipairs { "#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=4", "#SBATCH --time=1:30:00",
                                "#SBATCH --account=proj", "seed: 5" } do
            assert.truthy(text:find("\n" .. line .. "\n", 1, true), line .. "\n" .. text)
        end
        assert.matches("/job_config.yaml %-%-threads 2\n", text)
        assert.truthy(text:find("\nsbatch " .. dir .. "/TIME/llm_finetune.sbatch\n", 1, true), text)
        assert.equal(0, #path.names(dir))
    end)

    it("has no secret in any file, and the run has it all the same", function()
        local secret, dir = "hunter2hunter2", helper.folder()
        local file = job({ job_dir = dir, wandb_key = secret .. 1, hf_token = secret .. 2,
                           env_vars = { MY_TOKEN = secret .. 3, PLAIN = "x" } }, {
            comet = { url = "https://me:" .. secret .. "4@example.org/", api_key = secret .. 5 },
            wandb = { mode = "offline", config = { api_key = secret .. 6, password = 1234567 } },
        })
        helper.write(dir .. "/bin/sbatch", '#!/bin/sh\nenv >' .. dir .. '/env\necho "Submitted batch job 17"\n')
        os.execute("chmod +x " .. dir .. "/bin/sbatch")
        local out = printed({ helper.finetune, file }, { before = 'PATH="' .. dir .. '/bin:$PATH"' })
        local folder = assert(out:match("Submitted batch job 17: (%S+)"), out)
        for _, name in ipairs(path.names(folder)) do
            local text = helper.read(path.join(folder, name))
            assert.is_nil(text:find(secret, 1, true), name)
            assert.is_nil(text:find("1234567", 1, true), name)
        end
        local env = helper.read(dir .. "/env")
        for _, line in ipairs { "WANDB_API_KEY=" .. secret .. 1, "HF_TOKEN=" .. secret .. 2, "MY_TOKEN=" .. secret .. 3,
                                "AMLUA_SECRET_COMET_URL=https://me:" .. secret .. "4@example.org/" } do
            assert.truthy(env:find("\n" .. line .. "\n", 1, true), line)
        end
        assert.matches("export PLAIN=x\n", helper.read(folder .. "/llm_finetune.sbatch"))
        -- what the job reads is what was written
        local config_text = printed({ helper.finetune, folder .. "/job_config.yaml", "--print-config" },
                                    { before = "env $(grep ^AMLUA_SECRET " .. dir .. "/env)" })
        assert.matches("api_key: \"?%${AMLUA_SECRET_COMET_API_KEY}", config_text)
    end)

    it("says what keeps it from resuming, or from being many", function()
        refused({ helper.finetune, job({ requeue = true }, { checkpoint = { enabled = false } }) }, 2,
                "slurm.requeue begins again from nothing")
        refused({ helper.finetune, job { array = "0-3" } }, 2, "would share checkpoint.checkpoint_dir")
        local deaf = { step_scheduler = { preemption_signal = "SIGTERM" } }
        refused({ helper.finetune, job({ signal = "USR1@60" }, deaf) }, 2,
                "preemption_signal must hold SIGUSR1, the signal of slurm.signal")
        local text = printed { helper.finetune, job { array = "0-3", signal = "TERM@60" }, "--print-launch",
                               "--checkpoint.checkpoint_dir", "runs/${SLURM_ARRAY_TASK_ID,0}" }
        assert.truthy(text:find('checkpoint_dir: "runs/${SLURM_ARRAY_TASK_ID,0}"', 1, true), text)
        assert.matches("preemption_signal: SIGTERM\n", text)
    end)

    it("is no job where one runs already, or where the section is taken away", function()
        local file = job({}, { step_scheduler = { max_steps = 1 } })
        local _, _, errors = helper.run({ helper.finetune, file }, { before = "SLURM_JOB_ID=3" })
        assert.matches("slurm: run here, in Slurm job 3", errors)
        printed { helper.finetune, file, "--slurm", "null", "--step_scheduler.max_steps=2" }
    end)

    it("says what sbatch's absence means", function()
        refused({ "-e", [[require("am.utils.processes").find = function() end
                  require("recipes.llm_finetune").main { [0] = "recipes/llm_finetune.lua", "]] .. job {
                      job_dir = helper.folder() } .. '" }' }, 2, "sbatch is not in PATH", "slurm%-client")
    end)

    it("of another launcher's is refused with what to use", function()
        refused({ helper.finetune, config { skypilot = { cloud = "aws" } } }, 1, "skypilot: amlua does not call it",
                "RANK and WORLD_SIZE", "%-%-skypilot null")
        refused({ helper.finetune, config { nemo_run = {} } }, 1, "use a section slurm or k8s")
        refused({ helper.finetune, config { kubernetes = {} } }, 1, "its section is called k8s")
        refused({ helper.finetune, config { slurm = {}, k8s = { image = "a" } } }, 2, "leave one of them out")
        refused({ helper.finetune, config { slurm = "yes" } }, 2, "slurm")
        printed({ helper.finetune, config { skypilot = { cloud = "aws" }, step_scheduler = { max_steps = 1 } } },
                { before = "RANK=0 WORLD_SIZE=1" })
    end)
end)

describe("a manifest", function()
    teardown(helper.cleanup)

    local function with(section, changes)
        return helper.yaml(helper.folder(), helper.config("/data/run", helper.changes({ k8s = helper.changes({
            image = "registry.example.org/amlua:1", volumes = { ["/data"] = "disk" } }, section) }, changes or {})))
    end

    it("is written, and the line that applies it said", function()
        local dir = helper.folder()
        local out = printed { helper.finetune, with { job_dir = dir } }
        local file = assert(out:match("^kubectl apply %-f (%S+)\n$"), out)
        assert.matches("kind: Job\n", helper.read(file))
        assert.equal(printed { helper.finetune, with { job_dir = dir }, "--print-launch" }, helper.read(file))
    end)

    it("holds no secret, and nothing that a pod would take with it", function()
        refused({ helper.finetune, with({}, { comet = { api_key = "hunter2" } }) }, 2,
                "holds a secret %(comet_api_key%)", "k8s.secrets")
        refused({ helper.finetune, with({}, { checkpoint = { checkpoint_dir = "runs" } }) }, 2, "k8s.volumes")
        local own = helper.write(helper.folder() .. "/own.lua", 'return require("recipes.llm_finetune"):extend("own")')
        refused({ own, with {} }, 2, "own.lua is no recipe of amlua's own")
    end)
end)
