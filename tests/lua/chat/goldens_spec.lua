-- Every golden case rendered here must give transformers' text and generation spans, or fail where it
-- fails (with "data" for raise_exception, "format" or "unsupported" otherwise). See make_goldens.py.

local chat = require "am.chat"
local err = require "am.core.error"

local HERE = "tests/lua/chat/"
local NOON = 1721995200

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read "*a"
    file:close()
    return text
end

-- am.chat's own spans as a printable string.
local function printed(spans)
    local parts = {}
    for i, span in ipairs(spans) do parts[i] = span[1] .. "-" .. span[2] end
    return table.concat(parts, " ")
end

local function prepare(case, defaults)
    local vars = {}
    if case.template then
        for name, v in pairs(defaults.map) do vars[name] = v end
    end
    for name, v in pairs(case.vars.map) do vars[name] = v end
    local source = case.template or read(HERE .. "templates/" .. case.file)
    return chat.compile(source, { now = NOON }), vars
end

-- The answers of the assistant's turns, those that touch as one.
local function answers(turns)
    local out = {}
    for _, turn in ipairs(turns) do
        local before = out[#out]
        if before and before[2] + 1 == turn.answer then
            before[2] = turn[2]
        else
            out[#out + 1] = { turn.answer, turn[2] }
        end
    end
    return out
end

-- Spans of a golden, those that touch as one.
local function joined(spans)
    local out = {}
    for i, span in ipairs(spans) do out[i] = { span[1], span[2], answer = span[1] } end
    return answers(out)
end

describe("chat goldens", function()
    local goldens = chat.from_json(read(HERE .. "goldens.json")).map
    local count, turned = 0, 0
    for _, entry in ipairs(goldens.cases) do
        local case = entry.map
        count = count + 1
        it((case.name:gsub("\n", "\\n"):gsub("\r", "\\r")), function()
            local ok, text, spans = pcall(function()
                local template, vars = prepare(case, goldens.defaults)
                return template:render(vars)
            end)
            if case.error then
                assert.is_false(ok, "transformers fails: " .. case.error)
                assert.is_true(err.is(text), "not an error object: " .. tostring(text))
                local raised = case.error:find("^TemplateError:") or case.error:find("^ValueError: continue")
                assert.equal(raised and "data" or "no data", text.code == "data" and "data" or "no data")
                return
            end
            if not ok then error(text, 0) end
            assert.equal(case.text, text)
            if case.spans then assert.equal(printed(case.spans), printed(spans)) end
            if case.turns then
                local template, vars = prepare(case, goldens.defaults)
                local _, turns = template:turns(vars)
                assert.equal(printed(joined(case.turns)), printed(answers(turns)))
                turned = turned + 1
            end
        end)
    end

    it("are all there", function()
        assert.is_true(count > 950)
        assert.is_true(turned >= 10)
    end)
end)
