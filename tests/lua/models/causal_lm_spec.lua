-- What every causal language model does with its inputs: forms they come in, masks, packed rows, the loss,
-- parts of the output, counting, memory.

local am = require("am")
local C = require("am.core.ffi").C
local Cache = require("am.nn.cache")
local compare = require("tests.support.compare")
local peft = require("am.peft")
local rope = require("am.nn.rope")
local tiny = require("tests.support.tiny")

local raised = tiny.raised
-- Sums of some dozens of f32 in another order: a few 1e-7 of numbers around 1.
local CLOSE = 2e-6

local model
setup(function() model = tiny.model() end)
teardown(function() model:close() end)

local function logits(args)
    return model:forward(args).logits
end

-- Row i (from 0) of logits [B, T, V], positions first..first + n - 1.
local function part(t, i, first, n)
    return t:select(0, i):narrow(0, first, n)
end

-- Mean of -log softmax(logits[t])[labels[t + 1]] over the labels that are not -100, in plain Lua.
local function mean_loss(values, labels)
    local sum, count = 0, 0
    for b, row in ipairs(labels) do
        for t = 1, #row - 1 do
            local label = row[t + 1]
            if label ~= -100 then
                local total = 0
                for _, z in ipairs(values[b][t]) do
                    total = total + math.exp(z)
                end
                sum, count = sum + math.log(total) - values[b][t][label + 1], count + 1
            end
        end
    end
    return sum / count
end

