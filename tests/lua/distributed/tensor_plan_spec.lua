-- What distributed.tp_plan says of a module's name, and what it may not say.
local plan = require("am.distributed.tensor_plan")

local layer = "model.layers.0."
local columns = { layer .. "mlp.gate_proj", layer .. "mlp.up_proj" }
local rows = { layer .. "mlp.down_proj" }

describe("a plan of tensor parallel", function()
    it("is read by the longest pattern, with or without the body's name", function()
        local p = plan.new({ ["layers.*.mlp.*"] = "colwise", ["model.layers.*.mlp.down_proj"] = "rowwise",
                             lm_head = "colwise_rep" }, "model")
        assert.equal("column", (p:meaning(columns[1])))
        assert.equal("row", (p:meaning(rows[1])))
        assert.equal("column_gathered", (p:meaning("lm_head")))
        assert.is_nil((p:meaning("model.layers.0.self_attn.o_proj")))
        assert.is_true(p:shares(columns, rows))
        assert.is_false(p:shares({ layer .. "self_attn.q_proj" }, { layer .. "self_attn.o_proj" }))
        p:check_used()
    end)

    it("shares every block where there is none", function()
        local p = plan.new(nil, "model")
        assert.is_true(p:shares(columns, rows))
        assert.is_nil((p:meaning(columns[1])))
        p:check_used()
    end)

    local function refuses(words, fn)
        local ok, e = pcall(fn)
        assert.is_false(ok)
        assert.equal("usage", e.code)
        assert.matches("distributed.tp_plan: " .. words, tostring(e), 1, true)
    end

    it("refuses what is no style, no name and no whole block", function()
        refuses('lm_head: the style "colwize" is not known (did you mean "colwise"?)', function()
            plan.new({ lm_head = "colwize" }, "model")
        end)
        refuses("no module is called model.layers.*.q_prod", function()
            local p = plan.new({ ["model.layers.*.q_prod"] = "colwise" }, "model")
            p:meaning(columns[1])
            p:check_used()
        end)
        refuses("model.layers.0.mlp.gate_proj is cut and model.layers.0.mlp.up_proj is not: of one block", function()
            plan.new({ ["*.gate_proj"] = "colwise", ["*.down_proj"] = "rowwise" }, "model"):shares(columns, rows)
        end)
    end)
end)
