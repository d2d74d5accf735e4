-- config.json of every model of images and text with each of its fields, and those of its parts, turned into something
-- hostile: a model's modules are made, or an error object names the file and the field; never a Lua error, never a
-- wait. (bad_config_spec.lua: of models of text.)

local am = require("am")
local config_fields = require("am.models.config_fields")
local json = require("am.utils.json")
local path = require("am.utils.path")
local tiny = require("tests.support.tiny")

local ROOTS = { "tests/parity/vlm/golden", "tests/parity/vlm/qwen", "tests/parity/vision/golden" }
local NULL = json.null

local function hostile()
    return { NULL, -1, 0, 1, 3, 1.5, 1e9, 1e300, 0 / 0, math.huge, -math.huge, "x", "12", true, false, {}, { 1, 2 },
             { a = 1 }, { full_attention = 1 }, { rope_type = "yarn" }, { { { {} } } }, { "a", "b" }, { -1, 1e300 } }
end

-- {folder -> fields of its config.json} of models of images and text.
local function cases()
    local out = {}
    for _, root in ipairs(ROOTS) do
        for _, name in ipairs(path.list_dir(root)) do
            local c = json.decode(path.read_file(path.join(root, name, "config.json"), 1e6) or "{}")
            if type(c.architectures) == "table" and c.architectures[1]:find("ForConditionalGeneration$") then
                out[name] = path.join(root, name, "config.json")
            end
        end
    end
    return out
end

local function read(file)
    return json.decode(assert(path.read_file(file, 1e6)))
end

local function shown(v)
    return type(v) == "table" and v ~= NULL and json.encode(v) or v == NULL and "null" or tostring(v)
end

-- nil when an outcome is as it should be, else what is wrong with it.
local function problem(ok, e)
    if ok or tiny.misbehaved(ok, e) then
        return tiny.misbehaved(ok, e)
    elseif not tostring(e):find("config.json", 1, true) then
        return "the error names no file: " .. tostring(e)
    elseif not tostring(e):find('"[%w_.]+"') and not tostring(e):find("architecture") then
        return "the error names no field: " .. tostring(e)
    end
    return nil
end

-- Names of fields that models read, of a part or the whole.
local function fields_of(part)
    local names = {}
    for name in pairs(part) do
        names[name] = true
    end
    for _, name in ipairs(config_fields.sizes) do
        names[name] = true
    end
    return names
end

local function try(file, part, field, value)
    local fields = read(file)
    fields._name_or_path = "config.json"
    if part then
        fields[part][field] = value
    else
        fields[field] = value
    end
    local ok, e = pcall(am.models.structure, fields, { kind = "image_text_to_text" })
    local what = problem(ok, e)
    return what and string.format("%s%s = %s: %s", part and part .. "." or "", field, shown(value), what)
end

for name, file in pairs(cases()) do
    describe("a hostile config.json of " .. name, function()
        for _, part in ipairs { false, "text_config", "vision_config" } do
            it("is an error object, or a model: " .. (part or "its own fields"), function()
                local found = {}
                for field in pairs(fields_of(part and read(file)[part] or read(file))) do
                    for _, value in ipairs(hostile()) do
                        found[#found + 1] = try(file, part, field, value)
                    end
                end
                assert.equal("", table.concat(found, "\n"))
            end)
        end
    end)
end
