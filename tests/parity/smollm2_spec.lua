-- SmolLM2-135M-Instruct against transformers: its import from GGUF, its logits, what it says.
-- Goldens: tests/parity/get_model.py and tests/parity/smollm2_logits.py.

local ffi = require("ffi")
local am = require("am")
local compare = require("tests.support.compare")
local files = require("tests.support.files")

-- f32 rounds at 6e-8; thirty layers of roundings in another order than transformers' give some 1e-6
-- of the largest logit, and a mistake of any kind far more than 1e-5.
local LOGITS = 1e-5
-- Rounding may differ from transformers', but not be worse than it by more than this.
local ROUNDING = 1.5

local file, why = files.smollm2()

local function sha256(bytes, count, dir)
    local sums = dir .. "/sum"
    local pipe = assert(io.popen("sha256sum >'" .. sums .. "'", "w"))
    local at, piece = ffi.cast("const char *", bytes), 2 ^ 24
    for i = 0, count - 1, piece do
        pipe:write(ffi.string(at + i, math.min(piece, count - i)))
    end
    pipe:close()
    return io.open(sums):read("*l"):match("^%x+")
end

-- Every value that transformers' import gives must be there; those that only steer Python need not.
local function check_config(config, expected)
    for _, key in ipairs { "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                           "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings",
                           "rms_norm_eps", "hidden_act", "tie_word_embeddings", "attention_bias", "mlp_bias",
                           "bos_token_id", "eos_token_id", "pad_token_id", "attention_dropout" } do
        compare.check(config[key] == expected[key], "%s is %s, not %s", key, tostring(config[key]),
                      tostring(expected[key]))
    end
    assert.equal(expected.rope_parameters.rope_theta, config.rope_theta)
    assert.is_nil(config.rope_scaling)
end

local function check_weights(model, expected, dir)
    local left = 0
    for _ in pairs(expected) do
        left = left + 1
    end
    for name, t in model:named_parameters() do
        local want = expected[name]
        compare.check(want, "%s is no parameter of transformers' model", name)
        assert.same(want.shape, t:size())
        local array, n = t:to_buffer()
        compare.check(sha256(array, n * 4, dir) == want.sha256, "%s: other bits than transformers'", name)
        left = left - 1
    end
    compare.check(left == 0, "%d tensors are missing", left)
end

local function check_logits(model, golden, count)
    local function get(name) return golden["t" .. count .. "." .. name] end
    local ids = get("input_ids"):reshape(1, count)
    local logits = model:forward({ input_ids = ids }).logits
    logits = logits:reshape(count, logits:size(2)):to { device = "cpu" }
    local largest = get("largest"):item()
    local sample = logits:index_select(0, get("positions"):to("int32")):index_select(1, get("columns"):to("int32"))
    compare.within("logits", sample, get("logits"), LOGITS, largest)
    -- over the whole vocabulary
    compare.within("logsumexp", logits:logsumexp(1), get("logsumexp"), LOGITS, largest)
    local best = logits:gather(1, get("argmax"):to("int32"):reshape(count, 1)):reshape(count)
    compare.within("likeliest token", best, logits:amax(1), 2 * LOGITS, largest)
    return compare.difference(sample, get("logits64")).mean / get("error_mean"):item()
end

describe("SmolLM2-135M-Instruct", function()
    if not file then
        pending(why)
        return
    end

    local golden = am.load_safetensors("tests/parity/golden/smollm2_logits.safetensors")
    local models, rounding = {}, {}

    local function model_on(device)
        models[device] = models[device] or am.AutoModelForCausalLM.from_pretrained(file, { device = device })
        return models[device]
    end

    after_each(function() -- one at a time: each takes half a gigabyte
        for device, model in pairs(models) do
            if device ~= "cpu" then
                model:close()
                models[device] = nil
            end
        end
    end)

    it("is imported from GGUF bit for bit", function()
        local expected = files.json("tests/parity/golden/smollm2_import.json")
        local model = model_on("cpu")
        check_config(model.config, expected.config)
        files.with_folder(function(dir)
            check_weights(model, expected.tensors, dir)
        end)
    end)

    for _, case in ipairs { { "cpu", 33 }, { "cpu", 512 }, { "cpu", 2048 }, { "ref", 33 }, { "fence", 33 } } do
        local device, count = unpack(case)
        it("gives transformers' logits on " .. device .. " for tokens: " .. count, function()
            local model = model_on(device)
            rounding[device .. " " .. count] = am.no_grad(am.scope, check_logits, model, golden, count)
        end)
    end

    for _, case in ipairs { "cpu 33", "cpu 512", "cpu 2048", "ref 33", "fence 33" } do
        it("rounds no worse than transformers on " .. case, function()
            local times = rounding[case]
            compare.check(times and times <= ROUNDING, "mean error is %s times transformers'", tostring(times))
        end)
    end

    it("says the same as with transformers", function()
        for i, case in ipairs(files.json("tests/parity/golden/smollm2_greedy.json")) do
            local out = model_on("cpu"):generate(case.input_ids, { max_new_tokens = 64 })
            local said = { unpack(out, #case.input_ids + 1) }
            compare.check(table.concat(said, " ") == table.concat(case.output_ids, " "), "conversation %d: %s", i,
                          table.concat(said, " "))
        end
    end)
end)
