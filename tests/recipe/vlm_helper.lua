-- What the tests of models of images and text share: tiny models with a processor, and pictures of plain colours whose
-- captions name the colour. Holds no tests.

local am = require("am")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local png = require("am.datasets.vlm.png")

local M = {}

M.recipe = "recipes/vlm_finetune.lua"

local GPT2 = "tests/parity/golden/tokenizers/gpt2/tokenizer.json"
local FIRST = 4238 -- the id of the first token that a family adds
M.IMAGE = FIRST

-- Messages as text; `marker` stands for an image.
local TEMPLATE = "{% for m in messages %}<{{ m.role }}>{% for p in m.content %}{% if p.type == 'image' %}MARKER"
    .. "{% elif m.role == 'assistant' %}{% generation %}{{ p.text }}<|endoftext|>{% endgeneration %}"
    .. "{% else %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"

--- Write a byte-level tokenizer with further tokens, { name = id }, and a chat template that says what the assistant
--- wrote. marker: what stands for an image in it.
function M.tokenizer(dir, tokens, marker)
    local fields = json.decode(helper.read(GPT2), { ordered = true })
    local like = json.encode(fields.added_tokens[3])
    for name, id in pairs(tokens) do
        local token = json.decode(like)
        token.content, token.id = name, id
        table.insert(fields.added_tokens, token)
    end
    for _, token in ipairs(fields.added_tokens) do -- ids stay as they are where the vocabulary has them, too
        fields.model.vocab[token.content] = token.id
    end
    helper.write(dir .. "/tokenizer.json", json.encode(fields))
    helper.write(dir .. "/tokenizer_config.json", json.encode {
        eos_token = "<|endoftext|>", pad_token = "<|x|>", chat_template = (TEMPLATE:gsub("MARKER", marker)),
    })
end

local function ids_of(names)
    local out = {}
    for i, name in ipairs(names) do
        out[name] = FIRST + i - 1
    end
    return out
end

local text = { hidden_size = 32, intermediate_size = 64, num_hidden_layers = 2, num_attention_heads = 4,
               num_key_value_heads = 2, vocab_size = 4256, rms_norm_eps = 1e-5, max_position_embeddings = 256,
               eos_token_id = 4235 }
local tower = { hidden_size = 24, intermediate_size = 32, num_hidden_layers = 2, num_attention_heads = 2,
                image_size = 16, patch_size = 4 }
local half = json.array { 0.5, 0.5, 0.5 }
local normalise = { do_resize = true, do_normalize = true, image_mean = half, image_std = half }

-- By family: config.json, preprocessor_config.json, processor_config.json, and tokens, the image's first.
local families = {
    llava = {
        tokens = { "<image>" }, marker = "<image>",
        config = { architectures = { "LlavaForConditionalGeneration" }, model_type = "llava", image_token_index = FIRST,
                   text_config = helper.changes(text, { model_type = "llama" }), vision_feature_layer = -1,
                   vision_config = helper.changes(tower, { model_type = "clip_vision_model" }) },
        image = helper.changes(normalise, { image_processor_type = "CLIPImageProcessor", do_center_crop = true,
            size = { shortest_edge = 16 }, crop_size = { height = 16, width = 16 } }),
        processor = { processor_class = "LlavaProcessor", patch_size = 4, vision_feature_select_strategy = "default",
                      num_additional_image_tokens = 1, image_token = "<image>" },
    },
    gemma3 = {
        tokens = { "<image_soft_token>", "<start_of_image>", "<end_of_image>" }, marker = "<start_of_image>",
        config = { architectures = { "Gemma3ForConditionalGeneration" }, model_type = "gemma3", mm_tokens_per_image = 4,
                   image_token_index = FIRST, boi_token_index = FIRST + 1, eoi_token_index = FIRST + 2,
                   text_config = helper.changes(text, { model_type = "gemma3_text", head_dim = 8, sliding_window = 64,
                                                        query_pre_attn_scalar = 8 }),
                   vision_config = helper.changes(tower, { model_type = "siglip_vision_model",
                                                           vision_use_head = false }) },
        image = helper.changes(normalise, { image_processor_type = "Gemma3ImageProcessor",
                                            size = { height = 16, width = 16 } }),
        processor = { processor_class = "Gemma3Processor", image_seq_length = 4 },
    },
    qwen2_5_vl = {
        tokens = { "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>" },
        marker = "<|vision_start|><|image_pad|><|vision_end|>",
        config = helper.changes(text, {
            architectures = { "Qwen2_5_VLForConditionalGeneration" }, model_type = "qwen2_5_vl", image_token_id = FIRST,
            video_token_id = FIRST + 1, vision_start_token_id = FIRST + 2, vision_end_token_id = FIRST + 3,
            rope_scaling = { type = "mrope", mrope_section = { 1, 1, 2 } },
            vision_config = { depth = 2, fullatt_block_indexes = { 1 }, hidden_size = 16, intermediate_size = 24,
                              num_heads = 2, out_hidden_size = 32, patch_size = 2, spatial_merge_size = 2,
                              temporal_patch_size = 2, window_size = 8, in_channels = 3 },
        }),
        image = helper.changes(normalise, { image_processor_type = "Qwen2VLImageProcessor", patch_size = 2,
                                            temporal_patch_size = 2, merge_size = 2, min_pixels = 64,
                                            max_pixels = 256 }),
        processor = { processor_class = "Qwen2_5_VLProcessor" },
    },
    smolvlm = {
        tokens = { "<image>", "<fake_token_around_image>", "<global-img>", "<row_1_col_1>", "<row_1_col_2>" },
        marker = "<image>",
        config = { architectures = { "SmolVLMForConditionalGeneration" }, model_type = "smolvlm", scale_factor = 2,
                   image_token_id = FIRST, text_config = helper.changes(text, { model_type = "llama" }),
                   vision_config = helper.changes(tower, { model_type = "smolvlm_vision" }) },
        image = helper.changes(normalise, { image_processor_type = "SmolVLMImageProcessor", do_image_splitting = true,
            size = { longest_edge = 16 }, max_image_size = { longest_edge = 16 } }),
        processor = { processor_class = "SmolVLMProcessor", image_seq_len = 4 },
    },
}

