-- Idefics3 and SmolVLM: an image is cut into square tiles, each of which stands for image_seq_len tokens after one
-- that names its row and column; the whole image, as a tile, follows.

local err = require("am.core.error")
local sizes = require("am.processors.sizes")

local function prepare(s, _, where)
    if s.do_resize and not (s.size.longest_edge and not s.size.shortest_edge or s.size.height) then
        err.raise("format", "%s: size needs longest_edge, or height and width", where)
    elseif not s.max_image_size.longest_edge then
        err.raise("format", "%s: max_image_size needs longest_edge, the side of a tile", where)
    end
end

local function picture(p, from)
    local s = p.settings
    local side = s.max_image_size.longest_edge
    local h, w = p:size(from)
    if s.do_resize then
        if s.size.longest_edge then
            h, w = sizes.longest(h, w, s.size.longest_edge)
        else
            h, w = s.size.height, s.size.width
        end
        from = p:resize(from, h, w)
    end
    local rows, cols = 0, 0
    if s.do_image_splitting then
        h, w = sizes.tiled(h, w, side)
        from = p:resize(from, h, w)
        if h > side or w > side then
            rows, cols = h / side, w / side
        end
        for i = 0, rows * cols - 1 do
            local mark = p.next_slot
            p:emit(p:crop(from, i % cols * side, math.floor(i / cols) * side, side, side))
            p:reuse(mark)
        end
    end
    p:emit(p:resize(from, side, side))
    return { shape = { rows * cols + 1, 3, side, side }, rows = rows, cols = cols }
end

local Idefics3 = {
    takes = "tiles",
    kinds = { image_seq_len = "count" },
    defaults = { image_seq_len = 169 },
    needs = { "image_seq_len" },
}

function Idefics3.setup(self)
    local tokenizer = self.tokenizer
    self.fake_token = tokenizer:named_token("fake_image_token") or "<fake_token_around_image>"
    self.global_token = tokenizer:named_token("global_image_token") or "<global-img>"
    local around = { self.fake_token, self.global_token }
    for row = 1, 6 do
        for col = 1, 6 do around[#around + 1] = ("<row_%d_col_%d>"):format(row, col) end
    end
    self:use_image_token(tokenizer:named_token("image_token") or "<image>", around)
    self:token_id(self.fake_token)
end

function Idefics3.refused(self)
    return self.class == "SmolVLMProcessor" and (self.tokenizer:named_token("video_token") or "<video>") or nil
end

function Idefics3.expand(self, plan)
    local n = self:count(plan, self.settings.image_seq_len * plan.shape[1])
    local tokens, out = self.image_token:rep(self.settings.image_seq_len), {}
    for row = 1, plan.rows do
        for col = 1, plan.cols do
            out[#out + 1] = ("%s<row_%d_col_%d>%s"):format(self.fake_token, row, col, tokens)
        end
        out[#out + 1] = "\n"
    end
    out[#out + 1] = (plan.rows > 0 and "\n" or "") .. self.fake_token .. self.global_token .. tokens .. self.fake_token
    return table.concat(out), n
end

function Idefics3.check(self, config, vision, must)
    must.same("the image token's id", self.image_token_id, config.image_token_id)
    must.same("the side of a tile", self.image_processor.settings.max_image_size.longest_edge, vision.image_size)
    local size, patch, scale = vision.image_size, vision.patch_size, config.scale_factor
    if type(size) == "number" and type(patch) == "number" and type(scale) == "number" then
        must.same("image_seq_len", self.settings.image_seq_len, math.floor(math.floor(size / patch) ^ 2 / scale ^ 2))
    end
end

local image = {
    defaults = {
        do_resize = true, size = { longest_edge = 4 * 364 }, resample = 1, do_rescale = true, do_normalize = true,
        image_mean = 0.5, image_std = 0.5, do_pad = true, do_image_splitting = true,
        max_image_size = { longest_edge = 364 },
    },
    kinds = { do_image_splitting = "boolean", max_image_size = "square" },
    needs = { "max_image_size" },
    prepare = prepare, picture = picture, makes = "tiles", join = "samples", own_sizes = true,
}

return {
    images = { Idefics3ImageProcessor = image, SmolVLMImageProcessor = image },
    processors = { Idefics3Processor = Idefics3, SmolVLMProcessor = Idefics3 },
}
