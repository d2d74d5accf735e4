-- Adapters from and to PEFT's files: there and back, and what is told about files that do not fit.
-- That PEFT itself reads them is tests/parity/peft_spec.lua's.

local am = require("am")
local compare = require("tests.support.compare")
local files = require("tests.support.files")
local json = require("am.utils.json")
local path = require("am.utils.path")
local peft = require("am.peft")
local tiny = require("tests.support.tiny")

local raised = tiny.raised
local ids = { { 3, 1, 4, 1, 5 }, { 9, 2, 6, 5, 3 } }
local CONFIG, OWN, TENSORS = "adapter_config.json", "automodel_peft_config.json", "adapter_model.safetensors"
local UP = "base_model.model.model.layers.1.mlp.up_proj."

-- An adapted tiny model whose B is random too.
local function adapted(config, changes)
    local model = tiny.model(changes)
    local in_force = peft.apply(model, config)
    for _, module in peft.lora_modules(model) do
        module.lora_B.weight:detach():normal_(0, 0.3)
    end
    return model, in_force
end

-- fn(dir, model, config) with a saved adapter.
local function with_saved(config, fn, changes)
    files.with_folder(function(dir)
        local model, in_force = adapted(config, changes)
        peft.save_adapter(model, dir, in_force)
        fn(dir, model, in_force)
        model:close()
    end)
end

local function lora_weights(model)
    local out = {}
    for name, t in model:named_parameters() do
        out[name] = name:match("%.lora_[AB]%.") and tiny.bits(t) or nil
    end
    return out
end

local function logits(model)
    return tiny.bits(model:forward({ input_ids = ids }).logits)
end

-- Change fields of a JSON file (json.null removes one).
local function edit_json(file, changes)
    local fields = files.json(file)
    for key, value in pairs(changes) do
        fields[key] = value
        if value == json.null then
            fields[key] = nil
        end
    end
    path.write_file(file, json.encode(fields))
end

local function edit_tensors(dir, edit)
    local file = path.join(dir, TENSORS)
    local tensors = am.load_safetensors(file)
    edit(tensors)
    am.save_safetensors(file, tensors)
end

