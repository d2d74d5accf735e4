-- docs/config_reference.md is what docs/config_reference.lua makes of schemas and targets.

describe("docs/config_reference.md", function()
    it("is up to date; if not, run: amlua docs/config_reference.lua", function()
        local file = assert(io.open("docs/config_reference.md", "rb"))
        local text = file:read("*a")
        file:close()
        assert.equal(dofile("docs/config_reference.lua")(), text)
    end)

    it("has every section and target", function()
        local page = dofile("docs/config_reference.lua")()
        for name in pairs(require("recipes.llm_finetune").schema()) do
            assert.is_truthy(page:find("`" .. name .. "`", 1, true), name)
        end
        for _, entry in ipairs(require("am.recipes.targets").registry().entries) do
            assert.is_truthy(page:find("`" .. entry.name .. "`", 1, true), entry.name)
        end
    end)
end)
