-- recipes/consolidate.lua: what it makes of a checkpoint's shards is what the run itself writes, and it refuses what is
-- no checkpoint, or damaged.
local am = require("am")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")

-- Train two steps; the folder of the run.
local function train(changes)
    local dir = helper.folder()
    local status, _, errors = helper.train(helper.config(dir, helper.changes({
        step_scheduler = { max_steps = 2 }, checkpoint = { save_consolidated = true },
    }, changes or {})))
    assert.equal(0, status, errors)
    return dir
end

local function consolidate(...)
    return helper.run { "recipes/consolidate.lua", ... }
end

local function same_folders(a, b)
    assert.same(helper.tree(a), helper.tree(b))
    for _, name in ipairs(helper.tree(a)) do
        assert.equal(helper.read(path.join(a, name)), helper.read(path.join(b, name)), name)
    end
end

describe("consolidate.lua", function()
    teardown(helper.cleanup)

    it("makes of shards what the run writes", function()
        local text = helper.text_model()
        local tiny = am.AutoModelForCausalLM.from_pretrained(helper.tiny)
        local split = helper.folder()
        tiny:save_pretrained(split, { max_shard_bytes = 30000 })
        tiny:close()
        local experts = helper.folder()
        am.manual_seed(3)
        local mixtral = am.AutoModelForCausalLM.from_config {
            architectures = { "MixtralForCausalLM" }, model_type = "mixtral", hidden_size = 32, intermediate_size = 24,
            num_hidden_layers = 2, num_attention_heads = 4, num_key_value_heads = 2, vocab_size = 67,
            num_local_experts = 4, num_experts_per_tok = 2, max_position_embeddings = 64, rms_norm_eps = 1e-5,
        }
        mixtral:save_pretrained(experts)
        mixtral:close()
        for _, model in ipairs { text, split, experts } do
            local run = train { model = { pretrained_model_name_or_path = model } }
            local out = helper.folder() .. "/out"
            local status, said, errors = consolidate(run, out) -- its newest
            assert.equal(0, status, errors)
            assert.matches(model == split and "[2-9] files, 0.000 GB" or "1 file, 0.00%d GB", said)
            same_folders(path.join(helper.latest(run), "model/consolidated"), out)
            for _, where in ipairs { helper.latest(run), helper.latest(run) .. "/model" } do
                local again = helper.folder() .. "/out"
                assert.equal(0, (consolidate(where, again)))
                same_folders(out, again)
            end
        end
    end)

    it("refuses what is none, an adapter, and a folder that is there", function()
        local run, full = train { peft = { dim = 4, target_modules = "*_proj" } }, train()
        local out = helper.folder() .. "/out"
        for _, case in ipairs {
            { { run, out }, "holds an adapter; recipes/merge_lora.lua" },
            { { helper.folder(), out }, "holds no checkpoint with shards" },
            { { out .. "/nowhere", out }, "holds no checkpoint with shards" },
            { { full, helper.latest(full) }, "not an empty folder" },
            { { full }, "give a checkpoint and a new directory" },
        } do
            local status, said, errors = consolidate(unpack(case[1]))
            assert.is_nil(helper.refusal_problem(2, { case[2] }, status, said, errors))
            assert.is_false(path.exists(out))
        end
    end)

    it("refuses what is damaged, and leaves nothing", function()
        local run = train()
        local model = path.join(helper.latest(run), "model")
        local plan = path.join(model, ".hf_metadata/files.json")
        local whole, manifest = helper.read(plan), path.join(helper.latest(run), "manifest.json")
        local out = helper.folder() .. "/out"
        local function refused(wanted)
            local status, said, errors = consolidate(run, out)
            assert.is_nil(helper.refusal_problem(status == 2 and 2 or 1, { wanted }, status, said, errors))
            assert.is_false(path.exists(out))
        end
        helper.write(plan, whole .. " ")
        refused("files.json has")
        os.remove(manifest)
        local stored = json.decode(whole)
        local function changed(change)
            local copy = json.decode(whole)
            change(copy)
            helper.write(plan, json.encode(copy))
        end
        for _, nonsense in ipairs { "", "7", "{}", '{"files": 1}' } do
            helper.write(plan, nonsense)
            refused("files.json")
        end
        local first = stored.files[1].tensors[1][1]
        for wanted, change in pairs {
            ["no name that is one"] = function(p) p.files[1].name = "../model.safetensors" end,
            ["is there twice"] = function(p) p.files[1].tensors[2] = p.files[1].tensors[1] end,
            ["the shape of"] = function(p) p.files[1].tensors[1][3][1] = -1 end,
            ["a tensor is not"] = function(p) p.files[1].tensors[1][2] = "float33" end,
            ["it does not say where"] = function(p) p.targets[first].at[1][1] = "other" end,
            ["several places"] = function(p) p.targets[first].at[2] = p.targets[first].at[1] end,
            ["rows of"] = function(p) p.files[1].tensors[1][3][1] = p.files[1].tensors[1][3][1] + 1 end,
            ["there are 0 rows"] = function(p) p.targets[first] = nil end,
            ["lacks absent"] = function(p) p.targets.absent = p.targets[first] end,
            ["are not"] = function(p) p.targets[first].at[1][2] = 1 end,
        } do
            changed(change)
            refused(wanted)
        end
        os.remove(plan)
        refused("stored no .hf_metadata")
    end)

    it("runs in one process", function()
        local status, _, errors = helper.run({ "recipes/consolidate.lua", helper.folder(), helper.folder() },
            { before = "env OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=2" })
        assert.equal(2, status)
        assert.matches("consolidate%.lua runs in one process, and mpirun started 2", errors)
    end)
end)
