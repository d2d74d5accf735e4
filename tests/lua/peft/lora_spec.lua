-- LoRA: which modules are adapted, what an adapted one computes, what learns, merging.

local am = require("am")
local compare = require("tests.support.compare")
local log = require("am.utils.log")
local peft = require("am.peft")
local tiny = require("tests.support.tiny")
local Linear = require("am.nn.linear")
local LinearLoRA = require("am.peft.lora").LinearLoRA

local raised, ops = tiny.raised, am.ops
local ids = { { 3, 1, 4, 1, 5 }, { 9, 2, 6, 5, 3 } }
-- Products of some dozens of f32 in another order.
local CLOSE = 2e-6

local blocks = { "mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "self_attn.k_proj", "self_attn.o_proj",
                 "self_attn.q_proj", "self_attn.v_proj" }

-- Paths of a layer's (or both layers') linear maps, all or those named.
local function paths(names, layer)
    local out = {}
    for i = layer or 0, layer or 1 do
        for _, name in ipairs(names or blocks) do
            out[#out + 1] = ("model.layers.%d.%s"):format(i, name)
        end
    end
    return out
end

-- fn(model, config, paths) with an adapted tiny model; its B is random too, so that it does something.
local function with_adapted(config, fn, changes)
    local model = tiny.model(changes)
    local in_force, adapted = peft.apply(model, config)
    for _, module in peft.lora_modules(model) do
        module.lora_B.weight:detach():normal_(0, 0.3)
    end
    fn(model, in_force, adapted)
    model:close()
end

local function adapted_paths(config)
    local found
    with_adapted(config, function(_, _, list) found = list end)
    return found
end

before_each(function() am.manual_seed(1) end)

describe("modules to adapt", function()
    it("are named by wildcards over the whole path, by full names and by last names", function()
        for _, case in ipairs {
            { "*_proj", paths() }, { "*.layers.0.*", paths(nil, 0) }, { "*.self_attn.*", paths { unpack(blocks, 4) } },
            { "q_proj", paths { "self_attn.q_proj" } }, { "model.layers.1.mlp.up_proj", paths({ "mlp.up_proj" }, 1) },
            { { "*.q_proj", "*.v_proj" }, paths { "self_attn.q_proj", "self_attn.v_proj" } },
            { "*.1.*.*_proj", paths(nil, 1) }, { "lm_head", { "lm_head" } }, { "*head", { "lm_head" } },
            { { "*0.mlp.down*", "*.k_proj" }, { paths({ "mlp.down_proj" }, 0)[1],
                                                unpack(paths { "self_attn.k_proj" }) } },
        } do
            assert.same(case[2], adapted_paths { target_modules = case[1], dim = 2 })
        end
        assert.same(paths(), adapted_paths { dim = 2 }) -- without any of the three
        assert.same(paths(), adapted_paths { target_modules = {}, exclude_modules = {} })
    end)

    it("are all linear maps, or all but some", function()
        local everything = paths()
        table.insert(everything, 1, "lm_head")
        assert.same(everything, adapted_paths { match_all_linear = true })
        assert.same(paths { unpack(blocks, 1, 3) }, adapted_paths { exclude_modules = { "*self_attn*", "lm_head" } })
        assert.same(paths({ "mlp.up_proj" }), adapted_paths {
            exclude_modules = { "*self_attn*", "gate_proj", "model.layers.0.mlp.down_proj", "*1.mlp.down*", "*head" } })
    end)

    it("are told of when they are a choice by default, or hold lm_head by no one's wish", function()
        local function told(config)
            local lines = {}
            local stream = { write = function(_, ...) lines[#lines + 1] = table.concat { ... } end }
            log.setup { stream = stream, color = false }
            adapted_paths(config)
            log.setup {}
            return table.concat(lines)
        end
        assert.matches('"%*_proj" is adapted', told {})
        for _, config in ipairs { { match_all_linear = true }, { exclude_modules = "*self_attn*" } } do
            assert.matches("lm_head is adapted too", told(config))
        end
        for _, config in ipairs { { target_modules = { "*_proj", "lm_head" } }, { exclude_modules = "*head" },
                                  { target_modules = "*_proj" } } do
            assert.equal("", told(config))
        end
    end)

    it("are told when there are none, with what the model has", function()
        local model = tiny.model()
        for _, pattern in ipairs { "proj", "layers.0", "*.q_prj", "Q_PROJ", "model", "*norm*", "" } do
            raised("usage", { "no module matches", "model.layers.0.self_attn.q_proj" }, peft.apply, model,
                   { target_modules = pattern })
        end
        assert.equal("Linear", model:get("model.layers.0.self_attn.q_proj").class_name)
        for _, t in model:named_parameters() do
            assert.is_true(t.requires_grad)
        end
        model:close()
    end)

    it("are those of a plain model", function()
        local model = tiny.model()
        peft.apply(model, { target_modules = "*q_proj" })
        raised("usage", { "model.layers.0.self_attn.q_proj has an adapter" }, peft.apply, model, {})
        assert.equal(2, peft.merge(model))
        peft.apply(model, { target_modules = "*" })
        model:close()
    end)

    it("are named one way only", function()
        raised("usage", "match_all_linear", adapted_paths, { match_all_linear = true, target_modules = "*" })
        raised("usage", "match_all_linear", adapted_paths, { match_all_linear = true, exclude_modules = "x" })
        raised("usage", "exclude_modules", adapted_paths, { target_modules = "*", exclude_modules = "x" })
    end)
end)

describe("a PeftConfig", function()
    it("has NeMo Automodel's defaults", function()
        local c = peft.PeftConfig {}
        assert.same({ 8, 32, 0, "post", "xavier", false, false },
                    { c.dim, c.alpha, c.dropout, c.dropout_position, c.lora_A_init, c.match_all_linear, c.use_triton })
        assert.same(c, peft.PeftConfig())
        assert.same({ 3, false }, { peft.PeftConfig({ dim = 3 }).dim, peft.PeftConfig({}).match_all_linear })
    end)

    it("knows its fields", function()
        raised("usage", '"dims"', peft.PeftConfig, { dims = 3 })
        raised("usage", { "peft.lora_A_init", '"xaiver"', 'did you mean "xavier"', "kaiming" }, peft.PeftConfig,
               { lora_A_init = "xaiver" })
        raised("usage", { "peft.dropout_position", "post, pre" }, peft.PeftConfig, { dropout_position = "behind" })
    end)

    it("is not the table it was made of", function()
        local given = { dim = 2 }
        peft.PeftConfig(given).dim = 3
        assert.same({ dim = 2 }, given)
    end)

    it("in force can be given again", function()
        local given
        with_adapted({ dim = 2, alpha = 3 }, function(_, config) given = config end)
        with_adapted(given, function(_, config) assert.same(given, config) end)
    end)
end)

describe("an adapted linear map", function()
    -- A LinearLoRA over a random Linear, all of its weights random.
    local function wrapped(opts, bias)
        local base = Linear.new(7, 5, bias)
        for _, slot in ipairs(base._parameters) do
            base[slot.name] = am.randn(slot.shape)
        end
        local lora = LinearLoRA.new(base, opts)
        lora:initialize("xavier")
        lora.lora_B.weight:normal_(0, 1)
        return lora, base
    end

    it("computes W x + b + scale B A x", function()
        for _, bias in ipairs { false, true } do
            for _, opts in ipairs { { dim = 3, alpha = 6 }, { dim = 1, alpha = 0.5 }, { dim = 9, alpha = 9 },
                                    { dim = 4, alpha = 6, use_rslora = true } } do
                local lora, base = wrapped(opts, bias)
                assert.equal(opts.use_rslora and 3 or opts.alpha / opts.dim, lora.scale)
                local x = am.randn { 2, 3, 7 }
                local a, b = lora.lora_A.weight, lora.lora_B.weight
                local low = ops.matmul(ops.matmul(x, a:transpose(0, 1)), b:transpose(0, 1))
                local expected = base:forward(x) + low * lora.scale
                compare.within("forward", lora:forward(x), expected, CLOSE)
                assert.equal(bias, lora.bias ~= nil)
                local merged = lora:merged_weight()
                compare.within("merged", merged, base.weight + ops.matmul(b, a) * lora.scale, CLOSE)
                compare.within("merged forward", ops.linear(x, merged, base.bias), expected, 2 * CLOSE)
            end
        end
    end)

    it("merges in f32 and rounds once", function()
        for _, dtype in ipairs { "bfloat16", "float16" } do
            local lora = wrapped { dim = 3, alpha = 2 }
            for _, name in ipairs { "weight", "lora_A", "lora_B" } do
                local at = name == "weight" and lora or lora[name]
                at.weight = at.weight:to(dtype)
            end
            local delta = ops.matmul(lora.lora_B.weight:to("float32"), lora.lora_A.weight:to("float32")) * lora.scale
            local expected = (lora.weight:to("float32") + delta):to(dtype)
            assert.equal(tiny.bits(expected), tiny.bits(lora:merged_weight()))
        end
    end)

    it("drops while training: of its own output, or of its input", function()
        for _, position in ipairs { "post", "pre" } do
            local lora, base = wrapped { dim = 2, alpha = 4, dropout = 0.5, dropout_position = position }
            local x = am.ones { 400, 7 }
            local plain, own = lora:forward(x), base:forward(x)
            assert.equal(tiny.bits(plain), tiny.bits(lora:forward(x)))
            lora:train()
            local added, whole = lora:forward(x) - own, plain - own
            local values, full = added:totable(), whole:totable()
            local zero, twice = 0, 0
            for i, row in ipairs(values) do
                for j, v in ipairs(row) do
                    zero = zero + (math.abs(v) < 1e-5 and 1 or 0)
                    twice = twice + (math.abs(v - 2 * full[i][j]) < 1e-4 and 1 or 0)
                end
            end
            if position == "post" then -- each element is dropped or doubled: 2000 fair coins
                assert.equal(2000, zero + twice)
                assert.is_true(math.abs(zero - 1000) < 5 * math.sqrt(500), zero .. " dropped")
            else -- rows of which all seven inputs are dropped, or none, are rare
                assert.is_true(zero + twice < 200, zero + twice .. " of 2000")
                compare.within("the mean", added:mean(0), whole:mean(0), 0.4)
            end
        end
    end)

    -- NeMo Automodel's formula (LinearLoRA.forward), number by number: "pre" drops x for A, "post" the scaled
    -- output; what is kept is divided by 1 - p. The mask is that of am.dropout on the same random stream.
    it("drops as NeMo Automodel writes it", function()
        local p, rows = 0.25, 6
        for _, position in ipairs { "post", "pre" } do
            local lora, base = wrapped({ dim = 2, alpha = 3, dropout = p, dropout_position = position }, true)
            local x = am.randn { rows, 7 }
            am.manual_seed(4)
            local mask = ops.dropout(am.ones { rows, position == "pre" and 7 or 5 }, p, true):totable()
            local xs, base_out = x:totable(), base:forward(x):totable()
            local a, b = lora.lora_A.weight:totable(), lora.lora_B.weight:totable()
            local expected = {}
            for t = 1, rows do
                expected[t] = {}
                for i = 1, 5 do
                    local sum = 0
                    for r = 1, 2 do
                        local low = 0
                        for k = 1, 7 do
                            low = low + a[r][k] * xs[t][k] * (position == "pre" and mask[t][k] or 1)
                        end
                        sum = sum + b[i][r] * low
                    end
                    expected[t][i] = base_out[t][i] + 3 / 2 * sum * (position == "post" and mask[t][i] or 1)
                end
            end
            lora:train()
            am.manual_seed(4)
            compare.within(position, lora:forward(x), am.tensor(expected), 1e-5)
        end
    end)

    it("begins as its base: A random, B zero", function()
        -- standard deviation of an A [16, n], and the bound of a uniform one
        local begins = {
            xavier = function(n) return math.sqrt(2 / (n + 16)) end, gaussian = function() return 1 / 16 end,
            kaiming = function(n) return 1 / math.sqrt(3 * n), 1 / math.sqrt(n) end,
        }
        begins.uniform = begins.kaiming
        for init, of in pairs(begins) do
            local model = tiny.model({ hidden_size = 48, intermediate_size = 64 })
            local before = tiny.bits(model:forward({ input_ids = ids }).logits)
            peft.apply(model, { dim = 16, lora_A_init = init, target_modules = "*_proj" })
            assert.equal(before, tiny.bits(model:forward({ input_ids = ids }).logits))
            for name, module in peft.lora_modules(model) do
                assert.equal(0, ops.abs(module.lora_B.weight:detach()):amax():item())
                local a, n = module.lora_A.weight:detach(), module.in_features
                assert.same({ 16, n }, a:size())
                local std, most = math.sqrt((a * a):mean():item()), ops.abs(a):amax():item()
                local expected, bound = of(n)
                compare.near("std of " .. name, std, expected, 5 * expected / math.sqrt(2 * 16 * n))
                assert.is_true(not bound or (most <= bound and most > 0.9 * bound), name)
            end
            model:close()
        end
        raised("usage", { "peft.lora_A_init", "pissa", "xavier", "gaussian" }, peft.PeftConfig,
               { lora_A_init = "pissa" })
    end)

    it("says what it is", function()
        assert.equal("post", (wrapped { dim = 3, alpha = 6 }).dropout_position)
        assert.equal("in_features=7, out_features=5, r=3, scale=2", (wrapped { dim = 3, alpha = 6 }):extra_repr())
    end)
end)

describe("an adapted model", function()
    it("learns in A and B only, under PEFT's names", function()
        with_adapted({ target_modules = "*.v_proj", dim = 2 }, function(model)
            model:forward({ input_ids = ids, labels = ids }).loss:backward()
            local learning, names = 0, {}
            for name, t in model:named_parameters() do
                local lora = name:match("%.lora_[AB]%.weight$") ~= nil
                assert.equal(lora, t.requires_grad)
                assert.equal(lora, t.grad ~= nil, name)
                if lora then
                    assert.is_true(ops.abs(t.grad):amax():item() > 0, name)
                    learning, names[#names + 1] = learning + t:numel(), name
                end
            end
            assert.same({
                "model.layers.0.self_attn.v_proj.lora_A.weight", "model.layers.0.self_attn.v_proj.lora_B.weight",
                "model.layers.1.self_attn.v_proj.lora_A.weight", "model.layers.1.self_attn.v_proj.lora_B.weight",
            }, names)
            local total, trainable = model:num_parameters()
            assert.equal(2 * 2 * (12 + 6), trainable)
            assert.equal(learning, trainable)
            local plain = tiny.model()
            assert.equal((plain:num_parameters()) + trainable, total)
            plain:close()
        end)
    end)

    it("keeps A and B in the weight's dtype, or another", function()
        with_adapted({ dim = 2 }, function(model)
            assert.equal("bfloat16", model:get("model.layers.0.mlp.up_proj").lora_A.weight:dtype())
        end, { torch_dtype = "bfloat16" })
    end)

    it("computes in the weight's dtype when A and B are kept in another", function()
        local x = am.randn({ 5, 12 }):to("bfloat16")
        with_adapted({ dim = 2, lora_dtype = "float32" }, function(model)
            local module = model:get("model.layers.0.mlp.up_proj")
            local a, b = module.lora_A.weight, module.lora_B.weight
            assert.same({ "float32", "float32", "bfloat16" }, { a:dtype(), b:dtype(), module.weight:dtype() })
            local out = module:forward(x)
            out:to("float32"):sum():backward()
            local exact = tiny.bits(module:merged_weight())
            assert.same({ "float32", "float32" }, { a.grad:dtype(), b.grad:dtype() })
            local twin = LinearLoRA.new(module, { dim = 2, alpha = 32 })
            twin.lora_A.weight, twin.lora_B.weight = a:detach():to("bfloat16"), b:detach():to("bfloat16")
            assert.equal(tiny.bits(twin:forward(x)), tiny.bits(out))
            assert.not_equal(tiny.bits(twin:merged_weight()), exact) -- merging rounds once, from what is kept
            twin.lora_A.weight.requires_grad = true
            twin:forward(x):to("float32"):sum():backward()
            compare.within("gradient", a.grad, twin.lora_A.weight.grad, 2 ^ -7) -- a bf16 gradient is cast once more
        end, { torch_dtype = "bfloat16" })
    end)

    it("trains when the model trains", function()
        local model = tiny.model()
        model:train()
        peft.apply(model, { dim = 2 })
        for name, module in model:named_modules() do
            assert.is_true(module.training, name)
        end
        model:eval()
        assert.is_false(model:get("model.layers.0.mlp.up_proj.lora_A").training)
        model:close()
    end)

    it("is a plain one once merged, with the same logits", function()
        for _, case in ipairs {
            { { dim = 2 }, {}, 14 }, { { match_all_linear = true }, {}, 15 }, { { target_modules = "lm_head" }, {}, 1 },
            { { target_modules = "*.q_proj" }, { attention_bias = true }, 2 },
            { { match_all_linear = true }, { tie_word_embeddings = true }, 15 },
        } do
            with_adapted(case[1], function(model)
                local plain = tiny.model(case[2])
                local slots = {}
                for name in plain:named_parameters() do
                    slots[#slots + 1] = name
                end
                local before = model:forward({ input_ids = ids }).logits:detach():clone()
                assert.is_true(compare.difference(before, plain:forward({ input_ids = ids }).logits).worst > 0.01)
                assert.equal(case[3], peft.merge(model))
                compare.within("logits", model:forward({ input_ids = ids }).logits, before, 10 * CLOSE)
                local names = {}
                for name in model:named_parameters() do
                    names[#names + 1] = name
                end
                -- an adapted tied head is a matrix of its own
                if case[2].tie_word_embeddings then
                    assert.is_false(model.config.tie_word_embeddings)
                    assert.equal("lm_head.weight", table.remove(names))
                    assert.equal(model:get("lm_head").weight, model:head_context().head_weight)
                end
                assert.same(slots, names)
                assert.is_nil((peft.lora_modules(model)()))
                assert.equal(0, peft.merge(model))
                plain:close()
            end, case[2])
        end
    end)
end)
