-- docs/models.md is what docs/models.lua makes of the architectures; its errors are bounds, which hold here, too.

local helper = require("tests.recipe.helper")
local registry = require("am.models.architectures")
local strings = require("am.utils.strings")

local models = dofile("docs/models.lua")

-- Rows of a page: {architecture, …cells}.
local function rows(page)
    local list = {}
    for line in page:gmatch("\n| (`[^\n]*) |") do
        list[#list + 1] = strings.split(line, " | ")
    end
    return list
end

local LOGITS, GRADIENTS = 3, 4

describe("docs/models.md", function()
    local text, made = helper.read("docs/models.md"), nil
    setup(function() made = models.page() end)

    it("is up to date; if not, run: amlua docs/models.lua", function()
        local function without_errors(page)
            return (page:gsub("| < %de%-0%d | < %de%-0%d |", "| | |"))
        end
        assert.equal(without_errors(made), without_errors(text))
    end)

    it("states errors that this machine stays below", function()
        local here = rows(made)
        for i, row in ipairs(rows(text)) do
            for column, most in pairs { [LOGITS] = 1e-5, [GRADIENTS] = 2e-4 } do
                local stated = tonumber(row[column]:match("^< (.*)$"))
                local measured = tonumber(here[i][column]:match("%S+$"))
                assert.is_true(stated <= most, row[1])
                -- what is measured is below half of what is printed of it
                assert.is_true(measured / 2 <= stated, row[1])
            end
        end
    end)

    it("has every architecture, each with a golden", function()
        local names, seeing = {}, {}
        for _, row in ipairs(rows(text)) do
            local name = row[1]:match("`(.-)`")
            table.insert(registry.modules[name] and names or seeing, name)
        end
        assert.same(strings.sorted_keys(registry.modules), names)
        assert.same(names, strings.sorted_keys(models.cases()))
        assert.same(names, strings.sorted_keys(models.known))
        assert.same(strings.sorted_keys(registry.image_text_to_text.modules), seeing)
        assert.same(seeing, strings.sorted_keys(models.seeing_cases()))
        assert.same(seeing, strings.sorted_keys(models.known_seeing))
    end)
end)