describe("inputs", function()
    it("are tensors of integers, nested tables, or one row", function()
        local ids = { { 3, 1, 4, 1, 5 } }
        local expected = tiny.bits(logits { input_ids = ids })
        assert.equal(expected, tiny.bits(logits { input_ids = ids[1] }))
        for _, dtype in ipairs { "int32", "int64" } do
            assert.equal(expected, tiny.bits(logits { input_ids = am.tensor(ids, { dtype = dtype }) }))
        end
        assert.equal(expected, tiny.bits(logits { input_ids = ids, position_ids = { { 0, 1, 2, 3, 4 } } }))
        for _, one in ipairs { 1, true } do
            local mask = { { one, one, one, one, one } }
            assert.equal(expected, tiny.bits(logits { input_ids = ids, attention_mask = mask }))
        end
    end)

    it("that are none are told", function()
        raised("argument", "input_ids", model.forward, model, {})
        raised("shape", { "input_ids", "[1, 1, 2]" }, model.forward, model, { input_ids = { { { 1, 2 } } } })
        raised("shape", { "input_ids", "[3]" }, model.forward, model,
               { input_ids = am.tensor({ 1, 2, 3 }, { dtype = "int32" }) })
        raised("argument", "29", model.forward, model, { input_ids = { 1, 29 } })
        raised("argument", "-1", model.forward, model, { input_ids = { 1, -1 } })
        raised("shape", { "attention_mask", "[1, 3]" }, model.forward, model,
               { input_ids = { 1, 2, 3 }, attention_mask = { { 1, 1 } } })
        raised("argument", "forward takes a table", model.forward, model)
        raised("argument", { "input_ids", "a string" }, model.forward, model, { input_ids = "abc" })
        raised("argument", { "input_ids", "number 1 of row 1 is 1.5" }, model.forward, model,
               { input_ids = { { 1.5, 2 } } })
        raised("argument", { "input_ids", "number 2 of row 1 is 4294967297" }, model.forward, model,
               { input_ids = { { 1, 2 ^ 32 + 1 } } })
        raised("argument", { "input_ids", "a hole" }, model.forward, model, { input_ids = { 1, nil, 2 } })
        raised("argument", { "input_ids", "row 2 is a number" }, model.forward, model, { input_ids = { { 1 }, 2 } })
        raised("shape", { "input_ids", "row 2 has 1 numbers, the first has 2" }, model.forward, model,
               { input_ids = { { 1, 2 }, { 3 } } })
        raised("argument", { "input_ids", "float32" }, model.forward, model, { input_ids = am.ones { 1, 2 } })
        raised("shape", "labels", model.forward, model, { input_ids = { 1, 2, 3 }, labels = { 1, 2 } })
        raised("argument", { "labels", "logits" }, model.forward, model,
               { input_ids = { 1, 2, 3 }, labels = { 1, 2, 3 }, logits_to_keep = false })
        raised("argument", { "labels", "logits" }, model.forward, model,
               { input_ids = { 1, 2, 3 }, labels = { 1, 2, 3 }, logits_to_keep = 2 })
    end)

    it("do not see padding", function()
        local long, short = { 3, 1, 4, 1, 5 }, { 9, 2, 6 }
        local out = logits { input_ids = { long, { 9, 2, 6, 0, 0 } }, attention_mask = { { 1, 1, 1, 1, 1 },
                                                                                       { 1, 1, 1, 0, 0 } } }
        compare.within("the long row", part(out, 0, 0, 5), part(logits { input_ids = long }, 0, 0, 5), CLOSE)
        compare.within("the short row", part(out, 1, 0, 3), part(logits { input_ids = short }, 0, 0, 3), CLOSE)
        -- padding on the left, at the positions that transformers' forward gives, which count it
        out = logits { input_ids = { { 7, 7, 9, 2, 6 } }, attention_mask = { { 0, 0, 1, 1, 1 } } }
        local shifted = logits { input_ids = short, position_ids = { { 2, 3, 4 } } }
        compare.within("padding on the left", part(out, 0, 2, 3), part(shifted, 0, 0, 3), CLOSE)
        local other = logits { input_ids = { { 8, 0, 9, 2, 6 } }, attention_mask = { { 0, 0, 1, 1, 1 } } }
        assert.equal(tiny.bits(part(out, 0, 2, 3)), tiny.bits(part(other, 0, 2, 3)))
        local seen = logits { input_ids = { { 8, 0, 9, 2, 6 } } }
        assert.is_true(compare.difference(part(out, 0, 2, 3), part(seen, 0, 2, 3)).worst > 1e-2)
    end)

    it("have masks without gaps", function()
        raised("unsupported", { "row 1", "gap at 2" }, model.forward, model,
               { input_ids = { { 1, 2, 3 }, { 1, 2, 3 } }, attention_mask = { { 1, 1, 0 }, { 1, 0, 1 } } })
    end)

    it("are packed by positions that begin anew", function()
        local first, second, third = { 3, 1, 4, 1 }, { 5, 9 }, { 2, 6, 5 }
        local row, positions = {}, {}
        for _, sample in ipairs { first, second, third } do
            for i, id in ipairs(sample) do
                row[#row + 1], positions[#positions + 1] = id, i - 1
            end
        end
        local packed = logits { input_ids = row, position_ids = positions }
        local at = 0
        for i, sample in ipairs { first, second, third } do
            compare.within("sample " .. i, part(packed, 0, at, #sample),
                           part(logits { input_ids = sample }, 0, 0, #sample), CLOSE)
            at = at + #sample
        end
        local ranges = {}
        for i = 1, #row do
            ranges[i] = i <= 4 and { 0, 4 } or i <= 6 and { 4, 6 } or { 6, 9 }
        end
        local bounds = am.tensor({ ranges }, { dtype = "int32" })
        local told = logits { input_ids = row, position_ids = positions, bounds = bounds }
        assert.equal(tiny.bits(packed), tiny.bits(told))
    end)
end)

describe("the loss", function()
    local ids = { { 3, 1, 4, 1, 5 }, { 9, 2, 6, 5, 3 } }

    it("is the mean over labels, each of them predicted by the token before", function()
        for _, labels in ipairs {
            ids, { { -100, -100, 4, 1, 5 }, { -100, 2, -100, -100, -100 } }, { { 7, -100, -100, -100, -100 },
                                                                             { -100, -100, -100, -100, 28 } },
        } do
            local out = model:forward { input_ids = ids, labels = labels }
            compare.near("loss", out.loss:item(), mean_loss(out.logits:totable(), labels), 1e-6)
            for _, dtype in ipairs { "int32", "int64" } do
                local again = model:forward { input_ids = ids, labels = am.tensor(labels, { dtype = dtype }) }
                assert.equal(out.loss:item(), again.loss:item())
            end
        end
    end)

    it("is 0 without labels to learn, and teaches nothing", function()
        local out = model:forward { input_ids = ids, labels = { { 3, -100, -100, -100, -100 },
                                                                { 9, -100, -100, -100, -100 } } }
        assert.equal(0, out.loss:item())
        out.loss:backward()
        for name, t in model:named_parameters() do
            compare.check(t.grad == nil or am.ops.abs(t.grad):amax():item() == 0, "%s has a gradient", name)
            t.grad = nil
        end
        assert.is_nil(model:forward({ input_ids = ids }).loss)
    end)

    it("has the gradient of finite differences", function()
        local args = { input_ids = ids, labels = ids }
        model:forward(args).loss:backward()
        local step = 0.02
        for _, name in ipairs { "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight",
                                "model.layers.1.mlp.gate_proj.weight", "model.norm.weight", "lm_head.weight" } do
            local t = model:get(name:match("^(.*)%.")).weight
            local direction = t.grad:clone()
            local norm = math.sqrt((direction * direction):sum():item())
            local at = t:detach():clone()
            local function loss_at(sign)
                am.no_grad(function() t:copy_(at + direction * (sign * step / norm)) end)
                return am.no_grad(model.forward, model, args).loss:item()
            end
            local slope = (loss_at(1) - loss_at(-1)) / (2 * step)
            am.no_grad(function() t:copy_(at) end)
            compare.near(name, slope, norm, 0.01 * norm + 1e-4)
            assert.is_true(norm > 1e-3, name)
        end
        for _, t in model:named_parameters() do
            t.grad = nil
        end
    end)

    it("and its gradients are the same bits when layers are computed again", function()
        local function gradients(changes)
            local m = tiny.model({ attention_dropout = 0.25 }, changes)
            m:train()
            am.manual_seed(3)
            local out = m:forward { input_ids = ids, labels = ids }
            local recorded = tonumber(C.am_tape_length())
            out.loss:backward()
            local list = { loss = out.loss:item() }
            for name, t in m:named_parameters() do
                list[name] = tiny.bits(t.grad)
            end
            m:close()
            return list, recorded
        end
        local plain, recorded = gradients {}
        local again, recorded_again = gradients { activation_checkpointing = true }
        assert.same({}, tiny.differing(plain, again))
        assert.is_true(recorded_again < recorded / 2, recorded_again .. " of " .. recorded)
        local some, recorded_some = gradients { activation_checkpointing = "selective" }
        assert.same({}, tiny.differing(plain, some))
        assert.is_true(recorded_again < recorded_some and recorded_some < recorded, recorded_some)
        assert.is_truthy(plain["lm_head.weight"])
    end)
end)

describe("the output", function()
    local ids = { { 3, 1, 4, 1, 5 }, { 9, 2, 6, 5, 3 } }

    it("is all logits, the last ones, or none", function()
        local all = logits { input_ids = ids }
        assert.same({ 2, 5, 29 }, all:size())
        for keep = 1, 4 do
            local some = logits { input_ids = ids, logits_to_keep = keep }
            assert.same({ 2, keep, 29 }, some:size())
            compare.within("the last " .. keep, some, all:narrow(1, 5 - keep, keep), CLOSE)
        end
        for _, keep in ipairs { 0, 5, 6 } do
            assert.equal(tiny.bits(all), tiny.bits(logits { input_ids = ids, logits_to_keep = keep }))
        end
        local none = model:forward { input_ids = ids, logits_to_keep = false }
        assert.is_nil(none.logits)
        assert.equal(tiny.bits(all), tiny.bits(model:head(none.hidden_states)))
        assert.is_nil(model:forward({ input_ids = ids }).hidden_states)
        local both = model:forward { input_ids = ids, output_hidden_states = true, logits_to_keep = 1 }
        assert.equal(tiny.bits(none.hidden_states), tiny.bits(both.hidden_states))
        assert.same({ 2, 5, 12 }, both.hidden_states:size())
    end)

    it("does not look ahead", function()
        local a, b = logits { input_ids = { 3, 1, 4, 1, 5 } }, logits { input_ids = { 3, 1, 4, 9, 2 } }
        assert.equal(tiny.bits(part(a, 0, 0, 3)), tiny.bits(part(b, 0, 0, 3)))
        assert.not_equal(tiny.bits(part(a, 0, 3, 1)), tiny.bits(part(b, 0, 3, 1)))
    end)

    it("gives the padding token's embedding no gradient", function()
        local padded = tiny.model { pad_token_id = 4 }
        padded:forward({ input_ids = ids, labels = ids }).loss:backward()
        local grad = padded.model.embed_tokens.weight.grad
        for id, seen in pairs { [4] = false, [1] = true, [3] = true, [7] = false } do
            assert.equal(seen, am.ops.abs(grad:select(0, id)):amax():item() > 0, "token " .. id)
        end
        padded:close()
        -- -1 is the last row, as in PyTorch
        local last = tiny.model { pad_token_id = -1, vocab_size = 8 }
        last:forward({ input_ids = { 7, 1, 7 }, labels = { 1, 1, 1 } }).loss:backward()
        assert.equal(0, last.model.embed_tokens.weight.grad:select(0, 7):abs():amax():item())
        last:close()
    end)

    it("gives it one in families whose embeddings have no padding row", function()
        for _, name in ipairs { "GPT2LMHeadModel", "FalconForCausalLM", "GPTNeoXForCausalLM" } do
            for _, pad in ipairs { 4, 5000 } do -- GPT-2's own id may be beyond a small vocabulary
                local other = am.AutoModelForCausalLM.from_config {
                    architectures = { name }, vocab_size = 9, hidden_size = 16, num_attention_heads = 2,
                    rotary_pct = 0.5, num_hidden_layers = 1, intermediate_size = 8, max_position_embeddings = 8,
                    pad_token_id = pad, tie_word_embeddings = false,
                }
                other:forward({ input_ids = { 4, 1, 4 }, labels = { 1, 1, 1 } }).loss:backward()
                local grad = other:get_input_embeddings().weight.grad
                if other.model.positions then
                    raised("argument", { "position 9", "has 8", "n_positions" }, other.forward, other,
                           { input_ids = { 1, 1, 1, 1, 1, 1, 1, 1, 1 } })
                end
                assert.is_true(grad:select(0, 4):abs():amax():item() > 0, name)
                other:close()
            end
        end
    end)

    it("has frequencies for all that was seen when they depend on the length", function()
        local dynamic = tiny.model { max_position_embeddings = 4, rope_scaling = { type = "dynamic", factor = 2 } }
        local function frequencies(length)
            return rope.frequencies { theta = 10000, dim = 6, max_position_embeddings = 4, seq_len = length,
                                      scaling = { rope_type = "dynamic", factor = 2 } }
        end
        local cache = Cache.new(9)
        for _, case in ipairs { { 3, 3 }, { 3, 6 }, { 1, 7 } } do
            am.no_grad(dynamic.forward, dynamic, { input_ids = { unpack({ 5, 6, 7 }, 1, case[1]) }, cache = cache })
            assert.same(frequencies(case[2]), dynamic.model.rotaries.full_attention.inv_freq:totable())
        end
        assert.not_same(frequencies(7), frequencies(6))
        dynamic:forward { input_ids = { 5, 6 }, position_ids = { { 7, 8 } } }
        assert.same(frequencies(9), dynamic.model.rotaries.full_attention.inv_freq:totable())
        cache:release()
        dynamic:close()
    end)

    it("changes while training only when something is dropped", function()
        local dropping = tiny.model { attention_dropout = 0.5 }
        local function bits() return tiny.bits(dropping:forward({ input_ids = ids }).logits) end
        assert.equal(bits(), bits())
        dropping:train()
        assert.not_equal(bits(), bits())
        dropping:close()
    end)
end)

describe("a model", function()
    it("hands out the head's weight when the head is no more than that", function()
        assert.equal(model.lm_head.weight, model:head_context().head_weight)
        local adapted = tiny.model()
        peft.apply(adapted, { target_modules = "lm_head", dim = 2 })
        assert.is_nil(adapted:head_context().head_weight)
        assert.equal("LinearLoRA", adapted.lm_head.class_name)
        adapted:close()
    end)

    it("counts parameters, shared ones once, and those that learn", function()
        local head, embed = 29 * 12, 29 * 12
        local layer = 12 * 18 + 2 * 12 * 6 + 18 * 12 + 3 * 12 * 20 + 2 * 12
        assert.same({ embed + 2 * layer + 12 + head, embed + 2 * layer + 12 + head }, { model:num_parameters() })
        local tied = tiny.model { tie_word_embeddings = true }
        assert.equal(embed + 2 * layer + 12, (tied:num_parameters()))
        tied.model.embed_tokens.weight.requires_grad = false
        assert.same({ embed + 2 * layer + 12, 2 * layer + 12 }, { tied:num_parameters() })
        tied:close()
    end)

    it("frees everything when it is closed", function()
        local function live()
            collectgarbage()
            collectgarbage()
            return am.memory().live_bytes
        end
        for _, changes in ipairs { {}, { tie_word_embeddings = true }, { rope_scaling = { rope_type = "dynamic",
                                                                                       factor = 2 } } } do
            local before = live()
            local m = tiny.model(changes)
            am.scope(function() m:forward { input_ids = { 1, 2, 3 }, labels = { 1, 2, 3 } } end)
            assert.is_true(live() > before)
            local held = { m.model._inv_freq }
            for _, t in m:named_parameters() do
                held[#held + 1] = t
            end
            m:close()
            for _, t in ipairs(held) do -- at once, not when they are collected
                assert.is_false(t:alive())
            end
            held = nil -- luacheck: ignore
            assert.equal(before, live())
        end
    end)
end)
