-- The `k8s` section of a configuration: its keys, and the manifest that they make: a ConfigMap with the run's
-- configuration, and a batch/v1 Job (one pod) or an MPIJob of Kubeflow's MPI operator (kubeflow.org/v2beta1).
-- Applies nothing: that is kubectl's. The YAML is manifest.lua's.

local err = require("am.core.error")
local manifest = require("am.launcher.manifest")
local slurm = require("am.launcher.slurm")
local strings = require("am.utils.strings")
local text = require("am.launcher.text")

local M = {}

local map = manifest.map

--- Where the configuration lies in a pod.
M.CONFIG = "/etc/amlua/job_config.yaml"

--- Keys of the section.
M.fields = {
    name = { type = "string", doc = "of the job; the recipe's by default" },
    namespace = { type = "string", doc = "kubectl's own when absent" },
    kind = { type = "string", enum = { "Job", "MPIJob" }, doc = "Job for one node, MPIJob for more by default" },
    image = { type = "string", required = true, doc = "a container image with amlua in its PATH" },
    nodes = { type = "integer", min = 1, default = 1, doc = "pods that compute" },
    ntasks_per_node = { type = "integer", min = 1, doc = "ranks in each; as gpus_per_node, else 1" },
    cpus = { type = "integer", min = 1, doc = "CPUs of each pod" },
    memory = { type = "string", doc = "of each pod: 64Gi" },
    gpus_per_node = { type = "integer", min = 0, default = 0, doc = "GPUs of each pod" },
    volumes = { type = "table", doc = "persistent volume claims by the folder that they are mounted at" },
    secrets = { type = "table", doc = "variables from Secrets of the cluster: HF_TOKEN: secret/key" },
    env_vars = { type = "table", doc = "further variables" },
    node_selector = { type = "table", doc = "labels that nodes must have" },
    service_account = { type = "string", doc = "of the pods" },
    restarts = { type = "integer", min = 0, default = 6, doc = "of pods that failed or were evicted" },
    grace_seconds = { type = "integer", min = 1, default = 120, doc = "from SIGTERM to the end: a step and a save" },
    chdir = { type = "string", doc = "folder that the run begins in; the image's by default" },
    job_dir = { type = "string", default = "./k8s_jobs", doc = "where the manifest goes, in a folder by time" },
}

local label = "%l[%l%d-]*"
local shapes = {
    name = { label, "small letters, digits and -" },
    namespace = { label, "small letters, digits and -" },
    image = { "[%w][%w_.:/@-]*", "a name of an image" },
    memory = { "%d+[KMGT]i?", "as 64Gi" },
    service_account = { "%l[%l%d.-]*", "small letters, digits, - and ." },
    chdir = { "/[^%c]*", "a path from the root" },
}

--- Ranks in each pod: as on a node of a Slurm job.
M.tasks = slurm.tasks

--- "Job" or "MPIJob".
function M.kind(values)
    return values.kind or (values.nodes or 1) > 1 and "MPIJob" or "Job"
end

--- Refuse what a section can't mean, by its key.
function M.check(values)
    for key, shape in pairs(shapes) do
        if values[key] ~= nil then
            text.match("k8s." .. key, text.clean("k8s." .. key, values[key]), shape[1], shape[2])
        end
    end
    for _, key in ipairs { "secrets", "env_vars" } do
        for name, value in pairs(values[key] or {}) do
            text.match("k8s." .. key, name, "[%a_][%w_]*", "names of variables")
            text.clean("k8s." .. key .. "." .. name, value)
        end
    end
    for name, value in pairs(values.secrets or {}) do
        text.match("k8s.secrets." .. name, tostring(value), "[%l%d][%l%d.-]*/[%w._-]+", "secret/key")
    end
    for folder, claim in pairs(values.volumes or {}) do
        text.match("k8s.volumes", text.clean("k8s.volumes", folder), "/[^:]+", "folders from the root")
        text.match("k8s.volumes." .. folder, tostring(claim), label, "the name of a claim")
    end
    for name, value in pairs(values.node_selector or {}) do
        text.match("k8s.node_selector", name, "[%w][%w_./-]*", "names of labels")
        text.match("k8s.node_selector." .. name, tostring(value), "[%w_.-]*", "a label's value")
    end
    if M.kind(values) == "Job" and (values.nodes or 1) > 1 then
        err.raise("usage", "k8s.kind is Job, which is one pod, and k8s.nodes is %d; take MPIJob", values.nodes)
    end
end

-- ---- pods -----------------------------------------------------------------------------------

-- A run that was stopped ends with 0, and Kubernetes would take it for done: 75 has it begun again.
local script = [[
@COMMAND@ &
run=$!
trap 'stopped=yes; kill -s @SIGNAL@ "$run"' TERM
while true; do
    wait "$run"
    kill -0 "$run" 2>/dev/null || break
done
wait "$run"
status=$?
if [ -n "$stopped" ] && [ "$status" -eq 0 ]; then exit 75; fi
exit "$status"
]]

-- A shell's words for a command that saves on `signal`.
local function shell(command, signal)
    return { "bash", "-c", (script:gsub("@(%u+)@", { COMMAND = text.command(command), SIGNAL = signal })) }
end

