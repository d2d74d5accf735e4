-- Models of images and text: a vision tower, what maps its states to the language model's width, and a language
-- model (decoder.lua), whose rows at image tokens are the pictures' features. Holds no tower and no family; a
-- family's file beside this one says what is its own:
--
--   return image_text_to_text.architecture {
--       name = "LlavaForConditionalGeneration",  -- as config.json's "architectures" has it
--       text_type = "llama",                     -- model_type of a text_config that names none
--       add_vision = function(body, c) … end,    -- adds tower and projector to the body; the language model is next
--       image_features = function(body, inputs) … end,  -- inputs: what forward was given -> [N, C], one row an image
--                                                -- token, in their order in the batch
--       file_names = function(body) … end,       -- file_names.lua's rules of the whole model
--   }
--
-- with, where they differ:
--   text            name of the language model in the body ("language_model")
--   text_family     function(c): the text architecture's module and its raw values; by text_config.model_type else
--   image_token     function(c): the id of image tokens (image_token_id)
--   positions       function(body, input_ids, position_ids, ctx): position_ids as the language model takes them
--   see             function(body, input_ids, ctx): sets ctx.causal = false with ctx.bounds and ctx.window_bounds where
--                   tokens see others than those before them (nn/attention.lua)
--   text_ties       false: only the whole configuration's tie_word_embeddings ties the head, not its text part's
--   new_token_type  token type of what is generated (0)
--   defaults, attribute_map, unused, check   as in decoder.lua, of the whole configuration

local ffi = require("ffi")
local err = require("am.core.error")
local ops = require("am.core.ops")
local tensor = require("am.core.tensor")
local Module = require("am.nn.module")
local causal_lm = require("am.models.causal_lm")
local file_names = require("am.models.file_names")
local registry = require("am.models.architectures")
local strings = require("am.utils.strings")

local M = {}

-- ---- the body -------------------------------------------------------------------------------

local Body = Module.class("ImageTextModel")

-- Which row of [rows of text; features] each position takes, int32 [B T]: its own, and image tokens the features in
-- their order. `count`: how many features there are.
local function places(self, input_ids, count)
    local ids, n = input_ids:to_buffer()
    local rows, found = ffi.new("int32_t[?]", n), 0
    for i = 0, n - 1 do
        rows[i] = i
        if ids[i] == self.image_token then
            rows[i] = n + found
            found = found + 1
        end
    end
    if found ~= count then
        err.raise("data", "input_ids have %d image tokens (id %d), but the pictures have %d features: there must be as "
                  .. "many markers as pictures, and each must stand for all features of its picture", found,
                  self.image_token, count)
    end
    return tensor.from_buffer(rows, { n }, { dtype = "int32", device = input_ids:device() })
end

-- ids that the embeddings have rows for: an image token beyond the vocabulary looks up row 0, as in transformers.
local function known_ids(self, input_ids)
    if self.image_token < self.vocab_size then
        return input_ids
    end
    local ids, n = input_ids:to_buffer()
    local known = ffi.new("int32_t[?]", n)
    for i = 0, n - 1 do
        known[i] = ids[i] == self.image_token and 0 or ids[i]
    end
    return tensor.from_buffer(known, input_ids:size(), { dtype = "int32", device = input_ids:device() })
end

--- The features of the pictures that forward was given -> [N, C], one row an image token.
function Body:image_features(inputs)
    local pixels = inputs.pixel_values
    if not tensor.is(pixels) then
        err.raise("argument", "pixel_values must be a tensor, not a %s", type(pixels))
    end
    pixels = pixels:to { device = self:language()[self:language().names.embeddings].weight:device() }
    return self.spec.image_features(self, setmetatable({ pixel_values = pixels }, { __index = inputs }))
end

--- Rows of text with the pictures' features in place of image tokens -> [B, T, C].
function Body:merged(input_ids, inputs)
    local features = inputs.pixel_values ~= nil and self:image_features(inputs)
    local rows = places(self, input_ids, features and features:size(0) or 0)
    local x = self:language():embed(known_ids(self, input_ids))
    if not features then
        return x
    end
    local b, t, width = x:size(0), x:size(1), x:size(2)
    return ops.cat({ x:reshape(b * t, width), features:to(x:dtype()) }, 0):index_select(0, rows):reshape(b, t, width)
end

--- The language model's body (decoder.lua).
function Body:language()
    return self[self.text_name]
end

--- input_ids int [B, T], position_ids int [B or 1, T] -> hidden states and router logits as decoder.lua's body.
--- ctx.inputs: pixel_values and what else the family takes.
function Body:forward(input_ids, position_ids, ctx)
    local spec, language = self.spec, self:language()
    if spec.positions then -- first: it names the picture that does not fit its tokens
        position_ids = spec.positions(self, input_ids, position_ids, ctx)
    end
    if not ctx.cache or ctx.cache.used == 0 then -- what comes later is text
        ctx.inputs_embeds = self:merged(input_ids, ctx.inputs)
    end
    if spec.see then
        spec.see(self, input_ids, ctx)
    end
    for _, child in ipairs(self._children) do
        child.module.activation_checkpointing = self.activation_checkpointing
    end
    return language:forward(input_ids, position_ids, ctx)
