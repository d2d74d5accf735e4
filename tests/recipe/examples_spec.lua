-- Every example configuration resolves, and a tiny model trains from it, on rows in place of the hub's.
local config = require("am.config")
local cross_fields = require("am.recipes.cross_fields")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local names = require("am.recipes.names")
local path = require("am.utils.path")
local targets = require("am.recipes.targets")

local registry = targets.registry()

local function yaml_files()
    local list = {}
    for _, folder in ipairs { "examples/llm", "examples/vlm" } do
        for _, name in ipairs(path.list_dir(folder)) do
            if name:find("%.yaml$") then
                list[#list + 1] = path.join(folder, name)
            end
        end
    end
    return list
end

-- The recipe class of a configuration; llm_finetune where it names none or one that is not there.
local function recipe_of(cfg)
    local name = names.recipe(cfg:get("recipe")) or "llm_finetune"
    return require("recipes." .. (path.is_file("recipes/" .. name .. ".lua") and name or "llm_finetune"))
end

local function validate(cfg)
    local class = recipe_of(cfg)
    config.validate(cfg, { fields = class.schema() }, { registry = registry })
    return class
end

-- Targets of datasets that are looked for; those that are not there are skipped by name.
local function missing_dataset(cfg)
    local name = cfg:get("dataset._target_")
    return not registry:lookup(name) and name or nil
end

describe("an example", function()
    teardown(helper.cleanup)

    it("is there for each name of the founding documents", function()
        for name in ([[llm/llama_3_2_1b_squad llm/llama_3_2_1b_squad_nvfsdp llm/llama_3_2_1b_hellaswag
            llm/llama_3_2_1b_hellaswag_peft llm/llama_3_2_1b_hellaswag_nvfsdp llm/llama_3_2_1b_hellaswag_fp8
            llm/qwen_3_0p6b_hellaswag vlm/gemma_3_vl_4b_cord_v2 vlm/gemma_3_vl_4b_cord_v2_peft
            vlm/gemma_3_vl_4b_cord_v2_nvfsdp]]):gmatch("%S+") do
            assert.is_true(path.is_file("examples/" .. name .. ".yaml"), name)
        end
    end)

    for _, file in ipairs(yaml_files()) do
        it("resolves: " .. file, function()
            local cfg = config.load(file)
            local absent = missing_dataset(cfg)
            if absent then
                pending("no dataset " .. absent)
            else
                cross_fields.check(cfg, validate(cfg))
            end
        end)
    end
end)

-- Rows in the shape of the hub's, as the dataset of a target reads them from a local file.
local local_rows = {
    ["make_squad_dataset"] = { key = "dataset_name", row = function(i)
        return { id = tostring(i), title = "t", context = "The sky of day " .. i .. " is blue.",
                 question = "How is the sky?", answers = { text = json.array { "blue" },
                                                           answer_start = json.array { 19 } } }
    end },
    ["HellaSwag"] = { key = "path_or_dataset", row = function(i)
        return { ctx = "On day " .. i .. " a man sits", label = tostring(i % 2), activity_label = "a",
                 endings = json.array { "down.", "up.", "in.", "on." } }
    end },
}

-- The kind of rows that take the place of a configuration's; nil where it has its own at hand, or reads others.
local function rows_for(cfg)
    return local_rows[cfg:get("dataset._target_"):match("[^.]+$")]
end

-- The configuration with a tiny model and local rows, for a few steps.
local function shrunk(cfg, model)
    local kind, lines = rows_for(cfg), {}
    for i = 1, kind and 12 or 0 do
        lines[i] = json.encode(kind.row(i))
    end
    local file = kind and helper.write(helper.folder() .. "/rows.jsonl", table.concat(lines, "\n") .. "\n")
    for _, section in ipairs(kind and { "dataset", "validation_dataset" } or {}) do
        cfg:set(section .. "." .. kind.key, file)
        cfg:set(section .. ".split", "train")
    end
    cfg:set("model.pretrained_model_name_or_path", model)
    cfg:set("step_scheduler.global_batch_size", 4)
    cfg:set("step_scheduler.local_batch_size", 2)
    cfg:set("step_scheduler.max_steps", 2)
    if cfg:has("lr_scheduler.lr_warmup_steps") then
        cfg:set("lr_scheduler.lr_warmup_steps", 1)
    end
    cfg:set("checkpoint.checkpoint_dir", helper.folder())
    return cfg
end

describe("a tiny model", function()
    local model
    setup(function() model = helper.text_model() end)
    teardown(helper.cleanup)

    for _, file in ipairs(yaml_files()) do
        local cfg = config.load(file)
        local target, own = cfg:get("dataset._target_"), cfg:get("dataset.path_or_dataset_id")
        if rows_for(cfg) or file:find("/llm/", 1, true) and own and path.is_file(own) then
            it("trains from " .. file, function()
                if missing_dataset(cfg) then
                    pending("no dataset " .. target)
                    return
                end
                local dir = helper.folder()
                local yaml = helper.write(dir .. "/example.yaml", config.print(shrunk(cfg, model)))
                local status, _, errors = helper.run { helper.finetune, yaml }
                assert.equal(0, status, errors)
                assert.equal(2, #helper.curve(cfg:get("checkpoint.checkpoint_dir")))
            end)
        end
    end
end)
