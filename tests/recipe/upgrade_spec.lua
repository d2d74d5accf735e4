-- Checkpoints of every release, under tests/recipe/upgrade/data/VERSION: each loads, holds what it held, and the run
-- goes on as the release itself went on. upgrade/make.lua says how they were made.

local checkpoint = require("am.checkpoint")
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")

local ROOT = "tests/recipe/upgrade/data"

local function releases()
    local list = {}
    for _, name in ipairs(path.list_dir(ROOT)) do
        if path.is_dir(path.join(ROOT, name)) then
            list[#list + 1] = name
        end
    end
    return list
end

-- Go on from a copy of a release's checkpoint, with the configuration that lies in it.
local function go_on(release, kind)
    local from = path.join(ROOT, release, kind)
    local dir = helper.copy(from, helper.folder()) .. "/" .. kind
    local saved = checkpoint.list(from)[1]
    local recipe = require("recipes.llm_finetune").new(path.join(from, saved, "config.yaml"),
                                                       { "--checkpoint.checkpoint_dir", dir })
    recipe:setup()
    return recipe, path.join(from, saved), dir
end

local function losses(dir)
    local list = {}
    for i, r in ipairs(helper.jsonl(path.join(dir, "training.jsonl"))) do
        list[i] = r
    end
    return list
end

describe("a checkpoint of an earlier release", function()
    setup(function() require("am.utils.log").setup { level = "error" } end)
    teardown(helper.cleanup)

    it("is there for this version, or the one before", function()
        assert.is_true(#releases() >= 1)
    end)

    for _, release in ipairs(releases()) do
        for _, kind in ipairs { "lora", "full" } do
            it(("goes on: %s, %s"):format(release, kind), function()
                local recipe, saved, dir = go_on(release, kind)
                local step = tonumber(saved:match("step_(%d+)$")) + 1
                assert.equal(step, recipe.scheduler.step)

                -- what is saved again before the next step is what was loaded
                local again = helper.folder() .. "/again"
                path.mkdir_p(again)
                recipe:save_model(again, false)
                for _, file in ipairs { kind == "lora" and "model/adapter_model.safetensors"
                                        or "model/shard-00001-model-00001-of-00001.safetensors",
                                        "optim/optimizer.safetensors" } do
                    assert.is_true(path.is_file(path.join(saved, file)), file)
                    assert.same(helper.tensors(path.join(saved, file)), helper.tensors(path.join(again, file)))
                end

                recipe:train()
                helper.close(recipe)
                local own, theirs = losses(dir), losses(path.join(ROOT, release, kind))
                assert.is_true(#theirs > step)
                assert.equal(#theirs, #own)
                for i = step + 1, #theirs do
                    for _, key in ipairs { "loss", "grad_norm", "lr" } do
                        local a, b = own[i][key], theirs[i][key]
                        assert.is_true(math.abs(a - b) <= 1e-4 * math.abs(b), ("step %d, %s: %.9g, not %.9g"):format(
                                       i - 1, key, a, b))
                    end
                    assert.equal(theirs[i].num_label_tokens, own[i].num_label_tokens)
                end
            end)
        end
    end
end)
