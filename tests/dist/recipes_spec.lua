-- Recipes beside fine-tuning of text learn on two ranks what they learn on one: distillation, classes of sequences,
-- images and text. Skipped, and counted, where there is no mpirun or no amlua_mpi.so.
local helper = require("tests.recipe.helper")
local ranks = require("tests.dist.ranks")
local vlm = require("tests.recipe.vlm_helper")

local words = { "--allow-user-code", "--checkpoint.enabled", "false" }
local steps = { global_batch_size = 8, local_batch_size = 2, max_steps = 20, val_every_steps = 10 }
local rows = { _target_ = "am.datasets.build_unpacked_dataset", num_sentences = 6, vocab_size = 67 }
local teacher = "tests/parity/golden/tiny_llama/mha"
local labelled = "tests/recipe/seq_cls_rows.lua:rows"

-- How two ranks may share a run.
local ways = { { strategy = "ddp" }, { strategy = "fsdp2" }, { pp_size = 2 }, { strategy = "ddp", tp_size = 2 },
               { strategy = "ddp", tp_size = 2, sequence_parallel = true } }

-- By recipe: a configuration into a folder.
local recipes = {
    ["llm_kd"] = function(dir)
        return helper.config(dir, {
            step_scheduler = steps, kd_ratio = 0.5,
            teacher_model = { _target_ = "am.AutoModelForCausalLM.from_pretrained",
                              pretrained_model_name_or_path = teacher },
            validation_dataset = rows,
        })
    end,
    ["llm_seq_cls"] = function(dir)
        local cfg = helper.config(dir, {
            step_scheduler = steps, validation_dataset = { _target_ = labelled, count = 9 },
            model = { _target_ = "nemo_automodel.NeMoAutoModelForSequenceClassification.from_pretrained",
                      num_labels = 3 },
            dataloader = { collate_fn = "nemo_automodel.components.datasets.utils.default_collater" },
        })
        cfg.dataset = { _target_ = labelled, count = 24 }
        return cfg
    end,
    ["vlm_finetune"] = function(dir)
        return vlm.config(dir, vlm.model("llava"), vlm.rows(16, { text_rows = true }), { step_scheduler = steps })
    end,
}

ranks.describe("ranks", function()
    for name, config in pairs(recipes) do
        it("learn what one learns: " .. name, function()
            local function train(n, changes)
                local cfg = helper.changes(config(helper.folder()), changes)
                return (ranks.run(n, cfg, words, "recipes/" .. name .. ".lua"))
            end
            local one = train(1)
            for _, distributed in ipairs(ways) do
                ranks.compare(one, train(2, { distributed = distributed }))
            end
        end)
    end

    it("learn what one learns where some have pictures only: a projector alone", function()
        local model, pictures = vlm.model("llava"), vlm.rows(16, { text_rows = true })
        local function train(n, distributed)
            local cfg = vlm.config(helper.folder(), model, pictures, {
                step_scheduler = steps, distributed = distributed,
                freeze_config = { freeze_embeddings = true, freeze_vision_tower = true, freeze_language_model = true },
            })
            return (ranks.run(n, cfg, words, vlm.recipe))
        end
        local one = train(1)
        for _, distributed in ipairs { { strategy = "ddp" }, { strategy = "fsdp2" }, { pp_size = 2 } } do
            ranks.compare(one, train(2, distributed))
        end
    end)
end)
