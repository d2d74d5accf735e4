-- Idefics3 and SmolVLM: positions of patches with torch's roundings, pictures of zeros, which are none, what pixels and
-- masks must be, and the sizes of a checkpoint of the hub. Numbers of the whole: tests/parity/vlm.

local am = require("am")
local json = require("am.utils.json")
local tiny = require("tests.support.tiny")
local tower = require("am.models.vision.idefics3")

local fails = tiny.fails
local IMAGE = 20

local function config(class, fields)
    local c = {
        architectures = { class or "Idefics3ForConditionalGeneration" }, model_type = "idefics3",
        image_token_id = IMAGE, scale_factor = 2,
        text_config = { model_type = "llama", hidden_size = 8, intermediate_size = 12, num_hidden_layers = 1,
                        num_attention_heads = 2, vocab_size = 24, max_position_embeddings = 64 },
        vision_config = { hidden_size = 8, intermediate_size = 12, num_hidden_layers = 1, num_attention_heads = 2,
                          image_size = 16, patch_size = 4 },
    }
    for key, value in pairs(fields or {}) do
        c[key] = value
    end
    return c
end

local function new(...)
    am.manual_seed(4)
    return am.AutoModelForImageTextToText.from_config(config(...), { torch_dtype = "float32" })
end

local PICTURE = { IMAGE, IMAGE, IMAGE, IMAGE }

describe("places of patches", function()
    -- Those that torch.bucketize gives another place than exact fractions have, by side and count of patches.
    local cases = {
        { 7, 3, {} }, { 26, 26, {} }, { 32, 32, {} }, { 70, 70, {} }, { 70, 43, {} }, { 1, 5, {} },
        { 19, 19, { [12] = 11 } }, { 20, 25, { [5] = 3, [10] = 7, [20] = 15 } },
        { 22, 55, { [5] = 1, [10] = 3, [15] = 5, [20] = 7, [30] = 11, [40] = 15, [50] = 19 } },
        { 25, 25, { [5] = 4, [9] = 8, [10] = 9, [11] = 10, [12] = 11, [13] = 12, [15] = 14, [18] = 17, [20] = 19,
                    [23] = 22 } },
        { 28, 49, { [7] = 3, [14] = 7, [35] = 19 } },
    }
    for _, case in ipairs(cases) do
        local side, count, rounded = unpack(case)
        it(string.format("are torch's: %d among %d", count, side), function()
            local want = {}
            for i = 0, count - 1 do
                want[i] = rounded[i] or math.floor(i * side / count)
            end
            assert.same(want, tower.places(count, side))
        end)
    end
end)

