-- Adapters of PEFT open here and mean the same; what is written here opens in PEFT and transformers.
-- Goldens: tests/parity/peft_golden.py. The checks by PEFT itself need $AMLUA_ORACLE_PYTHON.

local am = require("am")
local compare = require("tests.support.compare")
local files = require("tests.support.files")
local io_core = require("am.core.io")
local Linear = require("am.nn.linear")
local scope = require("am.core.scope")
local json = require("am.utils.json")
local path = require("am.utils.path")

local ROOT, BASE = "tests/parity/golden/peft", "tests/parity/golden/tiny_llama/gqa"
local BIASED, TIED = "tests/parity/golden/tiny_llama/attention_bias", "tests/parity/golden/tiny_llama/gqa_tied"
local PREFIX = "base_model.model."
-- As in tiny_llama_spec.lua: rounding in another order, in f32.
local LOGITS, GRADIENT = 1e-5, 1e-4

-- A plain model; for classification with a head of three classes, which nobody reads from the checkpoint.
local function plain(base, is_classifier)
    local model = am.AutoModelForCausalLM.from_pretrained(base)
    if is_classifier then
        model:add("score", Linear.new(model.config.hidden_size, 3)).weight = scope.escape(am.zeros { 3, 32 })
        model.config.architectures = { "LlamaForSequenceClassification" }
    end
    return model
end

local function parameters(model)
    local list = {}
    for name, t in model:named_parameters() do
        list[name] = t
    end
    return list
end

-- Elements of logits that belong to a token.
local function of_tokens(golden)
    local mask, vocab = golden.attention_mask:to_buffer(), golden.logits:size(2)
    return function(i) return mask[math.floor(i / vocab)] ~= 0 end
end

-- What is trained of a model, under the names that it has in PEFT's file.
local function adapter_tensors(model)
    local list = {}
    for name, t in model:named_parameters() do
        if t.requires_grad then
            local stem = name:match("^(.+lora_magnitude_vector)%.weight$")
                or name:match("^(.+lora_embedding_[AB])%.weight$")
            list[PREFIX .. (stem or name)] = t
        end
    end
    return list
end

-- A tensor as it lies in the file.
local function as_saved(name, t)
    return name:match("lora_embedding_A$") and t:detach():transpose(0, 1):contiguous() or t
end

local function head_of(model, out)
    return model.score and model.score:forward(out.hidden_states) or out.logits
end

-- The gradients of a backward pass are the golden's.
local function check_gradients(model, golden)
    local count = 0
    for name, t in pairs(adapter_tensors(model)) do
        compare.within("gradient of " .. name, as_saved(name, t.grad), golden["grad." .. name], GRADIENT)
        count = count + 1
    end
    for name in pairs(golden) do
        count = count - (name:match("^grad%.") and 1 or 0)
    end
    assert.equal(0, count)
end

local function check_adapter(case, base)
    local dir = path.join(ROOT, case)
    local golden = am.load_safetensors(path.join(dir, "golden.safetensors"))
    local inputs = { input_ids = golden.input_ids, attention_mask = golden.attention_mask, labels = golden.labels,
                     output_hidden_states = true }
    local keep, model = of_tokens(golden), plain(base or BASE, case == "seq_cls")
    am.peft.apply(model, { adapter_path = dir })
    local out = model:forward(inputs)
    local logits = head_of(model, out)
    local before = logits:detach():clone()
    compare.within("logits", before, golden.logits, LOGITS, nil, keep)
    local loss = model.score and (logits * logits * golden.attention_mask:to("float32"):unsqueeze(2)):sum() or out.loss
    compare.near("loss", loss:item(), golden.loss:item(), LOGITS * golden.loss:item())
    loss:backward()
    check_gradients(model, golden)
    assert.is_true(am.peft.merge(model) > 0)
    local merged = head_of(model, model:forward(inputs))
    compare.within("merged logits and the adapter's", merged, before, LOGITS, nil, keep)
    if golden.logits_merged then
        compare.within("merged logits", merged, golden.logits_merged, LOGITS, nil, keep)
    end
    local weights = parameters(model)
    for name, t in pairs(golden) do
        local own = name:match("^merged%.(.+)$")
        if own then
            compare.within(name, weights[own], t, LOGITS)
        end
    end
    model:close()
