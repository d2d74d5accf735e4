-- Gemma 3 with pictures (Kamath et al. 2025, arXiv:2503.19786) as transformers' modeling_gemma3.py has it: SigLIP, the
-- average of squares of patches, a norm and a matrix, and Gemma 3's language model (gemma3.lua), in which the tokens
-- of a picture see all of it.

local ffi = require("ffi")
local ops = require("am.core.ops")
local image_text_to_text = require("am.models.image_text_to_text")
local vision = require("am.models.vision")
local RMSNorm = require("am.nn.norm")
local Module = require("am.nn.module")

-- ---- the projector ----------------------------------------------------------------------------

local Projector = Module.class("Gemma3MultiModalProjector")

-- part: the vision configuration.
function Projector.new(c, part)
    local self, width = Module.init(Projector), part:integer("hidden_size")
    local tokens = c:integer("mm_tokens_per_image", nil, 2 ^ 24)
    self.patches = math.floor(part:integer("image_size") / part:integer("patch_size"))
    self.side = math.floor(math.sqrt(tokens))
    if self.side ^ 2 ~= tokens or self.patches % self.side ~= 0 then
        c:unsupported("mm_tokens_per_image", string.format(
            "%d tokens are no square whose side divides the %d patches of a picture's", tokens, self.patches))
    end
    self:declare("mm_input_projection_weight", { width, c:integer("hidden_size") }, "zeros")
    self:add("mm_soft_emb_norm", RMSNorm.new(width, part.layer_norm_eps, 1))
    return self
end

--- states of patches [N, patches^2, C] -> [N, side^2, width of text]
function Projector:forward(x)
    local n, width, side, square = x:size(0), x:size(2), self.side, self.patches / self.side
    x = x:reshape { n, side, square, side, square, width }:permute(0, 1, 3, 2, 4, 5)
    x = x:reshape(n, side * side, square * square, width):mean(2)
    return ops.matmul(self.mm_soft_emb_norm:forward(x), self.mm_input_projection_weight)
end

-- ---- what tokens see --------------------------------------------------------------------------

-- Key ranges [B, T, 2] in which the tokens of a picture (type 1) see all of its run of tokens, beside what comes before
-- them, and those of layers with a window, which ends behind a token all the same. A run is one sample's: it is parted
-- where the next sample of a pack begins. types, ranges: C arrays, ranges nil where each row is one sample.
local function widened(types, ranges, b, t, window)
    local all, near = ffi.new("int32_t[?]", b * t * 2), ffi.new("int32_t[?]", b * t * 2)
    for row = 0, b - 1 do
        local run = 0 -- the end of the run of tokens of a picture
        for q = 0, t - 1 do
            local at = row * t + q
            local first, last = ranges and ranges[2 * at] or 0, ranges and ranges[2 * at + 1] or t
            if types[at] == 1 and q >= run then
                run = q + 1
                while run < last and types[row * t + run] == 1 do
                    run = run + 1
                end
            end
            local stop = math.min(last, types[at] == 1 and run or q + 1)
            all[2 * at], all[2 * at + 1] = first, stop
            near[2 * at], near[2 * at + 1] = math.max(first, q + 1 - window), stop
        end
    end
    return all, near
end

local function see(body, input_ids, ctx)
    local types, b, t = image_text_to_text.token_types(input_ids, ctx), input_ids:size(0), input_ids:size(1)
    if types then
        image_text_to_text.see_ranges(input_ids, ctx, widened(types, ctx.bounds and ctx.bounds:to_buffer(), b, t,
                                                              body:language().config.sliding_window or t))
    end
end

-- ---- the architecture -------------------------------------------------------------------------

return image_text_to_text.architecture {
    name = "Gemma3ForConditionalGeneration",
    text_type = "gemma3_text",
    add_vision = function(body, c)
        local part = vision.add_tower(body, c, "siglip_vision_model")
        body:add("multi_modal_projector", Projector.new(c, part))
    end,
    image_features = vision.last_states,
    see = see,
    text_ties = false,
    file_names = image_text_to_text.file_names,
    attribute_map = { image_token_id = "image_token_index", boi_token_id = "boi_token_index",
                      eoi_token_id = "eoi_token_index" },
    defaults = { mm_tokens_per_image = 256, boi_token_index = 255999, eoi_token_index = 256000,
                 image_token_index = 262144, tie_word_embeddings = true },
}
