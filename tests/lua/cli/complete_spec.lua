-- What Tab offers: names, what is inserted, and that looking for them runs no code.

local am = require("am")
local complete = require("am.cli.complete").complete

-- What is inserted, and the names shown as one line.
local function offers(text)
    local insert, shown = complete(text)
    return insert, shown and shown:gsub("%s+", " ")
end

describe("completion", function()
    setup(function() _G.am = am end)
    teardown(function() _G.am = nil end)
    after_each(function() _G.thing = nil end)

    it("inserts what all names have in common, and lists them when that is nothing", function()
        assert.same({ "ul" }, { offers("am.ops.matm") })
        assert.same({ "", "ones ones_like ops optim outer" }, { offers("am.o") })
        assert.same({ "ing" }, { offers("x = f(str") })
        assert.same({ "ing" }, { offers("x = y..str") })
        assert.same({ "tion" }, { offers("func") })
        assert.same({ "" }, { offers("am.no_such") })
        assert.same({ "\t" }, { offers("  ") }) -- indenting
    end)

    it("knows what am loads later, and loads it when it is looked into", function()
        assert.same({ "usalLM" }, { offers("am.AutoModelForCa") })
        assert.same({ "retrained" }, { offers("am.AutoModelForCausalLM.from_p") })
    end)

    it("offers a tensor's methods behind a colon, its fields too behind a dot", function()
        _G.thing = am.zeros { 2 }
        assert.same({ "uires_grad_" }, { offers("thing:req") })
        assert.same({ "uires_grad" }, { offers("thing.req") })
        assert.same({ "" }, { offers("thing.grad.nu") }) -- reading a field would be running it
    end)

    it("offers inherited methods, functions only behind a colon", function()
        _G.thing = am.nn.Linear.new(2, 2)
        assert.same({ "med_" }, { offers("thing:na") })
        assert.same({ "", "in_features init initialized" }, { offers("thing.in") })
        assert.same({ "it" }, { offers("thing:in") })
        _G.thing = "text"
        assert.same({ "", "gmatch gsub" }, { offers("thing:g") })
    end)

    it("runs no code of the user's", function()
        local function boom()
            error("code was run")
        end
        _G.thing = setmetatable({ inner = setmetatable({}, { __index = boom }) }, { __index = boom, __call = boom })
        assert.same({ "ner" }, { offers("thing.in") })
        for _, text in ipairs { "thing.x.y", "thing.inner.x", "thing().in", "thing[1].in", "thing:in(", "1.x",
                                ":x", ".x", "thing..in", "am.zeros{2}:ma", "a:b:c" } do
            assert.same({ "" }, { offers(text) }, text)
        end
    end)

    it("looks names up in the globals that it is given", function()
        local globals = setmetatable({ thing = { inner = 1 } }, { __index = _G })
        assert.equal("ner", (complete("thing.in", globals)))
        assert.equal("ing", (complete("str", globals)))
        assert.same({ "" }, { offers("thing.in") })
    end)

    it("offers names that begin with _ only when asked, and no names that are none", function()
        _G.thing = { ["a b"] = 1, _hidden = 2, [1] = 3, seen = 4, ["and"] = 5 }
        assert.same({ "seen" }, { offers("thing.") })
        assert.same({ "hidden" }, { offers("thing._") })
    end)
end)
