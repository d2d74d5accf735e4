-- DoRA: what an adapted map computes and learns, compared with its formula on whole matrices; that a new adapter
-- changes nothing; merging, files. PEFT's own numbers are in tests/parity/peft_spec.lua.

local am = require("am")
local compare = require("tests.support.compare")
local files = require("tests.support.files")
local peft = require("am.peft")
local scope = require("am.core.scope")
local tiny = require("tests.support.tiny")
local Embedding = require("am.nn.embedding")
local EmbeddingLoRA = require("am.peft.embedding")
local Linear = require("am.nn.linear")
local LinearLoRA = require("am.peft.lora").LinearLoRA

local ops, raised = am.ops, tiny.raised
local ids = { { 3, 1, 4, 1, 5 }, { 9, 2, 6, 5, 3 } }

before_each(function() am.manual_seed(1) end)

-- A DoRA map over a random Linear, all of its numbers random, as leaves that learn.
local function wrapped(opts, dtype)
    opts.use_dora = true
    local base = Linear.new(7, 5, true)
    for _, slot in ipairs(base._parameters) do
        base[slot.name] = am.randn(slot.shape):to(dtype or "float32")
    end
    local module = LinearLoRA.new(base, opts)
    module:initialize("xavier")
    module.lora_B.weight:normal_(0, 0.5)
    local magnitude = module.lora_magnitude_vector.weight
    magnitude:copy_(magnitude * (am.rand { 5 } + 0.5):to(magnitude:dtype()))
    for _, child in ipairs(module._children) do
        child.module.weight.requires_grad = true
    end
    return module, base
end

-- What it should compute, on whole matrices; xd is what LoRA and the scaled W see, post(lora) drops LoRA's output.
local function reference(module, x, xd, post)
    local w, s = module.weight, module.scale
    local v = w + ops.matmul(module.lora_B.weight, module.lora_A.weight) * s
    local norm = ops.sqrt((v * v):sum(1)):detach()
    local factor = module.lora_magnitude_vector.weight / norm
    local lora = ops.linear(ops.linear(xd, module.lora_A.weight), module.lora_B.weight) * s
    -- as PEFT and NeMo Automodel write it
    return ops.linear(x, w, module.bias) + (factor - 1) * ops.linear(xd, w) + factor * (post and post(lora) or lora)
end

local function gradients(module, x)
    local out = { x = x.grad:clone() }
    x.grad = nil
    for _, child in ipairs(module._children) do
        out[child.name] = child.module.weight.grad:clone()
        child.module.weight.grad = nil
    end
    return out
end

-- Value and gradients of both, for an output weighted at random.
local function check(module, run, expected, tolerance)
    local x = am.randn({ 2, 3, 7 }):to(module.weight:dtype()):requires_grad_()
    local weights = am.randn({ 2, 3, 5 }):to(module.weight:dtype())
    local y = run(x)
    ;(y * weights):sum():backward()
    local found = gradients(module, x)
    local want = expected(x)
    ;(want * weights):sum():backward()
    compare.within("y", y:detach(), want:detach(), tolerance)
    for name, grad in pairs(gradients(module, x)) do
        compare.within("gradient of " .. name, found[name], grad, tolerance)
    end
end

