-- Processors: from pictures and conversations to the arguments of a vision-language model's forward, with
-- transformers' classes, files and numbers. Pixels are the engine's work (core/image.lua); this component decides
-- what is to be done with them, and renders text. The tokenizer is handed in, so that it stands alone:
--
--     local processor = am.AutoProcessor.from_pretrained("dir", { min_pixels = 3136 })
--     local plan = processor:plan("cat.jpg")
--     local row = processor:render(messages, { plan }, { return_assistant_tokens_mask = true })
--     local fields = processor:collect(processor:submit { plan })
--
-- Read next: processor.lua, image_processor.lua, then a family (llava.lua, qwen2_vl.lua, …); settings.lua and
-- files.lua read the configuration.

local err = require("am.core.error")
local batch = require("am.processors.batch")
local files = require("am.processors.files")
local image_processor = require("am.processors.image_processor")
local log = require("am.utils.log").get("am.processors")
local path = require("am.utils.path")
local settings = require("am.processors.settings")

local M = { AutoProcessor = {}, AutoImageProcessor = {} }

-- The file of each class.
local IMAGES = {
    CLIPImageProcessor = "clip", SiglipImageProcessor = "siglip", BitImageProcessor = "bit",
    LlavaImageProcessor = "llava", Qwen2VLImageProcessor = "qwen2_vl", Gemma3ImageProcessor = "gemma3",
    Idefics3ImageProcessor = "idefics3", SmolVLMImageProcessor = "idefics3",
}
local PROCESSORS = {
    LlavaProcessor = "llava", Qwen2VLProcessor = "qwen2_vl", Qwen2_5_VLProcessor = "qwen2_vl",
    Gemma3Processor = "gemma3", Idefics3Processor = "idefics3", SmolVLMProcessor = "idefics3",
    PaliGemmaProcessor = "paligemma",
}
-- Processors of a text and an image tower side by side: of these, the image processor is what there is to use.
local TOWERS = { CLIPProcessor = true, SiglipProcessor = true }

-- What the plans of an image processor are, in words.
local MAKES = { picture = "one picture of each image", crops = "a picture and its crops, as Gemma3ImageProcessor",
                tiles = "tiles, as Idefics3ImageProcessor", patches = "rows of patches, as Qwen2VLImageProcessor" }

-- Options that are no keys of a file.
local OWN = { backend = true, use_fast = true, alpha = true, tokenizer = true, load_tokenizer = true,
              chat_template = true, revision = true }

