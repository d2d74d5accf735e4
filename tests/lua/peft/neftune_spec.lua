-- NEFTune: how large and how even its noise is, when there is none, and that it goes on where it was.

local am = require("am")
local compare = require("tests.support.compare")
local peft = require("am.peft")
local tiny = require("tests.support.tiny")

local ops, raised = am.ops, tiny.raised
local WIDE = { hidden_size = 48, intermediate_size = 20 }

-- B rows of T token ids.
local function rows(b, t)
    local out = {}
    for i = 1, b do
        out[i] = {}
        for j = 1, t do
            out[i][j] = (i * 7 + j * 3) % 29
        end
    end
    return out
end

local function embed(model, ids)
    return model.model.embed_tokens:forward(am.tensor(ids, { dtype = "int32" }))
end

-- fn(model) with a tiny model that is in training mode and has noise.
local function with_noise(noise_alpha, fn, changes)
    local model = tiny.model(changes)
    peft.neftune(model, noise_alpha)
    model:train()
    fn(model)
    model:close()
end

describe("NEFTune's noise", function()
    it("is uniform, within alpha / sqrt(T C), for whatever length a batch has", function()
        with_noise(5, function(model)
            for _, t in ipairs { 5, 40 } do
                local ids, most = rows(16, t), 5 / math.sqrt(t * 48)
                local noise = (embed(model, ids) - model.model.embed_tokens.weight:detach():index_select(
                    0, am.tensor(ids, { dtype = "int32" }):reshape(-1)):reshape(16, t, 48)) / most
                local n = noise:numel()
                assert.is_true(ops.abs(noise):amax():item() <= 1 + 1e-5)
                assert.is_true(ops.abs(noise):amax():item() > 1 - 20 / n)
                compare.near("mean", noise:mean():item(), 0, 5 / math.sqrt(3 * n))
                compare.near("variance", (noise * noise):mean():item(), 1 / 3, 5 * math.sqrt(4 / 45 / n))
                -- and so is each fifth of its range
                for k = -5, 4 do
                    local inside = ops.sum(am.logical_and(noise:ge(k / 5), noise:lt((k + 1) / 5)):to("float32")):item()
                    compare.near("part " .. k, inside, n / 10, 5 * math.sqrt(n * 0.09))
                end
            end
        end, WIDE)
    end)

    it("is there in training alone", function()
        local ids = rows(2, 4)
        with_noise(5, function(model)
            local first, second = tiny.bits(embed(model, ids)), tiny.bits(embed(model, ids))
            assert.not_equal(first, second) -- each its own
            model:eval()
            local plain = tiny.bits(embed(model, ids))
            assert.not_equal(plain, first)
            assert.equal(plain, tiny.bits(embed(model, ids)))
            model:train()
            peft.neftune(model, 0)
            assert.equal(plain, tiny.bits(embed(model, ids)))
        end)
    end)

    it("is not in generation, which leaves the model training", function()
        local options = { max_new_tokens = 8, eos_token_id = false }
        local model = tiny.model()
        local expected = model:generate({ 1, 2, 3 }, options)
        peft.neftune(model, 100)
        model:train()
        assert.same(expected, model:generate({ 1, 2, 3 }, options))
        assert.is_true(model.training)
        model:close()
    end)

    it("changes no gradient but by what comes after it", function()
        with_noise(5, function(model)
            local weight = model.model.embed_tokens.weight
            weight.requires_grad = true
            embed(model, { { 3, 3, 1 } }):sum():backward()
            local sums = weight.grad:sum(1):totable()
            assert.same({ 12, 24 }, { sums[2], sums[4] })
        end)
    end)

    it("goes on from the state of the random numbers with the same bits", function()
        local rng = require("am.training.rng").StatefulRNG { seed = 3 }
        with_noise(5, function(model)
            embed(model, rows(2, 4))
            local state, expected = rng:state_dict(), {}
            for i = 1, 3 do
                expected[i] = tiny.bits(model:forward({ input_ids = rows(2, 3 + i) }).logits)
            end
            am.manual_seed(99)
            rng:load_state_dict(state)
            for i = 1, 3 do
                assert.equal(expected[i], tiny.bits(model:forward({ input_ids = rows(2, 3 + i) }).logits))
            end
        end)
    end)

    it("is made in the embedding's dtype, on any device", function()
        for _, dtype in ipairs { "bfloat16", "float16" } do
            with_noise(5, function(model)
                assert.equal(dtype, embed(model, rows(1, 3)):dtype())
            end, { torch_dtype = dtype })
        end
        local found = {}
        for i, device in ipairs { "cpu", "ref", "fence" } do
            local model = tiny.model({}, { device = device })
            peft.neftune(model, 5)
            model:train()
            am.manual_seed(8)
            found[i] = model:forward({ input_ids = rows(2, 4) }).logits:detach():to { device = "cpu" }
            compare.within(device, found[i], found[1], 1e-5)
        end
    end)

    it("stays with adapters and merging, whichever came first", function()
        for _, when in ipairs { "before", "after" } do
            local model = tiny.model()
            if when == "before" then peft.neftune(model, 5) end
            peft.apply(model, { target_modules = { "embed_tokens", "*.q_proj" } })
            if when == "after" then peft.neftune(model, 5) end
            for _ = 1, 2 do
                model:eval()
                local plain = tiny.bits(embed(model, rows(1, 3)))
                model:train()
                assert.not_equal(plain, tiny.bits(embed(model, rows(1, 3))))
                peft.merge(model)
            end
            model:close()
        end
    end)

    it("has a size", function()
        local model = tiny.model()
        for _, wrong in ipairs { -1, 0 / 0, math.huge, "5", true } do
            raised("usage", "neftune.noise_alpha", peft.neftune, model, wrong)
        end
        assert.equal(5, peft.neftune_fields.noise_alpha.default)
        raised("usage", "no embedding", peft.neftune, model.lm_head, 5)
        model:close()
    end)
end)