describe("a DoRA map", function()
    it("computes and learns by its formula", function()
        for dtype, tolerance in pairs { float32 = 1e-5, float64 = 1e-13 } do
            for _, use_rslora in ipairs { true, false } do
                local module = wrapped({ dim = 3, alpha = 4, use_rslora = use_rslora }, dtype)
                check(module, function(x) return module:forward(x) end,
                      function(x) return reference(module, x, x) end, tolerance)
            end
        end
    end)

    it("rounds to 16 bits once, from a factor in f32", function()
        for dtype, tolerance in pairs { bfloat16 = 2e-2, float16 = 3e-3 } do
            local module = wrapped({ dim = 3, alpha = 4 }, dtype)
            local wide = LinearLoRA.new({ in_features = 7, out_features = 5, _parameters = module._parameters,
                                          weight = module.weight:to("float32"), bias = module.bias:to("float32") },
                                        { dim = 3, alpha = 4, use_dora = true })
            for _, child in ipairs(wide._children) do
                child.module.weight = module[child.name].weight:detach():to("float32")
            end
            local x = am.randn({ 6, 7 }):to(dtype)
            compare.within(dtype, module:forward(x):to("float32"), reference(wide, x:to("float32"), x:to("float32")),
                           tolerance)
            module:forward(x):to("float32"):sum():backward()
            assert.equal(dtype, module.lora_magnitude_vector.weight:dtype())
        end
    end)

    it("drops its input for the scaled weight alone, or LoRA's output", function()
        for position, expected in pairs {
            pre = function(module, x) return reference(module, x, ops.dropout(x, 0.5, true)) end,
            post = function(module, x)
                return reference(module, x, x, function(lora) return ops.dropout(lora, 0.5, true) end)
            end,
        } do
            local module = wrapped { dim = 3, alpha = 4, dropout = 0.5, dropout_position = position }
            local function seeded(fn)
                return function(x)
                    am.manual_seed(11)
                    return fn(x)
                end
            end
            local off = tiny.bits(module:forward(am.ones { 2, 7 }))
            module:train()
            assert.not_equal(off, tiny.bits(module:forward(am.ones { 2, 7 })))
            check(module, seeded(function(x) return module:forward(x) end),
                  seeded(function(x) return expected(module, x) end), 1e-5)
            module:eval()
            assert.equal(off, tiny.bits(module:forward(am.ones { 2, 7 })))
        end
    end)

    it("of a row of zeros gives no NaN", function()
        local module = wrapped { dim = 2, alpha = 4 }
        module.weight:narrow(0, 1, 1):fill_(0)
        module.lora_B.weight:detach():fill_(0)
        module.squared_rows = nil
        require("am.peft.dora").initialize(module, "float32")
        module.lora_magnitude_vector.weight.requires_grad = true
        local y = module:forward(am.randn { 3, 7 })
        y:sum():backward()
        for _, t in ipairs { y:detach(), module.lora_magnitude_vector.weight.grad, module.lora_B.weight.grad,
                             module:merged_weight() } do
            assert.is_true(am.all(am.isfinite(t)):item() ~= 0)
        end
    end)

    it("says that it is one", function()
        assert.matches("r=3, scale=2, dora$", (wrapped { dim = 3, alpha = 6 }):extra_repr())
    end)
end)

describe("a DoRA embedding", function()
    it("scales the columns of its table", function()
        local base = Embedding.new(9, 4)
        base.weight = am.randn { 9, 4 }
        local module = EmbeddingLoRA.new(base, { dim = 2, alpha = 3, use_dora = true })
        module:initialize()
        local index = am.tensor({ { 3, 8, 0 } }, { dtype = "int32" })
        assert.equal(tiny.bits(base:forward(index)), tiny.bits(module:forward(index)))
        module.lora_embedding_A.weight:normal_(0, 1)
        module.lora_magnitude_vector.weight:uniform_(0.5, 2)
        local v = base.weight + ops.linear(module.lora_embedding_A.weight, module.lora_embedding_B.weight) * 1.5
        local table_ = v * (module.lora_magnitude_vector.weight / ops.sqrt((v * v):sum(0)))
        compare.within("rows", module:forward(index), ops.embedding(index, table_), 1e-5)
        compare.within("table", module:merged_weight(), table_, 1e-5)
    end)
end)

-- fn(model, config) with a tiny model that DoRA adapts, B and magnitudes at random.
local function with_adapted(config, fn, changes, opts)
    local model = tiny.model(changes, opts)
    config.use_dora = true
    local in_force = peft.apply(model, config)
    for _, module in peft.lora_modules(model) do
        (module.lora_B or module.lora_embedding_A).weight:detach():normal_(0, 0.3)
        local m = module.lora_magnitude_vector.weight:detach()
        m:copy_(m * (am.rand(m:size(), { device = m:device() }) + 0.5):to(m:dtype()))
    end
    fn(model, in_force)
    model:close()
end

local function logits(model)
    return model:forward({ input_ids = ids }).logits:detach()
end

