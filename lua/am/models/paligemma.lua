-- PaliGemma 1 and 2 (Beyer et al. 2024, arXiv:2407.07726; Steiner et al. 2024) as transformers' modeling_paligemma.py
-- has them: SigLIP, one linear map, Gemma or Gemma 2. Pictures and prompt see one another whole, what is learnt sees
-- what came before it: token_type_ids say which is which, 0 and 1.

local ffi = require("ffi")
local err = require("am.core.error")
local image_text_to_text = require("am.models.image_text_to_text")
local vision = require("am.models.vision")
local Linear = require("am.nn.linear")
local Module = require("am.nn.module")

local Projector = Module.class("PaliGemmaMultiModalProjector")

--- [..., vision width] -> [..., C]
function Projector:forward(x)
    return self.linear:forward(x)
end

-- The first place of [first, stop) whose token is no prefix; all after it must not be, either.
local function prefix_end(types, row, first, stop)
    local at = first
    while at < stop and types[at] == 0 do
        at = at + 1
    end
    for i = at, stop - 1 do
        if types[i] == 0 then
            err.raise("data", "token_type_ids of row %d begin with the prefix (0), but it goes on at %d behind the "
                      .. "suffix (1)", row, i)
        end
    end
    return at
end

-- Key ranges, int32 [B T 2], of the given ones (or nil: each row is a sample) and token types; with a window also those
-- of layers that have it, where the prefix is seen whole all the same.
local function ranges(types, bounds, b, t, window)
    local all, near = ffi.new("int32_t[?]", b * t * 2), window and ffi.new("int32_t[?]", b * t * 2)
    for row = 0, b - 1 do
        local known, prefix = nil, 0 -- the end of the sample's prefix, by where the sample begins
        for q = 0, t - 1 do
            local at = (row * t + q) * 2
            local first, stop = bounds and bounds[at] or 0, bounds and bounds[at + 1] or t
            if first < stop then
                if known ~= first then
                    known, prefix = first, prefix_end(types + row * t, row, first, stop)
                end
                local suffix = q >= prefix
                all[at], all[at + 1] = first, suffix and q + 1 or prefix
                if near then
                    near[at] = suffix and math.max(first, q + 1 - window) or first
                    near[at + 1] = all[at + 1]
                end
            end
        end
    end
    return all, near
end

-- Set what tokens of a prompt see; what is generated after it comes without token types and sees all before it.
local function see(body, input_ids, ctx)
    local types, b, t = image_text_to_text.token_types(input_ids, ctx), input_ids:size(0), input_ids:size(1)
    if types then
        image_text_to_text.see_ranges(input_ids, ctx, ranges(types, ctx.bounds and ctx.bounds:to_buffer(), b, t,
                                                             body:language().config.sliding_window))
    end
end

return image_text_to_text.architecture {
    name = "PaliGemmaForConditionalGeneration",
    text_type = "gemma",
    -- Gemma refuses use_bidirectional_attention, which transformers writes here for what token types say
    text_family = function(c, spec)
        local family, values = image_text_to_text.text_family(c, spec)
        local text = {}
        for key, value in pairs(values) do
            text[key] = key ~= "use_bidirectional_attention" and value or nil
        end
        return family, text
    end,
    add_vision = function(body, c)
        local part = vision.add_tower(body, c, "siglip_vision_model")
        body:add("multi_modal_projector", Module.init(Projector))
            :add("linear", Linear.new(part:integer("hidden_size"), c:integer("projection_dim"), true))
    end,
    check = function(c)
        c.hidden_size, c.vocab_size = nil, nil -- beside text_config's, and read by nobody
        local text = type(c.text_config) == "table" and c.text_config or {}
        if c:integer("projection_dim") ~= text.hidden_size then
            c:unsupported("projection_dim", string.format("pictures become %d numbers, but text_config has a "
                          .. "hidden_size of %s", c.projection_dim, tostring(text.hidden_size)))
        end
    end,
    image_features = vision.last_states,
    -- counted from 1, unless they are given
    positions = function(_, _, position_ids, ctx)
        if ctx.inputs.position_ids ~= nil then
            return position_ids
        end
        ctx.longest = ctx.longest + 1
        return position_ids + 1
    end,
    see = see,
    new_token_type = 1,
    file_names = image_text_to_text.file_names,
    attribute_map = { image_token_id = "image_token_index" },
    defaults = { image_token_index = 256000, projection_dim = 2048, tie_word_embeddings = true },
    unused = { "%.position_ids$" },
}
