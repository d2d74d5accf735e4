-- LoRA on embeddings and heads, tied or not, and modules that are trained whole beside an adapter. PEFT's own
-- numbers are in tests/parity/peft_spec.lua.

local am = require("am")
local compare = require("tests.support.compare")
local files = require("tests.support.files")
local io_core = require("am.core.io")
local path = require("am.utils.path")
local peft = require("am.peft")
local tiny = require("tests.support.tiny")
local Embedding = require("am.nn.embedding")
local EmbeddingLoRA = require("am.peft.embedding")
local Linear = require("am.nn.linear")
local scope = require("am.core.scope")

local ops, raised = am.ops, tiny.raised
local ids = { { 3, 1, 4, 1, 5 }, { 9, 2, 6, 5, 3 } }
local TENSORS, PREFIX = "adapter_model.safetensors", "base_model.model."

before_each(function() am.manual_seed(1) end)

local function logits(model)
    return am.no_grad(function() return model:forward({ input_ids = ids }).logits end)
end

-- Every tensor of an adapter at random.
local function randomise(model)
    for name, t in model:named_parameters() do
        if name:find("lora_", 1, true) then
            t:detach():normal_(0, 0.3)
        end
    end
end

-- fn(model, config) with an adapted tiny model that does something.
local function with_adapted(config, fn, changes)
    local model = tiny.model(changes)
    local in_force = peft.apply(model, config)
    randomise(model)
    fn(model, in_force)
    model:close()
end

