-- The `slurm` section of a configuration: its keys, the batch script that they make, and its submission. The script
-- holds no secret: those are in the environment that sbatch hands on. Which secrets there are, and what the run's
-- own configuration becomes in the job, is lua/am/recipes/launch.lua's.

local err = require("am.core.error")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local processes = require("am.utils.processes")
local strings = require("am.utils.strings")
local text = require("am.launcher.text")

local M = {}

--- Keys of the section.
M.fields = {
    job_name = { type = "string", doc = "of the job; the recipe's by default" },
    nodes = { type = "integer", min = 1, default = 1, doc = "machines" },
    ntasks_per_node = { type = "integer", min = 1, doc = "ranks on each; as gpus_per_node, else 1" },
    cpus_per_task = { type = "integer", min = 1, doc = "CPUs of each rank" },
    time = { type = "string", default = "00:05:00", doc = "limit, as sbatch takes it: minutes, h:m:s, days-h" },
    account = { type = "string", doc = "that the job is charged to" },
    partition = { type = "string", doc = "the cluster's default when absent" },
    qos = { type = "string", doc = "quality of service" },
    mem = { type = "string", doc = "memory of each node: 64G" },
    constraint = { type = "string", doc = "features that nodes must have" },
    gres = { type = "string", doc = "other resources: gpu:a100:4" },
    gpus_per_node = { type = "integer", min = 0, default = 0, doc = "GPUs of each node" },
    exclusive = { type = "boolean|string", doc = "no other jobs on the nodes; or user, mcs, topo" },
    array = { type = "string", doc = "task numbers, as sbatch takes them: 0-3, 1,5, 0-15%4" },
    signal = { type = "string", doc = "what warns the run before its time ends, and how many seconds: USR1@120" },
    requeue = { type = "boolean", doc = "once warned and saved, queue the job again; it resumes" },
    chdir = { type = "string", doc = "folder that the job runs in; the current one by default" },
    job_dir = { type = "string", default = "./slurm_jobs", doc = "where script and output go, in a folder by time" },
    program = { type = "string", doc = "amlua on the nodes; this very program, in a container the one in its PATH" },
    container_image = { type = "string", doc = "run in this container (pyxis)" },
    extra_mounts = { type = "list", doc = "folders that the container sees: /host:/there" },
    hf_home = { type = "string", doc = "HF_HOME in the job; the environment's by default" },
    env_vars = { type = "table", doc = "further variables of the job's environment" },
    master_port = { type = "integer", min = 1024, max = 65535, default = 13742,
                    doc = "where ranks without MPI meet, on the first node" },
    hf_token = { type = "string", doc = "HF_TOKEN; it goes through the environment" },
    wandb_key = { type = "string", doc = "WANDB_API_KEY; it goes through the environment" },
    sbatch = { type = "list", doc = "further options of sbatch: --mail-type=END" },
    srun = { type = "list", doc = "further options of srun: --mpi=pmix" },
    nemo_mount = { type = "any", doc = "refused: amlua needs no source tree in a container" },
    repo_root = { type = "any", doc = "refused: amlua runs itself; see program" },
    custom_mounts = { type = "any", doc = "refused: see extra_mounts" },
}

local refused = {
    nemo_mount = "amlua needs no source tree in a container; extra_mounts gives it other folders",
    repo_root = "amlua runs itself, not a source tree; slurm.program names another amlua on the nodes",
    custom_mounts = "write them as extra_mounts: [/host:/there]",
}

-- key -> patterns and what they mean. Names that Slurm looks up are left to it, as far as they are one word.
local name = "[%w_][%w_.+@-]*"
local shapes = {
    job_name = { name, "letters, digits and _ . + @ -" },
    account = { name, "a name of letters, digits and _ . + @ -" },
    partition = { { name, name .. ",[%w_.,+@-]+" }, "names of letters, digits and _ . + @ -" },
    qos = { name, "a name of letters, digits and _ . + @ -" },
    mem = { "%d+[KMGTkmgt]?", "a number with K, M, G or T" },
    gres = { "[%w_][%w_:.,=/-]*", "as gpu:a100:4" },
    constraint = { "[%w_%[][%w_%[%]&|*(),.:!-]*", "features, with & | [ ] * ( )" },
    exclusive = { { "user", "mcs", "topo" }, "true, false, user, mcs or topo" },
    time = { { "%d+", "%d+:%d+", "%d+:%d+:%d+", "%d+%-%d+", "%d+%-%d+:%d+", "%d+%-%d+:%d+:%d+", "UNLIMITED",
               "INFINITE" }, "minutes, minutes:seconds, h:m:s, days-h, days-h:m or days-h:m:s" },
    array = { { "%d[%d,:-]*", "%d[%d,:-]*%%%d+" }, "numbers, ranges and steps, as 0-3, 1,5, 0-8:2 or 0-15%4" },
}

local signal_names = { USR1 = true, USR2 = true, TERM = true, XCPU = true }

