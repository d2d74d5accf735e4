-- The files of a processor: preprocessor_config.json, processor_config.json, chat_template.json,
-- chat_template.jinja, chat_templates/*.jinja. Reads them as transformers does, and writes them back. What their
-- keys mean is settings.lua's and the families'.
--
-- A description:
--   dir        the folder
--   image      the image processor's object: image_processor of processor_config.json, else preprocessor_config.json
--   image_file what to call the place of its keys in messages
--   image_name the file it is in, and image_nested: whether under "image_processor"
--   processor  processor_config.json's object (empty where there is none), processor_file its name for messages
--   classes    { processor =, image = } names of classes, nil where no file says; of_model: the same of the model_type
--              of config.json, for names that are not known
--   templates  { default = source, NAME = source } of the processor's own chat templates, nil where there is none
--   texts      { [name of a file] = its bytes }, for writing them back

local err = require("am.core.error")
local json = require("am.utils.json")
local path = require("am.utils.path")

local M = {}

local MAX_BYTES = 16 * 1024 * 1024

-- What a folder may hold beside the tokenizer's files. Videos are not read, but kept: transformers' processors ask
-- for their file.
local NAMES = { "preprocessor_config.json", "processor_config.json", "chat_template.json", "chat_template.jinja",
                "video_preprocessor_config.json" }

-- Classes of model types, for folders whose files name none.
local OF_MODEL = {
    clip = { image = "CLIPImageProcessor", processor = "CLIPProcessor" },
    siglip = { image = "SiglipImageProcessor", processor = "SiglipProcessor" },
    dinov2 = { image = "BitImageProcessor" },
    llava = { image = "LlavaImageProcessor", processor = "LlavaProcessor" },
    qwen2_vl = { image = "Qwen2VLImageProcessor", processor = "Qwen2VLProcessor" },
    qwen2_5_vl = { image = "Qwen2VLImageProcessor", processor = "Qwen2_5_VLProcessor" },
    idefics3 = { image = "Idefics3ImageProcessor", processor = "Idefics3Processor" },
    smolvlm = { image = "SmolVLMImageProcessor", processor = "SmolVLMProcessor" },
    gemma3 = { image = "Gemma3ImageProcessor", processor = "Gemma3Processor" },
    paligemma = { image = "SiglipImageProcessor", processor = "PaliGemmaProcessor" },
}

--- The processor's class of models of this type, or nil.
function M.class_of(model_type)
    return (OF_MODEL[type(model_type) == "string" and model_type or ""] or {}).processor
end

--- True for a decoded JSON object.
function M.is_object(value)
    return type(value) == "table" and value ~= json.null and not json.is_array(value)
end
local is_object = M.is_object

-- A JSON object, or an error that names the file.
local function object(file, text)
    local value, why = json.decode(text, { ordered = true })
    if value == nil then
        err.raise("format", "%s is %s", file, why)
    elseif not is_object(value) then
        err.raise("format", "%s holds no JSON object", file)
    end
    return value
end

local function read_text(file)
    local text, why = path.read_file(file, MAX_BYTES)
    if not text then
        err.raise("io", "%s", why)
    end
    return text
end

-- A JSON file that is there for other reasons; nil where there is none.
local function beside(dir, name)
    local file = path.join(dir, name)
    return path.is_file(file) and object(file, read_text(file)) or nil
end

local function name_of(value, where)
    if value == nil or value == json.null then
        return nil
    elseif type(value) ~= "string" then
        err.raise("format", "%s is not the name of a class", where)
    end
    return value
end

-- ---- chat templates -----------------------------------------------------------------------------

local function template_files(d)
    local folder, out = path.join(d.dir, "chat_templates"), {}
    for _, name in ipairs(path.is_dir(folder) and path.list_dir(folder) or {}) do
        local stem = name:match("^(.+)%.jinja$")
        if stem then
            local inner = "chat_templates/" .. name
            d.texts[inner] = read_text(path.join(d.dir, inner))
            out[stem] = d.texts[inner]
        end
    end
    return out
end

local function templates_of(d)
    local named = template_files(d)
    local own = d.processor.chat_template
    if type(own) == "string" then
        return { default = own }
    elseif own ~= nil and own ~= json.null then
        err.raise("format", "%s: chat_template is not a text", d.processor_file)
    end
    local legacy = d.texts["chat_template.json"]
    if legacy then
        local file = path.join(d.dir, "chat_template.json")
        local source = object(file, legacy).chat_template
        if next(named) then
            err.raise("format", "%s stands beside chat_templates/, and transformers reads no such folder; move its "
                .. "template to chat_template.jinja", file)
        elseif type(source) ~= "string" then
            err.raise("format", "%s has no text under \"chat_template\"", file)
        end
        return { default = source }
    end
    named.default = d.texts["chat_template.jinja"] or named.default
    return next(named) and named or nil
end

--- The chat templates as processors have them: the source of a single one, sources by name, or nil.
function M.chat_template(d)
    local templates = d.templates
    return templates and next(templates, next(templates)) == nil and templates.default or templates
end

-- ---- reading ------------------------------------------------------------------------------------

local function classes_of(d)
    local image = d.image and name_of(d.image.image_processor_type, d.image_file .. ": image_processor_type")
    if d.image and not image then
        local old = name_of(d.image.feature_extractor_type, d.image_file .. ": feature_extractor_type")
        image = old and old:gsub("FeatureExtractor", "ImageProcessor")
    end
    local config = beside(d.dir, "config.json") or {}
    local of_model = OF_MODEL[type(config.model_type) == "string" and config.model_type or ""] or {}
    local tokenizer = beside(d.dir, "tokenizer_config.json") or {}
    local processor = name_of(d.processor.processor_class, d.processor_file .. ": processor_class")
        or d.image and name_of(d.image.processor_class, d.image_file .. ": processor_class")
        or name_of(tokenizer.processor_class, path.join(d.dir, "tokenizer_config.json") .. ": processor_class")
        or name_of(config.processor_class, path.join(d.dir, "config.json") .. ": processor_class")
        or of_model.processor
    return { processor = processor, image = image and image:gsub("Fast$", ""):gsub("Pil$", "") or of_model.image,
             of_model = of_model }
end

--- The description of a folder. Raises "io" or "format" naming the file.
function M.read(dir)
    local d = { dir = dir, texts = {}, processor_file = path.join(dir, "processor_config.json") }
    for _, name in ipairs(NAMES) do
        local file = path.join(dir, name)
        d.texts[name] = path.is_file(file) and read_text(file) or nil
    end
    local text = d.texts["processor_config.json"]
    d.processor = text and object(d.processor_file, text) or json.object()
    local nested = d.processor.image_processor
    if nested ~= nil then
        if not is_object(nested) then
            err.raise("format", "%s: image_processor is not an object", d.processor_file)
        end
        d.image, d.image_file = nested, d.processor_file .. ": image_processor"
        d.image_name, d.image_nested = "processor_config.json", true
    elseif d.texts["preprocessor_config.json"] then
        d.image_file, d.image_name = path.join(dir, "preprocessor_config.json"), "preprocessor_config.json"
        d.image = object(d.image_file, d.texts["preprocessor_config.json"])
    end
    d.templates = templates_of(d)
    d.classes = classes_of(d)
    return d
end

-- ---- writing ------------------------------------------------------------------------------------

-- A file's text with other values under some keys of the object that `at` finds in it.
local function changed(text, values, at)
    if not next(values) then
        return text
    end
    local root = json.decode(text, { ordered = true, exact_numbers = true })
    local target = at and root[at] or root
    for key, value in pairs(values) do
        target[key] = value
    end
    return json.encode(root, { indent = 2, ascii = false }) .. "\n"
end

--- Write the files into a folder as they were read, with other values under some keys of the image processor and
--- of the processor, and another chat template where it is not that of the files. A processor without a file of its own
--- gets one where a key of it changed.
function M.write(dir, d, image_values, processor_values, template)
    path.mkdir_p(dir)
    local texts, other = {}, template ~= M.chat_template(d)
    for name, text in pairs(d.texts) do
        texts[name] = not (other and name:find("^chat_template")) and text or nil
    end
    if other and d.processor.chat_template ~= nil then
        processor_values.chat_template = template
    elseif other then
        texts["chat_template.jinja"] = template
    end
    if d.image_name then
        texts[d.image_name] = changed(texts[d.image_name], image_values, d.image_nested and "image_processor")
    end
    if next(processor_values) then
        local name = "processor_config.json"
        texts[name] = changed(texts[name] or json.encode({ processor_class = d.classes.processor }), processor_values)
    end
    for name, text in pairs(texts) do
        if name:find("/", 1, true) then
            path.mkdir_p(path.join(dir, path.dirname(name)))
        end
        path.write_file(path.join(dir, name), text)
    end
end

return M
