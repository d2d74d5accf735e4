-- A Slurm cluster of two nodes, n1 and n2, on this host: a controller, two daemons and a munged of their own in a
-- temporary folder, on ports of their own. Nothing of a Slurm that runs here already is touched.
--
--   local cluster, why = slurm.start()     nil, why where it can't start
--   cluster:sh("sbatch job.sh")            output and status of a shell line that speaks to it
--   cluster:wait("squeue -h -j 1 -o %T", "RUNNING")
--   cluster:stop()

local path = require("am.utils.path")
local posix = require("am.utils.posix")

local M = {}

local Cluster = {}
Cluster.__index = Cluster

local configuration = [[
ClusterName=amlua
SlurmctldHost=HOST(127.0.0.1)
SlurmUser=USER
SlurmdUser=USER
AuthType=auth/munge
AuthInfo=socket=DIR/munge.socket
CredType=cred/munge
SlurmctldPort=PORT0
SlurmctldPidFile=DIR/ctld.pid
SlurmdPidFile=DIR/%n.pid
StateSaveLocation=DIR/state
SlurmdSpoolDir=DIR/spool.%n
TmpFS=DIR/tmp.%n
SlurmctldLogFile=DIR/ctld.log
SlurmdLogFile=DIR/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/linear
ReturnToService=2
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
KillWait=10
SlurmctldParameters=enable_configless
SchedulerParameters=batch_sched_delay=0,sched_interval=1,requeue_setup_env_fail
NodeName=n1 NodeHostname=HOST NodeAddr=127.0.0.1 Port=PORT1 CPUs=CPUS State=UNKNOWN
NodeName=n2 NodeHostname=HOST NodeAddr=127.0.0.1 Port=PORT2 CPUs=CPUS State=UNKNOWN
PartitionName=debug Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
]]

local function quote(word)
    return "'" .. word:gsub("'", "'\\''") .. "'"
end

--- Output and exit status of a line for the shell, which speaks to this cluster.
function Cluster:sh(line)
    local pipe = io.popen(string.format(
        '(export SLURM_CONF=%s PATH="$PATH:/usr/sbin:/sbin"; %s) 2>&1; echo "status $?"',
        quote(self.dir .. "/slurm.conf"), line))
    local text = pipe:read("*a")
    pipe:close()
    local out, status = text:match("^(.*)status (%d+)\n$")
    return out, tonumber(status)
end

--- Run a line every tenth of a second until its output holds `pattern`; an error with the output after `limit`
--- seconds (20).
function Cluster:wait(line, pattern, limit)
    local stop = posix.time() + (limit or 20)
    local out
    repeat
        out = self:sh(line)
        if out:find(pattern) then
            return out
        end
        posix.sleep(0.1)
    until posix.time() > stop
    local logs = self:sh("tail -n 20 " .. self.dir .. "/*.log")
    error(string.format("%s: no %s, but: %s\n%s", line, pattern, out, logs), 2)
end

--- Start a job that was queued again. Slurm itself waits two minutes; a node refuses what it revoked in the same
--- second, and the job would fail.
function Cluster:start_again(id)
    self:wait("scontrol show job " .. id, "JobState=PENDING.*Restarts=1")
    posix.sleep(3)
    self:sh("scontrol update StartTime=now JobId=" .. id)
end

--- End the daemons and remove the folder.
function Cluster:stop()
    self:sh("scancel -u $(id -u) --signal=KILL; scontrol shutdown")
    for _, name in ipairs { "n1", "n2", "ctld", "munged" } do
        local pid = path.read_file(path.join(self.dir, name .. ".pid"), 64)
        if pid then
            self:sh(("for i in 1 2 3 4 5 6; do kill %d || break; sleep 0.2; done"):format(tonumber(pid)))
        end
    end
    path.remove_tree(self.dir)
end

--- A cluster that takes jobs, or nil and why there is none.
function M.start()
    local dir = path.mkdir_p(path.unique("/tmp/amlua-slurm"))
    local self = setmetatable({ dir = dir }, Cluster)
    local missing = self:sh("for p in slurmctld slurmd sbatch munged; do command -v $p >/dev/null || echo $p; done")
    if missing ~= "" then
        path.remove_tree(dir)
        return nil, "there is no " .. missing:gsub("%s+", " ")
    end
    local port = 20000 + posix.getpid() % 10000 * 3
    local names = {
        HOST = posix.hostname(), DIR = dir, USER = (self:sh("id -un"):gsub("%s", "")),
        CPUS = (self:sh("nproc"):gsub("%s", "")),
        PORT0 = tostring(port), PORT1 = tostring(port + 1), PORT2 = tostring(port + 2),
    }
    path.write_file(path.join(dir, "slurm.conf"), (configuration:gsub("%u+%d?", names)))
    local out, status = self:sh(string.format([[cd %s && chmod 755 . && mkdir state spool.n1 spool.n2 tmp.n1 tmp.n2 &&
        head -c 1024 /dev/urandom >munge.key && chmod 400 munge.key &&
        munged --force --socket=$PWD/munge.socket --key-file=$PWD/munge.key --pid-file=$PWD/munged.pid \
            --log-file=$PWD/munged.log --seed-file=$PWD/munged.seed &&
        slurmctld && slurmd -N n1 && slurmd -N n2]], quote(dir)))
    local ready = status == 0 and pcall(self.wait, self, "sinfo -h -N -o %T", "^idle%s+idle%s*$", 15)
    if not ready then
        local why = out .. self:sh("sinfo -N; tail -n 5 " .. dir .. "/*.log")
        self:stop()
        return nil, "Slurm does not start here: " .. why:gsub("\n", " | ")
    end
    return self
end

return M
