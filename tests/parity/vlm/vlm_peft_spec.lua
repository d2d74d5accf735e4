-- Adapters of models with pictures: PEFT's open here and mean the same, those of transformers 4 with the hub's names
-- too; those written here are read back to the same bits, go where patterns say, and merged compute the same.
-- Goldens: vlm_peft_golden.py. What PEFT and transformers say of what is written here: vlm_check.py, by hand.

local am = require("am")
local checks = require("tests.parity.models.checks")
local compare = require("tests.support.compare")
local files = require("tests.support.files")
local path = require("am.utils.path")
local run = require("tests.parity.models.run")
local strings = require("am.utils.strings")

local ROOT, MODELS = "tests/parity/vlm/golden_peft", "tests/parity/vlm/golden/"
local LOGITS, GRADIENT = checks.LOGITS, 1e-4 -- as tests/parity/peft_families_spec.lua

local function open(kind)
    return am.AutoModelForImageTextToText.from_pretrained(MODELS .. kind)
end

local function inputs_of(kind)
    local golden = am.load_safetensors(MODELS .. kind .. "/golden.safetensors")
    return run.inputs(golden), checks.attended(golden)
end

-- {name in adapter_model.safetensors -> gradient} of what is trained of an adapted model. PEFT's names, of modules and
-- of what is saved whole, are those of the model.
local function gradients(model)
    local out = {}
    for name, t in model:named_parameters() do
        if t.requires_grad then
            out["base_model.model." .. name] = t.grad
        end
    end
    return out
end

local function check_peft(case, kind)
    local dir = path.join(ROOT, case)
    local golden, model = am.load_safetensors(dir .. "/golden.safetensors"), open(kind)
    local inputs, keep = inputs_of(kind)
    am.peft.apply(model, { adapter_path = dir })
    local out = model:forward(inputs)
    compare.within("logits", out.logits, golden.logits, LOGITS, nil, keep)
    out.loss:backward()
    local have, want = gradients(model), checks.part(golden, "grad.")
    checks.check_names("gradients", have, want)
    for name, t in pairs(want) do
        compare.within("gradient of " .. name, have[name], t, GRADIENT)
    end
    local before = out.logits:detach():clone()
    assert.is_true(am.peft.merge(model) > 0)
    compare.within("merged logits", model:forward(inputs).logits, before, LOGITS, nil, keep)
    model:close()
end

describe("an adapter of PEFT for a model with pictures", function()
    for _, case in ipairs { "gemma3_text", "gemma3_all", "gemma3_v4", "idefics3_all", "smolvlm_saved" } do
        it("means the same here: " .. case, function()
            am.scope(check_peft, case, case:match("^[^_]+"))
        end)
    end
end)

-- ---- written here -----------------------------------------------------------------------------------

-- kind, options, a part of a path that no adapted module has, and one that some have
local written = {
    { "gemma3", { exclude_modules = { "*vision_tower*", "*vision*", "*visual*", "*image_encoder*", "*lm_head*" },
                  dim = 2 }, "vision", "language_model.layers.1.mlp.down_proj" },
    { "gemma3", { match_all_linear = true, dim = 2 }, "patch_embedding", "vision_tower.encoder.layers.0.mlp.fc1" },
    { "idefics3", { exclude_modules = { "*vision*", "*lm_head*" }, dim = 2, use_rslora = true }, "vision",
      "connector.modality_projection.proj" },
    { "idefics3_masked", { target_modules = { "*vision_model*_proj" }, dim = 3 }, "text_model",
      "vision_model.encoder.layers.1.self_attn.out_proj" },
    { "smolvlm", { target_modules = { "*text_model*q_proj" }, modules_to_save = { "connector" }, dim = 2,
                   use_dora = true }, "vision", "text_model.layers.0.self_attn.q_proj" },
}

-- A model with an adapter after three steps on the golden's rows, the adapter's configuration, and adapted paths.
local function trained(kind, options)
    am.manual_seed(5)
    local model, inputs = open(kind), inputs_of(kind)
    local config, paths = am.peft.apply(model, options)
    local optimizer = am.optim.new("adamw", model:named_parameters(), { lr = 0.05 })
    for _ = 1, 3 do
        am.scope(function() model:forward(inputs).loss:backward() end)
        optimizer:step()
        optimizer:zero_grad()
    end
    optimizer:close()
    model:eval()
    return model, config, paths
end

local function check_written(kind, options, without, with)
    local model, config, paths = trained(kind, options)
    local found = false
    for _, name in ipairs(paths) do
        compare.check(not name:find(without, 1, true), "%s is adapted", name)
        found = found or name:find(with, 1, true) ~= nil
    end
    compare.check(found, "no %s is adapted", with)
    local inputs, keep = inputs_of(kind)
    local function logits(m) return am.no_grad(m.forward, m, inputs).logits end
    local before = logits(model)
    files.with_folder(function(dir)
        am.peft.save_adapter(model, dir, config)
        local other = open(kind)
        local loaded, again = am.peft.apply(other, { adapter_path = dir })
        assert.same(paths, again)
        assert.equal(config.dim, loaded.dim)
        compare.same("logits", logits(other), before)
        am.peft.merge(other)
        local merged = logits(other)
        compare.within("merged", merged, before, LOGITS, nil, keep)
        other:save_pretrained(dir)
        local whole = am.AutoModelForImageTextToText.from_pretrained(dir)
        compare.same("saved", logits(whole), merged)
        whole:close()
        other:close()
    end)
    model:close()
end

describe("an adapter written here for a model with pictures", function()
    for i, case in ipairs(written) do
        it(string.format("goes where patterns say, and is the same read back and merged: %s %d", case[1], i), function()
            am.scope(check_written, unpack(case))
        end)
    end

    it("takes every linear map and nothing else with match_all_linear", function()
        local model = open("idefics3")
        local _, paths = am.peft.apply(model, { match_all_linear = true, dim = 2 })
        local names = {}
        for _, name in ipairs(paths) do
            names[name:match("[^.]+$")] = true
        end
        assert.same({ "down_proj", "fc1", "fc2", "gate_proj", "k_proj", "lm_head", "o_proj", "out_proj", "proj",
                      "q_proj", "up_proj", "v_proj" }, strings.sorted_keys(names))
        model:close()
    end)
end)
