-- Which stage has which layers. That stages learn what a whole model learns is tests/dist/pp_spec.lua's.

local err = require("am.core.error")
local pipeline = require("am.distributed.pipeline")

local function refused(text, ...)
    local ok, e = pcall(pipeline.deal, ...)
    assert.is_false(ok)
    assert.is_true(err.is(e) and e.code == "usage", tostring(e))
    assert.matches(text, tostring(e))
end

describe("layers of stages", function()
    it("are dealt evenly, the first stages having one more", function()
        assert.same({ { 1, 3 }, { 4, 5 } }, pipeline.deal(5, 2))
        assert.same({ { 1, 2 }, { 3, 4 }, { 5, 5 }, { 6, 6 } }, pipeline.deal(6, 4))
        assert.same({ { 1, 1 }, { 2, 2 } }, pipeline.deal(2, 2))
    end)

    it("are as many as layers_per_stage says, the last stage having what is left", function()
        assert.same({ { 1, 4 }, { 5, 5 } }, pipeline.deal(5, 2, 4))
        assert.same({ { 1, 2 }, { 3, 4 }, { 5, 6 } }, pipeline.deal(6, 3, 2))
    end)

    it("can't be fewer than stages, nor more than these hold", function()
        refused("pp_size: 4 stages are more than the model's 3 layers", 3, 4)
        refused("layers_per_stage: 1 of 5 layers each make 5 stages, and pp_size is 2", 5, 2, 1)
        refused("layers_per_stage: 5 of 5 layers each make 1 stages", 5, 2, 5)
    end)
end)
