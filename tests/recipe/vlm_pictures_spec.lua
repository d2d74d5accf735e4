-- Pictures of a run of vlm_finetune: prepared ahead or when they are needed, and broken ones left out, with the same
-- bits each time.
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")
local vlm = require("tests.recipe.vlm_helper")

local model

local function config(rows, changes)
    local dir = helper.folder()
    return vlm.config(dir, model, rows, changes), dir
end

local function curve_of(rows, changes)
    local cfg, dir = config(rows, changes)
    local recipe = helper.recipe(cfg, vlm.recipe)
    recipe:train()
    local left_out = recipe.training_rows.dataset.broken
    helper.close(recipe)
    return helper.curve(dir), dir, left_out
end

-- What a run says on its way: its messages.
local function said(rows, changes)
    local cfg = config(rows, changes)
    local _, out, errors = helper.run { vlm.recipe, helper.yaml(helper.folder(), cfg), "--dry-run" }
    return out .. errors
end

setup(function() model = vlm.model("llava") end)
teardown(helper.cleanup)

describe("vlm_finetune, pictures", function()
    it("are prepared ahead or when they are needed, with the same losses", function()
        local rows = vlm.rows(12, { text_rows = true })
        local now = curve_of(rows, { dataloader = { num_workers = 0 } })
        assert.same(now, (curve_of(rows, { dataloader = { num_workers = 2, prefetch_factor = 3 } })))
        assert.same(now, (curve_of(rows)))
        assert.is_nil(said(rows, { dataloader = { num_workers = 2 } }):find("num_workers (", 1, true))
        assert.is_truthy(said(rows, { dataloader = { pin_memory = true } }):find("pin_memory (", 1, true))
    end)

    it("that are broken are left out, counted and named, in a resumed run as in an unbroken one", function()
        local rows = vlm.rows(12)
        helper.write(rows .. "/3.png", "no picture")
        helper.write(rows .. "/7.png", helper.read(rows .. "/7.png"):sub(1, 60)) -- its header is whole
        path.remove_tree(rows .. "/11.png")
        local changes = { dataset = { on_bad_image = "skip", max_bad_images = 3 },
                          step_scheduler = { max_steps = 6, ckpt_every_steps = 2 } }
        local curve, whole, left_out = curve_of(rows, changes)
        assert.equal(3, left_out.count)
        for _, i in ipairs { 3, 7, 11 } do
            assert.is_true(left_out.names[rows .. "/captions.jsonl row " .. i])
        end
        changes.checkpoint = { restore_from = path.join(whole, "epoch_0_step_1") }
        assert.same({ unpack(curve, 3) }, (curve_of(rows, changes)))
        changes.dataset.max_bad_images = 2
        local ok, e = pcall(curve_of, rows, changes)
        assert.is_true(not ok and tostring(e):find("3 rows have broken pictures, more than dataset.max_bad_images", 1,
            true) ~= nil, tostring(e))
    end)
end)