local function variables(values)
    local list = {}
    for _, name in ipairs(strings.sorted_keys(values.env_vars or {})) do
        list[#list + 1] = map { { "name", name }, { "value", tostring(values.env_vars[name]) } }
    end
    for _, name in ipairs(strings.sorted_keys(values.secrets or {})) do
        local secret, key = tostring(values.secrets[name]):match("^(.-)/(.*)$")
        list[#list + 1] = map { { "name", name }, { "valueFrom", map { { "secretKeyRef", map {
            { "name", secret }, { "key", key } } } } } }
    end
    return #list > 0 and list or nil
end

local function resources(values)
    local gpus = values.gpus_per_node or 0
    local limits = map { { "cpu", values.cpus }, { "memory", values.memory },
                         { "nvidia.com/gpu", gpus > 0 and gpus or nil } }
    return #limits > 0 and map { { "requests", limits }, { "limits", limits } } or nil
end

-- A pod's template; `command` nil leaves it to the operator. `computes`: whether ranks run in it.
local function pod(values, job, command, computes)
    local mounts, volumes = { map { { "name", "config" }, { "mountPath", (M.CONFIG:match("^(.*)/")) } } },
                            { map { { "name", "config" }, { "configMap", map { { "name", job.name } } } } }
    for i, folder in ipairs(strings.sorted_keys(values.volumes or {})) do
        local name = "volume-" .. i
        mounts[#mounts + 1] = map { { "name", name }, { "mountPath", folder } }
        volumes[#volumes + 1] = map { { "name", name }, { "persistentVolumeClaim", map {
            { "claimName", tostring(values.volumes[folder]) } } } }
    end
    local selector = {}
    for i, name in ipairs(strings.sorted_keys(values.node_selector or {})) do
        selector[i] = { name, tostring(values.node_selector[name]) }
    end
    return map { { "spec", map {
        { "restartPolicy", "Never" },
        { "terminationGracePeriodSeconds", values.grace_seconds or M.fields.grace_seconds.default },
        { "serviceAccountName", values.service_account },
        { "nodeSelector", computes and #selector > 0 and map(selector) or nil },
        { "containers", { map {
            { "name", "amlua" }, { "image", values.image }, { "command", command },
            { "workingDir", values.chdir }, { "env", variables(values) },
            { "resources", computes and resources(values) or nil }, { "volumeMounts", mounts },
        } } },
        { "volumes", volumes },
    } } }
end

local function job_spec(values, job)
    local command = { unpack(job.words) }
    if M.tasks(values) > 1 then
        command[#command + 1], command[#command + 2] = "--nproc-per-node", tostring(M.tasks(values))
    end
    return map {
        { "apiVersion", "batch/v1" }, { "kind", "Job" },
        { "metadata", map { { "name", job.name }, { "namespace", values.namespace } } },
        { "spec", map {
            { "backoffLimit", values.restarts or M.fields.restarts.default },
            { "template", pod(values, job, shell(command, "TERM"), true) },
        } },
    }
end

-- mpirun kills ranks a second after SIGTERM, and passes SIGUSR1 on.
local function mpi_job_spec(values, job)
    local nodes, tasks = values.nodes or 1, M.tasks(values)
    local command = { "mpirun", "--allow-run-as-root", "-n", tostring(nodes * tasks), "--bind-to", "none" }
    for _, name in ipairs { "env_vars", "secrets" } do
        for _, variable in ipairs(strings.sorted_keys(values[name] or {})) do
            command[#command + 1], command[#command + 2] = "-x", variable
        end
    end
    if values.cpus then
        command[#command + 1], command[#command + 2] = "-x", "OMP_NUM_THREADS="
            .. math.max(1, math.floor(values.cpus / tasks))
    end
    for _, word in ipairs(job.words) do
        command[#command + 1] = word
    end
    return map {
        { "apiVersion", "kubeflow.org/v2beta1" }, { "kind", "MPIJob" },
        { "metadata", map { { "name", job.name }, { "namespace", values.namespace } } },
        { "spec", map {
            { "slotsPerWorker", tasks },
            { "runPolicy", map { { "cleanPodPolicy", "Running" },
                                 { "backoffLimit", values.restarts or M.fields.restarts.default } } },
            { "mpiReplicaSpecs", map {
                { "Launcher", map { { "replicas", 1 },
                                    { "template", pod(values, job, shell(command, "USR1"), false) } } },
                { "Worker", map { { "replicas", nodes }, { "template", pod(values, job, nil, true) } } },
            } },
        } },
    }
end

--- The signal that the run must save on beside SIGTERM, or nil.
function M.signal(values)
    return M.kind(values) == "MPIJob" and "SIGUSR1" or nil
end

--- The manifest. values: the section, checked. job: name, words (the program and its arguments), config (the text of
--- the run's configuration).
function M.render(values, job)
    text.match("k8s.name", job.name, label, "small letters, digits and -")
    local config = map {
        { "apiVersion", "v1" }, { "kind", "ConfigMap" },
        { "metadata", map { { "name", job.name }, { "namespace", values.namespace } } },
        { "data", map { { (M.CONFIG:match("[^/]+$")), job.config } } },
    }
    local job_of = M.kind(values) == "Job" and job_spec or mpi_job_spec
    return "# A run of amlua, written from the section k8s: kubectl apply -f this file\n"
        .. manifest.text { config, job_of(values, job) }
end

return M
