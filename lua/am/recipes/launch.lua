-- Where a run takes place: in this process, in several on this host (--nproc-per-node), in a Slurm job (`slurm`), or
-- in a Kubernetes cluster (`k8s`). Here configurations and launchers (lua/am/launcher/) meet: what becomes of the
-- configuration that goes with a job, and of the secrets in it.

local config = require("am.config")
local err = require("am.core.error")
local here = require("am.launcher.local")
local kubernetes = require("am.launcher.kubernetes")
local path = require("am.utils.path")
local processes = require("am.utils.processes")
local secrets = require("am.config.secrets")
local slurm = require("am.launcher.slurm")
local strings = require("am.utils.strings")
local text = require("am.launcher.text")

local M = {}

-- Sections of launchers that amlua does not call, and what to use.
local elsewhere = {
    skypilot = "put the command into the task's `run:`, once a node; ranks that RANK and WORLD_SIZE count are "
        .. "understood",
    nemo_run = "use a section slurm or k8s",
    kubernetes = "its section is called k8s",
}

-- A section as a table by key: texts as they were written, lists and maps as Lua tables.
local function values_of(node, fields)
    local values = {}
    for _, key in ipairs(node:keys()) do
        local child = node:child(key)
        if child.kind == "leaf" then
            values[key] = config.leaf_value(child, fields[key])
        else
            values[key] = child:to_table()
        end
    end
    return values
end

--- Processes on a host that the command line asks for, or nil.
function M.ranks(options)
    local given = options["nproc-per-node"]
    if not given then
        return nil
    end
    local n = tonumber(given)
    if not n or n % 1 ~= 0 or n < 1 or n > here.MAX_RANKS then
        err.raise("usage", '--nproc-per-node needs a whole number from 1 to %d, not "%s"', here.MAX_RANKS, given)
    end
    return n
end

