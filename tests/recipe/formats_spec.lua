-- What a run leaves on the disk and writes to the console: names, layout, keys and their order, as
-- NeMo Automodel has them today, with optimizer and loop state as safetensors and JSON.
local am = require("am")
local helper = require("tests.recipe.helper")
local io_core = require("am.core.io")
local json = require("am.utils.json")
local path = require("am.utils.path")
local progress = require("am.loggers.progress")
local posix = require("am.utils.posix")

local text_model

-- Four steps on text, validated at 1 and 3, saved at 1 (every two) and 3 (last).
local function run(dir, changes)
    local rows = {}
    for i = 1, 8 do
        rows[i] = json.encode { question = "What is " .. i .. "?", answer = "It is the number " .. i .. "." } .. "\n"
    end
    local file = helper.write(path.join(dir, "rows.jsonl"), table.concat(rows))
    local section = { _target_ = "am.datasets.ColumnMappedTextInstructionDataset", path_or_dataset_id = file,
                      column_mapping = { question = "question", answer = "answer" } }
    local cfg = helper.config(path.join(dir, "run"), helper.changes({
        model = { pretrained_model_name_or_path = text_model },
        step_scheduler = { max_steps = 4, ckpt_every_steps = 2, num_epochs = 10 },
        lr_scheduler = { lr_decay_style = "linear" },
    }, changes))
    cfg.dataset, cfg.validation_dataset = section, section
    local status, _, errors = helper.train(cfg)
    assert.equal(0, status, errors)
    return path.join(dir, "run"), errors
end

local state = { "config.yaml", "dataloader/dataloader_dp_rank_0.json", "hooks.json", "losses.json", "manifest.json" }
local tail = { "optim/lr_scheduler.json", "optim/optimizer.json", "optim/optimizer.safetensors",
               "rng/rng_dp_rank_0.json", "signature.json", "step_scheduler.json" }

