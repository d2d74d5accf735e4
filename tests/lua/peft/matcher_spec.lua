-- Which modules are adapted: NeMo Automodel's own answers (make_matcher_golden.py), what differs from them on
-- purpose, and patterns that are none.

local files = require("tests.support.files")
local matcher = require("am.peft.matcher")
local tiny = require("tests.support.tiny")

local golden = files.json("tests/lua/peft/matcher_golden.json")
local LINEAR, EMBEDDING, NORM = { class_name = "Linear" }, { class_name = "Embedding" }, { class_name = "RMSNorm" }

local function describe_config(config)
    local parts = {}
    for key, value in pairs(config) do
        parts[#parts + 1] = key .. " = " .. (type(value) == "table" and table.concat(value, " | ") or tostring(value))
    end
    return #parts > 0 and table.concat(parts, ", ") or "nothing"
end

local function list_of(value)
    return type(value) == "table" and value or { value }
end

-- Does a plain last name of a list (which means nothing to the original) name a module?
local function plain_name(list, path)
    for _, pattern in ipairs(list_of(list)) do
        if pattern:match("^[%w_]+$") and pattern == path:match("[^.]+$") then
            return true
        end
    end
    return false
end

-- The modules that are taken of a model, with what plain last names add to the original's answer.
local function expected_of(config, modules, places)
    local taken = {}
    for _, place in ipairs(places) do
        taken[modules[place + 1][1]] = true
    end
    for _, m in ipairs(modules) do
        if m[2] == 1 and plain_name(config.target_modules, m[1]) then
            taken[m[1]] = true
        elseif plain_name(config.exclude_modules, m[1]) then
            taken[m[1]] = nil
        end
    end
    return taken
end

describe("the modules to adapt", function()
    it("are those that NeMo Automodel's ModuleMatcher takes", function()
        local compared = 0
        for _, case in ipairs(golden.cases) do
            local what = describe_config(case.config)
            if case.taken.error then
                tiny.raised("usage", "peft", matcher.new, case.config)
            else
                local matches = matcher.new(case.config)
                for model, modules in pairs(golden.models) do
                    local expected = expected_of(case.config, modules, case.taken[model])
                    for _, m in ipairs(modules) do
                        local taken = m[2] == 1 and matches(m[1], LINEAR)
                        if taken ~= (expected[m[1]] or false) then
                            error(("%s: %s of %s is %staken"):format(what, m[1], model, taken and "" or "not "))
                        end
                        compared = compared + 1
                    end
                end
            end
        end
        assert.is_true(compared > 10000)
    end)

    it("are linear maps, and embeddings that a pattern ends with", function()
        for pattern, taken in pairs {
            ["*"] = false, [".*"] = false, ["*embed*"] = false, ["model.*"] = false, ["*embed_token."] = false,
            embed_tokens = true, ["*embed_tokens"] = true, ["*.embed_tokens"] = true, ["model.embed_tokens"] = true,
            ["tokens"] = false, ["other.embed_tokens"] = false,
        } do
            local matches = matcher.new { target_modules = { "*.q_proj", pattern } }
            assert.equal(taken, matches("model.embed_tokens", EMBEDDING), pattern)
            assert.is_false(matches("model.embed_tokens", NORM))
        end
        assert.is_false(matcher.new({ match_all_linear = true })("model.embed_tokens", EMBEDDING))
        assert.is_false(matcher.new({ exclude_modules = "*q_proj" })("model.embed_tokens", EMBEDDING))
        assert.is_false(matcher.new({})("model.embed_proj", EMBEDDING))
    end)

    it("are named by text that is a pattern", function()
        for _, key in ipairs { "target_modules", "exclude_modules" } do
            tiny.raised("usage", { "peft." .. key, '"*.layers.[0"' }, matcher.new, { [key] = { "a", "*.layers.[0" } })
            tiny.raised("usage", { "peft." .. key, "7 is a number" }, matcher.new, { [key] = { 7 } })
        end
        tiny.raised("usage", { "peft.target_modules", "4096" }, matcher.new, { target_modules = ("x"):rep(5000) })
    end)

    it("are found in few steps or not at all", function()
        local path = ("layers."):rep(300) .. "q_proj"
        assert.is_true(matcher.new({ target_modules = ("*"):rep(30) .. "q_proj" })(path, LINEAR))
        tiny.raised("format", "match limit", matcher.new { target_modules = "(.+)+(.+)+[xz]" }, path, LINEAR)
        tiny.raised("usage", "too deeply nested", matcher.new, { target_modules = ("("):rep(1000) .. (")"):rep(1000) })
    end)
end)

describe("patterns that match nothing", function()
    it("are told", function()
        local paths = { "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj" }
        assert.same({ "kproj", "*.layers.2.*" },
                    matcher.unused({ "q_proj", "kproj", "*.v_proj", "*.layers.2.*" }, paths))
        assert.same({}, matcher.unused("*_proj", paths))
        assert.same({}, matcher.unused(nil, paths))
    end)
end)