local function names_of(classes)
    local names = {}
    for name in pairs(classes) do names[#names + 1] = name end
    table.sort(names)
    return table.concat(names, ", ")
end

local function family_of(classes, kind, class, where)
    local name = classes[class]
    if not name then
        err.raise("unsupported", "%s: the class \"%s\" is not known; these are: %s", where, class, names_of(classes))
    end
    return require("am.processors." .. name)[kind][class]
end

-- "torchvision" or "pil".
local function backend_of(opts)
    local backend = opts.backend
    if backend == nil and opts.use_fast ~= nil then
        backend = opts.use_fast and "torchvision" or "pil"
    end
    if backend ~= nil and backend ~= "torchvision" and backend ~= "pil" then
        err.raise("usage", "processor: backend is \"torchvision\" or \"pil\", not %s", tostring(backend))
    end
    return backend or "torchvision"
end

local function overrides_of(opts)
    local out = {}
    for key, value in pairs(opts) do
        if not OWN[key] then out[key] = value end
    end
    return out
end

-- A class that is known; else, as in transformers, that of the model beside it.
local function known(classes, class, of_model, file)
    if classes[class or ""] or not classes[of_model or ""] then
        return class
    elseif class then
        log:warning("%s names %s, which is not known: %s is taken, by the model's config.json", file, class, of_model)
    end
    return of_model
end

local function read(name)
    if type(name) ~= "string" or name == "" then
        err.raise("usage", "a processor is named by a directory, not by %s", tostring(name))
    elseif not path.is_dir(name) then
        err.raise("io", "%s is no directory; a processor is one with preprocessor_config.json", name)
    end
    local d = files.read(name)
    if not d.image then
        err.raise("format", "%s has no preprocessor_config.json, nor a processor_config.json with \"image_processor\"",
            name)
    elseif not d.classes.image then
        err.raise("format", "%s names no image_processor_type, and no config.json with a known model_type is beside it",
            d.image_file)
    end
    d.classes.image = known(IMAGES, d.classes.image, d.classes.of_model.image, d.image_file)
    if not TOWERS[d.classes.processor or ""] then
        d.classes.processor = known(PROCESSORS, d.classes.processor, d.classes.of_model.processor, d.dir)
    end
    return d
end

-- What both kinds of object have.
local function base(class, d, opts, image, overrides)
    local alpha = opts.alpha or "white"
    if alpha ~= "white" and alpha ~= "drop" then
        err.raise("usage", "processor: alpha is \"white\" or \"drop\", not %s", tostring(alpha))
    end
    if opts.chat_template ~= nil and type(opts.chat_template) ~= "string" then
        err.raise("usage", "processor: chat_template is the text of a template, not a %s", type(opts.chat_template))
    end
    return setmetatable({ class = class, description = d, image_processor = image, alpha = alpha, settings = {},
                          overrides = overrides, special_ids = {}, file = d.image_file,
                          chat_template = opts.chat_template or files.chat_template(d) }, batch.Processor)
end

local function image_only(d, opts)
    local overrides = overrides_of(opts)
    local family = family_of(IMAGES, "images", d.classes.image, d.image_file)
    settings.check_names(overrides, d.classes.image, image_processor.kinds(family))
    local image = image_processor.new(d.classes.image, family, d, overrides, backend_of(opts))
    return base(d.classes.image, d, opts, image, overrides)
end

--- The image processor of a folder alone, for vision towers: plan, submit, wait, collect, save_pretrained, and
--- called with { images = } as transformers' are. opts: those of AutoProcessor but tokenizer.
---@return am.Processor
function M.AutoImageProcessor.from_pretrained(name, opts)
    return image_only(read(name), opts or {})
end

--- The processor of a folder: the class that processor_config.json, preprocessor_config.json, tokenizer_config.json
--- or config.json names. Where that is a tower's, or none, its image processor. opts:
---   tokenizer or load_tokenizer   the tokenizer, or a function of the folder that gives it (am.AutoProcessor does)
---   backend      "torchvision" (default) or "pil": whose rounding; use_fast = true and false mean the same
---   chat_template   the text of one, instead of the files'
---   alpha        "white" (default): transparent pictures lie on white; "drop": their alpha is left off
---   size, …      any key of preprocessor_config.json or processor_config.json, instead of the file's
--- Raises "io", "format", "unsupported" or "usage" naming the file.
---@return am.Processor
function M.AutoProcessor.from_pretrained(name, opts)
    opts = opts or {}
    local d = read(name)
    local class = d.classes.processor
    if not class or TOWERS[class] or (not PROCESSORS[class] and IMAGES[class]) then
        return image_only(d, opts)
    end
    local where = d.texts["processor_config.json"] and d.processor_file or d.image_file
    local family = family_of(PROCESSORS, "processors", class, where)
    local images = family_of(IMAGES, "images", d.classes.image, d.image_file)
    if (images.makes or "picture") ~= (family.takes or "picture") then
        err.raise("unsupported", "%s: a %s does not go with a %s: it needs an image processor that makes %s", where,
            class, d.classes.image, MAKES[family.takes or "picture"])
    end
    local overrides = overrides_of(opts)
    settings.check_names(overrides, class, image_processor.kinds(images), family.kinds)
    local self = base(class, d, opts, nil, overrides)
    self.family, self.file = family, where
    self.alike = require("am.processors." .. PROCESSORS[class]).processors -- the classes that do the same
    self.settings = settings.read(d.processor, d.processor_file, family.kinds, family.defaults or {}, overrides)
    settings.need(self.settings, where, family.needs)
    local values = setmetatable({}, { __index = overrides })
    for key, value in pairs(family.image_values or {}) do
        if overrides[key] == nil then values[key] = value end
    end
    self.image_processor = image_processor.new(d.classes.image, images, d, values, backend_of(opts))
    self.tokenizer = opts.tokenizer or opts.load_tokenizer and opts.load_tokenizer(name)
        or err.raise("usage", "a %s needs a tokenizer", class)
    family.setup(self)
    return self
end

return M
