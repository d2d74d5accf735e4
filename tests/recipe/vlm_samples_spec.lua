-- The `samples` section of vlm_finetune: rows of the validation set and prompts of one's own with their pictures, in
-- samples.jsonl and in report.html.
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local vlm = require("tests.recipe.vlm_helper")

local model

local function run(samples, rows, changes)
    local dir = helper.folder()
    local cfg = vlm.config(dir, model, vlm.rows(4), helper.changes({
        samples = samples, step_scheduler = { max_steps = 2, val_every_steps = 1 },
        validation_dataset = rows and { _target_ = "am.datasets.vlm.ImageFolder", path_or_dataset = rows,
                                        prompt = "What <b>colour</b>?" },
    }, changes or {}))
    local status, out, errors = helper.run { vlm.recipe, helper.yaml(helper.folder(), cfg) }
    return dir, status, out, errors
end

local function count(text, pattern)
    local _, n = text:gsub(pattern, "")
    return n
end

setup(function() model = vlm.model("llava") end)
teardown(helper.cleanup)

describe("samples of vlm_finetune", function()
    it("are rows of the validation set and prompts with pictures, with the truth and the pictures in the report",
       function()
        local rows = vlm.rows(4, { text_rows = true })
        local dir, status, _, errors = run({ validation_rows = 4, max_new_tokens = 3, prompts = json.array {
            "Say it.", { text = "Which?", images = json.array { rows .. "/1.png", rows .. "/2.png" } } } }, rows)
        assert.equal(0, status, errors)
        local records = helper.jsonl(dir .. "/samples.jsonl")
        assert.equal(18, #records) -- before, and after each of two steps
        assert.same({ "Say it.", "Which?", "What <b>colour</b>?", "Say 4" },
                    { records[1].prompt, records[2].prompt, records[3].prompt, records[6].prompt })
        assert.same({ "It is red indeed.", "No picture 4" }, { records[3].truth, records[6].truth })
        assert.equal(rows .. "/captions.jsonl row 1", records[3].row)
        local page = helper.read(dir .. "/report.html")
        assert.equal(5, count(page, '<img src="data:image/jpeg;base64,'))
        assert.equal(4, count(page, "<h3>Truth</h3>"))
        assert.is_truthy(page:find("<pre>captions.jsonl row 1: What &lt;b&gt;colour&lt;/b&gt;?</pre>", 1, true))
        assert.is_true(#page < 100000, #page)
    end)

    it("leave a row out whose picture is broken", function()
        local rows = vlm.rows(3)
        helper.write(rows .. "/2.png", helper.read(rows .. "/2.png"):sub(1, 60))
        local dir, status, _, errors = run({ max_new_tokens = 2 }, rows, {
            validation_dataset = { on_bad_image = "skip" } })
        assert.equal(0, status, errors)
        assert.is_truthy(errors:find("samples: " .. rows .. "/captions.jsonl row 2 is left out", 1, true), errors)
        assert.equal(2 * 3, #helper.jsonl(dir .. "/samples.jsonl"))
    end)

    it("need a validation set or prompts", function()
        local _, status, out, errors = run({ max_new_tokens = 2 }, nil)
        assert.is_nil(helper.refusal_problem(2, { "samples.validation_rows" }, status, out, errors))
    end)

    it("name a picture of a prompt that is not there", function()
        local _, status, out, errors = run({ prompts = json.array { { text = "x", images = "none.png" } } }, nil)
        assert.is_nil(helper.refusal_problem(1, { "none.png" }, status, out, errors))
    end)
end)
