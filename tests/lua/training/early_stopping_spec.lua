-- am.training.early_stopping with a recipe that only remembers why it was stopped.
local early_stopping = require("am.training.early_stopping")
local json = require("am.utils.json")

local function fake_recipe()
    local recipe = {}
    function recipe.validation_names()
        return { "dev", "test" }
    end
    function recipe.validation_keys()
        return { val_loss = true, val_accuracy = true }
    end
    function recipe:stop(reason)
        self.reason = reason
    end
    return recipe
end

-- A hook that has seen these values.
local function after(opts, values)
    local hook, recipe = early_stopping.new(opts), fake_recipe()
    hook:setup(recipe)
    for _, value in ipairs(values) do
        hook:validation(recipe, "dev", { val_loss = value })
    end
    return hook, recipe
end

local NAN, INF = 0 / 0, math.huge

describe("am.training.early_stopping", function()
    it("stops when patience is spent, and a better value begins anew", function()
        local hook, recipe = after({ patience = 2 }, { 3, 4, 2, 2 })
        assert.is_nil(recipe.reason)
        assert.same({ best = 2, waited = 1 }, hook:state_dict())
        hook:validation(recipe, "test", { val_loss = 9 })
        assert.is_nil(recipe.reason)
        hook:validation(recipe, "dev", { val_loss = 5 })
        assert.truthy(recipe.reason:find("2 validations without a better val_loss than 2;", 1, true))
    end)

    it("takes no value that is not finite as the best", function()
        for _, mode in ipairs { "min", "max" } do
            for _, odd in ipairs { NAN, INF, -INF } do
                local hook, recipe = after({ patience = 3, mode = mode }, { odd, 2, odd })
                assert.same({ best = 2, waited = 1 }, hook:state_dict())
                assert.is_nil(recipe.reason)
            end
        end
    end)

    it("stops a run that never had a finite value, and is saved and resumed within it", function()
        local hook, recipe = after({ patience = 2 }, { NAN })
        local state = json.decode(json.encode(hook:state_dict()))
        assert.same({ waited = 1 }, state)
        hook:validation(recipe, "dev", { val_loss = NAN })
        assert.truthy(recipe.reason:find("2 validations without a finite val_loss;", 1, true))
        hook, recipe = early_stopping.new { patience = 1 }, fake_recipe()
        hook:load_state_dict(state)
        hook:setup(recipe)
        assert.truthy(recipe.reason:find("1 validations without a finite val_loss;", 1, true))
    end)

    it("goes by the first set where none is named, and refuses a metric that validation does not have", function()
        local hook, recipe = after({ validation = "default", patience = 1 }, { 2, 3 })
        assert.same({ best = 2, waited = 1 }, hook:state_dict())
        assert.truthy(recipe.reason)
        local ok, e = pcall(function() early_stopping.new({ metric = "val_los" }):setup(fake_recipe()) end)
        assert.is_false(ok)
        assert.equal("usage", e.code)
        assert.matches('validation has no "val_los"; it has val_accuracy, val_loss', e.msg)
    end)

    it("refuses states that it never gave", function()
        for _, state in ipairs { {}, { best = 1 }, { best = "1", waited = 0 }, { best = INF, waited = 0 },
                                 { waited = NAN }, { best = NAN, waited = 1 } } do
            local ok, e = pcall(function() early_stopping.new({}):load_state_dict(state) end)
            assert.is_false(ok)
            assert.equal("format", e.code)
        end
    end)
end)
