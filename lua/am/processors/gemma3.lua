-- Gemma 3: an image is resized to a square, and stands for image_seq_length tokens between two others; with pan and
-- scan, crops of a long image follow it.

local settings = require("am.processors.settings")
local sizes = require("am.processors.sizes")

-- The picture, then its crops, all of one size.
local function picture(p, from)
    local s = p.settings
    local h, w = p:size(from)
    local crops = s.do_pan_and_scan and sizes.pan_and_scan(h, w, s.pan_and_scan_min_crop_size,
        s.pan_and_scan_max_num_crops, s.pan_and_scan_min_ratio_to_activate) or {}
    local resized = s.do_resize or (s.do_pan_and_scan and p.backend == "torchvision")
    local shape
    for i = 0, #crops do
        local mark, part, crop = p.next_slot, from, crops[i]
        if crop then
            if crop.width < 1 or crop.height < 1 then
                p:fail("is too small for %d crops", #crops)
            end
            part = p:crop(from, crop.x, crop.y, crop.height, crop.width)
        end
        if resized then
            part = p:resize(part, sizes.target(s.size, p:size(part)))
        end
        p:emit(part)
        local height, width = p:size(part)
        shape = shape or { #crops + 1, 3, height, width }
        if shape[3] ~= height or shape[4] ~= width then
            p:fail("has crops of different sizes; set do_resize and a size of height and width")
        end
        p:reuse(mark)
    end
    return { shape = shape, crops = #crops }
end

local Gemma3 = {
    takes = "crops",
    kinds = { image_seq_length = "count" },
    defaults = { image_seq_length = 256 },
    needs = { "image_seq_length" },
    -- What the processor says to its image processor, whatever preprocessor_config.json has: it has nulls there.
    image_values = { do_pan_and_scan = false, pan_and_scan_min_crop_size = 256, pan_and_scan_max_num_crops = 4,
                     pan_and_scan_min_ratio_to_activate = 1.2 },
}

function Gemma3.setup(self)
    local tokenizer = self.tokenizer
    local boi = tokenizer:named_token("boi_token") or "<start_of_image>"
    local eoi = tokenizer:named_token("eoi_token") or "<end_of_image>"
    local soft = tokenizer:named_token("image_token") or "<image_soft_token>"
    self:use_image_token(soft, { boi, eoi })
    self.image_token = boi -- what a template writes; it becomes the whole sequence, of which it is a part
    self:token_id(boi)
    self:token_id(eoi)
    self.image_sequence = "\n\n" .. boi .. soft:rep(self.settings.image_seq_length) .. eoi .. "\n\n"
end

function Gemma3.expand(self, plan)
    local whole, n = self.image_sequence, self:count(plan, self.settings.image_seq_length * (plan.crops + 1))
    if plan.crops == 0 then
        return whole, n
    end
    return "Here is the original image " .. whole .. " and here are some crops to help you see better "
        .. (whole .. " "):rep(plan.crops - 1) .. whole, n
end

function Gemma3.finish(self, out)
    out.token_type_ids = self:marked(out.input_ids)
end

function Gemma3.check(self, config, vision, must)
    local size = self.image_processor.settings.size or {}
    must.same("the image token's id", self.image_token_id, config.image_token_id or config.image_token_index)
    must.same("the id of " .. self.image_token, self:token_id(self.image_token),
        config.boi_token_id or config.boi_token_index)
    must.same("the number of tokens of an image", self.settings.image_seq_length, config.mm_tokens_per_image)
    must.same("the height of an image", size.height, vision.image_size)
    must.same("the width of an image", size.width, vision.image_size)
end

return {
    images = {
        Gemma3ImageProcessor = {
            defaults = {
                do_resize = true, size = { height = 224, width = 224 }, resample = 2, do_rescale = true,
                do_normalize = true, image_mean = 0.5, image_std = 0.5, pan_and_scan_min_crop_size = 256,
                pan_and_scan_max_num_crops = 4, pan_and_scan_min_ratio_to_activate = 1.2,
            },
            kinds = { do_pan_and_scan = "boolean", pan_and_scan_min_crop_size = "side",
                      pan_and_scan_max_num_crops = "side", pan_and_scan_min_ratio_to_activate = "ratio" },
            picture = picture, makes = "crops",
            prepare = function(s, _, where)
                settings.need(s, where, s.do_pan_and_scan and { "pan_and_scan_min_crop_size",
                    "pan_and_scan_max_num_crops", "pan_and_scan_min_ratio_to_activate" })
            end,
        },
    },
    processors = { Gemma3Processor = Gemma3 },
}
