-- Generation: greedy, sampled, stopped, with a cache and without; options on a model whose logits are known.

local am = require("am")
local edge = require("am.core.ffi")
local tiny = require("tests.support.tiny")

local raised = tiny.raised

-- A model that gives the same logits after every token; it remembers what it was fed.
local function constant(logits)
    local stub = { config = { eos_token_id = nil }, fed = {}, training = false }
    function stub.device() return "cpu" end
    function stub.dtype() return "float32" end
    function stub:eval() self.training = false end
    function stub:train(on) self.training = on end
    function stub:forward(args)
        assert(not self.training, "generation is no training")
        assert(not am.autograd.is_grad_enabled(), "generation records nothing")
        self.fed[#self.fed + 1] = { unpack(args.input_ids:totable()[1]) }
        return { logits = am.tensor { { logits } } }
    end
    stub.generate = require("am.models.causal_lm").extend({}).generate
    return stub
end

-- How often each id was sampled in n tokens.
local function counts(logits, n, opts)
    local all = { use_cache = false, do_sample = true, max_new_tokens = n }
    for key, value in pairs(opts) do
        all[key] = value
    end
    local found = {}
    local stub = constant(logits)
    stub.forward = function() return { logits = am.tensor { { logits } } } end
    for i, id in ipairs(stub:generate({ 0 }, all)) do
        if i > 1 then
            found[id] = (found[id] or 0) + 1
        end
    end
    return found
end

-- Fails unless ids come as often as weights say: within five standard deviations.
local function expect(found, n, shares)
    local total = 0
    for _, share in pairs(shares) do
        total = total + share
    end
    for id, share in pairs(shares) do
        local p = share / total
        local off = math.abs((found[id] or 0) - n * p)
        assert.is_true(off <= 5 * math.sqrt(n * p * (1 - p)), ("%d of id %d, not %g"):format(found[id] or 0, id, n * p))
    end
    for id in pairs(found) do
        assert.is_truthy(shares[id], "id " .. id .. " was left out")
    end
end

describe("greedy generation", function()
    local model
    setup(function() model = tiny.model() end)
    teardown(function() model:close() end)

    it("takes the likeliest token of all so far, with a cache and without", function()
        for _, prompt in ipairs { { 3 }, { 3, 1, 4, 1, 5 }, { 28, 0, 28, 0, 2, 7, 11, 13, 17 } } do
            local expected = { unpack(prompt) }
            for _ = 1, 12 do
                local last = model:forward({ input_ids = { expected }, logits_to_keep = 1 }).logits
                expected[#expected + 1] = last:reshape(29):argmax():item()
            end
            local opts = { max_new_tokens = 12, eos_token_id = false }
            assert.same(expected, model:generate(prompt, opts))
            opts.use_cache = false
            assert.same(expected, model:generate(prompt, opts))
        end
    end)

    it("is the same with a cache for scaled positions, one head for all and 16 bits", function()
        for _, changes in ipairs {
            { rope_scaling = { rope_type = "llama3", factor = 8, low_freq_factor = 1, high_freq_factor = 4,
                               original_max_position_embeddings = 16 } },
            { num_attention_heads = 4, num_key_value_heads = 4, head_dim = 4, attention_bias = true },
            { tie_word_embeddings = true, torch_dtype = "bfloat16" }, { num_key_value_heads = false, head_dim = false },
        } do
            local m = tiny.model(changes)
            local opts = { max_new_tokens = 10, eos_token_id = false }
            local with = m:generate({ 3, 1, 4 }, opts)
            assert.equal(13, #with)
            opts.use_cache = false
            assert.same(with, m:generate({ 3, 1, 4 }, opts))
            m:close()
        end
    end)

    it("steps rows beside each other as each alone", function()
        local Cache = require("am.nn.cache")
        local rows = { 3, 1, 4, 1, 5, 9, 2, 6 }
        -- The bits of the logits after two more tokens, row by row.
        local function logits(of)
            local cache = Cache.new(2)
            local last
            for step = 0, 1 do
                local ids = {}
                for i, id in ipairs(of) do
                    ids[i] = { id + step }
                end
                last = am.inference_mode(model.forward, model, { input_ids = ids, cache = cache }).logits
            end
            cache:release()
            local out = {}
            for i = 1, #of do
                out[i] = tiny.bits(last:narrow(0, i - 1, 1))
            end
            return out
        end
        local all = logits(rows)
        for count = 1, 8 do
            assert.same({ unpack(all, 1, count) }, logits { unpack(rows, 1, count) })
            assert.same({ all[count] }, logits { rows[count] })
        end
    end)

    it("leaves the prompt, the mode and the memory as they were", function()
        local prompt = { 3, 1, 4 }
        model:generate(prompt, { max_new_tokens = 1 })
        collectgarbage()
        collectgarbage()
        local before = am.memory().live_bytes
        model:train()
        local out = model:generate(prompt, { max_new_tokens = 5, eos_token_id = false })
        assert.same({ 3, 1, 4 }, prompt)
        assert.same({ 3, 1, 4 }, { unpack(out, 1, 3) })
        assert.is_true(model.training)
        assert.is_true(model.lm_head.training)
        local ok = pcall(model.generate, model, { 3, 99 }, { max_new_tokens = 5 })
        assert.is_false(ok)
        ok = pcall(model.generate, model, prompt, { on_token = function() error("enough") end })
        assert.is_false(ok)
        assert.is_true(model.training)
        assert.is_true(am.autograd.is_grad_enabled())
        model:eval()
        model:generate(prompt, { max_new_tokens = 5 })
        assert.is_false(model.training)
        collectgarbage()
        collectgarbage()
        assert.equal(before, am.memory().live_bytes)
    end)

    it("takes the first of equals", function()
        assert.same({ 9, 1, 1 }, constant({ 0, 2, 2, 1 }):generate({ 9 }, { max_new_tokens = 2, use_cache = false }))
    end)
end)

describe("generation", function()
    local plain = { max_new_tokens = 3, use_cache = false }

    local function options(changes)
        return setmetatable(changes, { __index = plain })
    end

    it("ends after max_new_tokens, 20 unless it is said", function()
        assert.equal(21, #constant({ 0, 1 }):generate({ 5 }, { use_cache = false }))
        assert.same({ 5, 1, 1, 1 }, constant({ 0, 1 }):generate({ 5 }, plain))
        assert.same({ 5, 6 }, constant({ 0, 1 }):generate({ 5, 6 }, options { max_new_tokens = 0 }))
    end)

    it("is no training, also when the model trains", function()
        local stub = constant({ 0, 1 })
        for _, training in ipairs { true, false } do
            stub.training = training
            stub:generate({ 5 }, plain) -- the stub's forward looks
            assert.equal(training, stub.training)
        end
    end)

    it("ends with an end-of-text token, which it keeps", function()
        local stub = constant({ 0, 1 })
        for _, eos in ipairs { 1, { 4, 1 }, { 1 } } do
            assert.same({ 5, 1 }, stub:generate({ 5 }, options { eos_token_id = eos }))
        end
        assert.same({ 5, 1, 1, 1 }, stub:generate({ 5 }, options { eos_token_id = { 0, 5 } }))
        stub.config.eos_token_id = 1
        assert.same({ 5, 1 }, stub:generate({ 5 }, plain))
        assert.same({ 5, 1, 1, 1 }, stub:generate({ 5 }, options { eos_token_id = false }))
        assert.same({ 5, 1, 1, 1 }, stub:generate({ 5 }, options { eos_token_id = 0 }))
        -- the generation configuration comes before the model's
        stub.generation_config = { eos_token_id = { 0 } }
        assert.same({ 5, 1, 1, 1 }, stub:generate({ 5 }, plain))
        stub.generation_config = { eos_token_id = { 0, 1 } }
        assert.same({ 5, 1 }, stub:generate({ 5 }, plain))
        stub.generation_config = {}
        assert.same({ 5, 1 }, stub:generate({ 5 }, plain))
    end)

    it("tells each token as it comes", function()
        local seen = {}
        constant({ 0, 1 }):generate({ 5, 6 }, options { on_token = function(id) seen[#seen + 1] = id end })
        assert.same({ 1, 1, 1 }, seen)
    end)

    it("feeds all tokens without a cache, and only new ones with it", function()
        local stub = constant({ 0, 1 })
        stub:generate({ 5, 6 }, plain)
        assert.same({ { 5, 6 }, { 5, 6, 1 }, { 5, 6, 1, 1 } }, stub.fed)
        stub = constant({ 0, 1 })
        for key, value in pairs { num_hidden_layers = 1, num_attention_heads = 2, hidden_size = 8 } do
            stub.config[key] = value
        end
        stub:generate({ 5, 6 }, { max_new_tokens = 3 })
        assert.same({ { 5, 6 }, { 1 }, { 1 } }, stub.fed)
    end)

    it("takes a prompt of many thousand tokens", function()
        local model, prompt = tiny.model { max_position_embeddings = 10000 }, {}
        for i = 1, 9000 do
            prompt[i] = i % 29
        end
        local out = model:generate(prompt, { max_new_tokens = 2, eos_token_id = false })
        assert.same({ 9002, 8999 % 29, 9000 % 29 }, { #out, out[8999], out[9000] })
        model:close()
    end)

    it("is the same with a cache where frequencies change with the length", function()
        local longrope = { rope_type = "longrope", original_max_position_embeddings = 6, short_factor = { 1, 1.5, 2 },
                           long_factor = { 3, 7, 20 } }
        for kind, scaling in pairs { longrope = longrope, dynamic = { rope_type = "dynamic", factor = 3 } } do
            am.manual_seed(11)
            local long = tiny.model { max_position_embeddings = kind == "dynamic" and 6 or 24, rope_theta = 20,
                                      rope_scaling = scaling, initializer_range = 1 }
            local with = long:generate({ 3, 1, 4 }, { max_new_tokens = 12, eos_token_id = false })
            local without = long:generate({ 3, 1, 4 }, { max_new_tokens = 12, eos_token_id = false, use_cache = false })
            assert.same(without, with, kind)
            long:close()
        end
    end)

    it("stays within the model's positions, unless they are scaled dynamically", function()
        for kind, limit in pairs { default = 8, linear = 8, dynamic = 9 } do
            local model = tiny.model { max_position_embeddings = 8, rope_scaling = { rope_type = kind, factor = 2 } }
            local function generate(n)
                return #model:generate({ 3, 1, 4 }, { max_new_tokens = n, eos_token_id = false })
            end
            assert.equal(limit, generate(limit - 3))
            if limit == 8 then
                raised("argument", { "3 tokens", "max_new_tokens of 6", "8 positions" }, generate, 6)
            end
            model:close()
        end
    end)

    it("needs a token to begin with, and a temperature", function()
        raised("argument", "at least one", tiny.model().generate, constant({ 0 }), {})
        for _, temperature in ipairs { 0, -1 } do
            raised("argument", "temperature", constant({ 0 }).generate, constant({ 0 }), { 1 },
                   { temperature = temperature, do_sample = true })
        end
    end)
end)

describe("sampling", function()
    local logits, n = { 1, 3, 0, 2.5 }, 2000

    local function shares(temperature, ids)
        local out = {}
        for _, id in ipairs(ids or { 0, 1, 2, 3 }) do
            out[id] = math.exp(logits[id + 1] / (temperature or 1))
        end
        return out
    end

    it("draws tokens as often as their probability says", function()
        expect(counts(logits, n, {}), n, shares())
        expect(counts(logits, n, { seed = 7, top_k = 0, top_p = 1 }), n, shares())
    end)

    it("sharpens or flattens with the temperature", function()
        expect(counts(logits, n, { temperature = 0.5 }), n, shares(0.5))
        expect(counts(logits, n, { temperature = 3 }), n, shares(3))
    end)

    it("takes the top_k likeliest", function()
        expect(counts(logits, n, { top_k = 2 }), n, shares(1, { 1, 3 }))
        expect(counts(logits, n, { top_k = 3 }), n, shares(1, { 0, 1, 3 }))
        expect(counts(logits, n, { top_k = 99 }), n, shares())
        assert.same({ [1] = 50 }, counts(logits, 50, { top_k = 1 }))
        assert.same({ [0] = 50 }, counts({ 2, 2, 2 }, 50, { top_k = 1 })) -- the first of equals
    end)

    it("takes the fewest likeliest that make up top_p", function()
        -- probabilities 0.079, 0.586, 0.029, 0.306
        for _, case in ipairs { { 0.5, { 1 } }, { 0.6, { 1, 3 } }, { 0.89, { 1, 3 } }, { 0.9, { 0, 1, 3 } },
                                { 0.98, { 0, 1, 2, 3 } }, { 0, { 1 } } } do
            expect(counts(logits, n, { top_p = case[1] }), n, shares(1, case[2]))
        end
        -- top_p is of what top_k left: 0.657 and 0.343 there
        expect(counts(logits, n, { top_k = 2, top_p = 0.6 }), n, shares(1, { 1 }))
        expect(counts(logits, n, { top_k = 2, top_p = 0.7 }), n, shares(1, { 1, 3 }))
    end)

    it("is the same for a seed, another for another, and 42 when none is given", function()
        local flat = { 0, 0, 0, 0, 0, 0, 0 }
        local function draw(seed)
            return constant(flat):generate({ 9 }, { do_sample = true, use_cache = false, max_new_tokens = 30,
                                                    seed = seed })
        end
        assert.same(draw(1), draw(1))
        assert.not_same(draw(1), draw(2))
        assert.same(draw(42), draw())
        am.manual_seed(99) -- the run's own random numbers have nothing to do with it
        local before = am.rand({ 4 }):totable()
        am.manual_seed(99)
        assert.same(draw(42), draw())
        assert.same(before, am.rand({ 4 }):totable())
        -- and is what the engine's generator says it is
        local expected = { 9 }
        for step = 1, 30 do
            expected[step + 1] = math.floor(edge.C.am_rng_u32(42, 0x67656e, step) / 2 ^ 32 * 7)
        end
        assert.same(expected, draw(42))
    end)

    it("stands large logits", function()
        assert.same({ [1] = 20 }, counts({ -1e4, 1e4, 0 }, 20, {}))
        assert.same({ [2] = 20 }, counts({ -math.huge, -math.huge, -1e30 }, 20, { top_p = 0.9 }))
    end)

    it("is the same with a cache", function()
        local model = tiny.model({ initializer_range = 0.1 })
        local opts = { do_sample = true, max_new_tokens = 20, seed = 5, eos_token_id = false, top_p = 0.95 }
        local with = model:generate({ 3, 1, 4 }, opts)
        opts.use_cache = false
        assert.same(with, model:generate({ 3, 1, 4 }, opts))
        opts.do_sample = nil
        assert.not_same(with, model:generate({ 3, 1, 4 }, opts))
        model:close()
    end)
end)
