-- am.processors, what needs no processor: sizes of pictures, and markers of images in a text.

local helpers = require("tests.lua.datasets.helpers")
local sizes = require("am.processors.sizes")
local text = require("am.processors.text")

describe("sizes", function()
    it("round as Python does", function()
        assert.same({ 0, 2, 2, 4, 3, 1 }, { sizes.round(0.5), sizes.round(1.5), sizes.round(2.5), sizes.round(3.5),
                                            sizes.round(2.51), sizes.round(0.51) })
    end)

    it("of Qwen keep the aspect within their area", function()
        local function smart(...) return { sizes.smart(...) } end
        assert.same({ 364, 420 }, smart(364, 420, 28, 3136, 1e6))
        assert.same({ 56, 84 }, smart(30, 40, 28, 3136, 1e6))
        assert.same({}, smart(1, 201, 28, 3136, 1e6))
        local h, w = sizes.smart(3000, 4000, 28, 3136, 100000)
        assert.is_true(h * w <= 100000 and h % 28 == 0 and w % 28 == 0)
    end)

    it("of pan and scan cover the picture once", function()
        assert.same({}, sizes.pan_and_scan(100, 110, 10, 4, 1.2))
        local crops = sizes.pan_and_scan(100, 310, 10, 4, 1.2)
        assert.same({ { x = 0, y = 0, width = 104, height = 100 }, { x = 104, y = 0, width = 104, height = 100 },
                      { x = 208, y = 0, width = 102, height = 100 } }, crops)
    end)
end)

describe("texts", function()
    local plans = { { expansion = "[1234567]" }, { expansion = "" } }

    it("have their markers replaced in order, and spans follow", function()
        local whole, spans = text.expand("ab<i>cd<i>ef", "<i>", plans, { { 1, 2 }, { 6, 7 }, { 11, 12 }, { 3, 5 },
                                                                          { 7, 11 }, { 8, 7 }, { 1, 12 } })
        assert.equal("ab[1234567]cdef", whole)
        local got = {}
        for i, span in ipairs(spans) do got[i] = whole:sub(span[1], span[2]) end
        assert.same({ "ab", "cd", "ef", "[1234567]", "de", "", "ab[1234567]cdef" }, got)
    end)

    it("need as many markers as images", function()
        helpers.fails("data", '2 images are given, but the text has 1 "<i>"', text.expand, "a<i>", "<i>", plans)
        helpers.fails("data", '1 image is given, but the text has 2 "<i>"', text.expand, "a<i><i>", "<i>", { plans[1] })
        helpers.fails("data", 'has 0 "<i>"; say in the message where the image belongs', text.expand, "a", "<i>", plans)
        helpers.fails("data", '0 images are given, but the text has 1', text.expand, "a<i>", "<i>", {})
    end)

    it("tell which tokens a span touches", function()
        -- <s> without bytes, "ab", "c", a token of a space, "de"
        local ranges = { { 1, 0 }, { 1, 2 }, { 3, 3 }, { 4, 4 }, { 5, 6 }, { 1, 0 } }
        assert.same({ 0, 1, 1, 0, 0, 0 }, text.mask(ranges, { { 2, 3 } }))
        assert.same({ 0, 1, 0, 0, 1, 0 }, text.mask(ranges, { { 1, 1 }, { 6, 9 } }))
        assert.same({ 0, 0, 0, 0, 0, 0 }, text.mask(ranges, { { 3, 2 } }))
    end)
end)
