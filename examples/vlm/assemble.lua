-- A LLaVA of two parts: any vision tower and any language model that amlua knows, with a projector of random numbers
-- between them. Writes a directory that amlua and transformers open; nothing in it has learnt to see yet.
--
--   amlua examples/vlm/assemble.lua --tower DIR --model DIR_OR_GGUF --output-dir DIR --rows FILE
--       [--height 112 --width 112]
--
-- A picture is resized to height x width, without keeping its shape, or stays as it is (--keep-size: pictures that go
-- into a batch must be of one size). Each patch of it becomes one token: fewer pixels, fewer tokens. Sizes other than
-- the tower's own need one that interpolates its positions (DINOv2).
-- What a layer of a tower gives may be small and far from zero, and then a projector of small random numbers tells the
-- language model next to nothing for hundreds of steps. So it begins with features of pictures of --rows: their means
-- and deviations are taken into its first map, and what it gives is as large as the embeddings of words.
-- The chat template must place <image> where a message has a picture; chatml.jinja beside this does so for language
-- models that know ChatML (SmolLM2, Qwen). Another model wants its own (--chat-template).

local am = require("am")
local examples = require("examples.vlm.rows")
local err = require("am.core.error")
local json = require("am.utils.json")
local options = require("am.cli.options")
local path = require("am.utils.path")

local IMAGE = "<image>"

local args = options.parse(arg, "amlua examples/vlm/assemble.lua --tower DIR --model DIR_OR_GGUF --output-dir DIR", {
    { "tower", required = true, doc = "directory of the vision tower" },
    { "model", required = true, doc = "directory or GGUF file of the language model" },
    { "output-dir", required = true, doc = "new directory to write" },
    { "rows", required = true, doc = "file of rows, as answers.lua reads, whose pictures it will see" },
    { "height", type = "integer", min = 1, doc = "of pictures, in pixels (the tower's)" },
    { "width", type = "integer", min = 1, doc = "likewise" },
    { "keep-size", type = "flag", doc = "do not resize pictures" },
    { "feature-layer", type = "integer", default = -2, doc = "the tower's layer whose states are taken" },
    { "strategy", default = "default", doc = "of its states: default (patches), full (the class token, too)" },
    { "chat-template", default = "examples/vlm/chatml.jinja", doc = "file" },
    { "seed", type = "integer", min = 0, default = 0, doc = "of the projector's numbers" },
})
if not args then
    return
end

local out = args.output_dir
if path.exists(path.join(out, "config.json")) then
    err.raise("usage", "%s already holds a model; choose another --output-dir", out)
end

local function read_json(file)
    return assert(json.decode(assert(path.read_file(file))))
end

local function write_json(name, value)
    path.write_file(path.join(out, name), json.encode(value, { indent = 2, sort_keys = true }) .. "\n")
end

-- ---- the tokenizer: one more token, which stands for a part of a picture ----------------------

path.mkdir_p(out)
local tokenizer = am.AutoTokenizer.from_pretrained(args.model)
tokenizer:save_pretrained(out)
local text_of_tokenizer = read_json(path.join(out, "tokenizer.json"))
local image_id = tokenizer.vocab_size
table.insert(text_of_tokenizer.added_tokens, {
    id = image_id, content = IMAGE, single_word = false, lstrip = false, rstrip = false, normalized = false,
    special = true,
})
write_json("tokenizer.json", text_of_tokenizer)
local settings = read_json(path.join(out, "tokenizer_config.json"))
settings.chat_template, settings.processor_class = nil, "LlavaProcessor"
write_json("tokenizer_config.json", settings)
path.write_file(path.join(out, "chat_template.jinja"), assert(path.read_file(args.chat_template)))

-- ---- the processor ----------------------------------------------------------------------------

local pictures = read_json(path.join(args.tower, "preprocessor_config.json"))
local tower = am.AutoModel.from_pretrained(args.tower)
local vision = tower.config
local own = pictures.crop_size or pictures.size or {}
local height = args.height or own.height or vision.image_size
local width = args.width or own.width or vision.image_size
pictures.size, pictures.do_resize = { height = height, width = width }, not args.keep_size
pictures.do_center_crop, pictures.crop_size = false, nil
pictures.processor_class = "LlavaProcessor"
write_json("preprocessor_config.json", pictures)

