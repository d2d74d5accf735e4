-- docs/api_lua.md, docs/api_c.md and docs/luals/ are what docs/api.lua makes of doc comments.

local am = require("am")
local tensor = require("am.core.tensor")

local api = dofile("docs/api.lua")

local function read(name)
    local file = assert(io.open(name, "rb"))
    local text = file:read("*a")
    file:close()
    return text
end

describe("the API reference", function()
    for name, text in pairs(api.files) do
        it(name .. " is up to date; if not, run: amlua docs/api.lua", function()
            assert.equal(text, read(name))
        end)
    end

    it("has a comment on everything public", function()
        assert.same({}, api.undocumented)
    end)

    it("has every function of am and every method of tensors", function()
        local page = read("docs/api_lua.md")
        for name in pairs(debug.getmetatable(am).lazy) do
            assert.is_truthy(am[name], name)
        end
        for name, value in pairs(am) do
            if type(value) == "function" then
                assert.is_truthy(page:find("\n### `am." .. name .. "(", 1, true), name)
            end
        end
        for name, value in pairs(tensor.methods) do
            if type(value) == "function" and not name:find("^__") then
                local own = page:find("\n### `t:" .. name .. "(", 1, true)
                local op = page:match("\n### `am%." .. name .. "%([^\n]*%)` %*method%*\n")
                assert.is_truthy(own or op, name)
            end
        end
    end)

    it("has every function that the engine offers", function()
        local page, count = read("docs/api_c.md"), 0
        for name in require("am.core.cdef"):gmatch("[%s%*](am_[%w_]+)%([^%)]") do
            assert.is_truthy(page:find("`" .. name .. "`", 1, true), name)
            count = count + 1
        end
        assert.is_true(count > 150)
    end)

    -- What a file of docs/luals gives, which is called after the table it stands for.
    local function meta_of(name)
        return assert(loadfile("docs/luals/" .. name .. ".lua"))()
    end

    it("gives editors files that are Lua, with the tables of am", function()
        local of_am = read("docs/luals/am.lua")
        for _, name in ipairs { "nn", "peft", "optim", "loss", "models", "autograd", "AutoTokenizer", "recipe" } do
            local meta = meta_of(name)
            assert.is_table(meta, name)
            for key, value in pairs(am[name]) do
                if type(value) == "function" and rawget(meta, key) == nil then
                    error(("am.%s.%s is missing in docs/luals/%s.lua"):format(name, key, name))
                end
            end
            assert.is_truthy(of_am:find(("\n---@field %s am.%s\n"):format(name, name), 1, true), name)
        end
        assert.is_function(meta_of("nn").Linear.forward)
        assert.is_function(meta_of("am").zeros)
    end)

    it("gives editors every op in one file, that of its family", function()
        local found = {}
        for _, family in ipairs { "Ops", "Ops_compose", "Ops_einsum", "Ops_model" } do
            for name in pairs(meta_of(family)) do
                assert.is_nil(found[name], name)
                found[name] = family
            end
        end
        assert.same({ "Ops", "Ops_compose", "Ops_einsum" }, { found.matmul, found.bfloat16, found.einsum })
        for _, section in ipairs(api.sections) do
            for _, entry in ipairs(section.name == "am.Ops" and section.groups[1].entries or {}) do
                local is_word = not loadstring("local " .. entry.name) -- of Lua's: repeat
                assert.equal(not is_word, found[entry.name] ~= nil, entry.name)
            end
        end
    end)

    it("gives editors no file that nothing writes any more", function()
        for name in io.popen("ls docs/luals"):lines() do
            assert.is_string(api.files["docs/luals/" .. name], name)
        end
    end)

    it("reads types with spaces, and annotations that go on", function()
        local comments = dofile("docs/api/comments.lua")
        local name = os.tmpname()
        local file = assert(io.open(name, "wb"))
        file:write("--- Text.\n---@param opts {a: string?,\n---  b: integer} what\n"
                   .. "---@return fun(x): number f it\nfunction F()")
        file:close()
        local doc = comments.above(name, 5)
        os.remove(name)
        assert.same({ "Text." }, doc.text)
        assert.same({ { name = "opts", type = "{a: string?, b: integer}", about = "what" } }, doc.params)
        assert.same({ { type = "fun(x): number", about = "f it" } }, doc.returns)
    end)
end)