local function checkpoint_tree(model_files)
    local out = {}
    for _, list in ipairs { state, model_files, tail } do
        for _, name in ipairs(list) do
            out[#out + 1] = name
        end
    end
    return out
end

local function object(file)
    return assert(json.decode(helper.read(file), { ordered = true }))
end

local function keys(t)
    return json.keys(t)
end

describe("what a LoRA run leaves", function()
    local root, errors
    setup(function()
        text_model = helper.text_model()
        root, errors = run(helper.folder(), { peft = { target_modules = "*_proj", dim = 4, alpha = 8 } })
    end)
    teardown(helper.cleanup)

    it("is two checkpoints, pointers and logs", function()
        assert.same({ ".lock", "LATEST", "LOWEST_VAL", "epoch_0_step_1", "epoch_1_step_3", "report.html",
                      "training.jsonl", "validation.jsonl" }, path.list_dir(root))
        assert.equal("epoch_1_step_3", posix.readlink(path.join(root, "LATEST")))
        assert.equal("epoch_1_step_3", posix.readlink(path.join(root, "LOWEST_VAL"))) -- it learns
        assert.same(checkpoint_tree { "model/adapter_config.json", "model/adapter_model.safetensors",
                                      "model/automodel_peft_config.json", "model/special_tokens_map.json",
                                      "model/tokenizer.json", "model/tokenizer_config.json" },
                    helper.tree(path.join(root, "epoch_1_step_3")))
    end)

    it("has an adapter that PEFT reads", function()
        local dir = path.join(root, "LATEST/model")
        local c = object(dir .. "/adapter_config.json")
        local sorted = { unpack(keys(c)) }
        table.sort(sorted)
        assert.same(sorted, keys(c))
        assert.equal("LORA", c.peft_type)
        assert.equal("CAUSAL_LM", c.task_type)
        assert.equal("none", c.bias)
        assert.equal(4, c.r)
        assert.equal(8, c.lora_alpha)
        assert.equal(path.absolute(text_model), c.base_model_name_or_path)
        local targets = {}
        for layer = 0, 1 do
            for _, name in ipairs { "mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "self_attn.k_proj",
                                    "self_attn.o_proj", "self_attn.q_proj", "self_attn.v_proj" } do
                targets[#targets + 1] = "model.layers." .. layer .. "." .. name
            end
        end
        local listed = {}
        for i, name in ipairs(c.target_modules) do
            listed[i] = name
        end
        assert.same(targets, listed)
        local archive = io_core.open(dir .. "/adapter_model.safetensors")
        assert.same({ 4, 32 }, archive:info("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight").shape)
        assert.same({ 64, 4 }, archive:info("base_model.model.model.layers.1.mlp.up_proj.lora_B.weight").shape)
        assert.equal(2 * #targets, #archive:names())
        assert.equal("pt", json.decode(archive:metadata_json()).format)
        archive:close()
        local own = object(dir .. "/automodel_peft_config.json")
        assert.is_nil(own.dim or own.alpha)
        assert.equal("post", own.dropout_position)
        assert.equal("  \"base", helper.read(dir .. "/adapter_config.json"):sub(3, 9))
    end)

    it("has state in safetensors and JSON", function()
        local dir = path.join(root, "epoch_1_step_3")
        assert.same({ step = 4, epoch = 1 }, json.decode(helper.read(dir .. "/step_scheduler.json")))
        local losses = object(dir .. "/losses.json")
        assert.same({ "train_loss", "val_loss" }, keys(losses))
        local archive = io_core.open(dir .. "/optim/optimizer.safetensors")
        for _, what in ipairs { "exp_avg", "exp_avg_sq" } do
            assert.same({ 4, 32 }, archive:info("state.model.layers.0.self_attn.q_proj.lora_A.weight." .. what).shape)
        end
        archive:close()
        local rng = object(dir .. "/rng/rng_dp_rank_0.json")
        assert.same({ "seed", "stream" }, keys(rng))
        -- the configuration as it was run, which runs again
        local again = path.join(helper.folder(), "again")
        local status, _, message = helper.run { helper.finetune, dir .. "/config.yaml", "--checkpoint.checkpoint_dir",
                                                again }
        assert.equal(0, status, message)
        assert.same(helper.curve(root), helper.curve(again))
    end)

    it("has a line of training.jsonl a step and one of validation.jsonl a validation", function()
        local n = 0
        for line in helper.read(path.join(root, "training.jsonl")):gmatch("([^\n]*)\n") do
            local r = assert(json.decode(line, { ordered = true }))
            assert.same({ "step", "epoch", "timestamp", "loss", "grad_norm", "lr", "mem", "tps", "tps_per_gpu", "mfu",
                          "num_tokens_per_step", "num_label_tokens" }, keys(r))
            assert.equal(n, r.step)
            assert.is_true(r.mfu > 0 and r.mfu < 150, tostring(r.mfu)) -- percent
            local shown = progress.open({ total_steps = 4 }):line(r, 200)
            assert.matches(("| %.1f %% of peak |"):format(r.mfu), shown, 1, true)
            assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ$", r.timestamp)
            n = n + 1
        end
        assert.equal(4, n)
        local steps = {}
        for line in helper.read(path.join(root, "validation.jsonl")):gmatch("([^\n]*)\n") do
            local r = assert(json.decode(line, { ordered = true }))
            assert.same({ "step", "epoch", "timestamp", "val_loss", "lr", "num_label_tokens", "mem" }, keys(r))
            steps[#steps + 1] = r.step
        end
        assert.same({ 1, 3 }, steps)
    end)

    it("was told on the console", function()
        local number = "%-?%d+%.%d%d%d%d"
        local tps = "%d+%.%d%d"
        local head = "%d%d%d%d%-%d%d%-%d%d %d%d:%d%d:%d%d | INFO | am%.llm_finetune | "
        assert.matches(head .. "step 2 | epoch 1 | loss " .. number .. " | grad_norm " .. number
                       .. " | lr %d%.%d%de%-%d%d | mem %d+%.%d%d GiB | tps " .. tps .. "%(" .. tps
                       .. "/gpu%) | num_label_tokens %d+\n", errors)
        assert.matches(head .. '%[val%] name "default" | step 3 | epoch 1 | loss ' .. number
                       .. " | lr %d%.%d%de%-%d%d | num_label_tokens %d+\n", errors)
        assert.matches(head .. "Saving checkpoint to .*/epoch_1_step_3\n", errors)
        assert.matches(head .. "Trainable parameters %d+ / Total %d+ %(%d+%.%d%d %%%) | Param L2 norm " .. number,
                       errors)
    end)
end)

describe("what a full run leaves", function()
    setup(function() text_model = helper.text_model() end)
    teardown(helper.cleanup)

    it("is a shard a checkpoint, and a Hugging Face directory at the end", function()
        local root = run(helper.folder(), { checkpoint = { save_consolidated = "final" } })
        local shard = "model/shard-00001-model-00001-of-00001.safetensors"
        local beside = { "model/.hf_metadata/config.json", "model/.hf_metadata/files.json",
                         "model/.hf_metadata/special_tokens_map.json", "model/.hf_metadata/tokenizer.json",
                         "model/.hf_metadata/tokenizer_config.json" }
        local shards = { unpack(beside) }
        shards[#shards + 1] = shard
        assert.same(checkpoint_tree(shards), helper.tree(path.join(root, "epoch_0_step_1")))
        assert.same(checkpoint_tree {
            beside[1], beside[2], beside[3], beside[4], beside[5],
            "model/consolidated/config.json", "model/consolidated/model-00001-of-00001.safetensors",
            "model/consolidated/model.safetensors.index.json", "model/consolidated/special_tokens_map.json",
            "model/consolidated/tokenizer.json", "model/consolidated/tokenizer_config.json", shard,
        }, helper.tree(path.join(root, "epoch_1_step_3")))
        local dir = path.join(root, "epoch_1_step_3")
        local archive = io_core.open(path.join(dir, shard))
        local metadata = json.decode(archive:metadata_json())
        assert.equal("1.0", metadata.DCP_VERSION)
        assert.equal("pt", metadata.format)
        local info = json.decode(metadata.DCP_SHARDING_INFO)
        assert.equal("[0, 0]", json.encode(info["model.embed_tokens.weight"].saved_offsets))
        assert.equal("[0]", json.encode(info["model.norm.weight"].saved_offsets))
        archive:close()

        local consolidated = path.join(dir, "model/consolidated")
        local index = object(path.join(consolidated, "model.safetensors.index.json"))
        assert.same({ "metadata", "weight_map" }, keys(index))
        assert.equal("model-00001-of-00001.safetensors", index.weight_map["model.norm.weight"])
        assert.is_nil(index.weight_map["lm_head.weight"]) -- tied
        local count = 0
        for _ in pairs(index.weight_map) do
            count = count + 1
        end
        local file = io_core.open(path.join(consolidated, "model-00001-of-00001.safetensors"))
        assert.equal(count, #file:names())
        assert.equal("pt", json.decode(file:metadata_json()).format)
        file:close()
        local model = am.AutoModelForCausalLM.from_pretrained(consolidated)
        assert.equal(index.metadata.total_size, 4 * model:num_parameters())
        model:close()
        local status, out = helper.run { "recipes/generate.lua", "--model", consolidated, "--prompt", "Hi", "--json",
                                         "--max_new_tokens", "3" }
        assert.equal(0, status)
        assert.same({ "prompt", "text" }, keys(json.decode(out, { ordered = true })))
    end)

    it("is split as the original was", function()
        local dir, tensors = helper.copy(text_model, helper.folder() .. "/model"), {}
        local archive, map = io_core.open(dir .. "/model.safetensors"), {}
        for i, name in ipairs(archive:names()) do
            local number = i % 3 + 1
            tensors[number] = tensors[number] or {}
            table.insert(tensors[number], { name, archive:get(name) })
            map[name] = string.format("model-%05d-of-00003.safetensors", number)
        end
        for number, list in ipairs(tensors) do
            io_core.save_safetensors(string.format("%s/model-%05d-of-00003.safetensors", dir, number), list)
        end
        archive:close()
        os.remove(dir .. "/model.safetensors")
        helper.write(dir .. "/model.safetensors.index.json", json.encode { weight_map = map })
        local root = run(helper.folder(), { model = { pretrained_model_name_or_path = dir },
                                            checkpoint = { save_consolidated = "every" } })
        for _, name in ipairs { "epoch_0_step_1", "epoch_1_step_3" } do
            local into = path.join(root, name, "model/consolidated")
            local index = object(into .. "/model.safetensors.index.json")
            for tensor, file in pairs(map) do
                assert.equal(file, index.weight_map[tensor])
                local part = io_core.open(path.join(into, file))
                assert.is_table(part:info(tensor))
                part:close()
            end
        end
    end)

    it("keeps the best and the newest", function()
        local rows = '{"input_ids": [1, 2, 3, 4]}\n'
        local dir = helper.folder()
        local file = helper.write(dir .. "/rows.jsonl", rows)
        -- the learning rate grows: the loss falls at first and rises in the end
        local cfg = helper.config(dir .. "/run", {
            step_scheduler = { global_batch_size = 1, local_batch_size = 1, max_steps = 12, ckpt_every_steps = 1,
                               num_epochs = 12 },
            optimizer = { lr = 3 }, clip_grad_norm = { max_norm = json.null },
            lr_scheduler = { lr_decay_style = "constant", init_lr = 1e-3, lr_warmup_steps = 12 },
            checkpoint = { max_recent_checkpoints = 2 },
        })
        cfg.dataset = { _target_ = "am.datasets.PretokenizedDataset", path_or_dataset_id = file }
        cfg.validation_dataset = cfg.dataset
        local status, _, errors = helper.train(cfg)
        assert.equal(0, status, errors)
        local best, lowest = nil, math.huge
        for _, r in ipairs(helper.jsonl(dir .. "/run/validation.jsonl")) do
            if r.val_loss < lowest then
                best, lowest = string.format("epoch_%d_step_%d", r.epoch, r.step), r.val_loss
            end
        end
        assert.is_truthy(best and best ~= "epoch_11_step_11", "the last one is the best")
        assert.equal(best, posix.readlink(dir .. "/run/LOWEST_VAL"))
        local wanted = { "epoch_10_step_10", "epoch_11_step_11" }
        if best ~= wanted[1] then
            table.insert(wanted, best)
        end
        table.sort(wanted)
        local left = {}
        for _, name in ipairs(path.list_dir(dir .. "/run")) do
            left[#left + 1] = name:match("^epoch.*")
        end
        assert.same(wanted, left)
        status = helper.train(cfg, { "--checkpoint.restore_from", "lowest_val", "--step_scheduler.max_steps", "1" })
        assert.equal(0, status)
    end)
end)
