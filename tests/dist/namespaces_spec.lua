-- Two hosts, as far as a program can tell: two network namespaces, joined by a veth pair, with host names of their own.
-- MPI's ranks and Gloo's on them learn what one learns. Needs root, iproute2 and util-linux; skipped otherwise.
local helper = require("tests.recipe.helper")
local ranks = require("tests.dist.ranks")

local A, B = "10.213.77.1", "10.213.77.2"

-- Two processes that keep namespaces, n1 and n2, open; their ids, or nil. Namespaces go with them.
local function hosts()
    local dir = helper.folder()
    helper.write(dir .. "/make", ([[
for name in n1 n2; do
    unshare -n -u sh -c "hostname $name && touch DIR/$name && exec sleep 600" >/dev/null 2>&1 &
    echo $!
    for i in $(seq 50); do [ -e DIR/$name ] && break; sleep 0.1; done
done >DIR/pids
set -e
a=$(sed -n 1p DIR/pids) b=$(sed -n 2p DIR/pids)
ip link add amtest$$a type veth peer name amtest$$b
ip link set amtest$$a netns "$a"
ip link set amtest$$b netns "$b"
nsenter -t "$a" -n sh -c "ip link set lo up; ip addr add A/24 dev amtest$$a; ip link set amtest$$a up"
nsenter -t "$b" -n sh -c "ip link set lo up; ip addr add B/24 dev amtest$$b; ip link set amtest$$b up"
]]):gsub("DIR", dir):gsub("A/24", A .. "/24"):gsub("B/24", B .. "/24"))
    local status = helper.shell("sh " .. dir .. "/make")
    local a, b = (helper.read(dir .. "/pids") or ""):match("^(%d+)\n(%d+)\n$")
    if status ~= 0 and a then
        os.execute("kill " .. a .. " " .. b .. " 2>/dev/null")
    end
    return status == 0 and a or nil, b
end

describe("two hosts", function()
    local a, b
    if ranks.can_run then
        a, b = hosts()
    end

    teardown(function()
        if a then
            os.execute("kill " .. a .. " " .. b)
        end
        helper.cleanup()
    end)

    if not a then
        pending("there is no mpirun, no amlua_mpi.so, or no right to make network namespaces")
        return
    end

    local function within(pid, command)
        return ("nsenter -t %s -n -u sh -c %s"):format(pid, helper.quote(command))
    end

    -- mpirun on n1 of n ranks on each host; the other's daemon is started by what takes the place of ssh.
    local function mpirun(n, command)
        local agent = helper.write(helper.folder() .. "/agent", ([[#!/bin/sh
[ "$1" = B ] || exit 9
shift
exec nsenter -t PID -n -u sh -c "$*"
]]):gsub("B", B):gsub("PID", b))
        os.execute("chmod +x " .. agent)
        return helper.shell(within(a, ("%s --host %s:%d,%s:%d --map-by node --mca plm_rsh_agent %s "
            .. "-x LUA_PATH -x LD_LIBRARY_PATH -x HF_HUB_OFFLINE -x OMP_NUM_THREADS %s")
            :format(ranks.mpirun(2 * n), A, n, B, n, agent, command)))
    end

    local changes = { step_scheduler = { global_batch_size = 8, local_batch_size = 2, max_steps = 5 } }
    local one
    local function train_alone()
        local dir = helper.folder()
        local status, _, errors = helper.train(helper.config(dir, changes), { "--threads=1" })
        assert.equal(0, status, errors)
        return helper.jsonl(dir .. "/training.jsonl")
    end

    it("share a run over MPI", function()
        one = one or train_alone()
        local dir = helper.folder()
        local file = helper.yaml(dir, helper.config(dir .. "/ck", changes))
        local status, out, errors = mpirun(2, ("timeout 60 %s %s %s"):format(helper.amlua, helper.finetune, file))
        assert.equal(0, status, out .. errors)
        assert.matches("on n1, 4 ranks", out .. errors)
        ranks.compare(one, helper.jsonl(dir .. "/ck/training.jsonl"))
    end)

    it("are seen by the doctor as two", function()
        local status, out, errors = mpirun(1, ("timeout 60 %s recipes/doctor.lua"):format(helper.amlua))
        assert.equal(0, status, out .. errors)
        assert.matches("\n +0  n1 ", out)
        assert.matches("\n +1  n2 ", out)
        assert.matches("2 ranks would run the same", out)
    end)

    it("share a run over Gloo", function()
        if not ranks.has_gloo then
            pending("there is no amlua_gloo.so")
            return
        end
        one = one or train_alone()
        local dir = helper.folder()
        local file = helper.yaml(dir, helper.config(dir .. "/ck", changes))
        local function rank(pid, number)
            return within(pid, ("RANK=%d WORLD_SIZE=2 MASTER_ADDR=%s MASTER_PORT=29511 AMLUA_SECRET=theirs "
                .. "OMP_NUM_THREADS=1 timeout 60 %s %s %s"):format(number, A, helper.amlua, helper.finetune, file))
        end
        local status, out, errors = helper.shell(("(%s & %s && wait $!)"):format(rank(b, 1), rank(a, 0)))
        assert.equal(0, status, out .. errors)
        assert.matches("on n1, 2 ranks", out .. errors)
        ranks.compare(one, helper.jsonl(dir .. "/ck/training.jsonl"))
    end)

    it("name the other when it does not come", function()
        local dir = helper.folder()
        local script = helper.write(dir .. "/late.lua", [[
            local world = require("am.distributed").join { timeout = 1 }
            local ok, e = true
            if world.rank == 0 then
                ok, e = pcall(world.barrier, world)
                io.write(tostring(e), "\n")
            else
                require("am.utils.posix").sleep(5)
            end
            world:abort(3, "late")]])
        local status, out, errors = mpirun(1, ("timeout 30 %s %s"):format(helper.amlua, script))
        assert.equal(3, status, out .. errors)
        assert.matches("there came no rank 1 %(host n2, process %d+%)", out)
    end)
end)
