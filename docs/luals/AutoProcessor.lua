---@meta _
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.AutoProcessor
local am_AutoProcessor = {}

--- A processor and its tokenizer, from a Hugging Face directory or a hub name. opts: backend, alpha,
--- any key of the processor's files (processors.md), tokenizer (instead of the folder's); revision, of
--- a hub name.
function am_AutoProcessor.from_pretrained(name, opts) end

---@class am.AutoImageProcessor
local am_AutoImageProcessor = {}

--- An image processor alone, from a Hugging Face directory or a hub name; opts as AutoProcessor's.
function am_AutoImageProcessor.from_pretrained(name, opts) end

---@class am.Processor
---@field class string transformers' name of the class
---@field tokenizer am.Tokenizer
---@field image_processor am.ImageProcessor
---@field image_token string the marker of an image in rendered text
---@field image_token_id integer the id that is repeated for an image's features
---@field special_ids table a set of the ids that no model should be taught to write: image tokens and what is around them
---@field chat_template string|table|nil the processor's own, or several by name; the tokenizer's where it has none
---@field settings table keys of processor_config.json
local am_Processor = {}

--- The plan of an image, from its header alone. `source`: a path, a URL, a data: URL, or a table with path or data
--- (a file's bytes), and name (for messages) and max_pixels where you like. A plan has
---   source, steps, n_floats, shape     what collect will make of it: n_floats numbers in this shape
---   expansion                          the text that stands for the image
---   num_tokens                         how many image_token_id are in it: the features of the image
--- and fields of its family (grid, rows, cols, crops). Raises "data", "io", "format" or "unsupported" naming the file.
function am_Processor:plan(source) end

--- Begin to decode and prepare the images of these plans, on background threads. Give what it returns to wait or
--- collect.
---@return am.processors.Pending
function am_Processor:submit(plans) end

--- Wait for images that were submitted; once is enough. An image that cannot be used raises an error whose message
--- begins with its name and whose field `image` is its number among the plans; the images behind it are let go.
function am_Processor:wait(pending) end

--- What a model's forward takes for the images of these pendings (one, or an array with one for each sample), as
--- { buffer =, shape =, dtype = (nil: float32) } or nested arrays of whole numbers; nil without images. Waits for
--- them where that is not done.
function am_Processor:collect(pendings) end

--- A conversation as text, its images as markers, and the spans that the assistant wrote where
--- opts.return_assistant_tokens_mask asks for them; opts as those of the tokenizer's apply_chat_template.
function am_Processor:chat_text(messages, opts) end

--- Ids of a text with markers, as render gives them. `spans`: what the assistant wrote, or nil. opts:
--- add_special_tokens (default true), suffix (PaliGemma's).
function am_Processor:encode(rendered, plans, spans, opts) end

--- A conversation as ids: { input_ids, attention_mask, assistant_masks (where asked for), token_type_ids or
--- mm_token_type_ids (of families that have them) }. `plans`: those of its images, in order. opts: those of the
--- tokenizer's apply_chat_template. Raises "data" where images and markers do not match.
function am_Processor:render(messages, plans, opts) end

--- Raise "data" where a model of this config.json (an object) cannot take what the processor makes: it is of another
--- family, or has other image tokens, patches or sizes. An image processor alone fits any.
function am_Processor:check(config) end

---@class am.Processor
local am_Processor = {}

--- Tensors of what collect or render gave: float32, int64 for whole numbers. `device`: nil for the default one.
function am_Processor.to_tensors(fields, device) end

--- A conversation as text; with { tokenize = true } as ids, and with { tokenize = true, return_dict = true } as
--- tensors for forward, images included: those that its parts { type = "image", image | url | path | base64 = }
--- name, or opts.images. A list of conversations gives a list, or tensors of as many rows. Other opts: those of the
--- tokenizer's apply_chat_template, `images`, `device`.
function am_Processor:apply_chat_template(messages, opts) end

--- Write the processor's files into a folder, as they were read but for what the options set and another
--- chat_template, and the tokenizer's, so that transformers' AutoProcessor opens it.
function am_Processor:save_pretrained(dir) end

---@class am.ImageProcessor
---@field class string transformers' name of the class
---@field backend string "torchvision" or "pil": whose rounding
---@field settings table the keys of preprocessor_config.json, defaults filled in
local am_ImageProcessor = {}

--- The plan of a picture of this size: { steps, n_floats, shape, fields of the family's }. `where` is what errors
--- call the picture.
function am_ImageProcessor:layout(height, width, where) end

return am_AutoProcessor
