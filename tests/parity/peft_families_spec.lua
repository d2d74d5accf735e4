-- Adapters of families that differ from Llama where an adapter is put: experts, weights [in, out], fused maps, scaled
-- embeddings. PEFT's open here and mean the same; those written here open in PEFT. Goldens:
-- tests/parity/peft_families_golden.py. The checks by PEFT itself need $AMLUA_ORACLE_PYTHON.

local am = require("am")
local checks = require("tests.parity.models.checks")
local compare = require("tests.support.compare")
local files = require("tests.support.files")
local json = require("am.utils.json")
local path = require("am.utils.path")
local run = require("tests.parity.models.run")
local strings = require("am.utils.strings")

local ROOT, MODELS = "tests/parity/golden/peft_families", "tests/parity/models/golden/"
-- As in tests/parity/models/checks.lua: rounding in another order, in f32.
local LOGITS, GRADIENT = checks.LOGITS, 1e-4

-- {name in adapter_model.safetensors -> tensor} of what get(parameter) gives of an adapted model, read back from a
-- file so that names and layouts are those that are written.
local function saved(model, config, get)
    local list = {}
    files.with_folder(function(dir)
        for _, module in am.peft.lora_modules(model) do
            for _, child in ipairs(module._children) do
                local weight = child.module.weight
                child.module.weight = get(weight)
                table.insert(list, function() child.module.weight = weight end)
            end
        end
        am.peft.save_adapter(model, dir, config)
        for _, undo in ipairs(list) do
            undo()
        end
        list = am.load_safetensors(path.join(dir, "adapter_model.safetensors"))
        for name, t in pairs(list) do
            list[name] = t:clone()
        end
    end)
    return list
end

local function check(case, kind)
    local dir = path.join(ROOT, case)
    local golden = am.load_safetensors(path.join(dir, "golden.safetensors"))
    local model = am.AutoModelForCausalLM.from_pretrained(MODELS .. kind)
    local config = am.peft.apply(model, { adapter_path = dir })
    local out, keep = model:forward(run.inputs(golden)), checks.attended(golden)
    compare.within("logits", out.logits, golden.logits, LOGITS, nil, keep)
    out.loss:backward()
    local gradients = saved(model, config, function(t) return t.grad end)
    for name, t in pairs(golden) do
        local own = name:match("^grad%.(.+)$")
        if own then
            compare.check(gradients[own], "there is no %s", own)
            compare.within("gradient of " .. own, gradients[own], t, GRADIENT)
        end
    end
    local before = out.logits:detach():clone()
    assert.is_true(am.peft.merge(model) > 0)
    compare.within("merged logits", model:forward(run.inputs(golden)).logits, before, LOGITS, nil, keep)
    model:close()
end

describe("an adapter of PEFT", function()
    for _, case in ipairs { "mixtral", "mixtral_v4", "qwen3_moe_v4", "olmoe", "granitemoe", "gpt2", "gpt2_dora",
                            "gpt_neox", "phi3", "gemma3" } do
        it("means the same here: " .. case, function()
            am.scope(check, case, (case:gsub("_v4$", ""):gsub("_dora$", "")))
        end)
    end
end)

-- fn(model, config, golden) with an adapter after three steps on the golden's rows.
local function with_trained(kind, options, fn)
    am.manual_seed(5)
    local golden = am.load_safetensors(MODELS .. kind .. "/golden.safetensors")
    local model = am.AutoModelForCausalLM.from_pretrained(MODELS .. kind)
    local config = am.peft.apply(model, options)
    local optimizer = am.optim.new("adamw", model:named_parameters(), { lr = 0.05 })
    for _ = 1, 3 do
        am.scope(function() model:forward(run.inputs(golden)).loss:backward() end)
        optimizer:step()
        optimizer:zero_grad()
    end
    fn(model, config, golden)
    optimizer:close()
    model:close()
end

local written = {
    { "mixtral", { target_modules = { "q_proj", "w1", "w2", "w3" }, dim = 3, dropout = 0.1 } },
    { "mixtral", { target_modules = { "*.experts.*", "v_proj" }, dim = 4, moe_rank_scaling = true } },
    { "qwen3_moe", { dim = 2 } }, -- *_proj
    { "olmoe", { exclude_modules = "lm_head", dim = 2 } },
    { "granitemoe", { target_modules = { "input_linear", "output_linear", "q_proj" }, dim = 2 } },
    { "gpt2", { target_modules = "all-linear", dim = 2 } },
    { "gpt2", { target_modules = { "c_attn", "c_fc" }, dim = 2, use_dora = true } },
    { "gpt_neox", { exclude_modules = "embed_out", dim = 2 } },
    { "phi3", { target_modules = "all-linear", dim = 2 } },
    { "gemma3", { target_modules = { "embed_tokens", "*_proj" }, dim = 2 } },
    { "falcon", { target_modules = { "query_key_value", "dense*" }, dim = 2 } },
}

local function write_greedy(model, file)
    local cases = {}
    for i, ids in ipairs { { 1, 2, 3, 4, 5 }, { 9 }, { 17, 4, 30, 8, 1 } } do
        local out = model:generate(ids, { max_new_tokens = 10, eos_token_id = false })
        cases[i] = { input_ids = ids, output_ids = { unpack(out, #ids + 1) } }
    end
    path.write_file(file, json.encode(cases))
end

describe("an adapter written here", function()
    for i, case in ipairs(written) do
        local kind, options = unpack(case)
        local name = string.format("%s %d", kind, i)

        it("opens here with the same bits, and merged gives the same logits: " .. name, function()
            files.with_folder(function(dir)
                with_trained(kind, options, function(model, config, golden)
                    am.peft.save_adapter(model, dir, config)
                    model:eval()
                    local before = am.no_grad(function() return model:forward(run.inputs(golden)).logits end)
                    local other = am.AutoModelForCausalLM.from_pretrained(MODELS .. kind)
                    local loaded, paths = am.peft.apply(other, { adapter_path = dir })
                    assert.equal(config.dim, loaded.dim)
                    assert.equal(config.dropout, loaded.dropout)
                    compare.same("logits", am.no_grad(function() return other:forward(run.inputs(golden)).logits end),
                                 before)
                    local there = {}
                    for module_path in am.peft.lora_modules(model) do
                        there[module_path] = true
                    end
                    assert.same(strings.sorted_keys(there), paths)
                    am.peft.restore_adapter(other, dir)
                    am.peft.merge(other)
                    compare.within("merged", am.no_grad(function() return other:forward(run.inputs(golden)).logits end),
                                   before, LOGITS, nil, checks.attended(golden))
                    other:close()
                end)
            end)
        end)

        it("opens in PEFT and continues the same: " .. name, function()
            local python, why = files.oracle_python()
            if not python then
                return pending(why)
            end
            files.with_folder(function(dir)
                with_trained(kind, options, function(model, config)
                    am.peft.save_adapter(model, dir, config)
                    model:eval()
                    write_greedy(model, path.join(dir, "greedy.json"))
                end)
                local status, output = files.run(string.format(
                    "%s tests/parity/peft_check.py --converted --model %s --adapter %s --greedy %s", python,
                    MODELS .. kind, dir, path.join(dir, "greedy.json")))
                compare.check(status == 0, "%s", output)
            end)
        end)
    end
end)