describe("a model that DoRA adapts", function()
    it("begins as it was, to the bit", function()
        for _, changes in ipairs { {}, { torch_dtype = "bfloat16" }, { torch_dtype = "float16" },
                                   { torch_dtype = "float64" } } do
            -- magnitudes in fewer digits than norms are rounded to would not be the norms
            for _, lora_dtype in ipairs { false, changes.torch_dtype ~= "float64" and "float32" or nil } do
                local model = tiny.model(changes)
                local before = tiny.bits(logits(model))
                peft.apply(model, { use_dora = true, dim = 2, target_modules = { "*_proj", "embed_tokens", "lm_head" },
                                    lora_dtype = lora_dtype or nil })
                assert.equal(before, tiny.bits(logits(model)))
                local magnitude = model:get("model.layers.0.mlp.up_proj.lora_magnitude_vector").weight
                assert.equal(lora_dtype or changes.torch_dtype or "float32", magnitude:dtype())
                assert.is_true(magnitude.requires_grad)
                model:close()
            end
        end
    end)

    it("is a plain one once merged, with the same logits", function()
        for dtype, tolerance in pairs { float32 = 2e-5, bfloat16 = 5e-2 } do
            with_adapted({ target_modules = { "*_proj", "lm_head", "embed_tokens" }, dim = 2 }, function(model)
                local before = logits(model):clone()
                assert.equal(16, peft.merge(model))
                compare.within("logits", logits(model), before, tolerance)
                assert.is_nil((peft.lora_modules(model)()))
            end, { torch_dtype = dtype, attention_bias = true })
        end
    end)

    it("comes back from its files with equal bits, and takes them up again", function()
        with_adapted({ target_modules = { "*.q_proj", "embed_tokens" }, dim = 2, alpha = 3 }, function(model, config)
            files.with_folder(function(dir)
                peft.save_adapter(model, dir, config)
                assert.is_true(files.json(dir .. "/adapter_config.json").use_dora)
                local other = tiny.model()
                local loaded, paths = peft.apply(other, { adapter_path = dir })
                assert.is_true(loaded.use_dora)
                assert.same({ "model.embed_tokens", "model.layers.0.self_attn.q_proj",
                              "model.layers.1.self_attn.q_proj" }, paths)
                assert.equal(tiny.bits(logits(model)), tiny.bits(logits(other)))
                for _, module in peft.lora_modules(other) do
                    module.lora_magnitude_vector.weight:detach():fill_(1)
                end
                assert.not_equal(tiny.bits(logits(model)), tiny.bits(logits(other)))
                peft.restore_adapter(other, dir)
                assert.equal(tiny.bits(logits(model)), tiny.bits(logits(other)))
                other:close()
                other = tiny.model()
                raised("usage", { "peft.use_dora is false, but true", dir }, peft.apply, other,
                       { adapter_path = dir, use_dora = false })
                local tensors = am.load_safetensors(dir .. "/adapter_model.safetensors")
                tensors["base_model.model.model.embed_tokens.lora_magnitude_vector"] = nil
                am.save_safetensors(dir .. "/adapter_model.safetensors", tensors)
                raised("format", "lacks lora_magnitude_vector of model.embed_tokens", peft.apply, other,
                       { adapter_path = dir })
                other:close()
            end)
        end)
    end)

    it("learns the same with layers computed again, and on every device", function()
        local config = { target_modules = { "*_proj", "embed_tokens" }, dim = 2, dropout = 0.25,
                         dropout_position = "pre" }
        local expected = {}
        for _, case in ipairs { { "cpu", false }, { "cpu", true }, { "cpu", "selective" }, { "ref", false },
                                { "fence", false } } do
            with_adapted(config, function(model)
                model.model.activation_checkpointing = case[2]
                model:train()
                am.manual_seed(9)
                am.scope(function() model:forward({ input_ids = ids, labels = ids }).loss:backward() end)
                for name, t in model:named_parameters() do
                    if t.requires_grad then
                        local grad = t.grad:to { device = "cpu" }:clone()
                        expected[name] = expected[name] or scope.escape(grad)
                        compare.within(name, grad, expected[name], 1e-4)
                    end
                end
            end, {}, { device = case[1] })
        end
    end)

    it("holds no memory once merged or closed", function()
        local function live_after(merge)
            with_adapted({ target_modules = "*_proj", dim = 2 }, function(model)
                am.scope(function() logits(model) end)
                if merge then
                    peft.merge(model)
                end
            end)
            jit.flush() -- compiled code keeps closures, those of earlier tests too, and these their tensors
            collectgarbage()
            collectgarbage()
            return am.memory().live_bytes
        end
        local before = live_after(true) -- what else is still to be collected, is now
        for _, merge in ipairs { true, false, true } do
            assert.equal(before, live_after(merge))
        end
    end)
end)