describe("an adapter", function()
    it("comes back with equal bits, logits and settings", function()
        for _, case in ipairs {
            { { dim = 2, alpha = 3 } }, { { match_all_linear = true, dim = 5, alpha = 5 } },
            { { target_modules = "*.q_proj", dim = 1, dropout = 0.25, dropout_position = "pre" } },
            { { target_modules = { "*.1.*" }, dim = 3, dropout = 0.5 }, { torch_dtype = "bfloat16" } },
            { { exclude_modules = "*mlp*", lora_dtype = "float32" }, { torch_dtype = "float16" } },
        } do
            with_saved(case[1], function(dir, model, config)
                local other = tiny.model(case[2])
                local before = logits(other)
                local loaded = peft.load_adapter(other, dir, { dtype = case[1].lora_dtype })
                assert.not_equal(before, logits(other))
                assert.equal(logits(model), logits(other))
                assert.same({}, tiny.differing(lora_weights(model), lora_weights(other)))
                for _, key in ipairs { "dim", "alpha", "dropout", "dropout_position" } do
                    assert.equal(config[key], loaded[key], key)
                end
                for name, module in peft.lora_modules(model) do
                    local twin = other:get(name)
                    assert.same({ module.scale, module.dropout, module.dropout_position },
                                { twin.scale, twin.dropout, twin.dropout_position })
                end
                for name, t in other:named_parameters() do
                    assert.equal(name:match("lora_") ~= nil, t.requires_grad)
                end
                other:close()
            end, case[2])
        end
    end)

    it("has memory of its own, not the file's", function()
        with_saved({ dim = 2 }, function(dir)
            local other, bytes = tiny.model(), 0
            collectgarbage()
            collectgarbage()
            local before = am.memory().live_bytes
            peft.load_adapter(other, dir)
            for _, module in peft.lora_modules(other) do
                bytes = bytes + module.lora_A.weight:nbytes() + module.lora_B.weight:nbytes()
            end
            assert.is_true(bytes > 2000 and am.memory().live_bytes >= before + bytes)
            other:close()
        end)
    end)

    it("is applied by a configuration that names it", function()
        with_saved({ dim = 3, alpha = 5, dropout = 0.25, target_modules = "*.v_proj" }, function(dir, model)
            local other = tiny.model()
            local config, paths = peft.apply(other, { adapter_path = dir, dropout = 0.5 })
            assert.equal(logits(model), logits(other))
            assert.same({ 3, 5, 0.5, "post" }, { config.dim, config.alpha, config.dropout, config.dropout_position })
            assert.same({ "model.layers.0.self_attn.v_proj", "model.layers.1.self_attn.v_proj" }, paths)
            other:close()
            other = tiny.model()
            config = peft.apply(other, { adapter_path = dir, dropout_position = "pre" })
            assert.same({ "pre", "pre" }, { config.dropout_position, other:get(paths[1]).dropout_position })
            assert.equal(0.25, config.dropout)
            other:close()
            other = tiny.model()
            config = peft.apply(other, { adapter_path = dir, dropout = 0 })
            assert.same({ 0, 0 }, { config.dropout, other:get(paths[1]).dropout })
            other:close()
            for lora_dtype, dtype in pairs { float32 = "float32", [false] = "bfloat16" } do
                other = tiny.model({ torch_dtype = "bfloat16" })
                peft.apply(other, { adapter_path = dir, lora_dtype = lora_dtype or nil })
                assert.equal(dtype, other:get(paths[1]).lora_A.weight:dtype())
                other:close()
            end
        end)
    end)

    it("is not overridden by settings that contradict it", function()
        with_saved({ dim = 3, alpha = 5, target_modules = "*.v_proj" }, function(dir)
            local function apply(settings)
                local model = tiny.model()
                local before = logits(model)
                settings.adapter_path = dir
                local ok, e = pcall(peft.apply, model, settings)
                assert.equal(ok, before ~= logits(model)) -- refused: untouched
                model:close()
                if not ok then
                    error(e, 0)
                end
            end
            for _, same in ipairs {
                { dim = 3, alpha = 5, use_rslora = false, target_modules = "*.v_proj", match_all_linear = false },
                { target_modules = { "*layers.0.*.v_proj", "model.layers.1.self_attn.v_proj" } },
                { exclude_modules = { "*mlp*", "*.q_proj", "k_proj", "o_proj", "lm_head" } },
            } do
                apply(same)
            end
            for key, case in pairs {
                dim = { 8, "is 8, but 3" }, alpha = { 32, "is 32, but 5" }, use_rslora = { true, "is true, but false" },
                target_modules = { { "*.v_proj", "q_proj" }, "(*.v_proj, q_proj)" },
                exclude_modules = { "*layers.0.*", "(*layers.0.*)" }, match_all_linear = { true, "(true)" },
            } do
                raised("usage", { "peft." .. key .. " ", case[2], dir }, apply, { [key] = case[1] })
            end
            raised("usage", "model.layers.1.self_attn.v_proj is the adapter's alone", apply,
                   { target_modules = "*.0.*.v_proj" })
            raised("usage", "model.layers.0.self_attn.k_proj is the setting's alone", apply,
                   { target_modules = { "v_proj", "k_proj" } })
        end)
    end)

    it("of rsLoRA has the scale alpha / sqrt(r), also saved again", function()
        with_saved({ dim = 4, alpha = 6, target_modules = "*.v_proj" }, function(dir, model)
            edit_json(path.join(dir, CONFIG), { use_rslora = true })
            local other = tiny.model()
            local config = peft.apply(other, { adapter_path = dir })
            local module = other:get("model.layers.0.self_attn.v_proj")
            assert.equal(3, module.scale)
            assert.equal(1.5, model:get("model.layers.0.self_attn.v_proj").scale)
            local delta = am.ops.matmul(module.lora_B.weight, module.lora_A.weight) * 3
            compare.within("merged", module:merged_weight(), module.weight + delta, 1e-6)
            local again, third = path.mkdir_p(path.join(dir, "again")), tiny.model()
            peft.save_adapter(other, again, config)
            peft.apply(third, { adapter_path = again })
            assert.equal(logits(other), logits(third))
            assert.not_equal(logits(model), logits(third))
            -- and a configuration in force says all that is needed
            local fourth = tiny.model()
            config.adapter_path = nil
            peft.apply(fourth, config)
            assert.equal(3, fourth:get("model.layers.0.self_attn.v_proj").scale)
            for _, m in ipairs { other, third, fourth } do
                m:close()
            end
        end)
    end)

    it("of PEFT drops its input, and may name its tensors after the adapter", function()
        with_saved({ dim = 2, dropout = 0.5 }, function(dir, model)
            os.remove(path.join(dir, OWN))
            edit_tensors(dir, function(tensors)
                for name, t in pairs(am.load_safetensors(path.join(dir, TENSORS))) do
                    tensors[name] = nil
                    tensors[name:gsub("%.weight$", ".default.weight")] = t
                end
            end)
            edit_json(path.join(dir, CONFIG), {
                target_modules = json.array { "q_proj" }, fan_in_fan_out = false, modules_to_save = json.null,
                rank_pattern = json.object {}, alpha_pattern = json.object {}, use_dora = false,
                loftq_config = json.object {}, inference_mode = true, something_new = 7,
            })
            local other = tiny.model()
            local config = peft.load_adapter(other, dir)
            assert.equal("pre", config.dropout_position)
            assert.equal(logits(model), logits(other))
            assert.equal("post", peft.load_adapter(tiny.model(), dir, { dropout_position = "post" }).dropout_position)
            other:close()
        end)
    end)

    it("of a named base says which", function()
        with_saved({ dim = 2 }, function(dir, model, config)
            local c = files.json(path.join(dir, CONFIG))
            assert.equal(json.null, c.base_model_name_or_path)
            assert.same({ "LORA", "CAUSAL_LM", "none", 2, 32, 0, false },
                        { c.peft_type, c.task_type, c.bias, c.r, c.lora_alpha, c.lora_dropout, c.use_rslora })
            local targets = { unpack(c.target_modules) }
            assert.equal(14, #targets)
            table.sort(targets)
            assert.same(targets, { unpack(c.target_modules) })
            for given, written in pairs { ["some-org/base"] = "some-org/base", ["lua"] = path.absolute("lua") } do
                model.name_or_path = given
                peft.save_adapter(model, dir, config)
                assert.equal(written, files.json(path.join(dir, CONFIG)).base_model_name_or_path)
            end
        end)
    end)

    it("of a model for another task says which", function()
        with_saved({ dim = 2 }, function(dir, model, config)
            for name, task in pairs {
                LlamaForSequenceClassification = "SEQ_CLS", LlamaForTokenClassification = "TOKEN_CLS",
                LlamaForQuestionAnswering = "QUESTION_ANS", LlamaForCausalLM = "CAUSAL_LM",
                ForTokenClassificationLlama = "CAUSAL_LM",
            } do
                model.config.architectures = { name }
                peft.save_adapter(model, dir, config)
                assert.equal(task, files.json(path.join(dir, CONFIG)).task_type, name)
            end
        end)
    end)

    it("has the rest of its PeftConfig, and no more, in NeMo Automodel's file", function()
        local plain = { dropout = 0, dropout_position = "post", lora_A_init = "xavier", match_all_linear = false,
                        use_triton = false } -- where nothing is said
        local function with(changes)
            local out = {}
            for _, fields in ipairs { plain, changes } do
                for key, value in pairs(fields) do
                    out[key] = value
                end
            end
            return out
        end
        for _, own in ipairs {
            with {}, with { target_modules = { "*.v_proj", "o_proj" }, dropout = 0.25, dropout_position = "pre" },
            with { exclude_modules = { "*mlp*" }, lora_A_init = "gaussian", use_dora = true },
            with { match_all_linear = true, use_rslora = true, lora_dtype = "float32" },
            with { target_modules = "*_proj", modules_to_save = { "lm_head" } },
        } do
            local given = with(own)
            given.dim, given.alpha = 2, 5
            with_saved(given, function(dir) assert.same(own, files.json(path.join(dir, OWN))) end)
        end
    end)
end)

describe("an adapter that does not fit", function()
    -- break_it(dir) spoils a saved adapter; loading it is refused and leaves the model as it was.
    local function refused(code, wanted, break_it)
        with_saved({ dim = 2, alpha = 4 }, function(dir)
            break_it(dir)
            local model = tiny.model()
            local before = tiny.weights(model)
            raised(code, wanted, peft.load_adapter, model, dir)
            assert.is_nil((peft.lora_modules(model)()))
            assert.same({}, tiny.differing(before, tiny.weights(model)))
            for name, t in model:named_parameters() do
                assert.is_true(t.requires_grad, name)
            end
            model:close()
        end)
    end

    it("is told by its configuration", function()
        for _, case in ipairs {
            { "unsupported", { "IA3", "LORA" }, { peft_type = "IA3" } },
            { "unsupported", { "LORA" }, { peft_type = json.null } },
            { "unsupported", { "bias", "all" }, { bias = "all" } },
            { "format", { '"use_dora"' }, { use_dora = "yes" } }, { "format", { '"use_rslora"' }, { use_rslora = 1 } },
            { "format", { "modules_to_save" }, { modules_to_save = "lm_head" } },
            { "format", { "modules_to_save" }, { modules_to_save = json.array { 7 } } },
            { "unsupported", { "lora_bias" }, { lora_bias = true } },
            { "unsupported", { "pissa_niter_4", "path_initial_model" }, { init_lora_weights = "pissa_niter_4" } },
            { "unsupported", { "OLoRA" }, { init_lora_weights = "OLoRA" } },
            { "format", { "rank_pattern", "q_proj" }, { rank_pattern = { q_proj = "4" } } },
            { "format", { "rank_pattern" }, { rank_pattern = 7 } },
            { "format", { "alpha_pattern", "q_(proj", "no pattern" }, { alpha_pattern = { ["q_(proj"] = 4 } } },
            { "unsupported", { "layer_replication" }, { layer_replication = json.array { 1 } } },
            { "unsupported", { "trainable_token_indices" }, { trainable_token_indices = json.array { 1 } } },
            { "format", { '"r"' }, { r = json.null } }, { "format", { '"r"' }, { r = 0 } },
            { "format", { '"r"' }, { r = "2" } }, { "format", { '"r"', "whole" }, { r = 2.5 } },
            { "format", { '"lora_alpha"' }, { lora_alpha = -1 } },
            { "format", { '"lora_alpha"' }, { lora_alpha = json.null } },
            { "format", { '"lora_dropout"' }, { lora_dropout = 1 } },
            { "format", { '"lora_dropout"' }, { lora_dropout = "x" } },
        } do
            table.insert(case[2], CONFIG)
            refused(case[1], case[2], function(dir) edit_json(path.join(dir, CONFIG), case[3]) end)
        end
        for _, text in ipairs { "", "{", "7", "null", "[]" } do
            refused("format", CONFIG, function(dir) path.write_file(path.join(dir, CONFIG), text) end)
        end
        refused("io", { "no adapter directory", CONFIG }, function(dir) os.remove(path.join(dir, CONFIG)) end)
        refused("io", { "no adapter directory", "; the adapter is in ", "/model" }, function(dir)
            path.mkdir_p(path.join(dir, "model"))
            path.rename(path.join(dir, CONFIG), path.join(dir, "model", CONFIG))
        end)
    end)

    it("is told by a tensor that is missing, of another shape, or of no linear map", function()
        for _, case in ipairs {
            { "format", { "lacks lora_A of model.layers.1.mlp.up_proj" },
              function(t) t[UP .. "lora_A.weight"] = nil end },
            { "format", { "lacks lora_B of model.layers.1.mlp.up_proj" },
              function(t) t[UP .. "lora_B.weight"] = nil end },
            { "format", { "lora_magnitude_vector of model.layers.1.mlp.up_proj", "without use_dora" },
              function(t) t[UP .. "lora_magnitude_vector"] = am.ones { 20 } end },
            { "format", { "weight of model.layers.1.mlp.up_proj", "[20, 13]", "[20, 12]" },
              function(t) t[UP .. "base_layer.weight"] = am.ones { 20, 13 } end },
            { "format", { "weight of lm_head", "does not adapt" },
              function(t) t["base_model.model.lm_head.base_layer.weight"] = am.ones { 29, 12 } end },
            { "format", { "lora_A of model.layers.1.mlp.up_proj", "[2, 13]", "[2, 12]" },
              function(t) t[UP .. "lora_A.weight"] = am.ones { 2, 13 } end },
            { "format", { "lora_B of model.layers.1.mlp.up_proj", "[20, 3]", "[20, 2]" },
              function(t) t[UP .. "lora_B.weight"] = am.ones { 20, 3 } end },
            { "format", { "lora_A of model.layers.1.mlp.up_proj", "[3, 12]" },
              function(t) t[UP .. "lora_A.weight"] = am.ones { 3, 12 } end },
            { "format", { "lora_B of model.layers.1.mlp.up_proj", "[20]" },
              function(t) t[UP .. "lora_B.weight"] = am.ones { 20 } end },
            { "format", { "lora_B of model.layers.1.mlp.up_proj", "[20, 2, 1]" },
              function(t) t[UP .. "lora_B.weight"] = am.ones { 20, 2, 1 } end },
            { "format", { "no linear map or embedding model.layers.2.mlp.up_proj" },
              function(t) t["base_model.model.model.layers.2.mlp.up_proj.lora_A.weight"] = am.ones { 2, 12 } end },
            { "format", { "no linear map or embedding model.norm" },
              function(t) t["base_model.model.model.norm.lora_A.weight"] = am.ones { 2, 12 } end },
            { "unsupported", { "base_model.model.lm_head.weight" },
              function(t) t["base_model.model.lm_head.weight"] = am.ones { 2 } end },
            { "format", { "lora_embedding_A of model.layers.1.mlp.up_proj", "no place" },
              function(t) t[UP .. "lora_embedding_A"] = am.ones { 2 } end },
            { "unsupported", { UP .. "weight" }, function(t) t[UP .. "weight"] = am.ones { 2 } end },
        } do
            table.insert(case[2], TENSORS)
            refused(case[1], case[2], function(dir) edit_tensors(dir, case[3]) end)
        end
        refused("format", TENSORS, function(dir) path.write_file(path.join(dir, TENSORS), "{}") end)
        refused("io", TENSORS, function(dir) os.remove(path.join(dir, TENSORS)) end)
        refused("usage", "no module matches", function(dir)
            am.save_safetensors(path.join(dir, TENSORS), {})
        end)
    end)

    it("is told by its rank", function()
        refused("format", { "lora_", "make it" }, function(dir) edit_json(path.join(dir, CONFIG), { r = 3 }) end)
    end)
end)

describe("restoring an adapter", function()
    it("puts its numbers into the tensors that are there", function()
        with_saved({ dim = 2 }, function(dir, model)
            local other = adapted { dim = 2 }
            for _, module in peft.lora_modules(other) do
                module.lora_A.weight:detach():fill_(0)
            end
            local held = other:get("model.layers.0.mlp.up_proj").lora_A.weight
            peft.restore_adapter(other, dir)
            assert.same({}, tiny.differing(lora_weights(model), lora_weights(other)))
            assert.equal(held, other:get("model.layers.0.mlp.up_proj").lora_A.weight)
            assert.is_true(held.requires_grad)
            other:close()
        end)
    end)

    it("is refused for another adapter", function()
        local function refused(saved, here, wanted)
            with_saved(saved, function(dir)
                local other = adapted(here)
                table.insert(wanted, TENSORS)
                raised("format", wanted, peft.restore_adapter, other, dir)
                other:close()
            end)
        end
        refused({ dim = 2 }, { dim = 3 }, { "lora_", "[2, 12]", "[3, 12]" })
        refused({ dim = 2, target_modules = "*.q_proj" }, { dim = 2, target_modules = "*.v_proj" },
                { "lacks", "self_attn.v_proj" })
        refused({ dim = 2 }, { dim = 2, exclude_modules = { "*1.mlp.up_proj", "*head" } },
                { "model.layers.1.mlp.up_proj", "does not adapt" })
        with_saved({ dim = 2 }, function(dir)
            edit_tensors(dir, function(t) t[UP .. "lora_B.weight"] = nil end)
            local other = adapted { dim = 2 }
            raised("format", { "lacks", "model.layers.1.mlp.up_proj" }, peft.restore_adapter, other, dir)
            other:close()
        end)
    end)
end)
