-- What scalars and documents mean, against PyYAML and Python's literal_eval (golden.json, made by
-- make_golden.py).
local config = require("am.config")
local json = require("am.utils.json")
local number = require("am.utils.number")
local path = require("am.utils.path")

local golden = assert(json.decode(assert(path.read_file("tests/lua/config/golden.json"))))

-- The node in the golden file's notation: type and value.
local function typed(node)
    if node.kind == "map" then
        local out = json.array()
        for i, key in ipairs(node.order) do
            out[i] = { key, typed(node.children[key]) }
        end
        return { "map", out }
    elseif node.kind == "list" then
        local out = json.array()
        for i, child in ipairs(node.children) do
            out[i] = typed(child)
        end
        return { "list", out }
    end
    local value = node.value
    if value == nil then
        return { "null" }
    elseif type(value) == "boolean" then
        return { "bool", value }
    elseif type(value) == "string" then
        return { "str", value }
    elseif node.float then
        local finite = value - value == 0
        return { "float", finite and number.float_text(value) or number.text(value) }
    end
    return { "int", value }
end

describe("am.config typing", function()
    for _, case in ipairs(golden.scalars) do
        local shown = #case.yaml > 60 and case.yaml:sub(1, 60) .. "…" or case.yaml
        it(string.format("reads %q", shown), function()
            assert.equal(json.encode(case.want), json.encode(typed(config.parse(case.yaml):child("k"))))
        end)
    end

    for _, case in ipairs(golden.documents) do
        it(string.format("reads %q", case.yaml), function()
            assert.equal(json.encode(case.want), json.encode(typed(config.parse(case.yaml))))
        end)
    end

    it("prints every golden case so that it loads to the same", function()
        for _, list in ipairs { golden.scalars, golden.documents } do
            for _, case in ipairs(list) do
                local text = config.print(config.parse(case.yaml))
                assert.equal(json.encode(typed(config.parse(case.yaml))), json.encode(typed(config.parse(text))), text)
            end
        end
    end)

    it("keeps as text the integers that a Lua number cannot hold", function()
        for _, text in ipairs { "9007199254740993", "123456789012345678901234567890", "0xffffffffffffffff" } do
            assert.equal(text, config.parse("k: " .. text):get("k"))
            assert.equal(text, config.parse("k: '" .. text .. "'"):get("k"))
        end
    end)
end)
