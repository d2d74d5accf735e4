-- The batch script of a section slurm: every key where sbatch reads it, hostile values, what is refused. The whole
-- text is in golden/*.sbatch: AMLUA_WRITE_GOLDEN=1 writes them anew. A real Slurm is in tests/recipe/slurm_spec.lua.

local path = require("am.utils.path")
local slurm = require("am.launcher.slurm")

local function script(values, job)
    slurm.check(values)
    local words = { "/opt/amlua/bin/amlua", "/opt/amlua/recipes/llm_finetune.lua", "/jobs/1/job_config.yaml" }
    local all = { name = "sft", folder = "/jobs/1", chdir = "/data/me", source = "run.yaml", words = words }
    for key, value in pairs(job or {}) do
        all[key] = value
    end
    return slurm.script(values, all)
end

local function refused(values, ...)
    local ok, e = pcall(slurm.check, values)
    assert.is_false(ok, "taken: " .. require("am.utils.json").encode(values))
    for _, pattern in ipairs { ... } do
        assert.matches(pattern, tostring(e))
    end
end

-- What bash and the options' reader make of a script: each #SBATCH line as the words of a shell.
local function bash(text)
    local name = os.tmpname()
    path.write_file(name, text)
    local status = os.execute("bash -n " .. name)
    os.remove(name)
    return status == 0
end

local function golden(name, text)
    local file = "tests/lua/launcher/golden/" .. name .. ".sbatch"
    if os.getenv("AMLUA_WRITE_GOLDEN") then
        path.write_file(file, text)
    end
    assert.equal(path.read_file(file), text)
    assert.is_true(bash(text))
end

describe("a batch script", function()
    it("of nothing said has one rank, no GPU and the original's time limit", function()
        golden("plain", script {})
    end)

    it("has every key", function()
        golden("full", script({
            nodes = 2, ntasks_per_node = 4, cpus_per_task = 8, time = "1-02:00:00", account = "proj", partition = "a,b",
            qos = "high", mem = "64G", constraint = "rack1|rack2", gres = "tmpfs:10G", gpus_per_node = 4,
            exclusive = true, array = "0-7%2", signal = "B:SIGUSR2@300", requeue = true, container_image = "a.io/b:c",
            extra_mounts = { "/a:/b:ro", { source = "/c", dest = "/d" } }, hf_home = "/data/hf home",
            env_vars = { B = "it's", A = 1 }, master_port = 4000, sbatch = { "--mail-type=END", "--hold" },
            srun = { "--mpi=pmix" },
        }))
    end)

    it("requeues itself when a save was warned of", function()
        local text = script { requeue = true }
        assert.matches("#SBATCH %-%-signal=B:USR1@120\n#SBATCH %-%-requeue\n", text)
        assert.matches('exec scontrol requeue "$SLURM_JOB_ID"', text, 1, true)
        text = script { signal = "TERM@60", requeue = false }
        assert.matches("#SBATCH %-%-signal=B:TERM@60\n#SBATCH %-%-no%-requeue\n", text)
        assert.is_nil(text:find("scontrol requeue", 1, true))
        assert.equal("SIGUSR1", slurm.signal { requeue = true })
        assert.matches("\nsrun [^\n]* '%%1 @SIGNAL@' &\n", script({ requeue = true }, { words = { "%1 @SIGNAL@" } }))
        assert.is_nil(slurm.signal {})
    end)

    it("has a rank for each GPU unless it is told", function()
        assert.matches("ntasks%-per%-node=4\n", script { gpus_per_node = 4 })
        assert.matches("ntasks%-per%-node=2\n", script { gpus_per_node = 4, ntasks_per_node = 2 })
        assert.is_nil(script { gpus_per_node = 0 }:find("gpus", 1, true))
    end)

    it("quotes what is quoted nowhere else", function()
        local hostile = "/a b'\"$(touch x);`x`&|<>\\%j/é"
        local text = script({ hf_home = hostile, env_vars = { X = hostile }, container_image = hostile,
                              sbatch = { "--comment=" .. hostile } },
                            { chdir = hostile, folder = hostile, words = { hostile, "--lr", "$HOME" } })
        assert.is_true(bash(text))
        local line = text:match('\n#SBATCH %-%-chdir="([^\n]*)"\n'):gsub("\\(.)", "%1")
        assert.equal(hostile, line)
        line = text:match('\n#SBATCH %-%-output="([^\n]*)"\n'):gsub("\\(.)", "%1")
        assert.equal((hostile:gsub("%%", "%%%%")) .. "/slurm_%x_%j.out", line)
        -- what a shell hands to srun
        local name = os.tmpname()
        path.write_file(name, 'srun() { for w in "$@"; do printf "%s\\n" "$w"; done; }; scontrol() { :; }\n'
                        .. "SLURM_JOB_NODELIST=n1\n" .. text:gsub("\nexec srun", "\nsrun"))
        local pipe = io.popen("bash " .. name .. ' ; true')
        local said = pipe:read("*a")
        pipe:close()
        os.remove(name)
        assert.truthy(said:find("\n--container-image=" .. hostile .. "\n", 1, true), said)
        assert.truthy(said:find("\n" .. hostile .. "\n--lr\n$HOME\n", 1, true), said)
    end)
end)

describe("a section slurm", function()
    it("is refused where a value could be two", function()
        for key in pairs(slurm.fields) do
            if slurm.fields[key].type == "string" then
                refused({ [key] = "a\n#SBATCH --account=other" }, "slurm%." .. key, "line break")
            end
        end
        refused({ env_vars = { A = "a\nb" } }, "slurm.env_vars.A", "line break")
        refused({ env_vars = { ["A;rm"] = "a" } }, "slurm.env_vars", "names of variables")
        refused({ sbatch = { "--comment=a\nexit" } }, "slurm.sbatch.0", "line break")
        refused({ sbatch = { "--hold", "-A x" } }, "slurm.sbatch.1", "%-%-name=value")
        refused({ container_image = "i", extra_mounts = { "/a:/b,/etc:/etc" } }, "slurm.extra_mounts.0")
        refused({ container_image = "i", extra_mounts = { "/a" } }, "slurm.extra_mounts.0", "/host:/there")
    end)

    it("is refused where Slurm would not understand it", function()
        for key, value in pairs { job_name = "a/b", account = "a b", partition = "a b", time = "1h", mem = "lots",
                                  array = "a", exclusive = "yes", qos = "$x", gres = "gpu 4", constraint = "a b",
                                  signal = "USR1" } do
            refused({ [key] = value }, "slurm%." .. key .. " is", "expected")
        end
        refused({ signal = "KILL@9" }, "USR1, USR2, TERM or XCPU")
    end)

    it("is refused where a key means nothing here, with the reason", function()
        refused({ nemo_mount = "/x" }, "slurm.nemo_mount: amlua needs no source tree")
        refused({ repo_root = "/x" }, "slurm.repo_root: amlua runs itself", "slurm.program")
        refused({ custom_mounts = {} }, "slurm.custom_mounts", "extra_mounts")
        refused({ extra_mounts = { "/a:/b" } }, "set slurm.container_image")
        refused({ sbatch = { "--nodes=4" } }, "slurm.sbatch.0: %-%-nodes can't be given here: say slurm.nodes")
        refused({ sbatch = { "--wrap=x" } }, "wrap")
        refused({ srun = { "--container-mounts=/:/" } }, "slurm.extra_mounts")
    end)
end)

describe("a job's folder", function()
    it("is another's when two are submitted in one second", function()
        local root = os.tmpname()
        os.remove(root)
        assert.equal(root .. "/1700000000", slurm.new_folder(root, 1700000000.5))
        assert.equal(root .. "/1700000001", slurm.new_folder(root, 1700000000.7))
        path.remove_tree(root)
    end)
end)
