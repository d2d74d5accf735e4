-- What starts ranks on this host: mpirun's words, threads and environment, and what becomes of signals.

local here = require("am.launcher.local")
local processes = require("am.utils.processes")

local function plan(ranks, cpus, opts)
    opts = opts or {}
    return here.plan { words = { "amlua", "run.lua", "a b" }, ranks = ranks, cpus = cpus, whole = opts.whole ~= false,
                       root = opts.root or false, threads = opts.threads,
                       getenv = function(name) return (opts.env or {})[name] end }
end

describe("ranks on this host", function()
    it("are not started by mpirun when there is one", function()
        assert.equal("amlua run.lua 'a b'", here.text(plan(1, 8)))
    end)

    it("share the CPUs, and each has its own", function()
        assert.equal("OMP_NUM_THREADS=4 mpirun -n 2 --use-hwthread-cpus --map-by slot:PE=4 --bind-to hwthread amlua "
                     .. "run.lua 'a b'", here.text(plan(2, 8)))
        assert.equal("2", plan(3, 8).env.OMP_NUM_THREADS)
        assert.is_nil(plan(2, 8).env.OMP_WAIT_POLICY)
    end)

    it("wait without spinning where there are fewer CPUs than ranks", function()
        assert.equal("OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive mpirun -n 16 --oversubscribe --bind-to none amlua "
                     .. "run.lua 'a b'", here.text(plan(16, 2)))
        assert.equal("passive", plan(2, 2, { threads = 2 }).env.OMP_WAIT_POLICY)
    end)

    it("are not bound by mpirun to CPUs that this process may not use", function()
        assert.equal("OMP_NUM_THREADS=2 mpirun -n 2 --oversubscribe --bind-to none amlua run.lua 'a b'",
                     here.text(plan(2, 4, { whole = false })))
    end)

    it("do as the user says", function()
        assert.is_nil(plan(2, 8, { env = { OMP_NUM_THREADS = "3" } }).env.OMP_NUM_THREADS)
        assert.matches("slot:PE=3", here.text(plan(2, 8, { env = { OMP_NUM_THREADS = "3" } })))
        assert.matches("slot:PE=2", here.text(plan(2, 8, { threads = 2 })))
        assert.is_nil(plan(16, 2, { env = { OMP_WAIT_POLICY = "active" } }).env.OMP_WAIT_POLICY)
        assert.is_nil(here.text(plan(2, 8, { env = { OMP_PLACES = "cores" } })):find("--bind-to", 1, true))
        assert.is_nil(here.text(plan(16, 2, { env = { OMP_PROC_BIND = "true" } })):find("--bind-to", 1, true))
    end)

    it("are root's only where root says so to mpirun", function()
        assert.matches("^mpirun %-n 2 %-%-allow%-run%-as%-root ", table.concat(plan(2, 2, { root = true }).argv, " "))
    end)

    it("stay here inside a Slurm job", function()
        assert.equal("isolated", plan(2, 2, { env = { SLURM_JOB_ID = "7" } }).env.OMPI_MCA_plm)
    end)

    it("need mpirun, and the message names its package", function()
        local find = processes.find
        processes.find = function() return nil end
        local ok, e = pcall(here.run, plan(2, 2))
        processes.find = find
        assert.is_false(ok)
        assert.matches("openmpi%-bin", tostring(e))
    end)
end)

describe("a program that is run", function()
    it("gives its exit status, a signal's as a shell has it", function()
        assert.equal(0, processes.run { "true" })
        assert.equal(3, processes.run { "sh", "-c", "exit 3" })
        assert.equal(137, processes.run { "sh", "-c", "kill -9 $$" })
        assert.equal(127, processes.run { "amlua-no-such-program" })
    end)

    it("has the environment that it is given, and the files", function()
        local name = os.tmpname()
        assert.equal(0, processes.run({ "sh", "-c", 'echo "$GIVEN${TAKEN-none}"; echo error >&2' }, {
            env = { GIVEN = "a b", TAKEN = false }, stdout = name, stderr = "/dev/null" }))
        local file = io.open(name)
        assert.equal("a bnone\n", file:read("*a"))
        file:close()
        os.remove(name)
    end)

    it("gets the signals that this process gets, which end it not", function()
        local seen = {}
        local status = processes.run({ "sh", "-c", "kill -TERM $PPID; kill -USR1 $PPID; sleep 0.3; exit 4" }, {
            on_signal = function(number) seen[number] = true end })
        assert.equal(4, status)
        assert.is_true(seen[15] and seen[10])
        assert.equal(5, processes.run { "sh", "-c", "trap 'exit 5' TERM; kill -TERM $PPID; for i in 1 2 3 4 5 6 7 8 9; "
                                        .. "do sleep 0.1; done" })
    end)

    it("is found by its parent", function()
        local children
        processes.run({ "sh", "-c", "sleep 5 & kill -USR2 $PPID; wait" }, { on_signal = function(_, pid)
            children = processes.children(pid)
            processes.signal(children[1], 9)
        end })
        assert.equal(1, #children)
    end)
end)
