-- recipes/benchmark.lua as a user runs it: its figures agree with one another, it writes nothing else.
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")

local function config(extra)
    local cfg = {
        model = { _target_ = "am.AutoModelForCausalLM.from_pretrained", pretrained_model_name_or_path = helper.tiny },
        optimizer = { _target_ = "am.optim.AdamW", lr = 1e-3 },
        dataset = { _target_ = "am.datasets.PretokenizedDataset", path_or_dataset_id = "not there" },
        step_scheduler = { global_batch_size = 4, local_batch_size = 2, max_steps = 1 },
        benchmark = { steps = 3, warmup_steps = 1, seq_len = 16 },
    }
    for key, value in pairs(extra or {}) do
        cfg[key] = value
    end
    return cfg
end

describe("the benchmark", function()
    teardown(helper.cleanup)

    local function run(cfg, ...)
        local dir = helper.folder()
        cfg.benchmark.json_output_path = dir .. "/figures.json"
        cfg.checkpoint = { checkpoint_dir = dir .. "/checkpoints" }
        local status, out, errors = helper.run { "recipes/benchmark.lua", helper.yaml(dir, cfg), ... }
        assert.equal(0, status, out .. errors)
        assert.is_false(path.is_dir(dir .. "/checkpoints"))
        return json.decode(helper.read(dir .. "/figures.json")), out
    end

    it("makes rows longer than what Lua returns at once", function()
        local row = require("recipes.benchmark").row(42, 1, 20000, 100)
        assert.equal(20000, #row.input_ids)
        assert.equal(20000, #row.labels)
        assert.equal(row.input_ids[2], row.labels[1])
    end)

    it("counts what the rule says", function()
        local f, out = run(config())
        local c = json.decode(helper.read(helper.tiny .. "/config.json"))
        local width = c.num_attention_heads * (c.head_dim or c.hidden_size / c.num_attention_heads)
        local kv = width / c.num_attention_heads * c.num_key_value_heads
        local weights = c.num_hidden_layers * (c.hidden_size * (2 * width + 2 * kv) + 3 * c.hidden_size
                                               * c.intermediate_size) + c.hidden_size * c.vocab_size
        local tokens = 4 * 16
        assert.equal(6 * weights * tokens + 12 * width * c.num_hidden_layers * 4 * 16 * 17 / 2, f.flops_per_step)
        assert.is_true(f.seconds_min <= f.seconds_median and f.seconds_median <= f.seconds_max)
        assert.near(tokens / f.seconds_median, f.tokens_per_second, 1e-6 * f.tokens_per_second)
        table.sort(f.gemm_shares)
        assert.equal(f.gemm_shares[2], f.gemm_share)
        assert.is_true(f.gemm_share > 0 and f.gemm_flops_per_second > 0)
        assert.equal(3, f.steps)
        assert.is_true(f.peak_resident_bytes > f.peak_tensor_bytes)
        local kept = f.kept_bytes
        local all = weights + (2 * c.num_hidden_layers + 1) * c.hidden_size
            + (c.tie_word_embeddings and 0 or c.hidden_size * c.vocab_size)
        assert.same({ 4 * all, 4 * all, 8 * all }, { kept.weights, kept.gradients, kept.optimizer })
        local sum = kept.weights + kept.gradients + kept.optimizer + kept.activations
        assert.near(f.peak_resident_bytes / sum, f.peak_per_kept, 1e-9 * f.peak_per_kept)
        assert.is_truthy(out:find("4 rows of 16 tokens a step, 2 at a time", 1, true), out)
    end)

    it("counts frozen weights less, and profiles into a trace", function()
        local trace = helper.folder() .. "/trace.json"
        local full = run(config())
        local lora, out = run(config { peft = { match_all_linear = true, dim = 2 } }, "--profile", trace)
        assert.is_true(lora.flops_per_step < 0.85 * full.flops_per_step)
        assert.is_true(lora.kept_bytes.gradients < 0.2 * full.kept_bytes.gradients)
        assert.is_true(lora.kept_bytes.activations > full.kept_bytes.activations) -- x A^T
        assert.is_truthy(out:find("\nlora_linear +backward"), out)
        assert.is_truthy(out:find("the rest", 1, true), out)
        assert.is_true(#json.decode(helper.read(trace)).traceEvents > 50)
    end)

    it("ends two runs of a seed with the same bits, and those of another with others", function()
        local lora = { peft = { match_all_linear = true, dim = 2, dropout = 0.1 } } -- draws numbers in each step
        local first, out = run(config(lora))
        local text = out:match("\nloss +(%S+) in the last step")
        assert.equal(first.last_loss, tonumber(text), out)
        local second = run(config(lora), "--threads", "1")
        assert.equal(first.last_loss, second.last_loss)
        assert.are_not.equal(first.last_loss, (run(config(lora), "--seed", "43")).last_loss)
    end)

    it("takes rows as long as a pack, and needs no dataset", function()
        local cfg = config { packed_sequence = { packed_sequence_size = 32 } }
        cfg.dataset = nil
        cfg.benchmark.seq_len = nil
        assert.equal(32, (run(cfg)).seq_len)
    end)

    it("refuses what it does not know", function()
        local cfg = config()
        cfg.benchmark.stepz = 3
        local status, _, errors = helper.run { "recipes/benchmark.lua", helper.yaml(helper.folder(), cfg) }
        assert.equal(2, status)
        assert.is_truthy(errors:find("steps", 1, true), errors)
    end)
end)
