-- What the tests of models of images and text share: tiny models with a processor, and pictures of plain colours whose
-- captions name the colour. Holds no tests.

local am = require("am")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local png = require("am.datasets.vlm.png")

local M = {}

M.recipe = "recipes/vlm_finetune.lua"

local GPT2 = "tests/parity/golden/tokenizers/gpt2/tokenizer.json"
local TEMPLATE = "{% for m in messages %}<{{ m.role }}>{% for p in m.content %}{% if p.type == 'image' %}<image>"
    .. "{% elif m.role == 'assistant' %}{% generation %}{{ p.text }}<|endoftext|>{% endgeneration %}"
    .. "{% else %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
M.IMAGE = 4238 -- the id of <image>

--- Write a byte-level tokenizer with <image>, and a chat template that says what the assistant wrote.
function M.tokenizer(dir)
    local fields = json.decode(helper.read(GPT2), { ordered = true })
    local token = json.decode(json.encode(fields.added_tokens[3]))
    token.id, token.content = M.IMAGE, "<image>"
    table.insert(fields.added_tokens, token)
    helper.write(dir .. "/tokenizer.json", json.encode(fields))
    helper.write(dir .. "/tokenizer_config.json", json.encode {
        eos_token = "<|endoftext|>", pad_token = "<|x|>", image_token = "<image>", chat_template = TEMPLATE,
    })
    return dir
end

--- A tiny LLaVA: pictures of 16 x 16 pixels, 16 features each. Fields replace those of its config.json.
function M.llava(fields)
    local dir = M.tokenizer(helper.folder())
    am.manual_seed(5)
    local c = {
        architectures = { "LlavaForConditionalGeneration" }, model_type = "llava", image_token_index = M.IMAGE,
        text_config = { model_type = "llama", hidden_size = 32, intermediate_size = 64, num_hidden_layers = 2,
                        num_attention_heads = 4, num_key_value_heads = 2, vocab_size = 4240, rms_norm_eps = 1e-5,
                        max_position_embeddings = 256, eos_token_id = 4235 },
        vision_config = { model_type = "clip_vision_model", hidden_size = 24, intermediate_size = 32,
                          num_hidden_layers = 2, num_attention_heads = 2, image_size = 16, patch_size = 4 },
        vision_feature_layer = -1,
    }
    for key, value in pairs(fields or {}) do
        c[key] = value
    end
    am.scope(function() am.AutoModelForImageTextToText.from_config(c):save_pretrained(dir) end)
    helper.write(dir .. "/preprocessor_config.json", json.encode {
        image_processor_type = "CLIPImageProcessor", processor_class = "LlavaProcessor", do_resize = true,
        size = { shortest_edge = 16 }, do_center_crop = true, crop_size = { height = 16, width = 16 },
        do_normalize = true, image_mean = json.array { 0.5, 0.5, 0.5 }, image_std = json.array { 0.5, 0.5, 0.5 },
    })
    helper.write(dir .. "/processor_config.json", json.encode {
        processor_class = "LlavaProcessor", patch_size = 4, vision_feature_select_strategy = "default",
        num_additional_image_tokens = 1, image_token = "<image>",
    })
    return dir
end

local colours = { { "red", 220, 30, 30 }, { "green", 20, 200, 40 }, { "blue", 30, 40, 220 }, { "white", 250, 250, 250 } }

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
