-- What a configuration may name as an optimizer: every name builds what it stands for, keys of other libraries
-- mean what they mean there, and the bytes that are foretold are those that are taken.

local am = require("am")
local compare = require("tests.support.compare")
local config = require("am.config")
local helpers = require("tests.lua.optim.helpers")
local optim = require("am.optim")
local tiny = require("tests.support.tiny")

local NAMES = { "model.embed_tokens.weight", "model.layers.0.q_proj.weight", "model.layers.0.norm.weight",
                "lm_head.weight" }
local SHAPES = { { 30, 20 }, { 20, 24 }, { 20 }, { 30, 20 } }

local registry = config.new_registry()
registry:define_all(optim.targets)

local function parameters(dtype)
    return helpers.named_parameters(NAMES, SHAPES, 8, dtype)
end

-- The optimizer of a section, checked as recipes check it.
local function build(yaml, dtype)
    local list, named = parameters(dtype)
    local node = config.parse("optimizer: " .. yaml, { name = "run.yaml" })
    local ctx = { registry = registry, named_parameters = named }
    config.validate(node, { fields = { optimizer = { target = true } } }, ctx)
    return config.instantiate(node:child("optimizer"), ctx), list, node:child("optimizer"):to_table()
end

local function stepped(optimizer, list)
    for step = 1, 3 do
        am.manual_seed(90 + step)
        local loss = 0
        for _, p in ipairs(list) do
            loss = (p * am.randn(p:size()):to(p:dtype())):sum() + loss
        end
        loss:backward()
        optimizer:step()
        optimizer:zero_grad()
    end
    local out = {}
    for i, p in ipairs(list) do
        out[i] = tiny.bits(p)
    end
    optimizer:close()
    return out
end

-- Two sections train alike.
local function same(a, b, dtype)
    local first, of_first = build(a, dtype)
    local second, of_second = build(b, dtype)
    assert.same(stepped(first, of_first), stepped(second, of_second), a .. " and " .. b)
end