local function learning(model)
    local names = {}
    for name, t in model:named_parameters() do
        names[#names + 1] = t.requires_grad and name or nil
    end
    return names
end

local function steps(model)
    for _ = 1, 2 do
        model:forward({ input_ids = ids, labels = ids }).loss:backward()
        for _, t in model:named_parameters() do
            if t.requires_grad then
                t:detach():copy_(t:detach() - t.grad * 0.1)
                t.grad = nil
            end
        end
    end
end

describe("an adapted embedding", function()
    it("has the rows of its formula, and leaves padding alone", function()
        local base = Embedding.new(9, 4, 3)
        base.weight = am.randn { 9, 4 }
        local module = EmbeddingLoRA.new(base, { dim = 2, alpha = 3, use_rslora = true })
        module:initialize("gaussian")
        local index = am.tensor({ { 3, 8, 0, 8 } }, { dtype = "int32" })
        assert.equal(tiny.bits(base:forward(index)), tiny.bits(module:forward(index)))
        local a, b = module.lora_embedding_A.weight, module.lora_embedding_B.weight
        assert.equal(0, ops.abs(a):amax():item())
        assert.same({ { 9, 2 }, { 4, 2 } }, { a:size(), b:size() })
        assert.is_true(math.abs((b * b):mean():item() - 1) < 1) -- standard normal
        a:normal_(0, 1)
        a.requires_grad, b.requires_grad = true, true
        local expected = base.weight + ops.matmul(a:detach(), b:detach():transpose(0, 1)) * (3 / math.sqrt(2))
        compare.within("table", module:merged_weight(), expected, 1e-6)
        local rows = module:forward(index)
        compare.within("rows", rows:detach(), ops.embedding(index, expected), 1e-6)
        rows:sum():backward()
        local touched = ops.abs(a.grad):sum(1):totable()
        for i, grad in ipairs(touched) do -- looked up, and not the padding row 3
            assert.equal(i == 9 or i == 1, grad > 0, i - 1)
        end
        assert.equal("9, 4, r=2, scale=2.12132", module:extra_repr())
    end)

    it("computes in the table's dtype when the adapter is kept in another", function()
        with_adapted({ target_modules = "embed_tokens", dim = 2, lora_dtype = "float32" }, function(model)
            local module = model:get("model.embed_tokens")
            assert.equal("float32", module.lora_embedding_A.weight:dtype())
            assert.equal("bfloat16", module:forward(am.tensor({ { 1 } }, { dtype = "int32" })):dtype())
            assert.equal("bfloat16", module:merged_weight():dtype())
        end, { torch_dtype = "bfloat16" })
    end)

    it("learns alone, and leaves a tied head as it is", function()
        for _, tied in ipairs { true, false } do
            with_adapted({ target_modules = "*embed_tokens", dim = 2 }, function(model)
                assert.same({ "model.embed_tokens.lora_embedding_A.weight",
                              "model.embed_tokens.lora_embedding_B.weight" }, learning(model))
                local head = tiny.bits(model.lm_head.weight)
                steps(model)
                assert.equal(head, tiny.bits(model.lm_head.weight))
            end, { tie_word_embeddings = tied })
        end
    end)

    it("comes back from its files; only then is a tied head cut off when it is merged", function()
        for _, targets in ipairs { { "embed_tokens" }, { "lm_head" }, { "embed_tokens", "lm_head", "*.q_proj" } } do
            for _, tied in ipairs { true, false } do
                with_adapted({ target_modules = targets, dim = 2 }, function(model, config)
                    files.with_folder(function(dir)
                        peft.save_adapter(model, dir, config)
                        local other = tiny.model({ tie_word_embeddings = tied })
                        peft.load_adapter(other, dir)
                        assert.equal(tiny.bits(logits(model)), tiny.bits(logits(other)))
                        assert.equal(tied, next(other.tied) ~= nil)
                        other:close()
                    end)
                    local before = logits(model):clone()
                    assert.equal(#targets == 3 and 4 or 1, peft.merge(model))
                    compare.within("merged", logits(model), before, 2e-5)
                    assert.is_false(model.config.tie_word_embeddings)
                    files.with_folder(function(dir) -- and is saved as two matrices
                        model:save_pretrained(dir)
                        local again = am.AutoModelForCausalLM.from_pretrained(dir)
                        assert.equal(tiny.bits(logits(model)), tiny.bits(logits(again)))
                        again:close()
                    end)
                end, { tie_word_embeddings = tied })
            end
        end
    end)

    it("is in files as PEFT has it, without the base's own table", function()
        with_adapted({ target_modules = { "embed_tokens" }, dim = 2 }, function(model, config)
            files.with_folder(function(dir)
                peft.save_adapter(model, dir, config)
                local archive = io_core.open(path.join(dir, TENSORS))
                local shapes = {}
                for _, name in ipairs(archive:names()) do
                    shapes[name] = archive:info(name).shape
                end
                archive:close()
                assert.same({ [PREFIX .. "model.embed_tokens.lora_embedding_A"] = { 2, 29 },
                              [PREFIX .. "model.embed_tokens.lora_embedding_B"] = { 12, 2 } }, shapes)
                assert.same({ "model.embed_tokens" },
                            { unpack(files.json(path.join(dir, "adapter_config.json")).target_modules) })
            end)
        end)
    end)

    it("brings the base's table with it when the file has one", function()
        for _, tied in ipairs { true, false } do
            with_adapted({ target_modules = { "embed_tokens" }, dim = 2 }, function(model, config)
                files.with_folder(function(dir)
                    peft.save_adapter(model, dir, config)
                    local tensors = am.load_safetensors(path.join(dir, TENSORS))
                    local table_ = am.randn { 29, 12 }
                    tensors[PREFIX .. "model.embed_tokens.base_layer.weight"] = table_
                    am.save_safetensors(path.join(dir, TENSORS), tensors)
                    local other = tiny.model({ tie_word_embeddings = tied })
                    peft.load_adapter(other, dir)
                    assert.equal(tiny.bits(table_), tiny.bits(other:get("model.embed_tokens").weight))
                    assert.equal(tied, tiny.bits(table_) == tiny.bits(other.lm_head.weight))
                    other:close()
                end)
            end, { tie_word_embeddings = tied })
        end
    end)
end)

describe("a module that is trained whole", function()
    it("learns beside the adapter, and a tied partner does not", function()
        for name, other in pairs { lm_head = "model.embed_tokens", ["model.embed_tokens"] = "lm_head" } do
            for _, tied in ipairs { true, false } do
                with_adapted({ target_modules = "*", modules_to_save = name, dim = 2 }, function(model, config)
                    assert.same({ name }, config.modules_to_save)
                    assert.equal(other == "lm_head", model.lm_head.class_name == "LinearLoRA") -- whole, so no adapter
                    local before = tiny.weights(model)
                    assert.equal(before[name .. ".weight"] == before[other .. ".weight"], tied)
                    steps(model)
                    local after = tiny.weights(model)
                    assert.not_equal(before[name .. ".weight"], after[name .. ".weight"])
                    assert.equal(before[other .. ".weight"], after[other .. ".weight"])
                    assert.is_false(model.config.tie_word_embeddings)
                end, { tie_word_embeddings = tied })
            end
        end
    end)

    it("is saved, loaded and restored with the adapter", function()
        local config = { target_modules = "*.q_proj", modules_to_save = { "lm_head", "norm" }, dim = 2 }
        with_adapted(config, function(model, in_force)
            steps(model)
            files.with_folder(function(dir)
                peft.save_adapter(model, dir, in_force)
                local c = files.json(path.join(dir, "adapter_config.json"))
                assert.same({ "lm_head", "norm" }, { unpack(c.modules_to_save) })
                local other = tiny.model({ tie_word_embeddings = true })
                local loaded = peft.apply(other, { adapter_path = dir })
                assert.same({ "lm_head", "norm" }, loaded.modules_to_save)
                assert.equal(tiny.bits(logits(model)), tiny.bits(logits(other)))
                assert.same(learning(model), learning(other))
                steps(other)
                assert.not_equal(tiny.bits(logits(model)), tiny.bits(logits(other)))
                peft.restore_adapter(other, dir)
                assert.same({}, tiny.differing(tiny.weights(model), tiny.weights(other)))
                assert.equal(2, peft.merge(other))
                other:close()
                -- what the adapter says and the file lacks
                local tensors = am.load_safetensors(path.join(dir, TENSORS))
                tensors[PREFIX .. "model.norm.weight"] = nil
                am.save_safetensors(path.join(dir, TENSORS), tensors)
                other = tiny.model({ tie_word_embeddings = true })
                local before = tiny.weights(other)
                raised("format", { TENSORS, "lacks model.norm.weight" }, peft.load_adapter, other, dir)
                tensors[PREFIX .. "model.norm.weight"] = am.ones { 13 }
                am.save_safetensors(path.join(dir, TENSORS), tensors)
                raised("format", { TENSORS, "model.norm.weight is [13]", "[12]" }, peft.load_adapter, other, dir)
                assert.same({}, tiny.differing(before, tiny.weights(other)))
                other:close()
            end)
        end, { tie_word_embeddings = true })
    end)

    it("must be there", function()
        local model = tiny.model()
        raised("usage", { "modules_to_save", "no module score" }, peft.apply, model, { modules_to_save = "score" })
        raised("usage", { "modules_to_save", "7 is a number" }, peft.apply, model, { modules_to_save = { 7 } })
        assert.is_nil((peft.lora_modules(model)()))
        model:close()
    end)

    it("is a classifier's head without being named", function()
        local model = tiny.model()
        model:add("score", Linear.new(12, 3)).weight = scope.escape(am.randn { 3, 12 })
        model.config.architectures = { "LlamaForSequenceClassification" }
        local config = peft.apply(model, { match_all_linear = true, dim = 2 })
        assert.equal("Linear", model.score.class_name)
        assert.is_true(model.score.weight.requires_grad)
        files.with_folder(function(dir)
            randomise(model)
            peft.save_adapter(model, dir, config)
            local c = files.json(path.join(dir, "adapter_config.json"))
            assert.same({ "SEQ_CLS", "classifier", "score" }, { c.task_type, unpack(c.modules_to_save) })
            local plain = tiny.model()
            raised("format", "no weight score.weight", peft.load_adapter, plain, dir)
            plain:close()
        end)
        model:close()
    end)
end)