-- Words that run a recipe on `file`, with the options that a rank is to have.
local function words_for(program, script, file, options)
    local words = { program, script, file }
    for _, name in ipairs { "threads", "allow-user-code" } do
        if options[name] then
            words[#words + 1] = "--" .. name
            words[#words + 1] = options[name] ~= true and options[name] or nil
        end
    end
    return words
end

-- ---- what goes with a job -------------------------------------------------------------------

-- Replace what is secret in a configuration by a variable of the environment; `env` gets their values. Variables
-- that the configuration names already stay as they are.
local function take_secrets(node, env)
    if node.kind ~= "leaf" and not node.template then
        for _, key in ipairs(node.kind == "map" and node.order or node.children) do
            take_secrets(node.kind == "map" and node.children[key] or key, env)
        end
        return
    end
    local written = node.template or node.value
    if type(written) ~= "boolean" and written ~= nil and tostring(secrets.shown(node)) ~= tostring(written) then
        local name = "AMLUA_SECRET_" .. node:path():upper():gsub("[^%w]", "_")
        env[name] = node.text and not node.template and node.text or tostring(node.value)
        node.template = "${" .. name .. "}"
    end
end

-- The configuration in the job: without sections of launchers, and told to save on the signal that comes before the
-- time limit. Returns its text.
local function job_config(recipe, signal, env)
    local cfg = recipe.cfg:copy()
    cfg:unset("slurm")
    cfg:unset("k8s")
    if signal then
        local key = "step_scheduler.preemption_signal"
        if not cfg:has(key) then
            cfg:set(key, signal == "SIGTERM" and signal or { "SIGTERM", signal })
        end
        local watched = cfg:get(key)
        for _, name in ipairs(type(watched) == "table" and watched or { watched }) do
            signal = signal and tostring(name):gsub("^SIG", "") ~= signal:gsub("^SIG", "") and signal
        end
        if signal then
            err.raise("usage", "%s: %s must hold %s, the signal of slurm.signal", cfg:where(key), key, signal)
        end
    end
    take_secrets(cfg, env)
    return "# What amlua runs in the job that lies beside it.\n" .. config.print(cfg, { redact = false })
end

-- The name by which an installed amlua finds a recipe, wherever it is installed.
local function installed(script)
    local home = require("am.cli").home
    local name = home and path.relative(path.absolute(script), path.absolute(home))
    if not name or name:find("^%.%.") then
        err.raise("usage", "%s is no recipe of amlua's own: what runs in a container must be in it, and be named by "
                  .. "`amlua recipes/NAME.lua`", script)
    end
    return name
end

-- ---- Slurm ----------------------------------------------------------------------------------

-- Variables of the section that are secret, taken out of it.
local function section_secrets(values, env)
    env.HF_TOKEN, env.WANDB_API_KEY = values.hf_token, values.wandb_key
    values.hf_token, values.wandb_key = nil, nil
    for name, value in pairs(values.env_vars or {}) do
        if config.is_secret_key(name) then
            env[name], values.env_vars[name] = tostring(value), nil
        end
    end
end

local function check_resumable(recipe, values)
    if values.requeue and not recipe:checkpoint_setting("enabled") then
        err.raise("usage", "%s: slurm.requeue begins again from nothing without checkpoints: set checkpoint.enabled",
                  recipe.cfg:where("slurm.requeue"))
    end
    local folder = recipe.cfg:child("checkpoint.checkpoint_dir")
    if values.array and recipe:checkpoint_setting("enabled")
        and not (folder and folder.template and folder.template:find("SLURM_ARRAY_TASK_ID", 1, true)) then
        err.raise("usage", "%s: the tasks of slurm.array would share checkpoint.checkpoint_dir; write it as "
                  .. "runs/${SLURM_ARRAY_TASK_ID,0}", recipe.cfg:where("slurm.array"))
    end
end

-- The names of the variables that go with a job, as a comment.
local function with_variables(env)
    local names = strings.sorted_keys(env)
    return #names > 0 and "# in its environment, beside this one's: " .. table.concat(names, ", ") .. "\n" or ""
end

local function submit(recipe, args, script, ranks)
    local values, env = values_of(recipe.cfg:child("slurm"), slurm.fields), {}
    values.ntasks_per_node = ranks or values.ntasks_per_node
    slurm.check(values)
    section_secrets(values, env)
    check_resumable(recipe, values)
    local root = path.absolute(values.job_dir or slurm.fields.job_dir.default)
    local folder = path.join(root, args.options["print-launch"] and "TIME" or path.basename(slurm.new_folder(root)))
    local file, name = path.join(folder, "job_config.yaml"), values.job_name or recipe.name
    local contained = values.container_image ~= nil
    local job = {
        name = name, folder = folder, chdir = path.absolute(values.chdir or "."), source = args.config,
        words = words_for(values.program or (contained and "amlua") or processes.program(),
                          contained and installed(script) or path.absolute(script), file, args.options),
    }
    local batch = path.join(folder, name .. ".sbatch")
    local texts = { [file] = job_config(recipe, slurm.signal(values), env), [batch] = slurm.script(values, job) }
    if args.options["print-launch"] then
        io.write("# ", batch, "\n", texts[batch], "# ", file, "\n", texts[file], with_variables(env), "sbatch ",
                 text.shell(batch), "\n")
        return 0
    end
    for target, content in pairs(texts) do
        path.write_file(target, content)
    end
    print(string.format("Submitted batch job %s: %s", slurm.submit(folder, batch, env), folder))
    return 0
end

-- ---- Kubernetes -----------------------------------------------------------------------------

-- Checkpoints that lie in no volume go with their pod.
local function check_volumes(recipe, values)
    if not recipe:checkpoint_setting("enabled") then
        return
    end
    local folder = recipe:checkpoint_dir()
    for mount in pairs(values.volumes or {}) do
        if strings.starts_with(folder .. "/", mount:gsub("/*$", "/")) then
            return
        end
    end
    err.raise("usage", "%s: k8s.volumes: checkpoint.checkpoint_dir (%s) is in none of them, and would go with the pod",
              recipe.cfg:where("k8s.volumes"), folder)
end

local function write_manifest(recipe, args, script, ranks)
    local values, env = values_of(recipe.cfg:child("k8s"), kubernetes.fields), {}
    values.ntasks_per_node = ranks or values.ntasks_per_node
    kubernetes.check(values)
    check_volumes(recipe, values)
    local name = values.name or recipe.name:gsub("_", "-")
    local content = kubernetes.render(values, {
        name = name, words = words_for("amlua", installed(script), kubernetes.CONFIG, args.options),
        config = job_config(recipe, kubernetes.signal(values), env),
    })
    for _, variable in ipairs(strings.sorted_keys(env)) do
        err.raise("usage", "the configuration holds a secret (%s), which may not stand in a manifest: write it as "
                  .. "${NAME} and say k8s.secrets: {NAME: secret/key}", variable:gsub("^AMLUA_SECRET_", ""):lower())
    end
    if args.options["print-launch"] then
        io.write(content)
        return 0
    end
    local folder = slurm.new_folder(path.absolute(values.job_dir or kubernetes.fields.job_dir.default))
    local file = path.join(folder, name .. ".yaml")
    path.write_file(file, content)
    print("kubectl apply -f " .. text.shell(file))
    return 0
end

-- ---- choosing -------------------------------------------------------------------------------

--- Start or submit what a configuration and the command line ask for, or print it (--print-launch). Returns an exit
--- status, or nil where the run is this process's. `script`: the recipe's file.
function M.start(recipe, args, script)
    local ranks, cfg, printing = M.ranks(args.options), recipe.cfg, args.options["print-launch"]
    local by = recipe.world.place.by
    local job = os.getenv("SLURM_JOB_ID")
    if by and (ranks or 1) > 1 then
        err.raise("usage", "--nproc-per-node %d: this process is one of the ranks that %s started; leave it out", ranks,
                  by)
    end
    for _, key in ipairs { "slurm", "k8s" } do
        if cfg:has(key) and (by or job) then
            recipe.log:info("%s: run here, %s", key, by and "started by " .. by or "in Slurm job " .. job)
        elseif cfg:has(key) and cfg:child(key).kind ~= "map" then
            err.raise("usage", "%s: %s: expected a section of keys", cfg:where(key), key)
        end
    end
    if not (by or job) then
        for _, key in ipairs(strings.sorted_keys(elsewhere)) do
            if cfg:has(key) then
                err.raise("unsupported", "%s: %s: amlua does not call it: %s (--%s null runs it here)", cfg:where(key),
                          key, elsewhere[key], key)
            end
        end
        if cfg:has("slurm") and cfg:has("k8s") then
            err.raise("usage", "%s: slurm and k8s: a run takes place once; leave one of them out", cfg:where("k8s"))
        elseif cfg:has("slurm") then
            return submit(recipe, args, script, ranks)
        elseif cfg:has("k8s") then
            return write_manifest(recipe, args, script, ranks)
        end
    end
    if (ranks or 1) == 1 and not printing then
        return nil
    end
    local words = words_for(processes.program(), script, args.config, args.options)
    for _, override in ipairs(args.overrides) do
        words[#words + 1] = "--" .. override.path .. (override.value and "=" .. override.value or "")
    end
    local plan = here.plan { words = words, ranks = ranks or 1, threads = tonumber(args.options.threads) }
    if printing then
        print(here.text(plan))
        return 0
    end
    return here.run(plan)
end

return M
