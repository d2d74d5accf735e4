-- Ranks on this host, by Open MPI's mpirun: how many threads and which CPUs each of them gets, and signals that
-- reach them. Holds nothing about other hosts.
--
-- mpirun itself gives ranks one second after a SIGTERM or Ctrl-C, too little for a checkpoint. It therefore runs in
-- a process group of its own, and what this process is sent goes to the ranks, not to mpirun.

local err = require("am.core.error")
local host = require("am.core.host")
local processes = require("am.utils.processes")
local strings = require("am.utils.strings")
local text = require("am.launcher.text")

local M = {}

M.MAX_RANKS = 4096

local function any_set(getenv, names)
    for _, name in ipairs(names) do
        if (getenv(name) or "") ~= "" then
            return true
        end
    end
    return false
end

--- What starts `opts.ranks` processes of opts.words (program and arguments) here: { argv, env }. One needs no
--- mpirun. opts, all optional: threads (of each rank, else the CPUs divided, unless OMP_NUM_THREADS says it), cpus
--- and whole (CPUs of this process, whether these are the host's), getenv, root (whether this is root).
function M.plan(opts)
    if opts.ranks == 1 then
        return { argv = opts.words, env = {} }
    end
    local getenv, cpus, whole = opts.getenv or os.getenv, opts.cpus, opts.whole
    if not cpus then
        cpus, whole = host.cpus()
    end
    local argv, env = { "mpirun", "-n", tostring(opts.ranks) }, {}
    local function add(...)
        for _, word in ipairs { ... } do
            argv[#argv + 1] = word
        end
    end
    local root = opts.root
    if root == nil then
        root = processes.is_root()
    end
    if root then
        add("--allow-run-as-root")
    end
    local threads = opts.threads or tonumber(getenv("OMP_NUM_THREADS"))
    if not any_set(getenv, { "OMP_NUM_THREADS" }) then
        threads = opts.threads or math.max(1, math.floor(cpus / opts.ranks))
        env.OMP_NUM_THREADS = tostring(threads)
    end
    local chosen = any_set(getenv, { "OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY",
                                     "OMPI_MCA_hwloc_base_binding_policy", "PRTE_MCA_hwloc_default_binding_policy" })
    local fits = threads and opts.ranks * threads <= cpus
    if whole and fits and not chosen then -- mpirun knows nothing of affinity masks and quotas
        add("--use-hwthread-cpus", "--map-by", "slot:PE=" .. threads, "--bind-to", "hwthread")
    else -- it neither counts nor binds
        add("--oversubscribe", unpack(chosen and {} or { "--bind-to", "none" }))
    end
    if not fits and not any_set(getenv, { "OMP_WAIT_POLICY" }) then
        env.OMP_WAIT_POLICY = "passive" -- a thread that spins keeps the CPU from the one that it waits for
    end
    if getenv("SLURM_JOB_ID") then -- ranks here, not where the job has room
        env.OMPI_MCA_plm, env.OMPI_MCA_ras = "isolated", "^slurm"
        env.PRTE_MCA_plm, env.PRTE_MCA_ras = "ssh", "^slurm"
    end
    for _, word in ipairs(opts.words) do
        argv[#argv + 1] = word
    end
    return { argv = argv, env = env }
end

--- A plan as a line for a shell.
function M.text(plan)
    local words = strings.sorted_keys(plan.env)
    for i, name in ipairs(words) do
        words[i] = name .. "=" .. text.shell(plan.env[name])
    end
    words[#words + 1] = text.command(plan.argv)
    return table.concat(words, " ")
end

-- SIGINT a third time ends all at once, for ranks that do not listen: it kills them, and not mpirun, which crashes on a
-- signal where it is about to end.
local function relay()
    local interrupts = 0
    return function(number, pid)
        local ranks = processes.children(pid)
        if number == processes.signals.SIGINT then
            interrupts = interrupts + 1
        end
        if #ranks == 0 then
            processes.signal(pid, processes.signals.SIGTERM)
        end
        for _, rank in ipairs(ranks) do
            processes.signal(rank, interrupts > 2 and processes.signals.SIGKILL or number)
        end
    end
end

--- Start the ranks of a plan and wait for them; their exit status, the first one that is not 0.
function M.run(plan)
    if plan.argv[1] == "mpirun" and not processes.find("mpirun") then
        err.raise("usage", "several processes need mpirun, which is not in PATH: install Open MPI (Debian: "
                  .. "apt-get install openmpi-bin), or load your cluster's module")
    end
    local status, message = processes.run(plan.argv, { env = plan.env, on_signal = relay() })
    if not status then
        err.raise("io", "cannot start %s: %s", plan.argv[1], message)
    end
    return status
end

return M
