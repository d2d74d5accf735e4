-- What must hold between keys: each contradiction with place and remedy, and what is only noted.
local config = require("am.config")
local cross_fields = require("am.recipes.cross_fields")
local err = require("am.core.error")
local finetune = require("recipes.llm_finetune")

local function parse(text)
    return config.parse(text, { name = "run.yaml" })
end

describe("keys that contradict each other", function()
    local cases = {
        { "step_scheduler: {global_batch_size: 10, local_batch_size: 4}",
            "^run%.yaml:1: step_scheduler%.global_batch_size: global_batch_size %(10%) must be divisible by "
                .. "local_batch_size %(4%)" },
        { "step_scheduler: {local_batch_size: 5}", "global_batch_size %(32, the default%) must be divisible" },
        { "dataloader: {batch_size: 3}", "^run%.yaml:1: dataloader%.batch_size: global_batch_size %(32" },
        { "dataloader: {batch_size: 3}\nstep_scheduler: {local_batch_size: 4}",
            "^run%.yaml:1: dataloader%.batch_size: 3, and step_scheduler%.local_batch_size is 4 %(run%.yaml:2%)" },
        { "step_scheduler: {global_batch_size: 9, grad_acc_steps: 2, local_batch_size: 4}",
            "9 is not grad_acc_steps %(2%) x local_batch_size %(4%)" },
        { "lr_scheduler: {lr_warmup_steps: 10, lr_decay_steps: 10}",
            "^run%.yaml:1: lr_scheduler%.lr_warmup_steps: 10 must be less than lr_scheduler%.lr_decay_steps %(10%)" },
        { "lr_scheduler: {lr_warmup_steps: 20}\nstep_scheduler: {max_steps: 10}",
            "must be at most step_scheduler%.max_steps %(10%), or the learning rate never" },
        { "lr_scheduler: {min_lr: 1.0}\noptimizer: {lr: 0.1}", "min_lr: 1 must be at most optimizer%.lr %(0%.1%)" },
        { "lr_scheduler: {init_lr: 1.0, max_lr: 0.5}\noptimizer: {lr: 2}",
            "init_lr: 1 must be at most lr_scheduler%.max_lr %(0%.5%)" },
        { "lr_scheduler: {start_wd: 0.2, end_wd: 0.1}", "end_wd: 0%.1 must be at least start_wd" },
        { "lr_scheduler: {lr_decay_style: WSD, lr_wsd_decay_style: linear}",
            "WSD needs lr_scheduler%.wsd_decay_steps" },
        { "lr_scheduler: {lr_decay_style: WSD, wsd_decay_steps: 1}", "WSD needs lr_scheduler%.lr_wsd_decay_style" },
        { "checkpoint: {best_metric_key: dev}\nvalidation_dataset_a: {}\nvalidation_dataset_b: {}",
            '^run%.yaml:1: checkpoint%.best_metric_key: there is no validation set "dev"; there is a, b$' },
        { "checkpoint: {best_metric_key: dev}\nvalidation_dataset: {}", 'no validation set "dev"; there is default$' },
        { "early_stopping: {validation: dev}\nvalidation_dataset: {}",
            '^run%.yaml:1: early_stopping%.validation: there is no validation set "dev"' },
        { "early_stopping: {patience: 2}", "^run%.yaml:1: early_stopping: it goes by validation, and there is no" },
        { "validation_dataset_a.b: {}", "a name has letters, digits, %- and _ only" },
        { "optimizer: {fuse_backward: true}\nstep_scheduler: {global_batch_size: 1}",
            "^run%.yaml:1: optimizer%.fuse_backward: .*max_norm, which is 1 by default" },
        { "optimizer: {fuse_backward: true}\nclip_grad_norm: {max_norm: null}",
            "global_batch_size %(32%) must be no more than local_batch_size %(1%)" },
        { "model: {_target_: am.AutoModelForSequenceClassification.from_pretrained}",
            "^run%.yaml:1: model%._target_: a classifier of sequences: recipes/llm_seq_cls%.lua" },
        { "lr_scheduler: {override_opt_param_scheduler: true, use_checkpoint_opt_param_scheduler: true}",
            "set only one of them" },
        { "peft: {target_modules: '*q_proj', exclude_modules: [a]}", "^run%.yaml:1: peft%.exclude_modules: "
            .. "target_modules says which modules are adapted already" },
        { "peft: {match_all_linear: true, target_modules: [a]}", "peft%.target_modules: match_all_linear says" },
        { "recipe: KnowledgeDistillationRecipeForNextTokenPrediction",
            "^run%.yaml:1: recipe: Know.* is for recipes/llm_kd%.lua, and this is llm_finetune: run that one" },
    }
    for _, case in ipairs(cases) do
        it("are refused: " .. case[1]:gsub("\n", " / "), function()
            local ok, e = pcall(cross_fields.check, parse(case[1]), finetune)
            assert.is_false(ok)
            assert.is_true(err.is(e) and e.code == "usage", tostring(e))
            assert.matches(case[2], e.msg)
        end)
    end

    it("are said all at once", function()
        local ok, e = pcall(cross_fields.check, parse("dataloader: {batch_size: 3}\nlr_scheduler: "
            .. "{lr_decay_style: WSD, lr_wsd_decay_style: linear, start_wd: 1, end_wd: 0}"), finetune)
        assert.is_false(ok)
        assert.equal(2, select(2, e.msg:gsub("\n", "")))
    end)
end)

