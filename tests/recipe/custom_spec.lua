-- The examples of examples/custom/ run: a recipe with a dataset and a loss beside it, training by
-- hand; and files run only from the recipe's own folder, or when the user says so.

local path = require("am.utils.path")

local AMLUA = os.getenv("AMLUA") or "build/amlua"
local MODEL = "tests/parity/golden/tiny_llama/gqa"

local function run(command)
    local pipe = io.popen(command .. " 2>&1; echo status $?")
    local text = pipe:read("*a")
    pipe:close()
    return text, tonumber(text:match("status (%d+)%s*$"))
end

-- The tiny model has no tokenizer: one byte a token, modulo its vocabulary.
local TOKENIZER = [[
local M = {}
function M.bytes()
    return { encode = function(_, text)
        local ids = {}
        for i = 1, #text do ids[i] = text:byte(i) % 40 end
        return ids
    end }
end
return M
]]

describe("examples/custom", function()
    local dir

    before_each(function()
        dir = os.tmpname()
        os.remove(dir)
        path.mkdir_p(dir)
        for _, name in ipairs { "recipe.lua", "dataset.lua", "loss.lua" } do
            path.write_file(path.join(dir, name), assert(path.read_file("examples/custom/" .. name)))
        end
        path.write_file(path.join(dir, "tokenizer.lua"), TOKENIZER)
    end)

    after_each(function()
        path.remove_tree(dir)
    end)

    local function train(recipe, more)
        return run(string.format("%s %s examples/custom/recipe.yaml --model.pretrained_model_name_or_path %s "
                                 .. "--tokenizer._target_ tokenizer.lua:bytes --checkpoint.checkpoint_dir %s "
                                 .. "--step_scheduler.max_steps 3 --optimizer.lr 3e-3 %s", AMLUA, recipe, MODEL,
                                 path.join(dir, "run"), more or ""))
    end

    it("trains with the recipe, dataset and loss that lie together", function()
        local text, status = train(path.join(dir, "recipe.lua"))
        assert.equal(0, status, text)
        assert.truthy(text:find("loss has come down by", 1, true), text)
        local first = tonumber(text:match("step 0 | epoch 0 | loss ([%d.]+)"))
        local last = tonumber(text:match("step 2 | epoch 0 | loss ([%d.]+)"))
        assert.is_true(last < first, text)
        assert.is_true(path.is_file(path.join(dir, "run", "LATEST", "signature.json")))
    end)

    it("freezes what the recipe freezes", function()
        local text, status = train(path.join(dir, "recipe.lua"))
        assert.equal(0, status, text)
        local trainable, total = text:match("Trainable parameters (%d+) / Total (%d+)")
        assert.is_true(tonumber(trainable) < tonumber(total), text)
    end)

    it("runs no file that lies elsewhere, unless the user says so", function()
        local text, status = train("recipes/llm_finetune.lua")
        assert.equal(2, status, text)
        assert.truthy(text:find("--allow-user-code", 1, true), text)
    end)

    it("trains by hand", function()
        local text, status = run(string.format("%s examples/custom/by_hand.lua %s 5", AMLUA, MODEL))
        assert.equal(0, status, text)
        local losses = {}
        for loss in text:gmatch("loss ([%d.]+)") do
            losses[#losses + 1] = tonumber(loss)
        end
        assert.equal(5, #losses)
        assert.is_true(losses[5] < losses[1], text)
    end)
end)
