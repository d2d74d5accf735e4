-- recipes/download.lua and models by their hub name, as a user runs them, against a hub on loopback.

local helper = require("tests.recipe.helper")
local path = require("am.utils.path")
local environment = require("tests.support.environment")
local hub_server = require("tests.support.hub_server")
local terminal = require("tests.support.terminal")

local COMMIT = ("c0ffee00"):rep(5)
local README = "---\nconfigs:\n- config_name: en\n  data_files: en.jsonl\n"
    .. "- config_name: de\n  data_files: de.jsonl\n---\n"

describe("recipes/download.lua", function()
    local server, home, model

    setup(function()
        local files = {}
        model = helper.text_model()
        for _, name in ipairs(path.list_dir(model)) do
            files[name] = path.read_file(path.join(model, name))
        end
        server = hub_server.start {
            ["org/tiny"] = { commit = COMMIT, files = files, lfs = { ["model.safetensors"] = true } },
            ["org/gated"] = { commit = COMMIT, gated = true, files = files },
            ["datasets/org/rows"] = { commit = COMMIT, files = {
                ["README.md"] = README, ["en.jsonl"] = '{"q": "a"}\n', ["de.jsonl"] = '{"q": "b"}\n' } },
            ["datasets/org/splits"] = { commit = COMMIT, files = { ["train.csv"] = "a\n", ["test.csv"] = "b\n" } },
        }
        environment.set { HF_ENDPOINT = server.url, HF_HUB_OFFLINE = false, TRANSFORMERS_OFFLINE = false,
                          HF_HUB_CACHE = false, http_proxy = false, all_proxy = false, ALL_PROXY = false,
                          HF_TOKEN = hub_server.TOKEN }
    end)
    teardown(function()
        server:stop()
        environment.restore()
        helper.cleanup()
    end)
    before_each(function()
        home = helper.folder()
        environment.set { HF_HOME = home, HF_HUB_OFFLINE = false }
        server:forget()
    end)

    local function download(...)
        local status, out, errors = helper.run { "recipes/download.lua", ... }
        assert.is_nil((out .. errors):find(hub_server.TOKEN, 1, true))
        return status, out, errors
    end

    local function generate(name)
        return helper.run { "recipes/generate.lua", "--prompt", "What is 3?", "--max_new_tokens", "4", "--model", name }
    end

    local function has(part, text)
        assert.truthy(text:find(part, 1, true), text)
    end

    it("brings what a configuration names, which then runs offline", function()
        local file = helper.write(helper.folder() .. "/run.yaml", [[
model:
  _target_: nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained
  pretrained_model_name_or_path: org/tiny
teacher_model:
  pretrained_model_name_or_path: org/gated
dataset:
  path_or_dataset_id: org/rows
  name: en
  split: "train[:10]"
  tokenizer:
    pretrained_model_name_or_path: org/tiny
validation_dataset:
  path_or_dataset: org/splits
  split: test
other_dataset:
  path_or_dataset_id: [rows.jsonl, ]] .. model .. [[/config.json]
]])
        local status, out, errors = download(file)
        assert.equal(0, status, errors)
        for _, part in ipairs {
            "model     org/tiny: ", "tokenizer org/tiny: ", "model     org/gated: ",
            "data set  org/rows, split train as json", "data set  org/splits, split test as csv",
            "data set  rows.jsonl: a path, not here", model .. "/config.json: a path, here",
            "export HF_HUB_CACHE=" .. home .. "/hub\n", "export HF_HUB_OFFLINE=1",
            home .. "/hub/models--org--tiny/snapshots/" .. COMMIT,
        } do
            has(part, out)
        end
        local dir = home .. "/hub/datasets--org--rows/snapshots/" .. COMMIT
        assert.same({ "README.md", "en.jsonl" }, path.list_dir(dir))

        environment.set { HF_HUB_OFFLINE = "1" }
        local code, said, complaint = generate("org/tiny")
        assert.equal(0, code, complaint)
        assert.equal(select(2, generate(model)), said)
    end)

    it("is not needed where the network is there", function()
        local status, _, errors = generate("org/tiny")
        assert.equal(0, status, errors)
        has("downloading org/tiny", errors)
        assert.is_nil(errors:find(hub_server.TOKEN, 1, true))
    end)

    it("brings names, and what patterns say", function()
        local status, out, errors = download("org/tiny", "datasets/org/splits", "--exclude", "model.*")
        assert.equal(0, status, errors)
        has("split train as csv", out)
        has("split test as csv", out)
        assert.is_false(path.exists(home .. "/hub/models--org--tiny/snapshots/" .. COMMIT .. "/model.safetensors"))
        status = download("datasets/org/rows", "--include", "de*")
        assert.equal(0, status)
        assert.same({ "de.jsonl" }, path.list_dir(home .. "/hub/datasets--org--rows/snapshots/" .. COMMIT))
    end)

    it("brings anew what is damaged", function()
        assert.equal(0, (download("org/tiny")))
        local file = home .. "/hub/models--org--tiny/snapshots/" .. COMMIT .. "/model.safetensors"
        local text = path.read_file(file)
        local handle = io.open(file, "r+b") -- through the link
        handle:seek("set", 100)
        handle:write("damage")
        handle:close()
        server:forget()
        local status, _, errors = download("org/tiny")
        assert.equal(0, status)
        has("model.safetensors of org/tiny is damaged", errors)
        assert.equal(text, path.read_file(file))
    end)

    it("shows on a terminal how far it is", function()
        if not terminal.available() then
            return pending("no pseudo-terminals")
        end
        local run = terminal.start({ helper.amlua, "recipes/download.lua", "org/tiny" })
        run:expect("model.safetensors  ")
        run:expect("(100 %)")
        run:expect("export HF_HUB_OFFLINE=1")
        assert.equal(0, run:status())
    end)

    it("says what cannot be had, and brings the rest", function()
        environment.set { HF_TOKEN = "hf_notTheRightOne" }
        finally(function() environment.set { HF_TOKEN = hub_server.TOKEN } end)
        local status, _, errors = download("org/gated")
        assert.equal(1, status)
        has("the token in HF_TOKEN is valid", errors)
        assert.is_nil(errors:find("notTheRightOne", 1, true))
        environment.set { HF_TOKEN = false }
        local out
        status, out, errors = download("org/gated", "org/tiny", "org/nothing")
        assert.equal(1, status)
        has("org/gated: org/gated is gated: ask for access", errors)
        has("org/nothing: org/nothing is not on", errors)
        has("model     org/tiny", out)
        has("export HF_HUB_OFFLINE=1", out)
    end)

    it("refuses what it cannot mean", function()
        for _, case in ipairs {
            { {}, "recipes/download.lua needs WHAT: configurations" },
            { { "no/such/thing" }, "is no configuration, and no name on the hub" },
            { { "org/tiny", "--revision", "../x" }, "is no revision" }, { { "--revison", "x" }, "did you mean" },
        } do
            local status, _, errors = download(unpack(case[1]))
            has(case[2], errors)
            assert.equal(case[2] == "is no revision" and 1 or 2, status)
        end
        environment.set { HF_HUB_OFFLINE = "1" }
        local status, _, errors = download("org/tiny")
        assert.equal(2, status)
        has("HF_HUB_OFFLINE is set: unset it", errors)
    end)
end)
