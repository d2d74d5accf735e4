-- How fast tokens are generated: a prompt of some ids, then one token after another in each row.
--
--   amlua tests/bench/decode.lua MODEL --dtype bfloat16 [--rows 1] [--prompt 16] [--tokens 128] [--threads 2]
--
-- Prints an object: tokens a second of all rows together, and the bytes of weights that a step reads.

local am = require("am")
local edge = require("am.core.ffi")
local json = require("am.utils.json")
local options = require("am.cli.options")

local M = {}

local specs = {
    { "model", required = true, doc = "Hugging Face directory" },
    { "dtype", default = "auto", doc = "of the weights" },
    { "rows", type = "integer", min = 1, default = 1, doc = "that are generated beside each other" },
    { "prompt", type = "integer", min = 1, default = 16, doc = "tokens before" },
    { "tokens", type = "integer", min = 2, default = 128, doc = "to generate in each row" },
    { "threads", type = "integer", min = 1, doc = "to use" },
}

-- Seconds when each token had come, of one row as anybody generates it.
local function one_row(model, ids, count)
    local times = {}
    model:generate(ids, { max_new_tokens = count, eos_token_id = false,
                          on_token = function() times[#times + 1] = edge.C.am_clock() end })
    return times
end

-- The same of several rows.
local function many_rows(model, ids, count, rows)
    local times = {}
    local cache = am.nn.Cache.new(#ids + count)
    local feed = {}
    for i = 1, rows do
        feed[i] = ids
    end
    for step = 1, count do
        am.scope(function()
            local mode = step == 1 and am.no_grad or am.inference_mode
            local logits = mode(model.forward, model, { input_ids = feed, cache = cache, logits_to_keep = 1 }).logits
            local best = logits:argmax(-1):reshape(rows):totable()
            for i = 1, rows do
                feed[i] = { best[i] }
            end
        end)
        times[step] = edge.C.am_clock()
    end
    cache:release()
    return times
end

function M.main(argv)
    local args = options.parse(argv, "amlua tests/bench/decode.lua --model DIR", specs)
    if args.threads then
        edge.check(edge.C.am_threads_set(args.threads))
    end
    local model = am.AutoModelForCausalLM.from_pretrained(args.model, { torch_dtype = args.dtype })
    local ids, bytes = {}, 0
    for i = 1, args.prompt do
        ids[i] = edge.C.am_rng_u32(1, 1, i) % model.config.vocab_size
    end
    for _, t in model:named_parameters() do
        bytes = bytes + t:nbytes()
    end
    local times = args.rows == 1 and one_row(model, ids, args.tokens) or many_rows(model, ids, args.tokens, args.rows)
    local speed = args.rows * (#times - 1) / (times[#times] - times[1])
    print(json.encode({ tokens_per_second = speed, weight_bytes = bytes }, { sort_keys = true }))
    return 0
end

return M