describe("an optimizer's target", function()
    it("has the names of other libraries, NeMo Automodel's eras and short ones", function()
        local kinds = {}
        for _, name in ipairs {
            "torch.optim.Adam", "torch.optim.adam.Adam", "torch.optim.AdamW", "torch.optim.SGD", "adam", "adamw",
            "nemo_automodel.components.optim.AdamWConfig", "nemo_automodel.components.optim.optimizer.AdamConfig",
            "fused_adam", "transformer_engine.pytorch.optimizers.FusedAdam", "flash_adamw",
            "transformer_engine.pytorch.optimizers.fused_adam.FusedAdam", "flashoptim.FlashAdamW",
            "bitsandbytes.optim.AdamW8bit", "bitsandbytes.optim.PagedAdamW8bit", "bitsandbytes.optim.adamw.AdamW8bit",
            "bitsandbytes.optim.Adam8bit", "torchao.optim.AdamW8bit", "torchao.prototype.low_bit_optim.AdamW8bit",
            "lion_pytorch.Lion", "lion", "bitsandbytes.optim.Lion8bit", "torch.optim.Adafactor", "adafactor",
            "transformers.Adafactor", "transformers.optimization.Adafactor", "torch.optim.Muon", "dion.Muon", "muon",
            "nemo_automodel.components.optim.MuonConfig", "dion.NorMuon", "normuon", "soap", "pytorch_optimizer.SOAP",
            "shampoo", "pytorch_optimizer.Shampoo",
        } do
            local optimizer = build("{_target_: " .. name .. "}")
            kinds[optimizer.kind] = (kinds[optimizer.kind] or 0) + 1
            optimizer:close()
        end
        assert.same({ adam = 5, adamw = 13, sgd = 1, lion = 3, adafactor = 4, muon = 4, normuon = 2, soap = 2,
                      shampoo = 2 }, kinds)
    end)

    it("has the defaults of what it is named after", function()
        for name, wanted in pairs {
            ["torch.optim.Adam"] = { 1e-3, 0 }, ["torch.optim.AdamW"] = { 1e-3, 0.01 }, adam = { 1e-4, 0.01 },
            adamw = { 1e-4, 0.01 }, fused_adam = { 1e-4, 0.01 }, flash_adamw = { 1e-4, 0.01 },
            ["transformer_engine.pytorch.optimizers.FusedAdam"] = { 1e-3, 0 }, ["torch.optim.SGD"] = { 1e-3, 0 },
            ["lion_pytorch.Lion"] = { 1e-4, 0 }, ["torch.optim.Adafactor"] = { 1e-2, 0 },
            ["torch.optim.Muon"] = { 1e-3, 0.1 }, muon = { 5e-4, 0 }, normuon = { 5e-4, 0 }, soap = { 3e-3, 0.01 },
            shampoo = { 1e-3, 0 }, ["bitsandbytes.optim.AdamW8bit"] = { 1e-3, 0.01 },
        } do
            local optimizer = build("{_target_: " .. name .. "}")
            local group = optimizer.param_groups[1]
            assert.same(wanted, { group.lr, group.weight_decay }, name)
            optimizer:close()
        end
    end)

    it("means by its keys what they mean there", function()
        local adamw = "{_target_: torch.optim.AdamW, lr: 0.01, weight_decay: 0.1"
        same(adamw .. ", foreach: true, fused: null, capturable: false}", adamw .. "}")
        same("{_target_: torch.optim.Adam, lr: 0.01, weight_decay: 0.1, decoupled_weight_decay: true}", adamw .. "}")
        same("{_target_: fused_adam, lr: 0.01, weight_decay: 0.1}", adamw .. "}")
        same("{_target_: fused_adam, lr: 0.01, weight_decay: 0.1, adam_w_mode: false}",
             "{_target_: torch.optim.Adam, lr: 0.01, weight_decay: 0.1}")
        same("{_target_: fused_adam, lr: 0.01, weight_decay: 0.1, exp_avg_dtype: torch.bfloat16, "
             .. "exp_avg_sq_dtype: torch.bfloat16, master_weights: true, master_weight_dtype: torch.float32, "
             .. "store_param_remainders: true}", adamw .. ", state_dtype: bfloat16}", "bfloat16")
        same("{_target_: flashoptim.FlashAdamW, lr: 0.01, weight_decay: 0.1, master_weight_bits: 32}",
             adamw .. ", state_dtype: int8}", "bfloat16")
        same("{_target_: flashoptim.FlashAdamW, lr: 0.01, weight_decay: 0.1, quantize: false, "
             .. "master_weight_bits: null}", adamw .. ", master_weights: false}", "bfloat16")
        same("{_target_: torchao.optim.AdamW8bit, lr: 0.01, weight_decay: 0.1, block_size: 256}",
             adamw .. ", state_dtype: int8}")
        same("{_target_: bitsandbytes.optim.AdamW8bit, lr: 0.01, weight_decay: 0.1, state_dtype: float32}",
             adamw .. "}")
        same("{_target_: torch.optim.Muon, lr: 0.01, adjust_lr_fn: original}", "{_target_: torch.optim.Muon, lr: 0.01}")
        same("{_target_: lion_pytorch.Lion, lr: 0.01, weight_decay: 0.02, decoupled_weight_decay: true}",
             "{_target_: lion, lr: 0.01, weight_decay: 2}")
        same("{_target_: dion.Muon, lr: 0.01, adjust_lr: spectral_norm, flatten: true, use_triton: false}",
             "{_target_: muon, lr: 0.01}")
        local plain, of_plain = build("{_target_: dion.Muon, lr: 0.01, adjust_lr: null}")
        local adjusted, of_adjusted = build("{_target_: dion.Muon, lr: 0.01}")
        assert.not_same(stepped(plain, of_plain), stepped(adjusted, of_adjusted))
    end)

    it("goes up the gradient with maximize", function()
        for _, name in ipairs { "torch.optim.SGD", "lion", "adafactor", "torch.optim.Muon", "shampoo" } do
            local moved = {}
            for i, maximize in ipairs { "false", "true" } do
                local optimizer, list = build(("{_target_: %s, lr: 0.01, weight_decay: 0, maximize: %s}"):format(name,
                                                                                                             maximize))
                local before = list[2]:detach():clone();
                (list[2] * am.ones(SHAPES[2]):cumsum(1)):sum():backward()
                optimizer:step()
                moved[i] = (list[2]:detach() - before):clone()
                optimizer:close()
            end
            compare.within(name, moved[1], moved[2] * -1, 1e-4)
            assert.is_true(moved[1]:abs():amax():item() > 0, name)
        end
    end)

    it("refuses what is wrong or not there, and says what to change", function()
        for yaml, wanted in pairs {
            ["{_target_: dion}"] = { "Dion", "am.optim.Muon" },
            ["{_target_: dion.Dion2, lr: 1, fraction: 0.5}"] = { "Dion2", "am.optim.Muon" },
            ["{_target_: torch.optim.AdamW, differentiable: true}"] = { "differentiable", "false" },
            ["{_target_: torch.optim.AdamW, amsgrad: true, state_dtype: int8}"] = { "AMSGrad", "float32" },
            ["{_target_: torch.optim.AdamW, param_group_overrides: [{lr_mult: 2}]}"] = { "pattern", "is missing" },
            ["{_target_: torch.optim.AdamW, param_group_overrides: [{pattern: a, lr_mul: 2}]}"] = {
                "lr_mul", "lr_mult" },
            ["{_target_: torch.optim.AdamW, param_group_overrides: [{pattern: '['}]}"] = {
                "param_group_overrides[1].pattern" },
            ["{_target_: fused_adam, exp_avg_dtype: float32, exp_avg_sq_dtype: bfloat16}"] = { "exp_avg_sq_dtype" },
            ["{_target_: fused_adam, master_weight_dtype: bfloat16}"] = { "master_weight_dtype" },
            ["{_target_: transformers.Adafactor, lr: 1}"] = { "relative_step" },
            ["{_target_: transformers.Adafactor, relative_step: false}"] = { "lr" },
            ["{_target_: transformers.Adafactor, lr: 1, relative_step: false, warmup_init: true}"] = { "warmup_init" },
            ["{_target_: transformers.Adafactor, beta1: 0.9}"] = { "beta1" },
            ["{_target_: torch.optim.Adafactor, eps: [1]}"] = { "eps" },
            ["{_target_: torch.optim.Muon, ns_coefficients: [1, 2]}"] = { "ns_coefficients", "three" },
            ["{_target_: torch.optim.Muon, state_dtype: int8}"] = { "state_dtype", "bfloat16" },
            ["{_target_: torch.optim.Muon, adjust_lr_fn: spectral}"] = { "adjust_lr_fn", "spectral_unclamped" },
            ["{_target_: lion, decoupled_weight_decay: true, lr: 0}"] = { "decoupled_weight_decay", "lr" },
            ["{_target_: soap, precondition_frequency: 0}"] = { "precondition_frequency" },
        } do
            local ok, e = pcall(build, yaml)
            assert.is_false(ok, yaml)
            for _, text in ipairs(wanted) do
                assert.truthy(tostring(e):find(text, 1, true), yaml .. ": " .. tostring(e))
            end
        end
    end)
end)

