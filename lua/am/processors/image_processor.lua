-- An image processor: how a picture of a size becomes a model's input, as a plan that the engine carries out
-- (core/image.lua). Pixels are never touched here. Families say how they differ from the standard one below, which
-- resizes, crops the centre, rescales and normalises; the standard one serves CLIP, SigLIP and DINOv2.

local err = require("am.core.error")
local settings = require("am.processors.settings")
local sizes = require("am.processors.sizes")

local M = {}

local MAX_PIXELS = 178956970 -- of a picture between two steps; Pillow's limit for one that is read
local MAX_FLOATS = 2 ^ 28    -- that a picture becomes: 1 GiB
local MAX_STEPS = 4096

-- ---- programs: steps that are being put together ------------------------------------------------

---@class am.processors.Program
local Program = {}
Program.__index = Program

-- A new program for a picture, which lies in slot 0.
local function program(s, backend, where, height, width)
    return setmetatable({ settings = s, backend = backend, where = where, steps = {}, n_floats = 0, next_slot = 1,
                          picture = { height, width }, sizes = { [0] = { height, width } } }, Program)
end

function Program:fail(fmt, ...)
    err.raise("data", "%s: a picture of %d x %d pixels %s", self.where, self.picture[2], self.picture[1],
        fmt:format(...))
end

