-- examples/custom/dpo.lua: loss and gradients against TRL's DPOTrainer (dpo_golden.py), and a whole run.
local helper = require("tests.recipe.helper")
local io_core = require("am.core.io")
local json = require("am.utils.json")
local path = require("am.utils.path")

local dpo = dofile("examples/custom/dpo.lua")

-- The rows of TRL's batch, as the recipe's collate takes them.
local function golden_rows(golden)
    local ids, mask = golden:get("input_ids"):totable(), golden:get("attention_mask"):totable()
    local learnt, rows = golden:get("completion_mask"):totable(), {}
    for b = 1, #ids do
        local row = { input_ids = {}, labels = {} }
        for t = 1, #ids[b] - 1 do
            if mask[b][t + 1] == 1 then
                row.input_ids[#row.input_ids + 1] = ids[b][t]
                row.labels[#row.labels + 1] = learnt[b][t + 1] == 1 and ids[b][t + 1] or -100
            end
        end
        rows[b] = row
    end
    local pairs_of = {}
    for i = 1, #rows / 2 do
        pairs_of[i] = { chosen = rows[i], rejected = rows[#rows / 2 + i] }
    end
    return pairs_of
end

describe("DPO", function()
    teardown(helper.cleanup)

    it("has TRL's loss and gradients", function()
        local golden = io_core.open("tests/parity/golden/dpo.safetensors")
        local cfg = helper.config(helper.folder(), {
            beta = 0.3,
            reference_model = { _target_ = "am.AutoModelForCausalLM.from_pretrained",
                                pretrained_model_name_or_path = "tests/parity/golden/tiny_llama/mha" },
        })
        local recipe = dpo.new(helper.yaml(helper.folder(), cfg))
        recipe.model = recipe:build_model()
        local batch = recipe:collate(golden_rows(golden))
        assert.equal(3, batch.num_label_tokens)
        local loss = recipe:loss(batch) * (1 / 3)
        -- 1e-4: f32 sums in another order
        assert.near(golden:get("loss"):item(), loss:item(), 1e-4)
        loss:backward()
        for name, t in recipe.model:named_parameters() do
            local theirs = golden:get("grad." .. name)
            assert.is_true((t.grad - theirs):abs():max():item() < 1e-4, name)
        end
        recipe.model:close()
        recipe.reference:close()
    end)

    it("learns to prefer what is chosen, and goes on", function()
        local model, dir, rows = helper.text_model(), helper.folder(), {}
        for i = 1, 12 do
            rows[i] = json.encode { prompt = "Question " .. i, chosen = "yes, of course", rejected = "no, never" }
        end
        local file = helper.write(dir .. "/rows.jsonl", table.concat(rows, "\n"))
        local function run(steps)
            local status, _, errors = helper.run {
                "examples/custom/dpo.lua", "examples/custom/dpo.yaml",
                "--model.pretrained_model_name_or_path", model, "--model.torch_dtype", "float32",
                "--dataset.path_or_dataset_id", file, "--optimizer.lr", "1e-2",
                "--step_scheduler.global_batch_size", "4", "--step_scheduler.num_epochs", "4",
                "--step_scheduler.max_steps", tostring(steps), "--checkpoint.checkpoint_dir", dir .. "/run",
            }
            assert.equal(0, status, errors)
        end
        run(5)
        run(10)
        local records = helper.jsonl(path.join(dir, "run/training.jsonl"))
        assert.equal(10, #records)
        assert.near(math.log(2), records[1].loss, 1e-6) -- the model is its own reference at first
        assert.is_true(records[10].loss < 0.85 * records[1].loss, tostring(records[10].loss))
    end)
end)
