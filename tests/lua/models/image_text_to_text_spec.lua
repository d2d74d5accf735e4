-- The driver of models of images and text, with a toy tower: features come where image tokens are, text alone is the
-- language model's, packed rows are rows alone, generation sees the pictures, files have the hub's names.

local am = require("am")
local file_names = require("am.models.file_names")
local image_text_to_text = require("am.models.image_text_to_text")
local files = require("tests.support.files")
local Linear = require("am.nn.linear")
local path = require("am.utils.path")

local IMAGE, PATCH = 9, 4 -- a picture is one row of PATCH numbers a feature

am.models.register("ToyForConditionalGeneration", image_text_to_text.architecture {
    name = "ToyForConditionalGeneration",
    text_type = "llama",
    add_vision = function(body, c) body:add("vision_tower", Linear.new(PATCH, c:integer("hidden_size"))) end,
    image_features = function(body, inputs)
        return body.vision_tower:forward(inputs.pixel_values:reshape(-1, PATCH))
    end,
    file_names = function()
        return file_names.joined(file_names.under(nil, "model.vision_tower.", "vision_tower."),
                                 file_names.under(nil, "model.language_model.", "language_model.model."),
                                 file_names.under(nil, "lm_head.", "language_model.lm_head."))
    end,
})

local function config(fields)
    local c = {
        architectures = { "ToyForConditionalGeneration" }, model_type = "toy", image_token_id = IMAGE,
        text_config = { model_type = "llama", hidden_size = 16, intermediate_size = 24, num_hidden_layers = 2,
                        num_attention_heads = 2, vocab_size = 9, max_position_embeddings = 64 },
    }
    for key, value in pairs(fields or {}) do
        c[key] = value
    end
    return c
end

local function numbers(t)
    local buffer, n = t:to("float32"):to_buffer()
    local out = {}
    for i = 1, n do
        out[i] = buffer[i - 1]
    end
    return out
end

