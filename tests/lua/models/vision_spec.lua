-- Vision towers as models: files of models that have more than a tower, sizes of pictures, what from_config begins
-- with, mistakes. Their numbers: tests/parity/vision.

local am = require("am")
local files = require("tests.recipe.helper")
local path = require("am.utils.path")

local function clip(fields)
    local c = { model_type = "clip_vision_model", hidden_size = 16, intermediate_size = 24, num_hidden_layers = 2,
                num_attention_heads = 2, image_size = 8, patch_size = 4 }
    for key, value in pairs(fields or {}) do
        c[key] = value
    end
    return c
end

local function dinov2(fields)
    local c = clip(fields)
    c.model_type, c.intermediate_size = "dinov2", nil
    return c
end

-- A folder with a configuration and a tower's tensors, renamed by name(old), and others.
local function folder(c, model, name, others)
    local dir, list = files.folder(), others or {}
    for old, t in model:named_parameters() do
        list[#list + 1] = { name(old), t }
    end
    am.save_safetensors(path.join(dir, "model.safetensors"), list)
    files.write(path.join(dir, "config.json"), require("am.utils.json").encode(c))
    return dir
end

local function fails(kind, pattern, fn, ...)
    local ok, e = pcall(fn, ...)
    assert.is_false(ok)
    assert.equal(kind, e.code)
    assert.matches(pattern, tostring(e))
end

describe("a vision tower", function()
    teardown(files.cleanup)

    local pixels = am.randn { 1, 3, 8, 8 }

    local function states(model)
        return am.no_grad(model.forward, model, { pixel_values = pixels }).last_hidden_state:totable()
    end

    it("is read out of a model of pictures and texts, whose text is passed over", function()
        local model = am.AutoModel.from_config(clip())
        local dir = folder({ model_type = "clip", architectures = { "CLIPModel" }, vision_config = clip(),
                             text_config = {}, projection_dim = 4 }, model,
                           function(old) return "vision_model." .. old end,
                           { { "logit_scale", am.zeros { 1 } }, { "text_projection.weight", am.zeros { 4, 4 } },
                             { "visual_projection.weight", am.zeros { 4, 16 } },
                             { "text_model.final_layer_norm.bias", am.zeros { 4 } } })
        local read = am.AutoModel.from_pretrained(dir)
        assert.same(states(model), states(read))
        read:save_pretrained(dir .. "/out")
        local saved = am.AutoConfig.from_pretrained(dir .. "/out")
        assert.same({ "clip_vision_model", "CLIPVisionModel", 8 },
                    { saved.model_type, saved.architectures[1], saved.image_size })
        assert.same(states(model), states(am.AutoModel.from_pretrained(dir .. "/out")))
    end)

    it("is read out of a classifier", function()
        local model = am.AutoModel.from_config(dinov2())
        local dir = folder(dinov2 { architectures = { "Dinov2ForImageClassification" } }, model,
                           function(old) return "dinov2." .. old end, { { "classifier.bias", am.zeros { 2 } } })
        assert.same(states(model), states(am.AutoModel.from_pretrained(dir)))
    end)

    it("says which tensors of the file have no place", function()
        local model = am.AutoModel.from_config(clip())
        local dir = folder(clip(), model, function(old) return old end, { { "head.weight", am.zeros { 2 } } })
        fails("format", "holds tensors that CLIPVisionModel has no place for: head.weight",
              am.AutoModel.from_pretrained, dir)
    end)

    it("takes fewer layers where it is told to", function()
        local model = am.AutoModel.from_config(dinov2())
        local dir = folder(dinov2(), model, function(old) return old end)
        local short = am.AutoModel.from_pretrained(dir, { config_overrides = { num_hidden_layers = 1 } })
        assert.equal(1, short.encoder.count)
    end)

    it("takes pictures of other sizes only where it is asked to, DINOv2 always", function()
        local other = am.randn { 1, 3, 12, 9 }
        for kind, pattern in pairs {
            clip_vision_model = "pictures of 9 x 12 pixels, but the tower is made for 8 x 8",
            siglip_vision_model = "pictures of 9 x 12 pixels have 6 patches, but the tower has positions for 4",
        } do
            local model = am.AutoModel.from_config(clip { model_type = kind })
            fails("shape", pattern, model.forward, model, { pixel_values = other })
            local out = am.no_grad(model.forward, model, { pixel_values = other, interpolate_pos_encoding = true })
            assert.equal(6 + model.class_tokens, out.last_hidden_state:size(1))
        end
        local model = am.AutoModel.from_config(dinov2())
        assert.equal(7, am.no_grad(model.forward, model, { pixel_values = other }).last_hidden_state:size(1))
        model = am.AutoModel.from_config(dinov2 { image_size = { 8, 12 }, patch_size = { 4, 4 } })
        fails("unsupported", "positions of 6 patches are no square", model.forward, model, { pixel_values = other })
    end)

    it("begins as transformers' does", function()
        am.manual_seed(1)
        local model = am.AutoModel.from_config(dinov2 { layerscale_value = 0.25, hidden_size = 64 })
        assert.equal(0.25, model.encoder.layer["0"].layer_scale1.lambda1:amax():item())
        assert.equal(0, model.embeddings.mask_token:abs():amax():item())
        model = am.AutoModel.from_config(clip { hidden_size = 64, initializer_factor = 2 })
        local function spread(t) return (t * t):mean():sqrt():item() end
        local layer = model.encoder.layers["0"]
        assert.is_true(math.abs(spread(layer.self_attn.q_proj.weight) / (2 * 64 ^ -0.5 * 4 ^ -0.5) - 1) < 0.1)
        assert.is_true(math.abs(spread(layer.self_attn.out_proj.weight) / (2 * 64 ^ -0.5) - 1) < 0.1)
        assert.is_true(math.abs(spread(model.embeddings.position_embedding.weight) / 0.04 - 1) < 0.2)
    end)

    it("says what is wrong", function()
        local model = am.AutoModel.from_config(clip())
        fails("argument", "forward takes a table with a tensor", model.forward, model, { pixel_values = 3 })
        fails("argument", "there is no hidden state %-4 of a tower with 2 layers", model.forward, model,
              { pixel_values = pixels, layers = { -4 } })
        local from = am.AutoModel.from_config
        fails("unsupported", "architecture LlamaForCausalLM is not supported; supported are CLIPVisionModel", from,
              { architectures = { "LlamaForCausalLM" } })
        fails("unsupported", "a patch of 4 x 4 is larger than a picture of 2 x 2", from, clip { image_size = 2 })
        fails("unsupported", "\"image_size\": a side is one whole number, or a list of two", from,
              dinov2 { image_size = { 8, 8, 8 } })
        fails("format", "\"drop_path_rate\" must be a number", from, dinov2 { drop_path_rate = 1 })
        model = am.AutoModel.from_config(dinov2 { use_mask_token = false })
        fails("argument", "bool_masked_pos: the tower has no mask token", model.forward, model,
              { pixel_values = pixels, bool_masked_pos = am.zeros({ 1, 4 }, { dtype = "int32" }) })
    end)
end)
