-- docs/tensors.md: its program is examples/tensors.lua and runs; every name in its tables exists.

local am = require("am")
local tensor = require("am.core.tensor")

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("*a")
    file:close()
    return text
end
local page = read("docs/tensors.md")

describe("docs/tensors.md", function()
    it("shows examples/tensors.lua", function()
        assert.equal(read("examples/tensors.lua"), page:match("```lua\n(.-)```"))
    end)

    it("names what exists", function()
        local tables, seen = page:match("\n## What there is\n(.-)\n## "), 0
        for row in tables:gmatch("\n(|[^\n]*)") do
            for name in row:gmatch("`([%l_%d]+)[`(]") do
                assert.is_truthy(am[name] or tensor.methods[name] or name == "keepdim" or name == "dim", name)
                seen = seen + 1
            end
        end
        assert.is_true(seen > 120, seen)
    end)

    -- What only models use is in docs/ops.md; the rest of these is told in the text.
    local elsewhere = { __tostring = true, activations = true, alive = true, attention = true, attention_add = true,
                        attention_add_grad = true, cross_entropy = true, fake_quantize = true, fp8_linear = true,
                        grouped_linear = true, layer_norm = true,
                        rms_norm = true, rope = true, rope_table = true, set_data = true, sort_by_expert = true }

    it("leaves no method out", function()
        for name in pairs(tensor.methods) do
            assert.is_truthy(elsewhere[name] or page:find("`[^`\n]*%f[%w_]" .. name .. "%f[^%w_][^`\n]*`"), name)
        end
    end)

    it("has a program that runs", function()
        local pipe = io.popen(os.getenv("AMLUA") .. " examples/tensors.lua 2>&1")
        local text = pipe:read("*a")
        pipe:close()
        assert.is_truthy(text:find("\n2\n2\n%-2\t2\n"), text)
        assert.is_truthy(text:find("\n4\t32\t15\ntrue\n$"), text)
    end)
end)
