-- Gemma 3 with pictures: what the tokens of a picture see across samples of a pack, what is refused, and the sizes of a
-- checkpoint of the hub, whose configuration says little. Numbers of the whole: tests/parity/vlm.

local am = require("am")
local ffi = require("ffi")
local json = require("am.utils.json")
local tiny = require("tests.support.tiny")

local fails = tiny.fails
local IMAGE, TOKENS = 20, 4

local function config(fields)
    local c = {
        architectures = { "Gemma3ForConditionalGeneration" }, model_type = "gemma3", image_token_index = IMAGE,
        mm_tokens_per_image = TOKENS,
        text_config = { model_type = "gemma3_text", hidden_size = 8, intermediate_size = 12, num_hidden_layers = 2,
                        num_attention_heads = 2, num_key_value_heads = 1, head_dim = 4, vocab_size = 24,
                        sliding_window = 3, sliding_window_pattern = 2, max_position_embeddings = 64 },
        vision_config = { hidden_size = 8, intermediate_size = 12, num_hidden_layers = 1, num_attention_heads = 2,
                          image_size = 16, patch_size = 4, vision_use_head = false },
    }
    for key, value in pairs(fields or {}) do
        c[key] = value
    end
    return c
end

-- Token types of a row of ids.
local function types(ids)
    local out = {}
    for i, id in ipairs(ids) do
        out[i] = id == IMAGE and 1 or 0
    end
    return out
end

describe("Gemma 3 with pictures", function()
    local model, pixels
    setup(function()
        am.manual_seed(4)
        model = am.AutoModelForImageTextToText.from_config(config(), { torch_dtype = "float32" })
        model.model.multi_modal_projector.mm_input_projection_weight:normal_(0, 0.3)
        for _, t in model:named_parameters() do -- so that attention is far from even
            if t:dim() == 2 then
                t:normal_(0, 0.4)
            end
        end
        pixels = am.randn({ 2, 3, 16, 16 })
    end)
    teardown(function() model:close() end)

    local function forward(args)
        return am.no_grad(model.forward, model, args).logits
    end

    -- The bits of `count` tokens' logits from `start`.
    local function bits(logits, start, count)
        local buffer, width = logits:to_buffer(), logits:size(2)
        return ffi.string(buffer + start * width, count * width * 4)
    end

    it("parts pictures where samples of a pack meet", function()
        am.scope(function()
            local first, second = { 1, 2, IMAGE, IMAGE, IMAGE, IMAGE }, { IMAGE, IMAGE, IMAGE, IMAGE, 3, 4 }
            local ids, positions = {}, {}
            for _, row in ipairs { first, second } do
                for i, id in ipairs(row) do
                    ids[#ids + 1], positions[#positions + 1] = id, i - 1
                end
            end
            local packed = forward { input_ids = { ids }, position_ids = { positions }, pixel_values = pixels,
                                     token_type_ids = { types(ids) } }
            for i, row in ipairs { first, second } do
                local alone = forward { input_ids = { row }, pixel_values = pixels:narrow(0, i - 1, 1),
                                        token_type_ids = { types(row) } }
                assert.is_true(bits(packed, (i - 1) * 6, 6) == bits(alone, 0, 6))
            end
        end)
    end)

    it("lets a picture's tokens see all of it, and text what comes before it", function()
        am.scope(function()
            local ids = { 1, IMAGE, IMAGE, IMAGE, IMAGE, 2, 3 }
            local picture = pixels:narrow(0, 0, 1)
            local function logits(row, kinds)
                return forward { input_ids = { row }, pixel_values = picture, token_type_ids = kinds and { kinds } }
            end
            local seen, causal = logits(ids, types(ids)), logits(ids)
            assert.is_true(bits(seen, 0, 1) == bits(causal, 0, 1), "text before a picture sees it")
            assert.is_false(bits(seen, 1, 1) == bits(causal, 1, 1), "a picture's first token sees no more than itself")
            local changed = { 1, IMAGE, IMAGE, IMAGE, IMAGE, 2, 5 }
            assert.is_true(bits(logits(changed, types(changed)), 0, 6) == bits(seen, 0, 6), "text sees what follows")
        end)
    end)

    it("says what does not fit", function()
        am.scope(function()
            local ids = { { 1, IMAGE, IMAGE, IMAGE, IMAGE, 2 } }
            local function with(args)
                args.input_ids = ids
                return function() forward(args) end
            end
            fails("data", "input_ids have 4 image tokens %(id 20%), but the pictures have 8 features",
                  with { pixel_values = pixels })
            fails("data", "input_ids have 4 image tokens %(id 20%), but the pictures have 0 features", with {})
            fails("argument", "pixel_values must be a tensor, not a string", with { pixel_values = "x" })
            fails("shape", "pixel_values must be %[pictures, 3, height, width%]",
                  with { pixel_values = am.randn({ 3, 16, 16 }) })
            fails("shape", "pictures of 20 x 20 pixels have 25 patches, but the tower has positions for 16",
                  with { pixel_values = am.randn({ 1, 3, 20, 20 }) })
            fails("shape", "token_type_ids must be %[1, 6%], as input_ids, not %[1, 5%]",
                  with { pixel_values = pixels:narrow(0, 0, 1), token_type_ids = { { 0, 1, 1, 1, 1 } } })
        end)
    end)

    it("refuses numbers of tokens that patches do not come to", function()
        for _, tokens in ipairs { 3, 9 } do
            fails("unsupported", '"mm_tokens_per_image": ' .. tokens .. " tokens are no square whose side divides",
                  am.models.structure, config { mm_tokens_per_image = tokens }, { kind = "image_text_to_text" })
        end
    end)

    it("gives gemma-3-4b-it its parameters", function() -- counted by transformers
        local c = json.decode [[{
            "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999, "eoi_token_index": 256000,
            "eos_token_id": [1, 106], "image_token_index": 262144, "initializer_range": 0.02,
            "mm_tokens_per_image": 256, "model_type": "gemma3", "torch_dtype": "bfloat16",
            "text_config": {
                "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
                "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024 },
            "vision_config": {
                "hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "model_type": "siglip_vision_model",
                "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14, "vision_use_head": false }
        }]]
        local structure = am.models.structure(c, { kind = "image_text_to_text" })
        assert.equal(4300079472, tiny.count(structure))
        local rotaries = structure.model.language_model.rotaries
        assert.equal(8, rotaries.full_attention.options.scaling.factor)
        assert.is_nil(rotaries.sliding_attention.options.scaling)
        assert.equal(10000, rotaries.sliding_attention.options.theta)
    end)
end)
