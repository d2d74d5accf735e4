-- How near a vision tower's forward pass comes to the rate at which this machine multiplies matrices of its shapes.
--
--   amlua tests/bench/vision_tower.lua [NAME] [--profile] [--train]
--
-- Towers of random weights in the shapes of SigLIP So400m (224 pixels), CLIP ViT-L/14 (336 pixels) and DINOv2-small
-- (224 and 518 pixels), a few layers of each, in f32 and bf16, one picture and four. FLOPs are those of matrix
-- products, attention's two among them. NAME runs the towers whose name holds it; --train also times forward and
-- backward of a tower that is trained; --profile says what each op takes.

local am = require("am")
local bench = require("tests.bench.tower")
local profile = require("am.training.profile")

local LAYERS = 6

local function towers()
    local function of(kind, side, patch, hidden, heads, inner)
        return { model_type = kind, image_size = side, patch_size = patch, hidden_size = hidden,
                 num_hidden_layers = LAYERS, num_attention_heads = heads, intermediate_size = inner,
                 vision_use_head = false }
    end
    return {
        { "siglip-so400m-224", of("siglip_vision_model", 224, 14, 1152, 16, 4304) },
        { "clip-l-336", of("clip_vision_model", 336, 14, 1024, 16, 4096) },
        { "dinov2-small-224", of("dinov2", 224, 14, 384, 6, 1536) },
        { "dinov2-small-518", of("dinov2", 518, 14, 384, 6, 1536) },
    }
end

local function measure(name, fields, dtype, pictures, options)
    local model = am.AutoModel.from_config(fields, { torch_dtype = dtype })
    local c, side = model.config, fields.image_size
    local pixels = am.randn { pictures, 3, side, side }
    local patches = (side / c.patch_size) ^ 2
    local tokens = pictures * (patches + model.class_tokens)
    local hidden, inner = c.hidden_size, c.intermediate_size or c.hidden_size * c.mlp_ratio
    local square = { hidden, hidden }
    local multiply, a_layers = bench.products({ square, square, square, square, { inner, hidden }, { hidden, inner } },
                                              tokens, dtype)
    local flops = LAYERS * (a_layers + 4 * tokens * (tokens / pictures) * hidden)
        + 2 * pictures * patches * 3 * c.patch_size ^ 2 * hidden
    local function forward() return model:forward({ pixel_values = pixels }).last_hidden_state end
    local frozen, trained = bench.passes(model, forward)
    bench.compare(string.format("%-18s %-9s %d", name, dtype, pictures), multiply, a_layers, flops, frozen,
                  options.train and trained or nil)
    if options.profile then
        io.write(profile.table(profile.run(function() am.scope(options.train and trained or frozen) end)), "\n")
    end
    model:close()
end

local options = {}
for _, word in ipairs(arg) do
    options[word:match("^%-%-(%l+)$") or "name"] = word
end
for _, tower in ipairs(towers()) do
    if tower[1]:find(options.name or "", 1, true) then
        for _, dtype in ipairs { "float32", "bfloat16" } do
            for _, pictures in ipairs { 1, 4 } do
                am.scope(measure, tower[1], tower[2], dtype, pictures, options)
            end
        end
    end
end
