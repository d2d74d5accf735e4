-- lua/am/core/image.lua: sources, headers, steps by name, jobs. The pixels themselves are compared in
-- tests/c/test_image.c, with whose pictures this works.

local image = require("am.core.image")

local folder = "tests/c/data/image/"

local function failure(fn, ...)
    local ok, e = pcall(fn, ...)
    assert.is_false(ok)
    return e
end

local function bytes_of(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("*a")
    file:close()
    return text
end

describe("an image's header", function()
    it("tells format, size and orientation", function()
        local header = image.header { path = folder .. "exif_6.jpg" }
        assert.same({ format = "jpeg", width = 29, height = 75, channels = 3, has_alpha = false,
                      orientation = 6 }, header)
    end)

    it("is read from bytes too", function()
        local header = image.header { data = bytes_of(folder .. "alpha.png") }
        assert.equal("png", header.format)
        assert.is_true(header.has_alpha)
    end)

    it("is an error that names the source", function()
        local e = failure(image.header, { path = folder .. "none.png" })
        assert.equal("io", e.code)
        local _, times = e.msg:gsub("none%.png", "")
        assert.equal(1, times, e.msg)
        e = failure(image.header, { data = "GIF89a", name = "row 7" })
        assert.equal("format", e.code)
        assert.matches("^row 7: ", e.msg)
        assert.equal("unsupported", failure(image.header, { data = "BM, a bitmap" }).code)
        assert.equal("argument", failure(image.header, {}).code)
        e = failure(image.header, { path = folder .. "rgb.png", max_pixels = 100 })
        assert.equal("format", e.code)
        assert.matches("limit of 100", e.msg, 1, true)
    end)
end)

describe("a plan", function()
    it("runs its steps over slots", function()
        local job = image.submit({ path = folder .. "alpha.png", background = 0xffffff }, {
            { kind = "resize", dst = 1, width = 8, height = 6, filter = "bicubic", backend = "pil" },
            { kind = "crop", src = 1, dst = 1, x = -1, width = 10, height = 6, fill = 0xff0000 },
            { kind = "emit", src = 1, rescale = 1 / 255, mean = { 0.5, 0.5, 0.5 }, std = { 0.5, 0.5, 0.5 },
              backend = "pil", offset = 2 },
        }, 2 + 180)
        local out = job:wait()
        assert.same({ 0, 0 }, { out[0], out[1] })
        assert.same({ 1, -1, -1 }, { out[2], out[2 + 60], out[2 + 120] }) -- red fill
        assert.same({ 1, 1, 1 }, { out[3], out[3 + 60], out[3 + 120] }) -- the white corner
        assert.equal("state", failure(job.wait, job).code)
    end)

    it("names what does not exist", function()
        local source = { path = folder .. "rgb.png" }
        assert.matches("filter sharp", failure(image.submit, source, { { kind = "resize", filter = "sharp" } }, 1).msg)
        assert.matches("kind turn", failure(image.submit, source, { { kind = "turn" } }, 1).msg)
        assert.matches("backend gpu", failure(image.submit, source, { { kind = "emit", backend = "gpu" } }, 1).msg)
        local e = failure(image.submit, source, { { kind = "resize", filter = "box", width = 0, height = 1 } }, 1)
        assert.equal("argument", e.code)
        assert.matches("step 1", e.msg)
    end)

    it("that does not fit its picture is an error of wait", function()
        local job = image.submit({ path = folder .. "rgb.png" }, { { kind = "emit" } }, 90 * 90 * 3 - 1)
        local e = failure(job.wait, job)
        assert.matches("rgb.png: step 1: ", e.msg, 1, true)
        job = image.submit({ path = folder .. "rgb.png" }, { { kind = "emit", src = 3 } }, 1)
        assert.matches("slot 3 is empty", failure(job.wait, job).msg)
    end)
end)

describe("jobs", function()
    local before = image.threads()
    after_each(function() image.threads(before) end)

    it("give the same numbers on any number of threads, in any order", function()
        local function numbers(threads)
            image.threads(threads)
            local jobs, sums = {}, {}
            for i, name in ipairs { "rgb.png", "lossless.webp", "palette.gif", "grey_16.png", "alpha.png" } do
                jobs[i] = image.submit({ path = folder .. name }, {
                    { kind = "resize", width = 20, height = 20, filter = "lanczos" },
                    { kind = "emit" } }, 1200)
            end
            for _, i in ipairs { 5, 2, 1, 4, 3 } do
                local out, sum = jobs[i]:wait(), 0
                for k = 0, 1199 do sum = sum + out[k] * (k % 97) end
                sums[i] = sum
            end
            return sums
        end
        local alone = numbers(0)
        assert.same(alone, numbers(1))
        assert.same(alone, numbers(3))
    end)

    it("can be cancelled", function()
        local job = image.submit({ path = folder .. "rgb.png" }, {}, 0)
        job:cancel()
        job:cancel()
        assert.equal("state", failure(job.wait, job).code)
    end)

    it("have a number of threads in range", function()
        assert.equal("argument", failure(image.threads, 1000).code)
        assert.equal(2, image.threads(2))
    end)
end)

describe("a thumbnail", function()
    it("is a JPEG within the side", function()
        local small = image.thumbnail({ path = folder .. "ycbcr_420.jpg" }, 32)
        local header = image.header { data = small }
        assert.same({ "jpeg", 32, 21 }, { header.format, header.width, header.height })
    end)
end)
