-- recipes/convert.lua: GGUF files of models, adapters and a run's checkpoints, what it refuses, and a full disk.
-- Directories: bad_files_spec.lua.

local am = require("am")
local faults = require("tests.support.faults")
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")
local tiny = require("tests.support.tiny")

local function refused(status, wanted, got, out, errors)
    assert.is_nil(helper.refusal_problem(status, wanted, got, out, errors))
end

local function convert(...)
    return helper.run { "recipes/convert.lua", ... }
end

-- A small model whose tokenizer llama.cpp knows: GPT-2's without add_prefix_space.
local function text_model()
    local dir = helper.text_model()
    path.write_file(dir .. "/tokenizer.json", (helper.read(dir .. "/tokenizer.json")
        :gsub('"add_prefix_space": *true', '"add_prefix_space": false')))
    return dir
end

-- The newest checkpoint of a run of one step.
local function checkpoint_of(model, peft)
    local top = helper.folder()
    local data = { _target_ = "am.datasets.ColumnMappedTextInstructionDataset", cache_dir = top .. "/cache",
                   path_or_dataset_id = helper.write(top .. "/rows.jsonl", '{"q": "Who?", "a": "Ada."}\n'),
                   column_mapping = { question = "q", answer = "a" } }
    local cfg = helper.config(top .. "/run", {
        model = { pretrained_model_name_or_path = model }, peft = peft,
        step_scheduler = { max_steps = 1, num_epochs = 9, local_batch_size = 1, global_batch_size = 1 },
        checkpoint = { model_save_format = "safetensors", save_consolidated = true },
    })
    cfg.dataset, cfg.validation_dataset = data, nil
    local status, _, errors = helper.run { helper.finetune, helper.yaml(top, cfg) }
    assert.equal(0, status, errors)
    return helper.latest(top .. "/run")
end

describe("convert.lua", function()
    teardown(helper.cleanup)

    it("takes a run's checkpoint: the model, or the adapter with the base that it names", function()
        local model, out = text_model(), helper.folder()
        local trained = checkpoint_of(model, false) .. "/model/consolidated"
        local status, _, errors = convert("--input", trained, "--output-file", out .. "/m.gguf", "--type", "f32")
        assert.equal(0, status, errors)
        local a = am.AutoModelForCausalLM.from_pretrained(trained, { torch_dtype = "float32" })
        local b = am.AutoModelForCausalLM.from_pretrained(out .. "/m.gguf")
        assert.same({}, tiny.differing(tiny.weights(a), tiny.weights(b)))
        a:close()
        b:close()
        local adapter = checkpoint_of(model, { target_modules = "*_proj", dim = 2 }) .. "/model"
        status, _, errors = convert("--input", adapter, "--output-file", out .. "/lora.gguf")
        assert.equal(0, status, errors)
        local archive = require("am.core.io").open(out .. "/lora.gguf")
        assert.equal(2 * 2 * 7, #archive:names()) -- A and B of seven projections in two layers
        archive:close()
    end)

    it("leaves no part of a file on a full disk", function()
        local model, out = text_model(), helper.folder()
        local preload, log = faults.preload(helper.folder()), helper.folder() .. "/log"
        local function try(opts)
            opts.under = out
            return helper.run({ "recipes/convert.lua", "--input", model, "--output-file", out .. "/m.gguf" },
                              { before = preload(opts) })
        end
        local status, _, errors = try { log = log }
        assert.equal(0, status, errors)
        local whole, made, tries = helper.read(out .. "/m.gguf"), {}, 0
        for _, call in ipairs(faults.read_log(log)) do
            local kind = call.call:gsub("!$", "")
            made[kind] = (made[kind] or 0) + 1
        end
        for _, call in ipairs { "write", "fsync", "rename" } do
            for k = 1, made[call] or 0 do
                path.remove_tree(out)
                path.mkdir_p(out)
                refused(1, { out }, try { call = call, k = k, errno = faults.ENOSPC, forever = true })
                local left = helper.read(out .. "/m.gguf") -- the folder is synced when it is there
                assert.same(left and { "m.gguf" } or {}, helper.tree(out))
                assert.is_true(left == nil or left == whole and call == "fsync", call .. " " .. k)
                tries = tries + 1
            end
        end
        assert.is_true(tries >= 3, "only " .. tries .. " calls were refused")
        assert.equal(0, (try {}))
    end)

    it("writes GGUF, which reads back the same, and an adapter, too", function()
        local source, folder = text_model(), helper.folder()
        local file, lora, adapter = folder .. "/m.gguf", folder .. "/lora.gguf", folder .. "/adapter"
        local status, _, errors = convert("--input", source, "--output-file", file, "--type", "f32")
        assert.equal(0, status, errors)
        local a, b = am.AutoModelForCausalLM.from_pretrained(source), am.AutoModelForCausalLM.from_pretrained(file)
        assert.same({}, tiny.differing(tiny.weights(a), tiny.weights(b)))
        local from, to = am.AutoTokenizer.from_pretrained(source), am.AutoTokenizer.from_pretrained(file)
        assert.same(from:encode("The keeper is Ada."), to:encode("The keeper is Ada."))
        b:close()
        local config = am.peft.apply(a, { target_modules = { "*q_proj" }, dim = 2 })
        path.mkdir_p(adapter)
        am.peft.save_adapter(a, adapter, config)
        a:close()
        status, _, errors = convert("--input", adapter, "--base-model", source, "--output-file", lora)
        assert.equal(0, status, errors)
        local archive = require("am.core.io").open(lora)
        assert.is_table(archive:info("blk.0.attn_q.weight.lora_b"))
        archive:close()

        local before = helper.read(file)
        refused(2, { file, "--output-file" }, convert("--input", source, "--output-file", file))
        assert.equal(before, helper.read(file))
        refused(2, { '"q4_l"', "q4_k" }, convert("--input", source, "--output-file", folder .. "/x", "--type",
                                                "q4_l"))
        refused(2, { "either --output-dir", "--output-file" }, convert("--input", source))
        refused(1, { "/proc/nowhere/x" }, convert("--input", source, "--output-file", "/proc/nowhere/x"))
        local bare = folder .. "/bare"
        path.mkdir_p(bare)
        for _, name in ipairs { "config.json", "model.safetensors" } do
            path.write_file(bare .. "/" .. name, helper.read(source .. "/" .. name))
        end
        refused(1, { bare, "tokenizer.json" }, convert("--input", bare, "--output-file", folder .. "/x"))
        assert.is_false(path.exists(folder .. "/x"))
    end)
end)