describe("a model of images and text", function()
    local model

    setup(function()
        am.manual_seed(3)
        model = am.AutoModelForImageTextToText.from_config(config())
    end)

    teardown(function() model:close() end)

    it("puts features where image tokens are", function()
        am.scope(function()
            local pixels = am.randn({ 3, PATCH })
            local out = model:forward { input_ids = { { 1, IMAGE, IMAGE, 2 }, { IMAGE, 3, 4, 5 } },
                                        pixel_values = pixels, logits_to_keep = 0 }
            local features = numbers(model:get_image_features { pixel_values = pixels })
            local rows = numbers(model.model.language_model:embed(
                am.tensor({ { 1, 0, 0, 2 }, { 0, 3, 4, 5 } }, { dtype = "int32" })))
            for k, at in ipairs { 1, 2, 4 } do
                for i = 1, 16 do
                    rows[at * 16 + i] = features[(k - 1) * 16 + i]
                end
            end
            local want = model.model.language_model:forward(
                am.zeros({ 2, 4 }, { dtype = "int32" }), am.tensor({ { 0, 1, 2, 3 } }, { dtype = "int32" }),
                { inputs_embeds = am.tensor(rows):reshape(2, 4, 16), longest = 4 })
            assert.same(numbers(model:head(want)), numbers(out.logits))
        end)
    end)

    it("gives the features their gradients, and text its own", function()
        am.scope(function()
            local pixels = am.randn({ 1, PATCH })
            local out = model:forward { input_ids = { { 1, IMAGE, 2 } }, pixel_values = pixels,
                                        labels = { { -100, -100, 2 } } }
            out.loss:backward()
            local tower = model.model.vision_tower.weight
            assert.is_true(tower.grad:abs():sum():item() > 0)
            for _, t in model:named_parameters() do
                t.grad = nil
            end
        end)
    end)

    it("is the language model where there are no pictures", function()
        am.scope(function()
            local ids = { { 1, 2, 3 } }
            local alone = model:head(model.model.language_model:forward(
                am.tensor(ids, { dtype = "int32" }), am.tensor({ { 0, 1, 2 } }, { dtype = "int32" }), { longest = 3 }))
            assert.same(numbers(alone), numbers(model:forward({ input_ids = ids }).logits))
        end)
    end)

    it("answers with pictures the same with a cache and without", function()
        am.scope(function()
            local pixels = am.randn({ 2, PATCH })
            local function answer(use_cache)
                return model:generate({ 1, IMAGE, IMAGE, 3 }, { max_new_tokens = 8, use_cache = use_cache,
                                                               eos_token_id = false,
                                                               inputs = { pixel_values = pixels } })
            end
            assert.same(answer(false), answer(true))
            local opts = { max_new_tokens = 2, eos_token_id = false, inputs = { pixel_values = pixels } }
            local list = { 1, IMAGE, IMAGE, 3 }
            local row = model:generate(list, opts)
            assert.same(row, model:generate(am.tensor({ list }, { dtype = "int64" }), opts)) -- a processor's
            assert.same(row, model:generate({ list }, opts))
            for _, ids in ipairs { { list, list }, "text", 3 } do
                local ok, e = pcall(model.generate, model, ids, opts)
                assert.is_true(not ok and e.code == "argument", tostring(e))
                assert.matches("the ids of one prompt, not from", tostring(e))
            end
        end)
    end)

    it("says how many image tokens and features there are when they differ", function()
        am.scope(function()
            for _, case in ipairs { { { { 1, IMAGE } }, am.randn({ 2, PATCH }), "1 image tokens .* 2 features" },
                                    { { { 1, IMAGE } }, nil, "1 image tokens .* 0 features" },
                                    { { { 1, 2 } }, am.randn({ 1, PATCH }), "0 image tokens .* 1 features" } } do
                local ok, e = pcall(model.forward, model, { input_ids = case[1], pixel_values = case[2] })
                assert.is_false(ok)
                assert.equal("data", e.code)
                assert.is_truthy(tostring(e):find(case[3]))
            end
        end)
    end)

    it("writes the hub's names, and reads them and transformers 5's", function()
        files.with_folder(function(dir)
            model:save_pretrained(dir)
            local names = am.load_safetensors(path.join(dir, "model.safetensors"))
            assert.is_truthy(names["language_model.model.layers.0.self_attn.q_proj.weight"])
            assert.is_truthy(names["vision_tower.weight"])
            assert.is_truthy(names["language_model.lm_head.weight"])
            local again, own = path.join(dir, "own"), {}
            for name, t in model:named_parameters() do
                own[name] = t
            end
            path.mkdir_p(again)
            path.write_file(path.join(again, "config.json"), path.read_file(path.join(dir, "config.json")))
            am.save_safetensors(path.join(again, "model.safetensors"), own)
            for _, from in ipairs { dir, again } do
                local other = am.AutoModelForImageTextToText.from_pretrained(from)
                for name, t in other:named_parameters() do
                    assert.same(numbers(own[name]), numbers(t))
                end
                other:close()
            end
        end)
    end)

    it("ties the head to the language model's embeddings where either configuration says so", function()
        local tied = am.AutoModelForImageTextToText.from_config(config { tie_word_embeddings = true })
        assert.equal(tied.lm_head.weight, tied.model.language_model.embed_tokens.weight)
        tied:close()
    end)

    it("names what is wrong about its configuration", function()
        for _, case in ipairs {
            { { text_config = { model_type = "other" } }, "text_config.*model_type other" },
            { { text_config = 3 }, "text_config" },
            { { image_token_id = "x" }, "image_token_id" },
        } do
            local ok, e = pcall(am.AutoModelForImageTextToText.from_config, config(case[1]))
            assert.is_false(ok)
            assert.is_truthy(tostring(e):find(case[2]), tostring(e))
        end
        local ok, e = pcall(am.AutoModelForCausalLM.from_config, config())
        assert.is_false(ok)
        assert.is_truthy(tostring(e):find("AutoModelForImageTextToText"))
    end)
end)

describe("names in files", function()
    local rules = file_names.joined(
        file_names.under(file_names.new { prefixes = { { "", "vision_model." } },
                                          inside = { { ".q_proj.", ".attention.query." } } },
                         "model.vision_tower.", "vision_tower.", "model.vision_tower."),
        file_names.under(nil, "model.visual.", "visual."), file_names.under(nil, "model.language_model.", "model."))

    it("come back as they were, whichever spelling files have", function()
        for _, case in ipairs {
            { "model.vision_tower.layers.0.q_proj.weight", "vision_tower.vision_model.layers.0.attention.query.weight",
              "vision_tower.layers.0.attention.query.weight",
              "model.vision_tower.vision_model.layers.0.q_proj.weight" },
            { "model.visual.merger.weight", "visual.merger.weight" },
            { "model.language_model.norm.weight", "model.norm.weight" },
            { "other.weight", "other.weight" },
        } do
            assert.equal(case[2], rules:to_file(case[1]))
            for _, name in ipairs(case) do
                assert.equal(case[1], rules:to_model(name))
            end
        end
    end)
end)