end

-- A trained adapter of a tiny model: three steps on the golden's rows. fn(model, config).
local function with_trained(options, fn, base)
    am.manual_seed(5)
    local golden = am.load_safetensors(path.join(ROOT, "lora_all", "golden.safetensors"))
    local model = am.AutoModelForCausalLM.from_pretrained(base or BASE)
    local config = am.peft.apply(model, options)
    local optimizer = am.optim.new("adamw", model:named_parameters(), { lr = 0.01 })
    for _ = 1, 3 do
        am.scope(function()
            model:forward({ input_ids = golden.input_ids, attention_mask = golden.attention_mask,
                            labels = golden.labels }).loss:backward()
        end)
        optimizer:step()
        optimizer:zero_grad()
    end
    fn(model, config)
    optimizer:close()
    model:close()
end

-- Greedy continuations as the check scripts read them.
local function write_greedy(model, file)
    local cases = {}
    for i, ids in ipairs { { 1, 2, 3, 4, 5 }, { 9 }, { 17, 4, 30, 2, 8, 1 } } do
        local out = model:generate(ids, { max_new_tokens = 16, eos_token_id = false })
        cases[i] = { input_ids = ids, output_ids = { unpack(out, #ids + 1) } }
    end
    path.write_file(file, json.encode(cases))
end

local function run_oracle(script, arguments)
    local python, why = files.oracle_python()
    if not python then
        pending(why)
        return
    end
    local status, output = files.run(string.format("%s tests/parity/%s %s", python, script, arguments))
    compare.check(status == 0, "%s: %s", script, output)
    assert.matches("equal", output)
end

describe("an adapter of PEFT", function()
    for case, base in pairs {
        lora_all = BASE, lora_qv_rslora = BASE, dora = BIASED, dora_embedding = BASE, embedding = BASE,
        embedding_tied = TIED, head_tied = TIED, saved_tied = TIED, seq_cls = BASE,
    } do
        it("means the same here: " .. case, function()
            am.scope(check_adapter, case, base)
        end)
    end
end)

describe("an adapter written here", function()
    local options = { target_modules = { "*.q_proj", "*.v_proj" }, dim = 3, alpha = 6 }

    it("has PEFT's files: names, shapes, dtypes, configuration", function()
        files.with_folder(function(dir)
            with_trained(options, function(model, config)
                am.peft.save_adapter(model, dir, config)
                local archive = io_core.open(path.join(dir, "adapter_model.safetensors"))
                assert.same({ format = "pt" }, json.decode(archive:metadata_json()))
                local live, targets = adapter_tensors(model), {}
                for _, name in ipairs(archive:names()) do
                    local stem, side = name:match("^base_model%.model%.(model%.layers%.%d+%.self_attn%.[qv]_proj)"
                                                  .. "%.lora_([AB])%.weight$")
                    compare.check(stem, "PEFT knows no tensor %s", name)
                    local info, base = archive:info(name), model:get(stem)
                    assert.equal("F32", info.stored_as)
                    assert.same(side == "A" and { 3, base.in_features } or { base.out_features, 3 }, info.shape)
                    compare.same(name, archive:get(name), live[name])
                    live[name] = nil
                    targets[#targets + 1] = side == "A" and stem or nil
                end
                assert.is_nil(next(live))
                archive:close()
                table.sort(targets)
                local c = files.json(path.join(dir, "adapter_config.json"))
                assert.same(targets, { unpack(c.target_modules) })
                for key, value in pairs { peft_type = "LORA", task_type = "CAUSAL_LM", bias = "none", r = 3,
                                          lora_alpha = 6, lora_dropout = 0, use_rslora = false } do
                    assert.equal(value, c[key])
                end
                assert.equal(path.absolute(BASE), c.base_model_name_or_path)
                local rest = files.json(path.join(dir, "automodel_peft_config.json"))
                assert.is_nil(rest.dim)
                assert.is_nil(rest.alpha)
                assert.equal("post", rest.dropout_position)
            end)
        end)
    end)

    -- PEFT opens a trained adapter and continues as it does here.
    local function opens(base, settings)
        files.with_folder(function(dir)
            with_trained(settings, function(model, config)
                am.peft.save_adapter(model, dir, config)
                local saved = {}
                for name, t in pairs(adapter_tensors(model)) do
                    saved[name] = as_saved(name, t)
                end
                am.save_safetensors(path.join(dir, "params.safetensors"), saved)
                write_greedy(model, path.join(dir, "greedy.json"))
                run_oracle("peft_check.py", string.format("--model %s --adapter %s --params %s/params.safetensors "
                                                          .. "--greedy %s/greedy.json", base, dir, dir, dir))
            end, base)
        end)
    end

    it("opens in PEFT with equal parameters and greedy tokens", function()
        opens(BASE, options)
    end)

    it("opens in PEFT with equal parameters and greedy tokens: rsLoRA and DoRA, embeddings, whole modules", function()
        opens(BIASED, { target_modules = { "*.q_proj", "*.v_proj", "embed_tokens" }, dim = 3, alpha = 6,
                        use_dora = true, use_rslora = true })
        opens(TIED, { target_modules = { "*.v_proj", "embed_tokens", "lm_head" }, dim = 2, alpha = 3 })
        opens(TIED, { target_modules = "*.v_proj", dim = 2, alpha = 3, modules_to_save = "lm_head" })
    end)

    it("of a classifier opens in PEFT with its head", function()
        files.with_folder(function(dir)
            local model = plain(BASE, true)
            local config = am.peft.apply(model, { target_modules = "*.v_proj", dim = 2 })
            assert.same({ "classifier", "score" }, config.modules_to_save)
            for _, t in pairs(adapter_tensors(model)) do
                t:detach():normal_(0, 0.3)
            end
            am.peft.save_adapter(model, dir, config)
            am.save_safetensors(path.join(dir, "params.safetensors"), adapter_tensors(model))
            run_oracle("peft_check.py", string.format("--model %s --adapter %s --params %s/params.safetensors", BASE,
                                                      dir, dir))
            model:close()
        end)
    end)
end)

describe("a checkpoint written here", function()
    it("opens in transformers with equal parameters and greedy tokens: a merged adapter", function()
        files.with_folder(function(dir)
            with_trained({ match_all_linear = false }, function(model)
                am.peft.merge(model)
                model:save_pretrained(path.join(dir, "model"))
                am.save_safetensors(path.join(dir, "params.safetensors"), parameters(model))
                write_greedy(model, path.join(dir, "greedy.json"))
                run_oracle("hf_check.py", string.format("--model %s/model --params %s/params.safetensors "
                                                        .. "--greedy %s/greedy.json", dir, dir, dir))
            end)
        end)
    end)

    it("opens in transformers with equal parameters and greedy tokens: SmolLM2, from GGUF", function()
        local file, why = files.smollm2()
        if not file then
            pending(why)
            return
        end
        files.with_folder(function(dir)
            local model = am.AutoModelForCausalLM.from_pretrained(file)
            local into = path.join(dir, "model")
            model:save_pretrained(into)
            am.AutoTokenizer.from_pretrained(file):save_pretrained(into)
            am.save_safetensors(path.join(dir, "params.safetensors"), parameters(model))
            model:close()
            run_oracle("hf_check.py", string.format("--model %s --params %s/params.safetensors --greedy "
                                                    .. "tests/parity/golden/smollm2_greedy.json "
                                                    .. "--text 'Two plus 12 is fourteen.'", into, dir))
        end)
    end)
end)
