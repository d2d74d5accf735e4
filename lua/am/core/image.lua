-- Images from files or bytes as a model's input: headers, plans as lists of steps, jobs on background
-- threads. It knows no processor; which steps a model needs is am.processors' to say.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")

local C, check = edge.C, edge.check
local M = {}

local formats = { [C.AM_IMAGE_JPEG] = "jpeg", [C.AM_IMAGE_PNG] = "png", [C.AM_IMAGE_WEBP] = "webp",
                  [C.AM_IMAGE_GIF] = "gif" }
local kinds = { resize = C.AM_IMAGE_RESIZE, crop = C.AM_IMAGE_CROP, emit = C.AM_IMAGE_EMIT }
local filters = { nearest = C.AM_IMAGE_NEAREST, lanczos = C.AM_IMAGE_LANCZOS,
                  bilinear = C.AM_IMAGE_BILINEAR, bicubic = C.AM_IMAGE_BICUBIC, box = C.AM_IMAGE_BOX }
local backends = { pil = C.AM_IMAGE_PIL, torchvision = C.AM_IMAGE_TORCHVISION }
local layouts = { chw = C.AM_IMAGE_CHW, patches = C.AM_IMAGE_PATCHES }

--- Where an image comes from.
---@class am.ImageSource
---@field path string? a file's path
---@field data string? or a file's bytes
---@field name string? what messages call it; the path by default
---@field max_pixels integer? larger pictures are an error; 178956970 by default, as Pillow's limit
---@field background integer? 0xRRGGBB under transparent pixels; without it alpha is left off

-- The FFI struct of a source; its strings are anchored by `source` itself.
local function to_source(source)
    if not (type(source) == "table" and (type(source.path) == "string" or type(source.data) == "string")) then
        err.raise("argument", "an image is { path = … } or { data = … }")
    end
    local s = ffi.new("am_image_source")
    s.path, s.name = source.path, source.name
    if not source.path then
        s.data, s.bytes = source.data, #source.data
    end
    s.max_pixels = source.max_pixels or 0
    s.background = source.background or -1
    return s
end

---@class am.ImageHeader
---@field format string jpeg, png, webp or gif
---@field width integer upright, as decoded
---@field height integer
---@field channels integer in the file
---@field has_alpha boolean
---@field orientation integer EXIF's, 1 to 8

--- What an image's header says, without decoding it.
---@param source am.ImageSource
---@return am.ImageHeader
function M.header(source)
    local info = ffi.new("am_image_info")
    check(C.am_image_header(info, to_source(source)))
    return { format = formats[info.format], width = info.width, height = info.height,
             channels = info.channels, has_alpha = info.has_alpha ~= 0, orientation = info.orientation }
end

local function one_of(names, value, what)
    local found = names[value]
    if not found then
        err.raise("argument", "%s %s of an image's step does not exist", what, tostring(value))
    end
    return found
end

--- A step of a plan: what am.h says of am_image_step, with names instead of numbers. Slot 0 is the
--- decoded picture.
---@class am.ImageStep
---@field kind string resize, crop or emit
---@field src integer? slot, 0 by default
---@field dst integer? slot of resize and crop, 0 by default
---@field width integer? resize, crop
---@field height integer?
---@field filter string? resize: nearest, box, bilinear, bicubic or lanczos
---@field backend string? resize, emit: torchvision (by default) or pil
---@field x integer? crop: may lie outside the picture
---@field y integer?
---@field fill integer? crop: 0xRRGGBB of what is outside, black by default
---@field layout string? emit: chw (by default) or patches
---@field offset integer? emit: the first float that is written, 0 by default
---@field frame_width integer? emit as chw: the picture lies in the upper left of a larger one of zeros
---@field frame_height integer?
---@field patch integer? emit as patches
---@field temporal_patch integer? 1 by default
---@field merge integer? 1 by default
---@field rescale number? emit: values times this
---@field mean number[]? emit: then less mean, over std
---@field std number[]?

local function fill_step(to, step)
    to.kind = one_of(kinds, step.kind, "kind")
    to.dst, to.src = step.dst or 0, step.src or 0
    to.width, to.height = step.width or 0, step.height or 0
    to.x, to.y, to.fill = step.x or 0, step.y or 0, step.fill or 0
    to.filter = step.kind == "resize" and one_of(filters, step.filter, "filter") or 0
    to.backend = one_of(backends, step.backend or "torchvision", "backend")
    to.layout = one_of(layouts, step.layout or "chw", "layout")
    to.frame_width, to.frame_height = step.frame_width or 0, step.frame_height or 0
    to.patch, to.temporal_patch, to.merge = step.patch or 1, step.temporal_patch or 1, step.merge or 1
    to.offset = step.offset or 0
    to.do_rescale, to.rescale = step.rescale and 1 or 0, step.rescale or 1
    to.do_normalize = step.mean and 1 or 0
    for c = 1, step.mean and 3 or 0 do
        to.mean[c - 1], to.std[c - 1] = step.mean[c], step.std[c]
    end
end

---@class am.ImageJob
local Job = {}
Job.__index = Job

--- Queue a plan; a background thread runs it.
---@param source am.ImageSource
---@param steps am.ImageStep[]
---@param n_floats integer size of the output
---@return am.ImageJob
function M.submit(source, steps, n_floats)
    local list = ffi.new("am_image_step[?]", math.max(#steps, 1))
    for i, step in ipairs(steps) do fill_step(list[i - 1], step) end
    local box = edge.box("am_image_job")
    edge.check_retry(C.am_image_submit, box, to_source(source), list, #steps, n_floats)
    return setmetatable({ handle = ffi.gc(box[0], C.am_image_release), n_floats = n_floats }, Job)
end

--- Wait for a job and write its output: into `out` (float *, n_floats of them), or into a new buffer.
--- The job is over then, also when it raises.
---@return ffi.cdata*
function Job:wait(out)
    if not self.handle then
        err.raise("state", "an image's job was waited for or cancelled before")
    end
    out = out or ffi.new("float[?]", self.n_floats)
    local rc = C.am_image_wait(self.handle, out)
    local failure = rc ~= 0 and edge.error(rc)
    self:cancel()
    if failure then
        error(failure, 0)
    end
    return out
end

--- Let go of a job: if it has not begun, it never runs.
function Job:cancel()
    if self.handle then
        C.am_image_release(ffi.gc(self.handle, nil))
        self.handle = nil
    end
end

--- Background threads that run jobs (1 by default; with 0 jobs run where they are waited for); sets
--- their number where one is given.
function M.threads(n)
    if n then
        check(C.am_image_threads_set(n))
    end
    return C.am_image_threads()
end

--- The picture as a JPEG file of at most side x side pixels, as a string.
---@param source am.ImageSource
---@param side integer
function M.thumbnail(source, side)
    local data, bytes = ffi.new("uint8_t *[1]"), ffi.new("size_t[1]")
    check(C.am_image_thumbnail(data, bytes, to_source(source), side))
    local text = ffi.string(data[0], bytes[0])
    C.am_image_bytes_release(data[0])
    return text
end

return M
