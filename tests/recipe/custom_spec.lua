-- Parts of one's own: the examples under examples/custom/ do what they say, a configuration reaches a
-- user's Lua only where that is allowed, and training by hand works with amlua and with plain LuaJIT.
local am = require("am")
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")

local custom = "examples/custom/"

describe("the custom examples", function()
    local text_model
    setup(function() text_model = helper.text_model() end)
    teardown(helper.cleanup)

    it("run together: recipe, loss and dataset", function()
        local dir = helper.folder()
        local status, out, errors = helper.run {
            custom .. "recipe.lua", custom .. "recipe.yaml", "--model.pretrained_model_name_or_path", text_model,
            "--step_scheduler.max_steps", "8", "--optimizer.lr", "1e-2", "--checkpoint.checkpoint_dir", dir,
        }
        assert.equal(0, status, out .. errors)
        assert.is_truthy(errors:find("am.half_frozen | loss has come down by", 1, true), errors)
        local curve = helper.jsonl(dir .. "/training.jsonl")
        assert.equal(8, #curve)
        assert.is_true(curve[8].loss < 0.8 * curve[1].loss, "the loss does not fall")
        local before = helper.tensors(text_model .. "/model.safetensors")
        local consolidated = path.join(helper.latest(dir), "model/consolidated")
        local after = helper.tensors(path.join(consolidated, "model-00001-of-00001.safetensors"))
        for name, bytes in pairs(after) do
            local frozen = name:find("layers.0.", 1, true) ~= nil
            assert.equal(frozen, before[name] == bytes, name)
        end
        -- and are resumed like any other run
        status, out, errors = helper.run {
            custom .. "recipe.lua", custom .. "recipe.yaml", "--model.pretrained_model_name_or_path", text_model,
            "--step_scheduler.max_steps", "9", "--optimizer.lr", "1e-2", "--checkpoint.checkpoint_dir", dir,
        }
        assert.equal(0, status, out .. errors)
        assert.equal(9, #helper.curve(dir))
    end)

    it("have a smoothed loss", function()
        local label_smoothing = dofile(custom .. "loss.lua").label_smoothing
        local values = { { 0.3, -1.2, 2.0, 0.1 }, { 1.5, 0.2, -0.4, 0.9 }, { 0.0, 3.0, -3.0, 1.0 } }
        local labels, expected = { 2, -100, 1 }, 0
        for i, row in ipairs(values) do
            if labels[i] >= 0 then
                local sum, mean = 0, 0
                for _, v in ipairs(row) do
                    sum = sum + math.exp(v)
                end
                for _, v in ipairs(row) do
                    mean = mean + (v - math.log(sum)) / #row
                end
                expected = expected - 0.8 * (row[labels[i] + 1] - math.log(sum)) - 0.2 * mean
            end
        end
        local hidden = am.tensor(values):requires_grad_()
        local loss = label_smoothing { smoothing = 0.2 } (hidden, am.tensor(labels, { dtype = "int32" }), {
            head = function(h) return h end,
        })
        assert.is_true(math.abs(loss:item() - expected) < 1e-5)
        loss:backward()
        local grad = hidden.grad:totable()
        assert.same({ 0, 0, 0, 0 }, grad[2])
        local sum = grad[1][1] + grad[1][2] + grad[1][3] + grad[1][4] -- a softmax's gradients cancel
        assert.is_true(math.abs(sum) < 1e-5 and math.abs(grad[1][3]) > 0.01)
    end)

    it("find a mistyped key of the loss", function()
        local status, out, errors = helper.run { custom .. "recipe.lua", custom .. "recipe.yaml",
            "--model.pretrained_model_name_or_path", text_model, "--loss_fn.smothing", "0.2",
            "--checkpoint.checkpoint_dir", helper.folder() }
        assert.is_nil(helper.refusal_problem(2, { "loss_fn.smothing", 'did you mean "smoothing"?' }, status, out,
                                             errors))
    end)

    it("have a dataset of sums, of which the results are learnt", function()
        local tok = am.AutoTokenizer.from_pretrained(text_model)
        local sums = dofile(custom .. "dataset.lua").sums { count = 30, tokenizer = tok }
        assert.equal(30, sums:len())
        local row = sums:get(29) -- 12 + 19
        local learnt = {}
        for i, label in ipairs(row.labels) do
            if label ~= -100 then
                learnt[#learnt + 1] = label
            else
                assert.equal(0, #learnt, "learnt tokens stand at the end")
            end
            assert.is_true(i > 1 or label == -100)
        end
        assert.equal(" 31", tok:decode(learnt))
        assert.equal("12 + 19 = 31", (tok:decode(row.input_ids) .. tok:decode { learnt[#learnt] }):match("%S.*"))
    end)

    it("take a tokenizer by its folder alone, when the model has none", function()
        local dir = helper.folder()
        local model = helper.copy(text_model, dir .. "/model")
        os.remove(model .. "/tokenizer.json")
        local status, _, errors = helper.run {
            custom .. "recipe.lua", custom .. "recipe.yaml", "--model.pretrained_model_name_or_path", model,
            "--dataset.tokenizer.pretrained_model_name_or_path", text_model,
            "--validation_dataset._target_", "am.datasets.ColumnMappedTextInstructionDataset",
            "--validation_dataset.path_or_dataset_id", "examples/data/lighthouse_validation.jsonl",
            "--validation_dataset.column_mapping", "{'question': 'question', 'answer': 'answer'}",
            "--validation_dataset.tokenizer.pretrained_model_name_or_path", text_model,
            "--step_scheduler.max_steps", "1", "--checkpoint.checkpoint_dir", dir .. "/run",
        }
        assert.equal(0, status, errors)
        assert.equal(1, #helper.curve(dir .. "/run"))
    end)

    it("take a tokenizer of one's own, for a model that has none", function()
        local dir = helper.copy("examples/custom", helper.folder() .. "/custom")
        helper.write(dir .. "/tokenizer.lua", [[
local M = {}
function M.bytes()
    return { encode = function(_, text)
        local ids = {}
        for i = 1, #text do
            ids[i] = text:byte(i) % 40
        end
        return ids
    end }
end
return M
]])
        local status, _, errors = helper.run {
            dir .. "/recipe.lua", custom .. "recipe.yaml", "--model.pretrained_model_name_or_path", helper.tiny,
            "--tokenizer._target_", "tokenizer.lua:bytes", "--step_scheduler.max_steps", "2",
            "--checkpoint.checkpoint_dir", dir .. "/run",
        }
        assert.equal(0, status, errors)
        assert.equal(2, #helper.curve(dir .. "/run"))
    end)

    it("train by hand, with amlua and with plain LuaJIT", function()
        local build = path.dirname(helper.amlua)
        local plain = string.format("LUA_PATH='lua/?.lua;lua/?/init.lua;%s/lua/?.lua;;' luajit %sby_hand.lua %s 6",
                                    build, custom, helper.tiny)
        for _, result in ipairs { { helper.run { custom .. "by_hand.lua", helper.tiny, "6" } },
                                  { helper.shell(plain) } } do
            assert.equal(0, result[1], result[3])
            local losses = {}
            for loss in result[2]:gmatch("step %d: loss (%d+%.%d+), gradient norm %d") do
                losses[#losses + 1] = tonumber(loss)
            end
            assert.equal(6, #losses)
            assert.is_true(losses[6] < losses[1])
        end
    end)

    it("keep the library loaded in plain LuaJIT: its threads run in it to the end", function()
        local status, out, errors = helper.shell("luajit -e '" .. [[
            local file = package.searchpath("am.core.cdef", package.path):match("^(.*)lua/am/core") .. "libamlua.so"
            do local _ = require("ffi").load(file) end
            collectgarbage() collectgarbage()
            for line in io.lines("/proc/self/maps") do
                if line:find("libamlua", 1, true) then os.exit(0) end
            end
            os.exit(1)]] .. "'")
        assert.equal(0, status, tostring(out) .. tostring(errors))
    end)
end)

describe("a configuration", function()
    local dir, marker, evil
    before_each(function()
        dir = helper.folder()
        marker = dir .. "/it-ran"
        evil = string.format("io.open(%q, 'w'):close()\nlocal M = {}\nfunction M.boom() return function() end end\n"
                             .. "return M\n", marker)
        helper.write(dir .. "/evil.lua", evil)
    end)
    teardown(helper.cleanup)

    local function ran()
        local there = path.exists(marker)
        os.remove(marker)
        return there
    end

    -- A recipe of the user's in `folder`, run on a configuration in `dir`.
    local function run(target, folder, ...)
        local cfg = helper.config(dir .. "/run", { loss_fn = { _target_ = target } })
        local recipe = helper.finetune
        if folder then
            recipe = helper.write(folder .. "/mine.lua", "return require('recipes.llm_finetune'):extend('mine')\n")
        end
        return helper.run { recipe, helper.yaml(dir, cfg), ... }
    end

    it("runs no code that lies beside it", function()
        local targets = { "evil.lua:boom", "evil.boom", dir .. "/evil.lua:boom", "../evil.lua:boom",
                          "am.evil.boom", "os.execute", "io.popen", "loadstring", "_G.os.execute" }
        for _, target in ipairs(targets) do
            local status, _, errors = run(target)
            assert.equal(2, status, target .. ": " .. errors)
            assert.is_false(ran(), target)
        end
        local _, _, errors = run("evil.lua:boom")
        assert.is_truthy(errors:find("--allow-user-code", 1, true), errors)
        -- under another key
        local cfg = helper.config(dir .. "/run", { dataloader = { collate_fn = "evil.lua:boom" } })
        assert.equal(2, (helper.run { helper.finetune, helper.yaml(dir, cfg) }))
        assert.is_false(ran())
    end)

    it("runs code of the recipe's own folder, and any with --allow-user-code", function()
        local folder = helper.folder()
        assert.equal(2, (run("evil.lua:boom", folder)))
        assert.is_false(ran())
        helper.write(folder .. "/own.lua", evil)
        run("own.lua:boom", folder)
        assert.is_true(ran())
        run("evil.lua:boom", nil, "--allow-user-code")
        assert.is_true(ran())
        run("../" .. path.basename(dir) .. "/evil.lua:boom", folder)
        assert.is_false(ran())
    end)

    it("runs no module of the current folder", function()
        local amlua, home = path.absolute(helper.amlua), path.absolute(".")
        for _, name in ipairs { "yaml", "lyaml", "am", "ffi", "bit", "evil", "recipes" } do
            helper.write(dir .. "/" .. name .. ".lua", evil)
        end
        local cfg = helper.config(dir .. "/run", {
            step_scheduler = { max_steps = 1 },
            model = { pretrained_model_name_or_path = home .. "/" .. helper.tiny },
        })
        local status, _, errors = helper.shell(string.format(
            "cd %s && env -u LUA_PATH -u LUA_CPATH %s recipes/llm_finetune.lua %s", dir, amlua, helper.yaml(dir, cfg)))
        assert.equal(0, status, errors)
        assert.is_false(ran())
    end)
end)
