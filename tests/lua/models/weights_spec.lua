-- Weights from and to directories: equal bits there and back, in one file or many, and what is told about
-- directories that are not whole.

local am = require("am")
local files = require("tests.support.files")
local json = require("am.utils.json")
local path = require("am.utils.path")
local tiny = require("tests.support.tiny")
local weights = require("am.models.weights")

local GOLDEN = "tests/parity/golden/tiny_llama"
local INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
local raised, load = tiny.raised, am.AutoModelForCausalLM.from_pretrained

local function stored(file)
    local out = {}
    for name, t in pairs(am.load_safetensors(file)) do
        out[name] = tiny.bits(t)
    end
    return out
end

-- The weights that a directory's model has; the model is closed.
local function loaded(dir, opts)
    local model = load(dir, opts)
    local out = tiny.weights(model)
    model:close()
    return out, model.config
end

local function same(a, b)
    assert.is_truthy(next(a))
    assert.same({}, tiny.differing(a, b))
end

local function shards(dir)
    local out = {}
    for _, name in ipairs(path.list_dir(dir)) do
        out[#out + 1] = name:match("^model%-.*%.safetensors$")
    end
    return out
end

-- fn(dir, model, weights) with a tiny model saved into a temporary folder.
local function with_saved(changes, save, fn)
    files.with_folder(function(dir)
        local model = tiny.model(changes)
        model:save_pretrained(dir, save)
        fn(dir, model, tiny.weights(model))
        model:close()
    end)
end

local function edit_index(dir, edit)
    local map = files.json(path.join(dir, INDEX))
    path.write_file(path.join(dir, INDEX), json.encode(edit(map.weight_map, map) or map))
end

describe("saving and loading", function()
    for name, changes in pairs {
        ["plain weights"] = {}, ["tied embeddings"] = { tie_word_embeddings = true },
        ["biases everywhere"] = { attention_bias = true, mlp_bias = true },
        ["one head for all"] = { num_attention_heads = 5, num_key_value_heads = 5, head_dim = 2 },
        ["scaled positions"] = { rope_scaling = { rope_type = "yarn", factor = 4, beta_fast = 16 } },
    } do
        it("gives equal bits and the same configuration: " .. name, function()
            for _, dtype in ipairs { "float32", "bfloat16", "float16", "float64" } do
                files.with_folder(function(dir)
                    local model = tiny.model(changes, { torch_dtype = dtype })
                    model:save_pretrained(dir)
                    local weights_back, config = loaded(dir)
                    same(tiny.weights(model), weights_back)
                    assert.same(dtype, config.torch_dtype)
                    local back = config:to_table()
                    for key, value in pairs(tiny.fields(changes)) do
                        assert.same(value, type(value) == "table" and value[1] and { unpack(back[key]) } or back[key])
                    end
                    model:close()
                end)
            end
        end)
    end

    it("writes the bits of the file it read", function()
        for _, case in ipairs { "gqa", "gqa_tied", "attention_bias", "mlp_bias" } do
            files.with_folder(function(dir)
                local model = load(path.join(GOLDEN, case))
                model:save_pretrained(dir)
                model:close()
                same(stored(path.join(GOLDEN, case, SINGLE)), stored(path.join(dir, SINGLE)))
            end)
        end
    end)

    it("keeps generation_config.json", function()
        with_saved({}, nil, function(dir)
            path.write_file(path.join(dir, "generation_config.json"), '{"eos_token_id": [2, 5], "top_p": 0.9}')
            local model = load(dir)
            model:save_pretrained(path.join(dir, "again"))
            model:close()
            assert.same({ eos_token_id = { 2, 5 }, top_p = 0.9 },
                        { eos_token_id = { unpack(load(path.join(dir, "again")).generation_config.eos_token_id) },
                          top_p = files.json(path.join(dir, "again/generation_config.json")).top_p })
        end)
    end)

    it("converts to the dtype that is asked for, rounding once", function()
        with_saved({}, nil, function(dir, model)
            for _, dtype in ipairs { "bfloat16", "float16", "float64", "torch.bfloat16", "bf16" } do
                local converted, expected = load(dir, { torch_dtype = dtype }), {}
                local into = converted:dtype()
                for name, t in model:named_parameters() do
                    expected[name] = tiny.bits(t:detach():to(into))
                end
                same(expected, tiny.weights(converted))
                assert.is_truthy(dtype:find(into, 1, true) or dtype == "bf16")
                converted:close()
            end
            assert.equal("float32", load(dir, { torch_dtype = "auto" }):dtype())
            raised("argument", "float31", load, dir, { torch_dtype = "float31" })
        end)
    end)

    it("takes one dtype where files hold several: config.json's, or the widest of the matrices", function()
        for named, expected in pairs { bfloat16 = "bfloat16", float16 = "float16", [false] = "float32" } do
            files.with_folder(function(dir)
                local model = tiny.model { tie_word_embeddings = true }
                model:save_pretrained(dir)
                local mixed = {}
                for name, t in pairs(weights.saved(model)) do -- a norm in f32, one matrix in f16, others in bf16
                    mixed[name] = name:find("norm") and t or t:to(name:find("0.*q_proj") and "float16" or "bfloat16")
                end
                am.save_safetensors(path.join(dir, SINGLE), mixed)
                model.config.torch_dtype = named or nil
                model.config:save(dir)
                model:close()
                local read = load(dir)
                for name, t in read:named_parameters() do
                    assert.equal(expected, t:dtype(), name)
                end
                read:forward({ input_ids = { 1, 2, 3 }, labels = { 1, 2, 3 } }).loss:backward()
                read:close()
            end)
        end
    end)

    it("puts weights on the device that is asked for", function()
        with_saved({ tie_word_embeddings = true }, nil, function(dir, _, expected)
            local model = load(dir, { device = "ref" })
            assert.equal("ref", model:device())
            for _, t in model:named_parameters() do
                assert.equal("ref", t:device())
                assert.is_true(t.requires_grad)
            end
            assert.is_false(model.training)
            same(expected, tiny.weights(model))
            model:close()
        end)
    end)
end)

describe("a model in several files", function()
    it("loads with equal bits, whatever their size", function()
        for _, bytes in ipairs { 1, 700, 2000, 1e9 } do
            with_saved({}, { max_shard_bytes = bytes }, function(dir, model, expected)
                local names, total, count = shards(dir), 0, 0
                for _, t in model:named_parameters() do
                    total, count = total + t:nbytes(), count + 1
                end
                if bytes == 1e9 then
                    assert.same({ {}, true, false }, { names, path.is_file(path.join(dir, SINGLE)),
                                                       path.exists(path.join(dir, INDEX)) })
                    return same(expected, loaded(dir))
                end
                assert.is_true(bytes == 1 and #names == count or #names > 1 and #names < count)
                local index, held = files.json(path.join(dir, INDEX)), {}
                assert.equal(total, index.metadata.total_size)
                for i, file in ipairs(names) do
                    assert.equal(("model-%05d-of-%05d.safetensors"):format(i, #names), file)
                    local size, n = 0, 0
                    for name, t in pairs(am.load_safetensors(path.join(dir, file))) do
                        size, n = size + t:nbytes(), n + 1
                        held[name] = file
                    end
                    assert.is_true(n == 1 or size <= bytes, file .. " is too large")
                end
                assert.same(held, index.weight_map)
                assert.is_false(path.exists(path.join(dir, SINGLE)))
                same(expected, loaded(dir))
            end)
        end
    end)

    it("says which part is missing, and of what", function()
        local name = "model.layers.1.mlp.up_proj.weight"
        local function broken(code, wanted, break_it)
            with_saved({}, { max_shard_bytes = 700 }, function(dir)
                break_it(dir)
                raised(code, wanted, load, dir)
            end)
        end
        broken("io", "model-00002-of-", function(dir)
            os.remove(path.join(dir, shards(dir)[2]))
        end)
        broken("format", { "model-00001-of-", name }, function(dir)
            edit_index(dir, function(map) map[name] = shards(dir)[1] end)
        end)
        broken("format", { name, "lacks" }, function(dir)
            edit_index(dir, function(map) map[name] = nil end)
        end)
        broken("format", { "no place", "model.extra" }, function(dir)
            edit_index(dir, function(map) map["model.extra"] = map[name] end)
        end)
        for _, file in ipairs { "..", ".", "" } do
            broken("io", "folder", function(dir)
                edit_index(dir, function(map) map[name] = file end)
            end)
        end
        for _, file in ipairs { "../model.safetensors", "/etc/passwd", "sub/model.safetensors", 7, true } do
            broken("format", { INDEX, name, tostring(file), "no file name" }, function(dir)
                edit_index(dir, function(map) map[name] = file end)
            end)
        end
        for _, text in ipairs { "", "{", "7", "null", "[]", "{}", '{"weight_map": 7}' } do
            broken("format", INDEX, function(dir)
                path.write_file(path.join(dir, INDEX), text)
            end)
        end
    end)

    it("is written as the original was split, when numbered", function()
        with_saved({}, { max_shard_bytes = 2000 }, function(dir, _, expected)
            local model, into = load(dir), path.join(dir, "numbered")
            model:save_pretrained(into, { numbered = true })
            assert.same(files.json(path.join(dir, INDEX)).weight_map, files.json(path.join(into, INDEX)).weight_map)
            same(expected, loaded(into))
            -- a name that the original lacks goes into the last file
            edit_index(dir, function(map) map["model.norm.weight"] = nil end)
            model:save_pretrained(into, { numbered = true })
            local map = files.json(path.join(into, INDEX)).weight_map
            assert.equal(shards(into)[#shards(into)], map["model.norm.weight"])
            same(expected, loaded(into))
            model:close()
        end)
        with_saved({}, { numbered = true }, function(dir, _, expected)
            assert.same({ "model-00001-of-00001.safetensors" }, shards(dir))
            same(expected, loaded(dir))
        end)
    end)

    it("takes the place of what was saved there before", function()
        local ways = { { max_shard_bytes = 700 }, { max_shard_bytes = 2000 }, {}, { numbered = true } }
        for _, before in ipairs(ways) do
            for _, after in ipairs(ways) do
                with_saved({}, before, function(dir)
                    path.write_file(path.join(dir, "model-card.safetensors"), "not ours")
                    local model = tiny.model({}, { seed = 8 })
                    model:save_pretrained(dir, after)
                    same(tiny.weights(model), loaded(dir))
                    model:close()
                    -- transformers prefers the single file, so what is stale must be gone
                    local index = path.is_file(path.join(dir, INDEX)) and files.json(path.join(dir, INDEX)).weight_map
                    local wanted = {}
                    for _, file in pairs(index or {}) do
                        wanted[file] = true
                    end
                    for _, file in ipairs(shards(dir)) do
                        assert.is_true(wanted[file] or file == "model-card.safetensors", file .. " is stale")
                    end
                    assert.equal(not index, path.is_file(path.join(dir, SINGLE)))
                    assert.equal("not ours", path.read_file(path.join(dir, "model-card.safetensors")))
                end)
            end
        end
    end)

    it("may be saved over itself", function()
        for _, way in ipairs { { max_shard_bytes = 700 }, {} } do
            with_saved({}, way, function(dir, _, expected)
                local model = load(dir) -- its weights may be views of the files
                model:save_pretrained(dir)
                same(expected, loaded(dir))
                model:save_pretrained(dir, { max_shard_bytes = 1 })
                same(expected, loaded(dir))
                same(expected, tiny.weights(model))
                model:close()
            end)
        end
    end)
end)

describe("a directory that does not fit", function()
    -- fn edits {name -> tensor} of a saved model, which is written back.
    local function edited(changes, edit, fn)
        with_saved(changes, nil, function(dir, _, expected)
            local file = path.join(dir, SINGLE)
            local tensors = am.load_safetensors(file)
            edit(tensors)
            am.save_safetensors(file, tensors)
            fn(dir, expected)
        end)
    end

    it("names what it lacks, up to eight", function()
        edited({}, function(t) t["model.norm.weight"], t["lm_head.weight"] = nil, nil end, function(dir)
            raised("format", { dir, "lacks", "LlamaForCausalLM", "lm_head.weight, model.norm.weight" }, load, dir)
        end)
        edited({}, function(t)
            for name in pairs(t) do
                if name:match("layers") then
                    t[name] = nil
                end
            end
        end, function(dir)
            local text = raised("format", "(18 in all)", load, dir)
            local _, commas = text:gsub(",", "")
            assert.equal(8, commas)
        end)
    end)

    it("names what has no place", function()
        edited({}, function(t) t["model.layers.2.mlp.up_proj.weight"] = am.ones { 1 } end, function(dir)
            raised("format", { dir, "no place", "model.layers.2.mlp.up_proj.weight" }, load, dir)
        end)
        edited({}, function(t) t["model.layers.0.self_attn.q_proj.bias"] = am.ones { 18 } end, function(dir)
            raised("format", "q_proj.bias", load, dir)
        end)
        -- computed here, so not read
        edited({}, function(t) t["model.layers.0.self_attn.rotary_emb.inv_freq"] = am.ones { 3 } end, function(dir, w)
            same(w, loaded(dir))
        end)
    end)

    it("may hold more layers than config_overrides asks for", function()
        with_saved({ architectures = { "Gemma2ForCausalLM" }, num_hidden_layers = 3, query_pre_attn_scalar = 6,
                     layer_types = { "sliding_attention", "full_attention", "sliding_attention" },
                     sliding_window = 4 }, nil, function(dir, _, expected)
            local model = load(dir, { config_overrides = { num_hidden_layers = 2 } })
            assert.same({ "sliding_attention", "full_attention" }, { unpack(model.config.layer_types) })
            local found = tiny.weights(model)
            for name, bits in pairs(found) do
                assert.equal(expected[name], bits, name)
            end
            assert.is_nil(found["model.layers.2.mlp.up_proj.weight"])
            model:save_pretrained(dir)
            model:close()
            same(found, (loaded(dir)))
            raised("format", { dir, "model.layers.2" }, load, dir, { config_overrides = { num_hidden_layers = 3,
                layer_types = { "full_attention", "full_attention", "full_attention" } } })
        end)
    end)

    it("names the tensor of another shape", function()
        for _, shape in ipairs { { 19, 12 }, { 20, 12, 1 }, { 240 }, { 12, 20 }, {} } do
            edited({}, function(t) t["model.layers.1.mlp.up_proj.weight"] = am.ones(shape) end, function(dir)
                raised("format", { dir, "model.layers.1.mlp.up_proj.weight", "[" .. table.concat(shape, ", ") .. "]",
                                   "[20, 12]" }, load, dir)
            end)
        end
    end)

    it("says what there should be", function()
        files.with_folder(function(dir)
            path.write_file(path.join(dir, "config.json"), json.encode(tiny.fields()))
            raised("io", { dir, SINGLE, INDEX }, load, dir)
            path.write_file(path.join(dir, SINGLE), "x")
            raised("format", SINGLE, load, dir)
        end)
        raised("unsupported", { SINGLE, "directory" }, load, path.join(GOLDEN, "gqa", SINGLE))
        raised("io", "nowhere/at/all", load, "nowhere/at/all")
    end)
end)

describe("tied embeddings", function()
    it("are one tensor under one name", function()
        with_saved({ tie_word_embeddings = true }, nil, function(dir, model)
            for _, m in ipairs { model, load(dir) } do
                local names = {}
                for name in m:named_parameters() do
                    names[name] = true
                end
                assert.is_nil(names["lm_head.weight"])
                assert.is_true(names["model.embed_tokens.weight"])
                assert.equal(m.model.embed_tokens.weight, m.lm_head.weight)
            end
            assert.is_nil(stored(path.join(dir, SINGLE))["lm_head.weight"])
        end)
    end)

    it("ignore a head that a file holds all the same", function()
        with_saved({}, nil, function(dir, _, expected)
            local model = load(dir, { config_overrides = { tie_word_embeddings = true } })
            assert.equal(expected["model.embed_tokens.weight"], tiny.bits(model.lm_head.weight))
            assert.not_equal(expected["lm_head.weight"], tiny.bits(model.lm_head.weight))
            model:close()
        end)
    end)

    it("that are untied need a head of their own", function()
        with_saved({ tie_word_embeddings = true }, nil, function(dir)
            raised("format", "lm_head.weight", load, dir, { config_overrides = { tie_word_embeddings = false } })
        end)
    end)
end)

describe("a model from a configuration", function()
    it("begins with normal weights, ones and zeros", function()
        local model = tiny.model({ attention_bias = true, hidden_size = 96, initializer_range = 0.05 })
        for name, t in model:named_parameters() do
            if name:match("norm%.weight$") then
                assert.equal(1, t:amin():item())
                assert.equal(1, t:amax():item())
            elseif name:match("bias$") then
                assert.equal(0, am.ops.abs(t:detach()):amax():item())
            elseif t:numel() > 500 then
                local std = math.sqrt((t:detach() * t:detach()):mean():item())
                assert.is_true(math.abs(std - 0.05) < 0.05 * 5 / math.sqrt(2 * t:numel()), name .. " has std " .. std)
                assert.is_true(math.abs(t:detach():mean():item()) < 0.05 * 5 / math.sqrt(t:numel()), name)
            end
        end
        model:close()
    end)

    it("has no padding embedding, as in transformers", function()
        local model = tiny.model({ pad_token_id = 3 })
        local size = am.ops.abs(model:get("model.embed_tokens").weight:detach()):amax(1):totable()
        assert.equal(0, size[4])
        assert.is_true(size[3] > 0 and size[5] > 0)
        model:close()
    end)

    it("is the same for a seed and another for another", function()
        local a, b, c = tiny.model(), tiny.model(), tiny.model({}, { seed = 8 })
        same(tiny.weights(a), tiny.weights(b))
        assert.is_true(#tiny.differing(tiny.weights(a), tiny.weights(c)) >= 16)
    end)

    it("has the dtype that is asked for, or the configuration's", function()
        assert.equal("float16", tiny.model({ torch_dtype = "bfloat16" }, { torch_dtype = "float16" }):dtype())
        assert.equal("bfloat16", tiny.model({ torch_dtype = "bfloat16" }):dtype())
        assert.equal("bfloat16", tiny.model({ dtype = "bfloat16" }, { torch_dtype = "auto" }):dtype())
        assert.equal("float32", tiny.model():dtype())
    end)
end)

describe("stored weights", function()
    it("can be asked for again, in another dtype", function()
        with_saved({}, { max_shard_bytes = 700 }, function(dir, _, expected)
            local model, seen = load(dir, { torch_dtype = "bfloat16" }), nil
            weights.with_stored(model, function(get)
                seen = { exact = tiny.bits(get("model.norm.weight", "float32")), none = get("nothing", "float32") }
            end)
            assert.same({ exact = expected["model.norm.weight"] }, seen)
            model:close()
        end)
        local model = tiny.model()
        weights.with_stored(model, function() error("it came from no file") end)
        model:close()
    end)

    it("are let go of with the model", function()
        with_saved({}, { max_shard_bytes = 700 }, function(dir)
            local function mapped()
                return assert(path.read_file("/proc/self/maps")):find(dir, 1, true) ~= nil
            end
            local model = load(dir)
            assert.is_true(mapped()) -- views, so that loading costs no memory
            model:close()
            model = load(dir, { torch_dtype = "bfloat16" })
            collectgarbage()
            collectgarbage()
            assert.is_false(mapped())
            model:close()
        end)
    end)
end)