end

--- See decoder.lua.
function Body:rotary_stage(longest)
    return self:language():rotary_stage(longest)
end

--- Free what is no parameter.
function Body:release()
    for _, module in self:named_modules() do
        if module ~= self and module.release then
            module:release()
        end
    end
end

-- ---- the model ------------------------------------------------------------------------------

local ImageTextToText = {}

--- The language model's body.
function ImageTextToText:get_decoder()
    return self.model:language()
end

--- The module that looks tokens up.
function ImageTextToText:get_input_embeddings()
    local decoder = self:get_decoder()
    return decoder[decoder.names.embeddings]
end

--- The features of pictures as the language model gets them -> [N, C], one row an image token. args: as forward's.
function ImageTextToText:get_image_features(args)
    return self.model:image_features(args)
end

--- Give a model these methods, over those of causal models.
function M.extend(model)
    causal_lm.extend(model)
    for name, method in pairs(ImageTextToText) do
        model[name] = method
    end
    return model
end

--- The text architecture by its model_type, and the values of its configuration.
function M.text_family(c, spec)
    local values = c.text_config or {}
    local kind = type(values) == "table" and values.model_type or spec.text_type
    local found = registry.modules[registry.by_model_type[kind] or ""]
    if not found then
        c:unsupported("text_config", "model_type " .. tostring(kind) .. " is not supported; supported are "
                      .. table.concat(strings.sorted_keys(registry.by_model_type), ", "))
    end
    return type(found) == "string" and require(found) or found, values
end

-- ---- what families share --------------------------------------------------------------------

--- The token types that forward was given, as a C array [B T]; nil without them, and for what is generated behind a
--- prompt, which is text.
function M.token_types(input_ids, ctx)
    local types, b, t = ctx.inputs.token_type_ids, input_ids:size(0), input_ids:size(1)
    if types == nil or ctx.cache and ctx.cache.used > 0 then
        return nil
    end
    types = tensor.is(types) and types:to("int32") or tensor.tensor(types, { dtype = "int32" })
    if types:dim() ~= 2 or types:size(0) ~= b or types:size(1) ~= t then
        err.raise("shape", "token_type_ids must be [%d, %d], as input_ids, not [%s]", b, t,
                  table.concat(types:size(), ", "))
    end
    return types:to_buffer()
end

--- Let tokens see these key ranges, C arrays [B T 2]; near: those of layers with a window, or nil.
function M.see_ranges(input_ids, ctx, all, near)
    local shape = { input_ids:size(0), input_ids:size(1), 2 }
    local placed = { dtype = "int32", device = input_ids:device() }
    ctx.causal, ctx.bounds = false, tensor.from_buffer(all, shape, placed)
    ctx.window_bounds = near and tensor.from_buffer(near, shape, placed)
end

--- The rules of models that the hub has as vision_tower, multi_modal_projector and language_model side by side (LLaVA,
--- Gemma 3, PaliGemma). body.tower: the tower's description.
function M.file_names(body)
    return file_names.joined(
        file_names.under(body.tower.file_names, "model.vision_tower.", "vision_tower.", "model.vision_tower."),
        file_names.under(nil, "model.multi_modal_projector.", "multi_modal_projector."),
        file_names.under(nil, "model.language_model.", "language_model.model."),
        file_names.under(nil, "lm_head.", "language_model.lm_head."))
end

--- What models/init.lua's registry takes, made of the description at the head of this file.
function M.architecture(spec)
    local name = spec.text or "language_model"
    local function new(c)
        if spec.check then
            spec.check(c)
        end
        local family, values = (spec.text_family or M.text_family)(c, spec)
        local text = c:part("text_config", family, values)
        c:answer_by(text)
        local body = Module.init(Module.class(spec.name:gsub("ForConditionalGeneration$", "Model"), Body))
        body.config, body.spec, body.text_name, body.vocab_size = c, spec, name, text:integer("vocab_size")
        body.image_token = (spec.image_token or function() return c.image_token_id end)(c)
        if type(body.image_token) ~= "number" or body.image_token < 0 or body.image_token % 1 ~= 0 then
            c:unsupported("image_token_id", "the id of image tokens is " .. tostring(body.image_token)
                          .. ", not a whole number of at least 0")
        end
        spec.add_vision(body, c)
        body:add(name, family.new_body(text))
        local self = Module.init(Module.class(spec.name))
        self.config, self.unused, self.new_token_type = c, spec.unused, spec.new_token_type
        self.names = setmetatable({ body = "model", head = "lm_head" }, { __index = body[name].names })
        self.model = self:add("model", body)
        family.add_head(self, text, "lm_head")
        self.tied = (c.tie_word_embeddings or spec.text_ties ~= false and text.tie_word_embeddings)
            and { ["lm_head.weight"] = string.format("model.%s.%s.weight", name, body[name].names.embeddings) } or {}
        self.file_names = spec.file_names and spec.file_names(body)
        return self
    end
    return { new = new, name = spec.name, defaults = spec.defaults, attribute_map = spec.attribute_map,
             padding = false, extend = M.extend }
end

return M