local has_class_token = vision.model_type ~= "siglip_vision_model"
write_json("processor_config.json", {
    processor_class = "LlavaProcessor", image_token = IMAGE, patch_size = vision.patch_size,
    num_additional_image_tokens = has_class_token and 1 or 0,
    vision_feature_select_strategy = has_class_token and args.strategy or "full",
})

-- ---- the model --------------------------------------------------------------------------------

local lm = am.AutoModelForCausalLM.from_pretrained(args.model, { torch_dtype = "float32" })
local text = lm.config:to_table()
local rows = text.vocab_size
text.vocab_size = math.max(rows, math.ceil((image_id + 1) / 64) * 64) -- a product of matrices likes it even
text.architectures = nil
local patches = math.floor(height / vision.patch_size) * math.floor(width / vision.patch_size)

am.manual_seed(args.seed)
local model = am.AutoModelForImageTextToText.from_config {
    architectures = json.array { "LlavaForConditionalGeneration" }, model_type = "llava", text_config = text,
    vision_config = vision:to_table(), image_token_index = image_id, image_seq_length = patches,
    projector_hidden_act = "gelu", multimodal_projector_bias = true, vision_feature_layer = args.feature_layer,
    vision_feature_select_strategy = has_class_token and args.strategy or "full",
    tie_word_embeddings = text.tie_word_embeddings or false, torch_dtype = "float32",
}

-- Copies a part's parameters to those of the whole, by their names. New rows of a vocabulary are the mean of the old
-- ones, so that no new token is likely.
local function copy(part, from, to)
    local mine = {}
    for name, t in model:named_parameters() do
        mine[name] = t
    end
    for name, t in part:named_parameters() do
        if name:sub(1, #from) == from and mine[to .. name:sub(#from + 1)] then
            local into = mine[to .. name:sub(#from + 1)]
            if into:size(0) > t:size(0) then
                into:copy_(t:mean(0, true):expand(into:size(0), t:size(1)))
                into = into:narrow(0, 0, t:size(0))
            end
            into:copy_(t)
        else
            assert(not name:find("^" .. from), "no place for " .. name)
        end
    end
end

am.no_grad(function()
    copy(tower, "", "model.vision_tower.")
    copy(lm, "model.", "model.language_model.")
    copy(lm, "lm_head.", "lm_head.")
end)

-- ---- the projector's scale --------------------------------------------------------------------

local PICTURES = 64

-- Features of the first pictures of --rows as the projector takes them, [N, width of the tower].
local function features()
    local set, processor, list = examples.rows(args.rows, PICTURES), am.AutoProcessor.from_pretrained(out), {}
    local skip = has_class_token and args.strategy == "default" and 1 or 0
    for i = 1, set:len() do
        for _, source in ipairs(set:get(i).images) do
            local fields = processor:collect(processor:submit { processor:plan(source) })
            local pixels = processor.to_tensors(fields, "cpu").pixel_values
            local seen = model.model.vision_tower:forward(pixels, { layers = { args.feature_layer } })
            local states = seen.hidden_states[1]
            list[#list + 1] = states:narrow(1, skip, states:size(1) - skip):reshape(-1, states:size(2))
        end
    end
    return am.cat(list, 0)
end

local function deviation(x, ...) return x:sub(x:mean(...)):pow(2):mean(...):sqrt() end

am.no_grad(am.scope, function()
    local projector, x = model.model.multi_modal_projector, features()
    local first, second = projector.linear_1, projector.linear_2
    local numbers = am.randn({ first.weight:size(0), x:size(1) }):div(math.sqrt(x:size(1)))
    first.weight:copy_(numbers:div(deviation(x, 0, true)))
    first.bias:copy_(first.weight:matmul(x:mean(0)):mul(-1))
    local words = deviation(model:get_input_embeddings().weight):item()
    second.weight:mul_(words / deviation(projector:forward(x)):item())
end)

model.generation_config = lm.generation_config
model:save_pretrained(out)
print(string.format("wrote a LLaVA of %s and %s, %.1f million parameters, %d patches a picture, to %s",
                    vision.model_type, text.model_type, model:num_parameters() / 1e6, patches, out))
