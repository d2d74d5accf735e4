-- Idefics3 (Laurençon et al. 2024, arXiv:2408.12637) as transformers' modeling_idefics3.py has it: a vision
-- transformer, blocks of neighbouring patches made one row (pixel shuffle), a linear map, and Llama. Checkpoints of
-- SmolVLM's first version are Idefics3, those of the second smolvlm.lua.

local ffi = require("ffi")
local err = require("am.core.error")
local tensor = require("am.core.tensor")
local image_text_to_text = require("am.models.image_text_to_text")
local tower = require("am.models.vision.idefics3")
local Linear = require("am.nn.linear")
local Module = require("am.nn.module")

local Connector = Module.class("Idefics3Connector")

function Connector.new(c, vision)
    local self = Module.init(Connector)
    self.scale = c:integer("scale_factor", nil, 1024)
    local map = self:add("modality_projection", Module.init(Module.class("Idefics3SimpleMLP")))
    map:add("proj", Linear.new(vision:integer("hidden_size") * self.scale ^ 2, c:integer("hidden_size")))
    return self
end

--- x [N, side^2, C] -> [N, (side / scale)^2, width of text]: squares of scale x scale patches become one row.
function Connector:forward(x)
    local n, t, width, s = x:size(0), x:size(1), x:size(2), self.scale
    local side = math.floor(math.sqrt(t))
    if side * side ~= t or side % s ~= 0 then
        err.raise("shape", "pixel_values: pictures of %d patches are no square whose side can be parted by %d "
                  .. "(\"scale_factor\")", t, s)
    end
    x = x:reshape { n, side / s, s, side / s, s * width }:permute(0, 1, 3, 2, 4)
    return self.modality_projection.proj:forward(x:reshape(n, t / s ^ 2, width * s ^ 2))
end

-- ---- pictures that are there ------------------------------------------------------------------

local function all_zero(x)
    local numbers, n = x:to_buffer()
    for i = 0, n - 1 do
        if numbers[i] ~= 0 then
            return false
        end
    end
    return true
end

-- Numbers of the pictures in [N, channels, height, width] that are more than zeros, from 0. A row of pixels tells of
-- nearly all.
local function real(pictures)
    local list = {}
    for i = 0, pictures:size(0) - 1 do
        local one = pictures:narrow(0, i, 1)
        if not all_zero(one:narrow(1, 0, 1):narrow(2, 0, 1)) or not all_zero(one) then
            list[#list + 1] = i
        end
    end
    return list
end

-- Those pictures of x [N, …].
local function chosen(x, list)
    if #list == x:size(0) then
        return x
    end
    local index = ffi.new("int32_t[?]", #list, list)
    return x:index_select(0, tensor.from_buffer(index, { #list }, { dtype = "int32", device = x:device() }))
end

-- pixel_values [B, pictures, channels, height, width] and pixel_attention_mask [B, pictures, height, width] or nil,
-- without the pictures of zeros that fill rows with fewer. nil where there is none; with `one` the first stays then.
local function pictures_of(inputs, one)
    local x, mask = inputs.pixel_values, inputs.pixel_attention_mask
    if x:dim() ~= 5 then
        err.raise("shape", "pixel_values must be [batch, pictures, channels, height, width], not [%s]",
                  table.concat(x:size(), ", "))
    end
    local b, n, channels, height, width = unpack(x:size())
    if mask ~= nil and (not tensor.is(mask) or table.concat(mask:size(), " ")
                        ~= table.concat({ b, n, height, width }, " ")) then
        err.raise("shape", "pixel_attention_mask must be a tensor [%d, %d, %d, %d], as pixel_values%s", b, n, height,
                  width, tensor.is(mask) and ", not [" .. table.concat(mask:size(), ", ") .. "]" or "")
    end
    x = x:reshape(b * n, channels, height, width)
    local list = real(x)
    if #list == 0 then
        if not one then
            return nil
        end
        list[1] = 0
    end
    return chosen(x, list), mask and chosen(mask:reshape(b * n, height, width), list)
end

-- ---- the architecture -----------------------------------------------------------------------

--- The description of a class with these parts (image_text_to_text.lua). one: of pictures that are all zeros the
--- first is one.
local function describe(name, one)
    return {
        name = name,
        text = "text_model",
        text_type = "llama",
        add_vision = function(body, c)
            local vision = c:part("vision_config", tower)
            body:add("vision_model", tower.new(vision))
            body:add("connector", Connector.new(c, vision))
        end,
        image_features = function(body, inputs)
            local pictures, mask = pictures_of(inputs, one)
            if not pictures then
                return nil
            end
            local states = body.vision_model:forward(pictures, { pixel_attention_mask = mask }).last_hidden_state
            local features = body.connector:forward(states)
            return features:reshape(-1, features:size(2))
        end,
        text_ties = false,
        defaults = { image_token_id = 128257, scale_factor = 2, tie_word_embeddings = false },
    }
end

local architecture = image_text_to_text.architecture(describe("Idefics3ForConditionalGeneration", false))
architecture.describe = describe
return architecture