-- "USR1@120" -> "USR1", "120". The script itself gets it (B:), and passes it on.
local function signal_of(values)
    local given = values.signal or values.requeue and "USR1@120"
    if not given then
        return nil
    end
    local which, seconds = given:gsub("^B:", ""):match("^S?I?G?(%u+%d?)@(%d+)$")
    if not signal_names[which] or tonumber(seconds) > 65535 then
        err.raise("usage", 'slurm.signal is "%s"; expected USR1, USR2, TERM or XCPU, @ and seconds before the end: '
                  .. "USR1@120", given)
    end
    return which, seconds
end

--- The signal that the run must save on, as preemption_signal names it, or nil.
function M.signal(values)
    local which = signal_of(values)
    return which and "SIG" .. which
end

-- Options that are keys of the section, or would break what the script relies on.
local own = {}
for key in pairs(M.fields) do
    own[key:gsub("_", "-")] = "say slurm." .. key
end
own["gpus-per-node"], own.output, own.error = "say slurm.gpus_per_node", "output lies beside the script",
    "output lies beside the script"
own.wrap, own.parsable = "the script is amlua's", "amlua reads what sbatch says"

-- Options of a list, each one word: --name or --name=value.
local function options(key, list, reserved)
    local out = {}
    for i, item in ipairs(list or {}) do
        local where = string.format("slurm.%s.%d", key, i - 1)
        local option, value = text.clean(where, item):match("^%-%-([%a][%w-]*)=?(.*)$")
        if not option then
            err.raise("usage", '%s is "%s"; expected an option as --name or --name=value', where, tostring(item))
        elseif reserved[option] then
            err.raise("usage", "%s: --%s can't be given here: %s", where, option, reserved[option])
        end
        out[i] = { "--" .. option, item:find("=", 1, true) and value or nil }
    end
    return out
end

local function mounts(values)
    local out = {}
    for i, item in ipairs(values.extra_mounts or {}) do
        local where = string.format("slurm.extra_mounts.%d", i - 1)
        if type(item) == "table" then -- the original's VolumeMapping
            item = tostring(item.source) .. ":" .. tostring(item.dest)
        end
        out[i] = text.match(where, text.clean(where, item), { "/[^:,]*:/[^:,]*", "/[^:,]*:/[^:,]*:[%a+]+" },
                            "/host:/there, both from the root and without , and :")
    end
    return out
end

--- Refuse what a section can't mean, by its key. `values`: the section as a table by key, texts as they were written.
function M.check(values)
    for key, why in pairs(refused) do
        if values[key] ~= nil then
            err.raise("unsupported", "slurm.%s: %s", key, why)
        end
    end
    for key, value in pairs(values) do
        if type(value) == "string" then
            text.clean("slurm." .. key, value)
        end
        if shapes[key] and type(value) ~= "boolean" then
            text.match("slurm." .. key, tostring(value), shapes[key][1], shapes[key][2])
        end
    end
    if values.extra_mounts and #values.extra_mounts > 0 and not values.container_image then
        err.raise("usage", "slurm.extra_mounts are seen by a container: set slurm.container_image, or leave them out")
    end
    for key, value in pairs(values.env_vars or {}) do
        text.match("slurm.env_vars", key, "[%a_][%w_]*", "names of variables")
        text.clean("slurm.env_vars." .. key, value)
    end
    signal_of(values)
    mounts(values)
    options("sbatch", values.sbatch, own)
    options("srun", values.srun, { ["kill-on-bad-exit"] = "amlua gives it",
                                   ["container-image"] = "say slurm.container_image",
                                   ["container-mounts"] = "say slurm.extra_mounts" })
end

--- Ranks on each node: one, or one for each of its GPUs.
function M.tasks(values)
    local gpus = values.gpus_per_node or 0
    return values.ntasks_per_node or gpus > 0 and gpus or 1
end

-- ---- the script -----------------------------------------------------------------------------

