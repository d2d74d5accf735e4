-- How long a save keeps training waiting, by itself and beside the steps (checkpoint.is_async), of a model of some
-- 120 MB with AdamW's moments:
--
--   amlua tests/bench/async_saving.lua FOLDER [SAVES]      a folder on the disk to measure

local edge = require("am.core.ffi")
local path = require("am.utils.path")
local recipe_class = require("recipes.llm_finetune")

local folder, saves = assert(arg[1], "usage: amlua tests/bench/async_saving.lua FOLDER [SAVES]"), tonumber(arg[2]) or 5
local clock = edge.C.am_clock

local function recipe(is_async)
    local r = recipe_class.new(require("am.config").from_table({
        model = { _target_ = "am.AutoModelForCausalLM.from_config", config = {
            architectures = { "LlamaForCausalLM" }, model_type = "llama", hidden_size = 512, intermediate_size = 1536,
            num_hidden_layers = 6, num_attention_heads = 8, num_key_value_heads = 8, vocab_size = 16000,
            max_position_embeddings = 128, rms_norm_eps = 1e-5, tie_word_embeddings = true,
        } },
        data_audit = { enabled = false },
        dataset = { _target_ = "am.datasets.build_unpacked_dataset", num_sentences = 64, vocab_size = 16000,
                    mean_len = 30, max_sentence_len = 60 },
        step_scheduler = { global_batch_size = 4, local_batch_size = 4, max_steps = 10000, num_epochs = 1000 },
        optimizer = { _target_ = "am.optim.AdamW", lr = 1e-4 },
        checkpoint = { checkpoint_dir = path.join(folder, is_async and "async" or "sync"), save_consolidated = false,
                       is_async = is_async },
    }, "bench"))
    r:setup()
    return r
end

-- Seconds that training waits for a save, and that a step takes while one is written, and else.
local function measure(is_async)
    local r = recipe(is_async)
    local waits, beside, plain, step = {}, {}, {}, 0
    local function one_step(list)
        local t = clock()
        r:step()
        step = step + 1
        list[#list + 1] = clock() - t
    end
    for _ = 1, 3 do
        one_step {}
    end
    for i = 1, saves do
        for _ = 1, 3 do
            one_step(plain)
        end
        local t = clock()
        r:save_checkpoint(0, step, {}, false)
        local waited = clock() - t
        while r.pending do
            one_step(beside)
            t = clock()
            r:poll_saving()
            waited = waited + clock() - t
        end
        waits[i] = waited
        path.remove_tree(r.saved.dir)
    end
    r:close_logs()
    path.remove_tree(path.join(folder, is_async and "async" or "sync"))
    for _, list in ipairs { waits, beside, plain } do
        table.sort(list)
    end
    return waits[math.ceil(#waits / 2)], plain[math.ceil(#plain / 2)], beside[math.ceil(#beside / 2)]
end

require("am.utils.log").setup { level = "warning" }
local whole, plain = measure(false)
local waited, _, beside = measure(true)
print(string.format("a save takes %.3f s; beside the steps training waits %.3f s for it (%.1f %%); a step takes %.3f s",
                    whole, waited, 100 * waited / whole, plain)
      .. string.format(", and %.3f s while files are written", beside or 0))
