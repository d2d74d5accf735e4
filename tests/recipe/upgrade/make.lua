-- Makes what upgrade_spec.lua needs of a release: two checkpoints in the middle of a run, of an adapter and of whole
-- weights, and the losses that the run goes on to have. Run once with each release, from the project's root, and
-- committed; never run again for a release that is out.
--   amlua tests/recipe/upgrade/make.lua tests/recipe/upgrade/data/VERSION

local am = require("am")
local json = require("am.utils.json")
local path = require("am.utils.path")

local SAVED, STEPS = 3, 6 -- steps before the checkpoint, and of the whole run

local root = assert(arg[1], "usage: amlua tests/recipe/upgrade/make.lua FOLDER")
assert(not path.exists(root), root .. " is there already")

local function write_rows(file, vocab_size)
    local lines = {}
    for i = 1, 16 do
        local ids, labels = {}, {}
        for t = 1, 8 + i % 5 do
            ids[t] = (7 * i + 3 * t * t) % (vocab_size - 2) + 2
        end
        for t = 1, #ids do
            labels[t] = t > 3 and ids[t + 1] or -100
        end
        lines[i] = json.encode({ input_ids = json.array(ids), labels = json.array(labels) }, { sort_keys = true })
    end
    path.write_file(file, table.concat(lines, "\n") .. "\n")
end

-- A model of some kilobytes, for whole weights.
local function make_model(dir)
    am.manual_seed(3)
    path.mkdir_p(dir)
    am.AutoModelForCausalLM.from_config {
        architectures = { "LlamaForCausalLM" }, model_type = "llama", hidden_size = 8, intermediate_size = 12,
        num_hidden_layers = 2, num_attention_heads = 2, num_key_value_heads = 1, vocab_size = 24,
        max_position_embeddings = 32, rms_norm_eps = 1e-5, initializer_range = 0.2, tie_word_embeddings = true,
    }:save_pretrained(dir)
end

local function config(name, model, changes)
    local cfg = {
        seed = 11,
        step_scheduler = { global_batch_size = 4, local_batch_size = 2, max_steps = STEPS, ckpt_every_steps = SAVED,
                           save_checkpoint_every_epoch = false },
        model = { _target_ = "am.AutoModelForCausalLM.from_pretrained", pretrained_model_name_or_path = model },
        dataset = { _target_ = "am.datasets.PretokenizedDataset", path_or_dataset_id = path.join(root, "rows.jsonl") },
        optimizer = { _target_ = "am.optim.AdamW", lr = 1e-2, weight_decay = 0.1 },
        lr_scheduler = { lr_decay_style = "cosine", lr_warmup_steps = 2, min_lr = 1e-3 },
        checkpoint = { checkpoint_dir = path.join(root, name), save_consolidated = false },
        report = { enabled = false },
    }
    for key, value in pairs(changes) do
        cfg[key] = value
    end
    return cfg
end

-- Train to the end; leave the checkpoint in the middle, and the log beside it.
local function train(name, cfg)
    local file = path.join(root, name .. ".yaml")
    path.write_file(file, json.encode(cfg, { indent = 2, sort_keys = true }) .. "\n")
    local recipe = require("recipes.llm_finetune").new(file)
    recipe:setup()
    recipe:train()
    recipe:close_logs()
    os.remove(file)
    local dir = path.join(root, name)
    local adapter = path.join(dir, ("epoch_0_step_%d/model/adapter_config.json"):format(SAVED - 1))
    if path.is_file(adapter) then -- names its base by the whole path, which is this machine's
        local text = path.read_file(adapter):gsub('("base_model_name_or_path": ")' .. '[^"]*/tests/', "%1tests/")
        path.write_file(adapter, text)
    end
    for _, child in ipairs(path.list_dir(dir)) do
        if child ~= ("epoch_0_step_%d"):format(SAVED - 1) and child ~= "training.jsonl" then
            path.remove_tree(path.join(dir, child))
        end
    end
end

write_rows(path.join(path.mkdir_p(root), "rows.jsonl"), 24)
make_model(path.join(root, "model"))
train("lora", config("lora", "tests/parity/golden/tiny_llama/gqa", {
    peft = { _target_ = "am.PeftConfig", target_modules = json.array { "*q_proj", "*v_proj" }, dim = 2, alpha = 4 },
}))
train("full", config("full", path.join(root, "model"), {}))
