-- How long one thread takes to make a CLIP input of a picture: decode, resize, crop, rescale and
-- normalise. Prints milliseconds of processor time, the median of `count`: of all of it, and of decoding alone.
-- usage: amlua tests/bench/images.lua FILE SIZE COUNT      (images.py calls it)

local ffi = require("ffi")
local image = require("am.core.image")

local path, size, count = arg[1], tonumber(arg[2]), tonumber(arg[3])
local file = assert(io.open(path, "rb"))
local source = { data = file:read("*a") }
file:close()

local header = image.header(source)
local shortest = math.min(header.width, header.height)
local width = math.floor(header.width * size / shortest)
local height = math.floor(header.height * size / shortest)
local out = ffi.new("float[?]", 3 * size * size)
local plans = {
    {
        { kind = "resize", width = width, height = height, filter = "bicubic" },
        { kind = "crop", x = math.floor((width - size) / 2), y = math.floor((height - size) / 2),
          width = size, height = size },
        { kind = "emit", rescale = 1 / 255, mean = { 0.48145466, 0.4578275, 0.40821073 },
          std = { 0.26862954, 0.26130258, 0.27577711 } },
    },
    {},
}

image.threads(0) -- on this thread
local medians = {}
for i, plan in ipairs(plans) do
    local times = {}
    for k = 1, count do
        local begin = os.clock()
        image.submit(source, plan, i == 1 and 3 * size * size or 0):wait(out)
        times[k] = os.clock() - begin
    end
    table.sort(times)
    medians[i] = times[math.ceil(count / 2)] * 1000
end
print(("%.3f %.3f"):format(medians[1], medians[2]))
