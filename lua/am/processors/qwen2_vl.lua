-- Qwen2-VL and Qwen2.5-VL: an image keeps its shape and is cut into patches; a square of merge_size patches a side
-- is one token.

local err = require("am.core.error")
local sizes = require("am.processors.sizes")

local clip = require("am.processors.clip").images.CLIPImageProcessor

-- min_pixels and max_pixels are older names of the edges of size, and count before it where one file or one caller
-- has both.
local function prepare(s, _, where, overrides)
    local size = {}
    for key, value in pairs(s.size or {}) do size[key] = value end
    for key, edge in pairs { min_pixels = "shortest_edge", max_pixels = "longest_edge" } do
        if s[key] and not (overrides.size and overrides[key] == nil) then
            size[edge] = s[key]
        end
    end
    s.size = size
    if s.do_resize and not (size.shortest_edge and size.longest_edge) then
        err.raise("format", "%s: size needs both shortest_edge and longest_edge, the least and the most pixels of an "
            .. "image", where)
    end
end

-- transformers reads min_pixels and max_pixels of a file before its size, so they say the same.
local function saved(overrides, s)
    if overrides.size then
        overrides.min_pixels, overrides.max_pixels = s.size.shortest_edge, s.size.longest_edge
    end
end

local function picture(p, from)
    local s = p.settings
    local factor = s.patch_size * s.merge_size
    local h, w = p:size(from)
    if s.do_resize then
        local height, width = sizes.smart(h, w, factor, s.size.shortest_edge, s.size.longest_edge)
        if not height then
            p:fail("is more than 200 times as long as it is wide")
        end
        from = p:resize(from, height, width)
        h, w = height, width
    elseif h % factor ~= 0 or w % factor ~= 0 then
        p:fail("cannot be cut into patches: without do_resize both must be multiples of %d", factor)
    end
    local rows, columns = h / s.patch_size, w / s.patch_size
    local values = 3 * s.temporal_patch_size * s.patch_size * s.patch_size
    p:emit(from, { layout = "patches", patch = s.patch_size, temporal_patch = s.temporal_patch_size,
                   merge = s.merge_size }, rows * columns * values)
    return { shape = { rows * columns, values }, grid = { 1, rows, columns } }
end

local Qwen = { kinds = {}, takes = "patches" }

function Qwen.setup(self)
    local tokenizer = self.tokenizer
    self.video_token = tokenizer:named_token("video_token") or "<|video_pad|>"
    self:use_image_token(tokenizer:named_token("image_token") or "<|image_pad|>",
        { self.video_token, "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>" })
end

function Qwen.refused(self)
    return self.video_token
end

function Qwen.expand(self, plan)
    local n = self:count(plan, plan.shape[1] / self.image_processor.settings.merge_size ^ 2)
    return self.image_token:rep(n), n
end

function Qwen.finish(self, out)
    out.mm_token_type_ids = self:marked(out.input_ids)
end

function Qwen.check(self, config, vision, must)
    local s = self.image_processor.settings
    must.same("the image token's id", self.image_token_id, config.image_token_id)
    must.same("patch_size", s.patch_size, vision.patch_size)
    must.same("temporal_patch_size", s.temporal_patch_size, vision.temporal_patch_size)
    must.same("merge_size", s.merge_size, vision.spatial_merge_size)
end

return {
    images = {
        Qwen2VLImageProcessor = {
            defaults = {
                do_resize = true, size = { shortest_edge = 56 * 56, longest_edge = 28 * 28 * 1280 }, resample = 3,
                do_rescale = true, do_normalize = true, image_mean = clip.defaults.image_mean,
                image_std = clip.defaults.image_std, patch_size = 14, temporal_patch_size = 2, merge_size = 2,
            },
            kinds = { size = "area", min_pixels = "pixels", max_pixels = "pixels", patch_size = "patch",
                      temporal_patch_size = "patch", merge_size = "patch" },
            needs = { "patch_size", "temporal_patch_size", "merge_size" },
            prepare = prepare, saved = saved, picture = picture, makes = "patches", join = "rows",
            own_sizes = true,
        },
    },
    processors = { Qwen2VLProcessor = Qwen, Qwen2_5_VLProcessor = Qwen },
}