describe("pictures of Idefics3", function()
    local model
    setup(function() model = new() end)
    teardown(function() model:close() end)

    local function forward(args)
        return am.no_grad(model.forward, model, args).logits
    end

    it("of zeros alone are none", function()
        am.scope(function()
            local one = am.randn({ 1, 1, 3, 16, 16 })
            local none = am.zeros({ 1, 1, 3, 16, 16 })
            local want = tiny.bits(forward { input_ids = { PICTURE }, pixel_values = one })
            for _, pixels in ipairs { am.cat({ one, none }, 1), am.cat({ none, one }, 1) } do
                assert.is_true(tiny.bits(forward { input_ids = { PICTURE }, pixel_values = pixels }) == want)
            end
            local text = { { 1, 2, 3 } }
            assert.is_true(tiny.bits(forward { input_ids = text, pixel_values = none })
                == tiny.bits(forward { input_ids = text }))
            assert.is_nil(model:get_image_features { pixel_values = none })
            -- the first pixels alone are zeros
            one:narrow(4, 0, 16):narrow(3, 0, 1):fill_(0)
            assert.equal(4, model:get_image_features({ pixel_values = one }):size(0))
        end)
    end)

    it("of zeros are one in SmolVLM where there is no other", function()
        local other = new("SmolVLMForConditionalGeneration")
        am.scope(function()
            local none = am.zeros({ 2, 2, 3, 16, 16 })
            assert.equal(4, other:get_image_features({ pixel_values = none }):size(0))
        end)
        other:close()
    end)

    it("may be smaller than those that the tower is made for", function()
        am.scope(function()
            local small = am.randn({ 1, 1, 3, 8, 8 })
            assert.equal(1, model:get_image_features({ pixel_values = small }):size(0))
        end)
    end)

    it("see nothing of their frame", function()
        am.scope(function()
            local pixels, mask = am.randn({ 1, 1, 3, 16, 16 }), am.zeros({ 1, 1, 16, 16 }, { dtype = "int64" })
            mask:narrow(2, 0, 8):narrow(3, 0, 12):fill_(1)
            local function rows() -- of the squares of patches that have pixels
                return tiny.bits(model:get_image_features({ pixel_values = pixels, pixel_attention_mask = mask })
                    :narrow(0, 0, 1):contiguous())
            end
            local before = rows()
            pixels:narrow(3, 8, 8):fill_(3)
            assert.is_true(rows() == before)
            pixels:narrow(3, 0, 8):narrow(4, 8, 4):fill_(3)
            assert.is_false(rows() == before)
        end)
    end)

    it("must have the dims that the model takes", function()
        am.scope(function()
            local function with(pixels, mask)
                return function()
                    forward { input_ids = { PICTURE }, pixel_values = pixels, pixel_attention_mask = mask }
                end
            end
            fails("argument", "pixel_values must be a tensor, not a table", with { { 1 } })
            fails("shape", "pixel_values must be %[batch, pictures, channels, height, width%], not %[1, 3, 16, 16%]",
                  with(am.randn({ 1, 3, 16, 16 })))
            fails("shape", "pixel_values must be %[pictures, 3, height, width%], not %[1, 1, 16, 16%]",
                  with(am.randn({ 1, 1, 1, 16, 16 })))
            fails("shape", "pictures of 2 x 2 pixels are smaller than a patch", with(am.randn({ 1, 1, 3, 2, 2 })))
            fails("shape", "pictures of 6 patches are no square", with(am.randn({ 1, 1, 3, 8, 12 })))
            fails("shape", "pictures of 9 patches are no square whose side can be parted by 2",
                  with(am.randn({ 1, 1, 3, 12, 12 })))
            fails("data", "input_ids have 4 image tokens %(id 20%), but the pictures have 8 features",
                  with(am.randn({ 1, 2, 3, 16, 16 })))
            local pixels = am.randn({ 1, 1, 3, 16, 16 })
            fails("shape", "pixel_attention_mask must be a tensor %[1, 1, 16, 16%], as pixel_values, not %[1, 16, 16%]",
                  with(pixels, am.ones({ 1, 16, 16 })))
            fails("shape", "pixel_attention_mask must be a tensor %[1, 1, 16, 16%]", with(pixels, "x"))
            local mask = am.zeros({ 1, 1, 16, 16 })
            fails("data", "pixel_attention_mask: picture 1 begins with pixels that are none", with(pixels, mask))
            mask:narrow(2, 0, 4):fill_(1)
            mask:narrow(3, 0, 4):fill_(1)
            mask:narrow(2, 4, 4):narrow(3, 4, 4):fill_(1)
            mask:narrow(2, 0, 4):narrow(3, 4, 12):fill_(0)
            fails("data", "pixel_attention_mask: picture 1 is no rectangle", with(pixels, mask))
        end)
    end)
end)

describe("a configuration of Idefics3", function()
    it("gives SmolVLM-256M-Instruct its parameters", function() -- counted by transformers
        local c = json.decode [[{
            "architectures": ["Idefics3ForConditionalGeneration"], "image_token_id": 49190, "model_type": "idefics3",
            "scale_factor": 4, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vocab_size": 49280,
            "text_config": {
                "architectures": ["VLlama3ForCausalLM"], "head_dim": 64, "hidden_size": 576, "intermediate_size": 1536,
                "is_llama_config": true, "max_position_embeddings": 8192, "model_type": "llama",
                "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3, "pad_token_id": 2,
                "pixel_shuffle_factor": 4, "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_theta": 100000,
                "torch_dtype": "bfloat16", "vocab_size": 49280 },
            "vision_config": {
                "hidden_size": 768, "image_size": 512, "max_image_size": {"longest_edge": 512},
                "model_type": "idefics3", "num_attention_heads": 12, "patch_size": 16, "size": {"longest_edge": 2048},
                "tie_word_embeddings": false, "use_base_siglip": false }
        }]]
        assert.equal(256484928, tiny.count(am.models.structure(c, { kind = "image_text_to_text" })))
    end)

    it("ties the head by its own word alone", function()
        local text = config().text_config
        text.tie_word_embeddings = true
        local model = am.models.structure(config(nil, { text_config = text }), { kind = "image_text_to_text" })
        assert.is_nil(next(model.tied))
        model = am.models.structure(config(nil, { tie_word_embeddings = true }), { kind = "image_text_to_text" })
        assert.same({ ["lm_head.weight"] = "model.text_model.embed_tokens.weight" }, model.tied)
    end)
end)
