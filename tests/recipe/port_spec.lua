-- docs/port_a_model.md from beginning to end: StableLM, whose file lies outside the tree, on a tiny checkpoint that
-- examples/custom/make_tiny.py made with transformers.

local am = require("am")
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")

local TINY, SOURCE = "examples/custom/stablelm_tiny", "examples/custom/stablelm.lua"

-- A copy of the port with a piece of its text changed.
local function changed(from, to)
    local text = helper.read(SOURCE)
    local first, last = text:find(from, 1, true)
    assert(first, from)
    return helper.write(helper.folder() .. "/stablelm.lua", text:sub(1, first - 1) .. to .. text:sub(last + 1))
end

local function compare(source, model)
    return helper.run { source, "compare", "--model", model or TINY }
end

-- Trains by examples/custom/stablelm.yaml; returns the folder of the last checkpoint.
local function train(...)
    local dir = helper.folder()
    local status, out, errors = helper.run { helper.finetune, "examples/custom/stablelm.yaml", "--allow-user-code",
        "--model.pretrained_model_name_or_path", TINY, "--checkpoint.checkpoint_dir", dir, ... }
    assert.equal(0, status, out .. errors)
    local curve = helper.jsonl(dir .. "/training.jsonl")
    assert.is_true(curve[#curve].loss < curve[1].loss - 0.2)
    return helper.latest(dir)
end

local function generate(model)
    local status, out, errors = helper.run { SOURCE, "generate", "--model", model, "--prompt", "Who is", "--raw",
                                             "--max_new_tokens", "8" }
    assert.equal(0, status, errors)
    return out
end

describe("a ported model", function()
    teardown(helper.cleanup)

    it("is small, and what the guide shows of it is what is there", function()
        local bytes = 0
        for _, name in ipairs(helper.tree(TINY)) do
            bytes = bytes + #helper.read(path.join(TINY, name))
        end
        assert.is_true(bytes < 100000)
        local guide, count = helper.read("docs/port_a_model.md"), 0
        for language, file in pairs { lua = SOURCE, python = "examples/custom/make_tiny.py",
                                      yaml = "examples/custom/stablelm.yaml" } do
            for block in guide:gmatch("\n```" .. language .. "\n(.-)\n```") do
                assert.is_truthy(helper.read(file):find(block, 1, true), block)
                count = count + 1
            end
        end
        assert.equal(3, count)
    end)

    it("computes what transformers does", function()
        local status, out, errors = compare(SOURCE)
        assert.equal(0, status, out .. errors)
        assert.is_truthy(out:find("all equal but for rounding", 1, true))
        for _, name in ipairs { "embeddings", "layer 0", "layer 1 and the last norm", "logits", "loss",
                                "gradient of model.layers.1.self_attn.q_proj.bias" } do
            assert.is_truthy(out:find("\n" .. name .. " ", 1, true) or out:find(name .. " ", 1, true) == 1, name)
        end
    end)

    it("names tensors that lack or have no place", function()
        local status, out, errors = compare(changed('"input_layernorm"', '"input_norm"'))
        assert.is_nil(helper.refusal_problem(1, {
            TINY .. " lacks these tensors of StableLmForCausalLM: model.layers.0.input_norm.bias (there is "
                .. "model.layers.0.input_layernorm.bias)",
            "holds some that have no place: model.layers.0.input_layernorm.bias" }, status, out, errors))
        status, out, errors = compare(changed("bias = c.use_qkv_bias, ", ""))
        assert.is_nil(helper.refusal_problem(1, { "holds tensors that StableLmForCausalLM has no place for: "
            .. "model.layers.0.self_attn.k_proj.bias, " }, status, out, errors))
        status, out, errors = compare(changed("output_bias = false", "output_bias = true"))
        assert.is_nil(helper.refusal_problem(1, { "model.layers.0.self_attn.o_proj.bias" }, status, out, errors))
    end)

    it("says where it first differs", function()
        for _, case in ipairs {
            { "bias = c.use_qkv_bias,", "bias = c.use_qkv_bias, interleaved = true,", "layer 0" },
            { "layer = function(c)", "layer = function(c, i) c.use_parallel_residual = nil; if i == 1 then "
                .. 'c.hidden_act = "gelu" end', "layer 1 and the last norm" },
            { "    norm = norm,", "    norm = norm, logit_scale = function() return 1.001 end,", "logits" },
        } do
            local status, out, errors = compare(changed(case[1], case[2]))
            assert.equal(1, status, out .. errors)
            assert.is_truthy(out:find("the first that differs: " .. case[3] .. "\n", 1, true), out .. errors)
        end
    end)

    it("refuses what it does not know", function()
        for key, value in pairs { qk_layernorm = true, hidden_dropout = 0.1 } do
            local status, out, errors = compare(SOURCE, helper.model({ [key] = value }, TINY))
            assert.is_nil(helper.refusal_problem(1, { 'config.json: "' .. key .. '": ' }, status, out, errors))
        end
        -- where its file is not named nobody knows it
        local status, out, errors = helper.run { "recipes/compare.lua", "--model", TINY }
        assert.is_nil(helper.refusal_problem(1, { "StableLmForCausalLM is not supported" }, status, out, errors))
    end)

    it("runs attention beside the feed-forward block where config.json says so", function()
        local status, out, errors = compare(SOURCE, helper.model({ use_parallel_residual = true }, TINY))
        assert.is_nil(helper.refusal_problem(1, { "has no place for: model.layers.0.post_attention_layernorm.bias" },
                                             status, out, errors))
    end)

    it("takes an adapter on packed rows, which is merged and answers", function()
        local last = train()
        local merged = helper.folder() .. "/merged"
        local status, out, errors = helper.run { SOURCE, "merge_lora", "--base-model", TINY, "--adapter-path",
                                                 last .. "/model", "--output-dir", merged }
        assert.equal(0, status, out .. errors)
        assert.not_equal(generate(TINY), generate(merged))
    end)

    it("is trained as a whole, and saved as it came", function()
        local last = train("--peft", "null", "--checkpoint.save_consolidated", "true")
        local saved = path.join(last, "model/consolidated")
        local before = am.load_safetensors(TINY .. "/model.safetensors")
        local after = am.load_safetensors(saved .. "/model-00001-of-00001.safetensors")
        for name, t in pairs(before) do
            assert.same(t:size(), after[name]:size(), name)
            after[name] = nil
        end
        assert.is_nil(next(after))
        assert.is_truthy(#generate(saved) > 1)
    end)

    it("is code, which runs where that is allowed", function()
        local status, out, errors = helper.run { helper.finetune, "examples/custom/stablelm.yaml",
            "--model.pretrained_model_name_or_path", TINY, "--checkpoint.checkpoint_dir", helper.folder() }
        assert.is_nil(helper.refusal_problem(2, { "stablelm.lua", "--allow-user-code" }, status, out, errors))
    end)
end)

describe("recipes/compare.lua", function()
    local errors_of = require("recipes.compare").errors
    local model, golden

    setup(function()
        dofile(SOURCE)
        model = am.AutoModelForCausalLM.from_pretrained(TINY)
    end)
    before_each(function() golden = am.load_safetensors(TINY .. "/golden.safetensors") end)
    teardown(function() model:close() end)

    local function differing()
        local list = {}
        for _, e in ipairs(errors_of(model, golden)) do
            list[#list + 1] = e.differs and e.name or nil
            assert.is_true(e.error >= 0)
        end
        for _, t in model:named_parameters() do
            t.grad = nil
        end
        return list
    end

    it("sees each kind of difference, NaN too", function()
        assert.same({}, differing())
        golden.logits[{ 1, 3, 5 }] = 0 / 0
        golden["grad.lm_head.weight"][{ 0, 0 }] = golden["grad.lm_head.weight"]:abs():max():item() * 1.01
        golden["grad.elsewhere"] = am.ones { 2 }
        golden["hidden.0"]:mul_(1.001)
        golden.loss:mul_(1.001)
        assert.same({ "embeddings", "logits", "loss", "gradient of elsewhere (there is none)",
                      "gradient of lm_head.weight" }, differing())
    end)

    it("leaves padding out, and takes less", function()
        golden.attention_mask = am.ones({ 2, 12 }, { dtype = "int32" })
        golden.attention_mask[{ 1, 11 }] = 0
        golden.logits[{ 1, 11 }] = 1e6
        golden["hidden.2"][{ 1, 11 }] = 1e6
        local some = {}
        for _, e in ipairs(errors_of(model, { input_ids = golden.input_ids, logits = golden.logits,
                                              attention_mask = golden.attention_mask })) do
            some[#some + 1] = e.name .. tostring(e.differs)
        end
        assert.same({ "logitsfalse" }, some)
    end)

    it("says what is wrong with a golden", function()
        local function raised(g)
            local ok, e = pcall(errors_of, model, g)
            assert.is_false(ok)
            return tostring(e)
        end
        assert.matches("no input_ids", raised {})
        golden["hidden.3"] = golden["hidden.2"]
        assert.matches("the golden has 3 layers, the model 2", raised(golden))
        assert.matches("logits: the shape is %[2, 12, 96%], not %[2, 12, 16%]",
                       raised { input_ids = golden.input_ids, logits = golden["hidden.1"] })
    end)
end)