describe("the bytes of an optimizer's state", function()
    it("are those that are foretold", function()
        for _, yaml in ipairs {
            "{_target_: torch.optim.AdamW}", "{_target_: torch.optim.Adam, amsgrad: true, state_dtype: bfloat16}",
            "{_target_: torch.optim.AdamW, master_weights: false}", "{_target_: bitsandbytes.optim.AdamW8bit}",
            "{_target_: flash_adamw}",
            "{_target_: torch.optim.SGD}", "{_target_: torch.optim.SGD, momentum: 0.9}", "{_target_: lion}",
            "{_target_: bitsandbytes.optim.Lion8bit}", "{_target_: adafactor}", "{_target_: transformers.Adafactor}",
            "{_target_: torch.optim.Muon}", "{_target_: muon, scalar_opt: lion, state_dtype: bfloat16}",
            "{_target_: normuon}", "{_target_: soap}",
            "{_target_: soap, max_precond_dim: 20, precondition_1d: true}", "{_target_: shampoo, momentum: 0.5}",
            "{_target_: shampoo, max_precond_dim: 22}",
        } do
            for _, dtype in ipairs { "float32", "bfloat16", "float64" } do
                local optimizer, _, opts = build(yaml, dtype)
                local real, said = 0, 0
                for _, what, t in optimizer:state_tensors() do
                    local size = ({ float64 = 8, float32 = 4, bfloat16 = 2, uint8 = 1 })[t:dtype()]
                    real = real + (what == "variance_neuron" and 0 or t:numel() * size)
                end
                for i, shape in ipairs(SHAPES) do
                    said = said + optim.state_bytes(opts, NAMES[i], shape,
                                                    ({ float64 = 8, float32 = 4, bfloat16 = 2 })[dtype])
                end
                assert.equal(real, said, yaml .. " " .. dtype)
                optimizer:close()
            end
        end
    end)
end)