local function directives(values, job)
    local lines = {}
    local function add(option, value)
        if value ~= nil and value ~= false then
            lines[#lines + 1] = "#SBATCH --" .. option .. (value ~= true and "=" .. text.sbatch(tostring(value)) or "")
        end
    end
    add("job-name", job.name)
    add("nodes", values.nodes or 1)
    add("ntasks-per-node", M.tasks(values))
    add("cpus-per-task", values.cpus_per_task)
    add("gpus-per-node", (values.gpus_per_node or 0) > 0 and values.gpus_per_node)
    add("time", values.time or M.fields.time.default)
    for _, key in ipairs { "account", "partition", "qos", "mem", "constraint", "gres", "exclusive", "array" } do
        add(key, values[key])
    end
    local which, seconds = signal_of(values)
    if which then
        add("signal", "B:" .. which .. "@" .. seconds)
    end
    if values.requeue ~= nil then -- else the cluster's own rule
        add(values.requeue and "requeue" or "no-requeue", true)
    end
    add("open-mode", "append")
    add("chdir", job.chdir)
    -- % begins a pattern in this name
    local folder = job.folder:gsub("%%", "%%%%")
    add("output", path.join(folder, values.array and "slurm_%x_%A_%a.out" or "slurm_%x_%j.out"))
    for _, option in ipairs(options("sbatch", values.sbatch, own)) do
        add(option[1]:sub(3), option[2] or true)
    end
    return lines
end

local function step(values, job)
    local words = { "srun", "--kill-on-bad-exit=1" }
    if values.container_image then
        local seen = { job.folder .. ":" .. job.folder, job.chdir .. ":" .. job.chdir }
        if values.hf_home then
            seen[#seen + 1] = values.hf_home .. ":" .. values.hf_home
        end
        for _, mount in ipairs(mounts(values)) do
            seen[#seen + 1] = mount
        end
        words[#words + 1] = "--container-image=" .. values.container_image
        words[#words + 1] = "--container-mounts=" .. table.concat(seen, ",")
        words[#words + 1] = "--container-workdir=" .. job.chdir
        words[#words + 1] = "--no-container-mount-home"
    end
    for _, option in ipairs(options("srun", values.srun, {})) do
        words[#words + 1] = option[1] .. (option[2] and "=" .. option[2] or "")
    end
    for _, one in ipairs(job.words) do
        words[#words + 1] = one
    end
    return text.command(words)
end

-- The shell alone gets the signal before the time limit, passes it on, and waits for what the ranks save.
local warned = [[
warned=''
step=''
trap 'warned=yes; ${step:+kill -s @SIGNAL@ "$step"}' @SIGNAL@
@COMMAND@ &
step=$!
while true; do # a signal ends the wait, not the step
    wait "$step"
    kill -0 "$step" 2>/dev/null || break
done
wait "$step"
status=$?
]]

local again = [[
if [ -n "$warned" ] && [ "$status" -eq 0 ]; then
    echo "saved before the time limit; queued again"
    exec scontrol requeue "$SLURM_JOB_ID"
fi
]]

--- The batch script. values: the section, checked. job: name, folder (where the script will lie), chdir, words
--- (the program and its arguments), source (the configuration's name).
function M.script(values, job)
    local tasks = M.tasks(values)
    local out = { "#!/bin/bash", "# Written by amlua from the section slurm of "
        .. text.clean("the configuration's name", job.source) .. "; what it runs is job_config.yaml, beside this file.",
        unpack(directives(values, job)) }
    local function add(line, ...)
        out[#out + 1] = select("#", ...) > 0 and string.format(line, ...) or line
    end
    add("")
    if (values.nodes or 1) * tasks > 1 then -- where ranks without MPI meet, and what admits them
        add('MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)')
        add("MASTER_PORT=%d", values.master_port or M.fields.master_port.default)
        add('AMLUA_SECRET="${AMLUA_SECRET:-$(head -c 24 /dev/urandom | base64)}"')
        add("export MASTER_ADDR MASTER_PORT AMLUA_SECRET")
    end
    if values.cpus_per_task then
        add("export SRUN_CPUS_PER_TASK=%d", values.cpus_per_task)
    elseif tasks > 1 then
        add("threads=$((${SLURM_CPUS_ON_NODE:-1} / %d))", tasks)
        add('export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}"')
    end
    if values.hf_home then
        add("export HF_HOME=%s", text.shell(values.hf_home))
    end
    for _, key in ipairs(strings.sorted_keys(values.env_vars or {})) do
        add("export %s=%s", key, text.shell(tostring(values.env_vars[key])))
    end
    if out[#out] ~= "" then
        add("")
    end
    local which = signal_of(values)
    if not which then
        add("exec " .. step(values, job))
        return table.concat(out, "\n") .. "\n"
    end
    add(((warned .. (values.requeue and again or "")):gsub("@(%u+)@", { SIGNAL = which, COMMAND = step(values, job) })))
    return table.concat(out, "\n") .. 'exit "$status"\n'
end

-- ---- submission -----------------------------------------------------------------------------

--- A new folder below `root` by the second; the next one when another job took it.
function M.new_folder(root, now)
    path.mkdir_p(root)
    for second = math.floor(now or posix.time()), math.huge do
        local folder = path.join(root, string.format("%d", second))
        local ok, message, errno = posix.mkdir(folder)
        if ok then
            return folder
        elseif errno ~= posix.EEXIST then
            err.raise("io", "cannot make %s: %s", folder, message)
        end
    end
end

--- Submit a script that lies in `folder`; what sbatch says is there afterwards, too. `env`: variables that the job
--- gets beside the environment. Returns the job's number.
function M.submit(folder, script, env)
    if not processes.find("sbatch") then
        err.raise("usage", "sbatch is not in PATH: submit from a login node of the cluster (Debian: apt-get install "
                  .. "slurm-client), or leave the section slurm out (--slurm null) to run here. The script is %s",
                  script)
    end
    local out, errors = path.join(folder, "subproc_sbatch.stdout"), path.join(folder, "subproc_sbatch.stderr")
    local status, message = processes.run({ "sbatch", script }, { env = env, stdout = out, stderr = errors })
    local said = path.read_file(out, 65536) or ""
    local id = said:match("Submitted batch job (%d+)")
    if status ~= 0 or not id then
        local why = message or path.read_file(errors, 65536) or ""
        err.raise("io", "sbatch %s: %s", script, why:find("%S") and why:gsub("%s+$", "")
                  or "exit status " .. tostring(status))
    end
    return id
end

return M
