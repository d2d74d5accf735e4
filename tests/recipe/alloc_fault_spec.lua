-- Memory runs out at each allocation of a training step and of loading a model: for good, which is a clean
-- error after which nothing is held; or just once, which a second try after a collection hides. What
-- trains on afterwards ends with the same bits as if memory had never been short.
local am = require("am")
local edge = require("am.core.ffi")
local helper = require("tests.recipe.helper")

local C, STEPS = edge.C, 3

local kinds = {
    { name = "full", changes = {} },
    { name = "LoRA", changes = helper.lora },
    { name = "recomputed layers in bfloat16",
      changes = { model = { torch_dtype = "bfloat16", activation_checkpointing = true, attention_dropout = 0.1 } } },
}

local function live()
    local now = am.memory()
    return string.format("%d bytes in %d storages", now.live_bytes, now.live_storages)
end

local function check_live(before, what, k)
    if live() ~= before then -- what no scope holds the collector frees
        collectgarbage()
        collectgarbage()
        assert.equal(before, live(), what .. ", after allocation " .. k)
    end
end

-- Call fn with allocations failing from the k-th on, or at the k-th alone.
local function short_of_memory(fail, k, fn, ...)
    edge.check(fail(k))
    local ok, result = pcall(fn, ...)
    edge.check(fail(0))
    return ok, result
end

local function check_error(e, k)
    assert.is_truthy(type(e) == "table" and e.code, "allocation " .. k .. ": " .. tostring(e))
    assert.equal("memory", e.code, "allocation " .. k .. ": " .. tostring(e))
end

-- Train; at the second step attempt(recipe, window) tries it first. Returns the weights' bits.
local function train(changes, attempt)
    local recipe = helper.recipe(helper.config(helper.folder(), helper.changes({
        step_scheduler = { max_steps = STEPS },
    }, changes)))
    recipe.model:train()
    for _ in recipe.scheduler:epochs() do
        for window in recipe.scheduler:windows(recipe.loader) do
            if attempt and recipe.scheduler.step == 1 then
                attempt(recipe, window)
            end
            recipe:step(window)
        end
    end
    local dir = helper.folder()
    recipe:save_model(dir, false)
    helper.close(recipe)
    return dir
end

describe("without memory", function()
    teardown(helper.cleanup)

    for _, kind in ipairs(kinds) do
        it("a step is a clean error: " .. kind.name, function()
            local count, hidden = 0, 0
            local got = train(kind.changes, function(recipe, window)
                local state, before, step, norms = recipe.rng:state_dict(), live(), recipe.optimizer.step, {}
                -- stop before the update, which needs no memory, so that the step can be done again
                function recipe.optimizer.step(optimizer) error({ norm = optimizer:clip_grad_norm() }, 0) end
                local function attempt(fail, k)
                    local _, e = short_of_memory(fail, k, recipe.step, recipe, window)
                    if not e.norm then
                        check_error(e, k)
                    end
                    recipe.optimizer:zero_grad()
                    recipe.rng:load_state_dict(state)
                    check_live(before, "a step", k)
                    return e.norm
                end
                repeat
                    norms[1] = attempt(C.am_mem_fail_from, count + 1)
                    count = count + 1
                until norms[1]
                for k = 1, count, 7 do
                    local norm = attempt(C.am_mem_fail_at, k)
                    if norm then
                        assert.equal(norms[1], norm, "allocation " .. k .. " was made up for, wrongly")
                        hidden = hidden + 1
                    end
                end
                recipe.optimizer.step = step
            end)
            assert.is_true(count > 50 and hidden > 50)
            assert.is_nil(helper.checkpoint_difference(train(kind.changes), got))
            print(string.format("# %d allocations; one alone made up for at %d of each 7th", count, hidden))
        end)
    end

    it("loading is a clean error", function()
        local text_model, run = helper.text_model(), helper.folder()
        local cfg = helper.config(run, helper.lora)
        helper.train_here(cfg)
        local recipe = helper.recipe(cfg)
        local ids = { { 5, 9, 14, 3 } }
        local function logits()
            local model = am.AutoModelForCausalLM.from_pretrained(helper.tiny)
            local values = am.no_grad(function() return model:forward({ input_ids = ids }).logits:totable() end)
            model:close()
            return values
        end
        for name, case in pairs {
            ["a model"] = { logits, 1 },
            ["a checkpoint"] = { function()
                if recipe.lock then
                    recipe.lock:release()
                end
                return { recipe:load_checkpoint() }
            end, 1 },
            -- thousands of small ones, each of which test_tokenizer.c tries
            ["a tokenizer"] = { function()
                return am.AutoTokenizer.from_pretrained(text_model):encode("Who?")
            end, 101 },
        } do
            local load, every = case[1], case[2]
            local wanted = am.scope(load)
            collectgarbage()
            collectgarbage()
            local before = live()
            local k, loaded = 1, false
            local function attempt(fail, at)
                local ok, got = short_of_memory(fail, at, am.scope, load)
                if ok then
                    assert.same(wanted, got, name)
                else
                    check_error(got, at)
                end
                check_live(before, name, at)
                return ok
            end
            while not loaded do
                loaded = attempt(C.am_mem_fail_from, k)
                attempt(C.am_mem_fail_at, k)
                k = k + every
            end
            print(string.format("# %s: %d allocations", name, k))
        end
        helper.close(recipe)
    end)
end)
