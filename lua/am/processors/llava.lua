-- LLaVA: an image stands for the features of its patches, one token each. Image processor: the standard one after
-- padding to a square, where do_pad asks for it.

local image_processor = require("am.processors.image_processor")

local clip = require("am.processors.clip").images.CLIPImageProcessor

-- int(x * 255) of the three means, as a colour.
local function colour(mean)
    local out = 0
    for c = 1, 3 do
        out = out * 256 + math.min(255, math.max(0, math.floor(mean[c] * 255)))
    end
    return out
end

local function picture(p, from)
    local s = p.settings
    local h, w = p:size(from)
    if s.do_pad and h ~= w then
        local side = math.max(h, w)
        from = p:crop(from, -math.floor((side - w) / 2), -math.floor((side - h) / 2), side, side,
            colour(s.image_mean or { 0, 0, 0 }))
    end
    s = setmetatable({ do_pad = false }, { __index = s })
    p.settings = s
    return image_processor.standard(p, from)
end

local LLaVA = {
    kinds = { image_token = "text", patch_size = "side", vision_feature_select_strategy = "text",
              num_additional_image_tokens = "count" },
    defaults = { num_additional_image_tokens = 0 },
    needs = { "patch_size", "num_additional_image_tokens" },
}

function LLaVA.setup(self)
    self:use_image_token(self.tokenizer:named_token("image_token") or self.settings.image_token or "<image>")
end

function LLaVA.expand(self, plan)
    local s, shape = self.settings, plan.shape
    local n = math.floor(shape[3] / s.patch_size) * math.floor(shape[4] / s.patch_size) + s.num_additional_image_tokens
    if s.vision_feature_select_strategy == "default" then
        n = n - 1
    end
    return self.image_token:rep(self:count(plan, n)), n
end

-- The tower's features as the model will count them, against the tokens that stand for them.
function LLaVA.check(self, config, vision, must)
    local s = self.settings
    must.same("image_token_id", self.image_token_id, config.image_token_id or config.image_token_index)
    must.same("patch_size", s.patch_size, vision.patch_size)
    must.same("vision_feature_select_strategy", s.vision_feature_select_strategy,
        config.vision_feature_select_strategy)
    local size = vision.model_type ~= "dinov2" -- which interpolates its positions to any size
        and type(vision.image_size) == "number" and vision.image_size
    local ours = self.image_processor.settings
    if size and not ours.do_center_crop and not (ours.do_resize and ours.size.height) then
        return -- pictures keep their shapes, and the tower has to interpolate its positions
    end
    local crop = ours.do_center_crop and ours.crop_size or ours.size
    if size and (size ~= crop.height or size ~= crop.width) then
        must.fail("pictures become %d x %d, and the vision tower is made for %d x %d", crop.width, crop.height, size,
            size)
    end
    -- CLIP and DINOv2 put a class token before the patches, SigLIP has none; "default" takes the first one away
    local classes = { clip_vision_model = 1, dinov2 = 1, siglip_vision_model = 0 }
    local added = classes[vision.model_type]
    if added and s.vision_feature_select_strategy and s.num_additional_image_tokens ~= added then
        must.fail("num_additional_image_tokens is %d, and a %s adds %d", s.num_additional_image_tokens,
            vision.model_type, added)
    end
end

return {
    images = {
        LlavaImageProcessor = { defaults = clip.defaults, kinds = clip.kinds, picture = picture },
    },
    processors = { LlavaProcessor = LLaVA },
}
