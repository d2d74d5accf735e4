-- README's "When one machine is not enough", line by line as it is written: each ends with what one process learns.
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local ranks = require("tests.dist.ranks")
local slurm = require("tests.support.slurm")

local text = helper.read("README.md"):match("\n###? When one machine is not enough\n.-\n```\n(.-)\n```")
local lines = {}
for line in (text or ""):gmatch("[^\n]+") do
    lines[#lines + 1] = line:match("^(.-)%s+#")
end

-- mpirun as root, more ranks than CPUs, and two nodes that are one host.
local environment = "export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 "
    .. "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,tcp "
    .. "OMPI_MCA_btl_tcp_if_include=lo; "

describe("the README's lines for more than one machine", function()
    local cluster, why

    teardown(function()
        if cluster then
            cluster:stop()
        end
        helper.cleanup()
    end)

    it("are four, a way each", function()
        assert.equal(4, #lines)
        for i, word in ipairs { "--nproc-per-node", "mpirun", "srun", "--slurm." } do
            assert.truthy(lines[i]:find(word, 1, true), lines[i])
        end
    end)

    if not ranks.can_run then
        pending("there is no mpirun, or no amlua_mpi.so")
        return
    end

    local root = posix.getcwd()
    local function config(dir)
        return helper.config(dir, {
            recipe = "LLMFinetuneRecipe", step_scheduler = { max_steps = 6, global_batch_size = 8 },
            model = { pretrained_model_name_or_path = path.join(root, helper.tiny) },
        })
    end
    local one
    local function run(line, changes, start)
        if not one then
            local dir = helper.folder()
            assert.equal(0, (helper.train(config(dir), { "--threads=1" })))
            one = helper.jsonl(dir .. "/training.jsonl")
        end
        local dir = helper.folder()
        helper.yaml(dir, helper.changes(config(dir .. "/ck"), changes))
        start(dir, ("%s PATH=%s:$PATH; cd %s && %s"):format(environment, path.dirname(path.absolute(helper.amlua)), dir,
                                                            line))
        ranks.compare(one, helper.jsonl(dir .. "/ck/training.jsonl"))
    end

    for i = 1, 2 do
        it(("run: %s"):format(lines[i]), function()
            run(lines[i], {}, function(_, command)
                local status, out, errors = helper.shell(command)
                assert.equal(0, status, out .. errors)
            end)
        end)
    end

    for i = 3, 4 do
        it(("run: %s"):format(lines[i]), function()
            if not cluster and not why then
                cluster, why = slurm.start()
            end
            if not cluster then
                pending(why)
                return
            end
            local section = i == 4 and { slurm = { job_dir = helper.folder(), srun = { "--mpi=pmix" } } } or {}
            run(lines[i], section, function(dir, command)
                local out, status = cluster:sh(command)
                assert.equal(0, status, out)
                local id = out:match("Submitted batch job (%d+)")
                if id then
                    cluster:wait("squeue -h -j " .. id .. " -o %T", "^%s*$", 60)
                end
                assert.truthy(helper.read(dir .. "/ck/training.jsonl"), out)
            end)
        end)
    end
end)
