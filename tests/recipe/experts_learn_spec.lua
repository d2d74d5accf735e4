-- Mixtures of experts learn, as a user trains them: each of two configurations under experts/ on 64 fixed rows,
-- until generate.lua answers as the rows say. That their numbers are transformers' is tests/parity/models' to show.

local am = require("am")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")

local ROWS, ASKED = 64, 10

-- Questions whose answers nothing but learning them tells.
local function rows()
    local colours = { "violet", "amber", "teal", "ivory", "scarlet", "olive", "indigo", "copper" }
    local things = { "door", "boat", "roof", "lamp", "gate", "coat", "bell", "flag" }
    local out = {}
    for i = 0, ROWS - 1 do
        out[i + 1] = {
            question = string.format("What is known of Orrumsay %d?", i),
            answer = string.format("It has a %s %s and %d keepers.", colours[i * 5 % 8 + 1],
                                   things[(i * 3 + math.floor(i / 8)) % 8 + 1], i * 37 % 91 + 2),
        }
    end
    return out
end

-- A tiny random model with the small GPT-2 vocabulary and a chat template.
local function model(fields)
    local dir = helper.text_model()
    am.manual_seed(7)
    fields.eos_token_id = am.AutoTokenizer.from_pretrained(dir).eos_token_id
    for key, value in pairs { hidden_size = 64, num_hidden_layers = 2, num_attention_heads = 4,
                              num_key_value_heads = 2, head_dim = 16, vocab_size = 4240,
                              max_position_embeddings = 128, initializer_range = 0.1 } do
        fields[key] = value
    end
    am.AutoModelForCausalLM.from_config(fields):save_pretrained(dir)
    return dir
end

describe("experts", function()
    teardown(helper.cleanup)

    -- How many maps of experts a file has, and how many of these are other than `before`'s, or than zero without it.
    local function learnt(file, kind, before)
        local all, other = 0, 0
        before = before and am.load_safetensors(before)
        for name, t in pairs(am.load_safetensors(file)) do
            if name:find("experts.%d+.*" .. kind) then
                all = all + 1
                t = before and t - before[name] or t
                other = other + (t:abs():max():item() > 0 and 1 or 0)
            end
        end
        return { all, other }
    end

    -- Trains by a file under experts/ and returns the loss over the rows after it, what generate.lua answers, the
    -- records of training and where the model is.
    local function learn(file, base, use_adapter)
        local dir, given = helper.folder(), helper.folder() .. "/rows.jsonl"
        local lines = {}
        for i, row in ipairs(rows()) do
            lines[i] = json.encode(row) .. "\n"
        end
        helper.write(given, table.concat(lines))
        local status, _, errors = helper.run({
            helper.finetune, "tests/recipe/experts/" .. file, "--model.pretrained_model_name_or_path", base,
            "--dataset.path_or_dataset_id", given, "--validation_dataset.path_or_dataset_id", given,
            "--checkpoint.checkpoint_dir", dir,
        }, { limit = 300 })
        assert.equal(0, status, errors)
        local trained = path.join(helper.latest(dir), "model")
        local words = { "recipes/generate.lua", "--json", "--max_new_tokens", "24", "--model",
                        use_adapter and base or path.join(trained, "consolidated") }
        if use_adapter then
            words[#words + 1], words[#words + 2] = "--adapter", trained
        end
        for i = 1, ASKED do
            words[#words + 1], words[#words + 2] = "--prompt", rows()[i * 6].question
        end
        local answered, out, complaint = helper.run(words)
        assert.equal(0, answered, complaint)
        local answers = {}
        for line in out:gmatch("[^\n]+") do
            answers[#answers + 1] = json.decode(line).text
        end
        local validation = helper.jsonl(path.join(dir, "validation.jsonl"))
        return validation[#validation].val_loss, answers, helper.jsonl(path.join(dir, "training.jsonl")), trained
    end

    local function check(loss, answers, training, trained)
        assert.is_true(training[1].loss > 4, tostring(training[1].loss)) -- nothing is known before
        assert.is_true(loss < 0.1, tostring(loss))
        for i = 1, ASKED do
            assert.equal(rows()[i * 6].answer, answers[i])
        end
        return trained
    end

    it("of a Mixtral learn 64 rows with LoRA", function()
        local trained = check(learn("mixtral_lora.yaml", model {
            architectures = { "MixtralForCausalLM" }, model_type = "mixtral", intermediate_size = 64,
            num_local_experts = 8, num_experts_per_tok = 2, rms_norm_eps = 1e-5,
        }, true))
        local maps = 2 * 8 * 3 -- layers, experts, w1 w2 w3: each has learnt
        assert.same({ maps, maps }, learnt(trained .. "/adapter_model.safetensors", "lora_B"))
    end)

    it("of a Qwen3-MoE learn 64 rows, fully trained", function()
        local base = model {
            architectures = { "Qwen3MoeForCausalLM" }, model_type = "qwen3_moe", intermediate_size = 64,
            moe_intermediate_size = 32, num_experts = 16, num_experts_per_tok = 4, norm_topk_prob = true,
            rms_norm_eps = 1e-6, tie_word_embeddings = true,
        }
        local trained = check(learn("qwen3_moe_sft.yaml", base)) .. "/consolidated/model-00001-of-00001.safetensors"
        local maps = 2 * 16 * 3
        assert.same({ maps, maps }, learnt(trained, "_proj", base .. "/model.safetensors"))
    end)
end)
