-- The manifest of a section k8s: goldens (AMLUA_WRITE_GOLDEN=1 writes them anew), hostile values, what is refused.
-- With $AMLUA_ORACLE_PYTHON naming a Python that has kubernetes-validate and kubeflow-training, their schemas judge
-- the goldens: kubernetes_check.py.

local kubernetes = require("am.launcher.kubernetes")
local manifest = require("am.launcher.manifest")
local path = require("am.utils.path")

local folder = "tests/lua/launcher/golden/"

local function render(values, config)
    kubernetes.check(values)
    return kubernetes.render(values, { name = values.name or "sft", config = config or "seed: 1\nmodel:\n  a: b\n",
                                       words = { "amlua", "recipes/llm_finetune.lua", kubernetes.CONFIG } })
end

local function golden(name, text)
    if os.getenv("AMLUA_WRITE_GOLDEN") then
        path.write_file(folder .. name, text)
    end
    assert.equal(path.read_file(folder .. name), text)
end

local function refused(values, ...)
    local ok, e = pcall(kubernetes.check, values)
    assert.is_false(ok, "taken: " .. require("am.utils.json").encode(values))
    for _, pattern in ipairs { ... } do
        assert.matches(pattern, tostring(e))
    end
end

local all = {
    namespace = "team", image = "registry.example.org/amlua@sha256:0a", ntasks_per_node = 2, cpus = 8, memory = "64Gi",
    gpus_per_node = 1, volumes = { ["/data"] = "disk", ["/models"] = "models" }, secrets = { HF_TOKEN = "hf/token" },
    env_vars = { HF_HOME = "/data/hf", N = 5, TRICK = 'yes: "no" # {' },
    node_selector = { ["example.org/kind"] = "fast" },
    service_account = "trainer", restarts = 2, grace_seconds = 300, chdir = "/data",
}

local function with(changes)
    local values = {}
    for _, set in ipairs { all, changes } do
        for key, value in pairs(set) do
            values[key] = value
        end
    end
    return values
end

describe("a manifest", function()
    it("of one pod is a Job", function()
        golden("job.yaml", render(with { nodes = 1 }))
        golden("job_plain.yaml", render { image = "amlua" })
    end)

    it("of several pods is an MPIJob, whose ranks save on a signal that mpirun passes on", function()
        golden("mpijob.yaml", render(with { nodes = 3 }))
        assert.equal("SIGUSR1", kubernetes.signal { nodes = 2 })
        assert.is_nil(kubernetes.signal { nodes = 1 })
    end)

    it("is valid by the schemas of Kubernetes and Kubeflow", function()
        local python = os.getenv("AMLUA_ORACLE_PYTHON")
        local has = python and os.execute(python .. " -c 'import kubernetes_validate, kubeflow.training' 2>/dev/null")
        if has ~= 0 then
            pending("AMLUA_ORACLE_PYTHON names no Python with kubernetes-validate and kubeflow-training")
            return
        end
        assert.equal(0, os.execute(python .. " tests/lua/launcher/kubernetes_check.py " .. folder .. "*.yaml"))
    end)

    it("gives a configuration as it is, whatever it holds", function()
        local config = '# a\nx: "y"\n  - "\\u2028"\n\n---\nkind: Secret\n'
        local text = render({ image = "a" }, config)
        local yaml = require("lyaml") -- what a parser makes of it
        assert.equal(config, yaml.load(text:match("^(.-\n)%-%-%-\napiVersion: batch")).data["job_config.yaml"])
    end)

    it("quotes what YAML would take for something else", function()
        local yaml = require("lyaml")
        for _, word in ipairs { "yes", "1", "1e3", "null", "~", "a: b", "a #b", "- a", '"', "'", "{a}", "*a", "!a",
                                "%a", "0x1", "é", "a\\nb", "", " a", "a ", "True", "@a", "a\nb", "a\n", "\t\n" } do
            assert.equal(word, yaml.load(manifest.text { manifest.map { { "key", word } } }).key)
            assert.equal(word, yaml.load(manifest.text { manifest.map { { "key", { "a", word } } } }).key[2])
        end
    end)
end)

describe("a section k8s", function()
    it("is refused where a value is no name of Kubernetes's", function()
        for key, value in pairs { name = "A_b", namespace = "a b", image = "a b", memory = "much",
                                  service_account = "A", chdir = "data" } do
            refused({ [key] = value }, "k8s%." .. key .. " is", "expected")
        end
        refused({ image = "a\nkind: Secret" }, "k8s.image", "line break")
        refused({ secrets = { HF_TOKEN = "hf_abcdefghijklmn" } }, "k8s.secrets.HF_TOKEN", "secret/key")
        refused({ env_vars = { ["a b"] = 1 } }, "k8s.env_vars", "names of variables")
        refused({ env_vars = { A = "a\nb" } }, "k8s.env_vars.A")
        refused({ volumes = { data = "disk" } }, "k8s.volumes", "folders from the root")
        refused({ volumes = { ["/data"] = "a b" } }, "k8s.volumes./data", "claim")
        refused({ node_selector = { a = "b c" } }, "k8s.node_selector.a")
        refused({ kind = "Job", nodes = 2 }, "k8s.kind is Job", "MPIJob")
    end)
end)
