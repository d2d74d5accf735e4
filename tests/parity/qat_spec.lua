-- Training that knows of later quantisation equals torchao's: numbers and gradients of every kind and dtype, and losses
-- and gradients of a tiny Llama with tied embeddings (qat_golden.py).
local am = require("am")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local ops = require("am.core.ops")
local quantization = require("am.quantization")
local tiny = require("tests.support.tiny")

local GOLDEN = "tests/parity/golden/qat"
local kinds = {
    int4_float32 = { "int4", { group = 16 } }, int4_bfloat16 = { "int4", { group = 16, scales_dtype = "bfloat16" } },
    uint4 = { "uint4", { group = 16 } }, int8 = { "int8" },
}

describe("fake quantisation", function()
    local golden = am.load_safetensors(GOLDEN .. "/rounding.safetensors")
    for _, device in ipairs { "cpu", "ref" } do
        for _, dtype in ipairs { "float32", "bfloat16", "float16" } do
            for name, kind in pairs(kinds) do
                it(("has torchao's bits: %s in %s on %s"):format(name, dtype, device), function()
                    local x = golden.x:to(dtype):to(device):detach()
                    x.requires_grad = true
                    local y = ops.fake_quantize(x, kind[1], kind[2])
                    y:backward(golden.grad:to(dtype):to(device))
                    local prefix = dtype .. "." .. name
                    assert.equal(tiny.bits(golden[prefix .. ".y"]), tiny.bits(y:detach():to("cpu")))
                    assert.equal(tiny.bits(golden[prefix .. ".dx"]), tiny.bits(x.grad:to(dtype):to("cpu")))
                end)
            end
        end
    end
end)

-- f32 sums in another order, which may move an input to its neighbour among 256 levels. Seen: 3e-7 of losses, 4e-6 of
-- gradients, relative to their norm.
local LOSS, GRADIENT = 1e-5, 1e-4

describe("a tiny Llama", function()
    local golden = assert(json.decode(helper.read(GOLDEN .. "/training.json")))
    local worst
    before_each(function() worst = { loss = 0, gradient = 0 } end)
    teardown(helper.cleanup)

    local function config(kind)
        local dir, lines = helper.folder(), {}
        for i, row in ipairs(golden.rows) do
            lines[i] = json.encode { input_ids = row } .. "\n"
        end
        local count = #golden[kind].steps
        local cfg = helper.config(dir, {
            model = { pretrained_model_name_or_path = GOLDEN, torch_dtype = "float32" },
            optimizer = { lr = golden.lr, weight_decay = 0.01 },
            qat = { enabled = true, fake_quant_after_n_steps = golden.after,
                    qat_config = { quantizer_type = kind, groupsize = 32,
                                   inner_k_tiles = kind == "int4_weight_only" and 2 or nil } },
            step_scheduler = { max_steps = count, num_epochs = count },
        })
        cfg.dataset = { _target_ = "am.datasets.PretokenizedDataset",
                        path_or_dataset_id = helper.write(dir .. "/rows.jsonl", table.concat(lines)) }
        return cfg, dir
    end

    for _, kind in ipairs { "int8_dynact_int4weight", "int4_weight_only" } do
        local want = golden[kind]

        it("has torchao's gradients, and its choice of maps: " .. kind, function()
            local recipe = helper.recipe((config(kind)))
            local taken = {}
            for path, module in recipe.model:named_modules() do
                taken[#taken + 1] = module.fake_quant and path
            end
            table.sort(taken)
            assert.same(want.taken, taken)
            recipe.qat.on = true
            local window = recipe:next_window()
            local count = 0
            for _, batch in ipairs(window) do
                count = count + batch.num_label_tokens
            end
            worst.loss = math.max(worst.loss, helper.relative(want.loss, recipe:gradients(window, 1 / count) / count))
            for name, t in recipe.model:named_parameters() do
                local norm = want.norms[name]
                local flat, n = t.grad:reshape(-1), 0
                local stride = math.max(1, math.floor(t:numel() / 5))
                worst.gradient = math.max(worst.gradient, helper.relative(norm, flat:pow(2):sum():sqrt():item()))
                for i = 0, t:numel() - 1, stride do
                    n = n + 1
                    worst.gradient = math.max(worst.gradient, math.abs(want.grads[name][n]
                        - flat:narrow(0, i, 1):item()) / norm)
                end
                assert.equal(#want.grads[name], n)
            end
            assert.is_true(worst.loss < LOSS, "loss: " .. worst.loss)
            assert.is_true(worst.gradient < GRADIENT, "gradient: " .. worst.gradient)
            helper.close(recipe)
        end)

        it("trains as with torchao, with rounding from the third step on: " .. kind, function()
            local cfg, dir = config(kind)
            helper.train_here(cfg)
            local records = helper.jsonl(dir .. "/training.jsonl")
            assert.equal(#want.steps, #records)
            for i, step in ipairs(want.steps) do
                worst.loss = math.max(worst.loss, helper.relative(step[1], records[i].loss))
                worst.gradient = math.max(worst.gradient, helper.relative(step[2], records[i].grad_norm))
            end
            assert.is_true(worst.loss < LOSS, "loss: " .. worst.loss)
            assert.is_true(worst.gradient < GRADIENT, "gradient: " .. worst.gradient)
        end)
    end

    it("is rounded by component, too", function()
        local model = am.AutoModelForCausalLM.from_pretrained(GOLDEN, { torch_dtype = "float32" })
        local plain = model:forward { input_ids = { golden.rows[1] } }.logits
        local qat = quantization.qat.apply(model, quantization.qat.QATConfig { groupsize = 32 })
        assert.equal(tiny.bits(plain), tiny.bits(model:forward { input_ids = { golden.rows[1] } }.logits))
        qat.on = true
        assert.not_equal(tiny.bits(plain), tiny.bits(model:forward { input_ids = { golden.rows[1] } }.logits))
        model:close()
    end)
end)
