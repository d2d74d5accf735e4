-- LLaVA (Liu et al. 2023, arXiv:2304.08485; 1.5: arXiv:2310.03744) as transformers' modeling_llava.py has it: states
-- of any vision tower before its last layer, two linear maps, any language model.

local ops = require("am.core.ops")
local image_text_to_text = require("am.models.image_text_to_text")
local vision = require("am.models.vision")
local decoder = require("am.models.decoder")
local Linear = require("am.nn.linear")
local Module = require("am.nn.module")

local Projector = Module.class("LlavaMultiModalProjector")

-- The hidden states of the tower that are taken, a list.
local function feature_layers(c)
    local layers = c.vision_feature_layer
    return type(layers) == "table" and layers or { layers }
end

function Projector.new(c, vision_width)
    local self = Module.init(Projector)
    local width, bias = c:integer("hidden_size"), c.multimodal_projector_bias
    self.act = decoder.activation(c, "projector_hidden_act")
    self:add("linear_1", Linear.new(vision_width * #feature_layers(c), width, bias))
    self:add("linear_2", Linear.new(width, width, bias))
    return self
end

--- [..., vision width] -> [..., C]
function Projector:forward(x)
    return self.linear_2:forward(ops.activation(self.linear_1:forward(x), self.act))
end

local function check(c)
    local strategy = c.vision_feature_select_strategy
    if strategy ~= "default" and strategy ~= "full" then
        c:unsupported("vision_feature_select_strategy", tostring(strategy) .. " is not known; known are default, full")
    end
    for _, layer in ipairs(feature_layers(c)) do
        if type(layer) ~= "number" or layer % 1 ~= 0 then
            c:unsupported("vision_feature_layer", "it must be a whole number or a list of them")
        end
    end
end

-- What LLaVA 1.5's text_config leaves out: LlamaConfig's own sizes.
local LLAMA = { vocab_size = 32000, hidden_size = 4096, intermediate_size = 11008, num_hidden_layers = 32,
                num_attention_heads = 32 }

local function text_family(c, spec)
    local family, values = image_text_to_text.text_family(c, spec)
    if family.name ~= "LlamaForCausalLM" then
        return family, values
    end
    local defaults = {}
    for _, set in ipairs { LLAMA, family.defaults } do
        for key, value in pairs(set) do
            defaults[key] = value
        end
    end
    return setmetatable({ defaults = defaults }, { __index = family }), values
end

return image_text_to_text.architecture {
    name = "LlavaForConditionalGeneration",
    text_type = "llama",
    text_family = text_family,
    check = check,
    add_vision = function(body, c)
        local part = vision.add_tower(body, c, "clip_vision_model")
        body:add("multi_modal_projector", Projector.new(c, part:integer("hidden_size")))
    end,
    image_features = function(body, inputs)
        local c = body.config
        local out = body.vision_tower:forward(inputs.pixel_values, { layers = feature_layers(c) })
        local chosen = {}
        for i, states in ipairs(out.hidden_states) do -- "default": without the class token
            chosen[i] = c.vision_feature_select_strategy == "default" and states:narrow(1, 1, states:size(1) - 1)
                or states
        end
        return vision.project(body, #chosen == 1 and chosen[1] or ops.cat(chosen, -1))
    end,
    file_names = image_text_to_text.file_names,
    attribute_map = { image_token_id = "image_token_index" },
    defaults = { image_token_index = 32000, projector_hidden_act = "gelu", vision_feature_select_strategy = "default",
                 vision_feature_layer = -2, multimodal_projector_bias = true, tie_word_embeddings = false },
    unused = { "%.position_ids$" },
}