--- A tiny random model of a family with its processor: its folder. LLaVA's and Gemma 3's pictures are 16 x 16 pixels.
--- text_fields, vision_fields: in place of those of config.json, patch_size and image_size of the processor's, too.
function M.model(name, text_fields, vision_fields)
    local dir, family = helper.folder(), helper.changes(families[name])
    for key, value in pairs(text_fields or {}) do
        (family.config.text_config or family.config)[key] = value
    end
    for key, value in pairs(vision_fields or {}) do
        family.config.vision_config[key], family.image[key] = value, value
    end
    local seen = family.config.vision_config
    family.processor.patch_size = family.processor.patch_size and seen.patch_size
    if family.image.crop_size then
        family.image.size = { shortest_edge = seen.image_size }
        family.image.crop_size = { height = seen.image_size, width = seen.image_size }
    end
    M.tokenizer(dir, ids_of(family.tokens), family.marker)
    am.manual_seed(5)
    am.scope(function() am.AutoModelForImageTextToText.from_config(family.config):save_pretrained(dir) end)
    helper.write(dir .. "/preprocessor_config.json", json.encode(family.image))
    helper.write(dir .. "/processor_config.json", json.encode(family.processor))
    return dir
end

local colours = { { "red", 220, 30, 30 }, { "green", 20, 200, 40 }, { "blue", 30, 40, 220 },
                  { "white", 250, 250, 250 } }

--- A picture of one colour, by its number from 1, as a PNG file's bytes; and the colour's name.
function M.picture(i, width, height)
    local name, r, g, b = unpack(colours[(i - 1) % #colours + 1])
    return png.encode(width or 16, height or 16, string.char(r, g, b):rep((width or 16) * (height or 16))), name
end

--- A folder of `count` pictures and captions.jsonl: what colour they have, or of every fourth row text alone.
function M.rows(count, opts)
    opts = opts or {}
    local dir, lines = opts.dir or helper.folder(), {}
    for i = 1, count do
        local bytes, name = M.picture(i, 12 + i % 9, 16)
        helper.write(string.format("%s/%d.png", dir, i), bytes)
        lines[i] = json.encode { file_name = i .. ".png", text = "It is " .. name .. (" indeed"):rep(i % 3) .. "." }
        if opts.text_rows and i % 4 == 0 then
            lines[i] = json.encode { messages = json.array {
                { role = "user", content = "Say " .. i }, { role = "assistant", content = "No picture " .. i } } }
        end
    end
    helper.write(dir .. "/captions.jsonl", table.concat(lines, "\n") .. "\n")
    return dir
end

--- A small full fine-tuning of a model on pictures, with `changes` merged in, as helper.config.
function M.config(dir, model, rows, changes)
    local cfg = helper.config(dir, helper.changes({
        model = { _target_ = "am.AutoModelForImageTextToText.from_pretrained", pretrained_model_name_or_path = model },
        dataset = { _target_ = "am.datasets.vlm.ImageFolder", path_or_dataset = rows, prompt = "What colour?" },
        optimizer = { lr = 3e-3 },
        step_scheduler = { global_batch_size = 4, local_batch_size = 2, max_steps = 6 },
    }, changes or {}))
    for _, key in ipairs { "num_sentences", "vocab_size", "mean_len", "max_sentence_len" } do
        cfg.dataset[key] = nil -- of helper.config's own dataset
    end
    return cfg
end

return M