describe("keys that agree", function()
    for _, text in ipairs {
        "a: 1", "step_scheduler: {global_batch_size: 8, local_batch_size: 4}", "step_scheduler: {local_batch_size: 4}",
        "step_scheduler: {grad_acc_steps: 3, local_batch_size: 5}", "lr_scheduler: {lr_warmup_steps: 0}\n"
            .. "step_scheduler: {max_steps: 10}", "lr_scheduler: {lr_warmup_steps: 9, lr_decay_steps: 10}",
        "peft: {match_all_linear: false, target_modules: [], exclude_modules: [a]}",
        "recipe: TrainFinetuneRecipeForNextTokenPrediction",
        "dataloader: {batch_size: none}", "validation_dataset: none",
    } do
        it("are taken: " .. text:gsub("\n", " / "), function()
            assert.same({}, cross_fields.check(parse(text), finetune))
        end)
    end

    it("for a recipe of one's own, which extends the one that is named", function()
        local own = finetune:extend("mine")
        assert.same({}, cross_fields.check(parse("recipe: TrainFinetuneRecipeForNextTokenPrediction"), own))
    end)
end)

describe("keys that may not be meant", function()
    local cases = {
        { "validation_dataloader: {a: 1}", "there is no validation_dataset" },
        { "step_scheduler: {val_every_steps: 5}", "val_every_steps: there is no validation_dataset" },
        { "step_scheduler: {val_every_steps: 50, max_steps: 5}\nvalidation_dataset: {a: 1}",
            "50 is beyond step_scheduler%.max_steps %(5%)" },
        { "recipe: SomethingElse", "SomethingElse is none that is known, and changes nothing" },
        { "checkpoint: {model_save_format: torch_save, save_consolidated: true}",
            "safetensors are written in place of torch_save, and a consolidated directory" },
        { "checkpoint: {save_consolidated: true}\npeft: {dim: 4}", "recipes/merge_lora%.lua makes a whole model" },
        { "freeze_config: {freeze_embeddings: true}\npeft: {dim: 4}", "frozen anyway" },
        { "dataset: {seq_length: 100}\npacked_sequence: {packed_sequence_size: 50}", "longer rows are dropped" },
        { "dataset: {seq_length: 100}\npacked_sequence: {packed_sequence_size: 50, split_across_pack: true}",
            "longer rows are split" },
    }
    for _, case in ipairs(cases) do
        it("are noted: " .. case[1]:gsub("\n", " / "), function()
            local notes = cross_fields.check(parse(case[1]), finetune)
            assert.equal(1, #notes)
            assert.matches("^run%.yaml:%d: ", notes[1])
            assert.matches(case[2], notes[1])
        end)
    end
end)
