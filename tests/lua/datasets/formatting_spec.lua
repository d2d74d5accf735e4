-- am.datasets.conversation with the tokens of a real template: learnt is what NeMo Automodel learns when it
-- masks the generation prompt.
local conversation = require("am.datasets.conversation")
local json = require("am.utils.json")
local path = require("am.utils.path")

describe("am.datasets.conversation", function()
    it("learns what NeMo Automodel does behind the generation prompt", function()
        local goldens = json.decode(assert(path.read_file("tests/lua/datasets/formatting_goldens.json")))
        assert.equal(5, #goldens)
        for i, golden in ipairs(goldens) do
            local tokenizer = { chat_template = "SmolLM2's" }
            function tokenizer.apply_chat_template(_, messages, opts)
                assert.is_true(opts.tokenize)
                local ids = #messages == #golden.messages and golden.full
                    or opts.add_generation_prompt and golden.prompt or golden.bare
                return { unpack(ids) }
            end
            local row = conversation.row(tokenizer, golden.messages, { mask_generation_prompt = true }, "row " .. i)
            assert.same({ unpack(golden.input_ids) }, row.input_ids, "row " .. i)
            assert.same({ unpack(golden.labels) }, row.labels, "row " .. i)
        end
    end)
end)