local function add(self, step)
    if #self.steps == MAX_STEPS then
        self:fail("would become more than %d pieces; set a smaller size or larger tiles", MAX_STEPS / 2)
    end
    self.steps[#self.steps + 1] = step
end

local function slot(self, height, width)
    if height < 1 or width < 1 then
        self:fail("would be resized to %d x %d, nothing", width, height)
    elseif height * width > MAX_PIXELS then
        self:fail("would be resized to %d x %d, more than %d pixels", width, height, MAX_PIXELS)
    end
    local number = self.next_slot
    self.next_slot, self.sizes[number] = number + 1, { height, width }
    return number
end

--- Height and width of a slot's picture.
function Program:size(from)
    local size = self.sizes[from]
    return size[1], size[2]
end

--- The slot of a resized picture; that of the picture itself where it has the size already.
function Program:resize(from, height, width)
    local h, w = self:size(from)
    if h == height and w == width then
        return from
    end
    local into = slot(self, height, width)
    add(self, { kind = "resize", dst = into, src = from, width = width, height = height,
                filter = self.settings.resample, backend = self.backend })
    return into
end

--- The slot of a part of a picture, which may reach beyond it: `fill` (0xRRGGBB, default black) lies there.
function Program:crop(from, x, y, height, width, fill)
    local h, w = self:size(from)
    if x == 0 and y == 0 and h == height and w == width then
        return from
    end
    local into = slot(self, height, width)
    add(self, { kind = "crop", dst = into, src = from, x = x, y = y, width = width, height = height,
                fill = fill or 0 })
    return into
end

--- Forget the slots made since `mark` (a former next_slot): later ones take their place.
function Program:reuse(mark)
    self.next_slot = mark
end

--- Write a slot's picture to the output. `layout`: nil for [3, height, width], else the fields of a step that say
--- otherwise; `floats` is what it takes up (default 3 * height * width).
function Program:emit(from, layout, floats)
    local h, w = self:size(from)
    local s, step = self.settings, { kind = "emit", src = from, offset = self.n_floats, layout = "chw" }
    step.backend, step.rescale = self.backend, s.do_rescale and s.rescale_factor or nil
    if s.do_normalize then
        step.mean, step.std = s.image_mean, s.image_std
    end
    for key, value in pairs(layout or {}) do step[key] = value end
    self.n_floats = self.n_floats + (floats or 3 * h * w)
    if self.n_floats > MAX_FLOATS then
        self:fail("would become more than %d numbers; set a smaller size", MAX_FLOATS)
    end
    add(self, step)
end

-- ---- the standard processor ---------------------------------------------------------------------

local function centre_crop(p, from)
    local size = p.settings.crop_size
    local h, w = p:size(from)
    local y, x = math.floor((h - size.height) / 2), math.floor((w - size.width) / 2)
    if p.backend == "torchvision" then -- of an odd margin around a small picture the larger half goes below and right
        y = h < size.height and -math.floor((size.height - h) / 2) or y
        x = w < size.width and -math.floor((size.width - w) / 2) or x
    end
    return p:crop(from, x, y, size.height, size.width)
end

--- Resize, crop the centre, write; from a slot on. Returns the fields of a plan.
function M.standard(p, from)
    local s = p.settings
    if s.do_resize then
        local h, w = sizes.target(s.size, p:size(from))
        from = p:resize(from, h, w)
    end
    if s.do_center_crop then
        from = centre_crop(p, from)
    end
    local h, w = p:size(from)
    local frame
    if s.do_pad then
        frame = s.pad_size
        if h > frame.height or w > frame.width then
            p:fail("becomes %d x %d, more than pad_size, %d x %d", w, h, frame.width, frame.height)
        end
        h, w = frame.height, frame.width
    end
    p:emit(from, frame and { frame_height = h, frame_width = w }, 3 * h * w)
    return { shape = { 1, 3, h, w } }
end

-- What a standard processor's settings have to say, for the errors of a file.
local function check_standard(s, where, pads)
    if s.do_resize and not sizes.target(s.size, 2, 2) then
        err.raise("format", "%s: size has neither height and width, nor shortest_edge, nor max_height and max_width",
            where)
    elseif s.do_center_crop and not (s.crop_size and s.crop_size.height) then
        err.raise("format", "%s: crop_size has no height and width", where)
    elseif pads and s.do_pad and not (s.pad_size and s.pad_size.height) then
        err.raise("unsupported", "%s: do_pad without a pad_size of height and width pads to the largest picture of a "
            .. "batch, which is not supported", where)
    end
end

-- ---- image processors ---------------------------------------------------------------------------

---@class am.ImageProcessor
---@field class string transformers' name of the class
---@field backend string "torchvision" or "pil": whose rounding
---@field settings table the keys of preprocessor_config.json, defaults filled in
local ImageProcessor = {}
ImageProcessor.__index = ImageProcessor

--- What overrides an image processor takes: key -> type (settings.lua).
function M.kinds(family)
    local kinds = {}
    for key, kind in pairs(settings.IMAGE) do kinds[key] = kind end
    for key, kind in pairs(family.kinds or {}) do kinds[key] = kind end
    return kinds
end

--- From a description (files.lua), a family's table of the class and what the caller sets instead:
---   defaults   values of keys that the file leaves out
---   kinds      types of keys beyond the common ones
---   needs      keys that must have a value
---   prepare    (settings, file's object, where, overrides): checks and what derives from settings; default: those
---              of the standard processor
---   picture    (program, slot 0) -> fields of a plan; default: the standard processor
---   makes      what these plans are, for the processors that take them: "picture" (default), "crops" (gemma3.lua),
---              "tiles" (idefics3.lua) or "patches" (qwen2_vl.lua)
---   saved      (overrides, settings): what save_pretrained writes of the overrides, where that is more than they are
---   own_sizes  true where sizes mean something else than to the standard processor
---   join       how several plans' outputs become one: "stack" (default), "rows" or "samples"
function M.new(class, family, description, overrides, backend)
    local where = description.image_file
    local kinds = M.kinds(family)
    if kinds.size ~= "area" and type(description.image.default_to_square) == "boolean" then
        kinds.size = description.image.default_to_square and "square" or "shortest" -- what a number alone means
    end
    local s = settings.read(description.image, where, kinds, setmetatable({ rescale_factor = 1 / 255 },
        { __index = family.defaults }), overrides)
    s.resample = s.resample or "bilinear"
    settings.need(s, where, s.do_rescale and { "rescale_factor" })
    settings.need(s, where, s.do_resize and { "size" })
    settings.need(s, where, s.do_normalize and { "image_mean", "image_std" })
    settings.need(s, where, family.needs)
    if family.prepare then
        family.prepare(s, description.image, where, overrides)
    end
    if not family.own_sizes then
        check_standard(s, where, not family.picture)
    end
    return setmetatable({ class = class, family = family, settings = s, backend = backend, file = where,
                          join = family.join or "stack" }, ImageProcessor)
end

--- The plan of a picture of this size: { steps, n_floats, shape, fields of the family's }. `where` is what errors
--- call the picture.
function ImageProcessor:layout(height, width, where)
    local p = program(self.settings, self.backend, where, height, width)
    local plan = (self.family.picture or M.standard)(p, 0)
    plan.steps, plan.n_floats = p.steps, p.n_floats
    return plan
end

return M
