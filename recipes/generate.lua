-- Generate text: a model, or a model with a LoRA adapter, answers prompts.
--
--   amlua recipes/generate.lua --model DIR_OR_GGUF [--adapter DIR] --prompt TEXT [--prompt TEXT …]
--
-- A prompt is a user's message when the tokenizer has a chat template (--raw: plain text instead).

local am = require("am")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local json = require("am.utils.json")
local options = require("am.cli.options")

local M = {}

local specs = {
    { "model", required = true, doc = "Hugging Face directory, GGUF file, or hub name in the cache" },
    { "adapter", doc = "directory of a LoRA adapter to put on it" },
    { "prompt", list = true, required = true, doc = "may be given several times" },
    { "system", doc = "the system's message" },
    { "raw", type = "flag", doc = "no chat template: the prompt is continued as it is" },
    { "max_new_tokens", type = "integer", min = 1, default = 128, doc = "at most so many (128)" },
    { "temperature", type = "number", min = 0, doc = "sample at this temperature (greedy without)" },
    { "top_k", type = "integer", min = 1, doc = "sample among the k likeliest" },
    { "top_p", type = "number", min = 0, doc = "sample among the likeliest that make up p" },
    { "seed", type = "integer", min = 0, default = 42, doc = "of sampling (42)" },
    { "torch_dtype", default = "auto", doc = "float32, bfloat16, … (auto: the checkpoint's)" },
    { "threads", type = "integer", min = 1, doc = "threads to use" },
    { "json", type = "flag", doc = "print an object with prompt and text a line" },
}

local function prompt_ids(tokenizer, args, prompt)
    if args.raw or not tokenizer.chat_template then
        return tokenizer:encode(prompt)
    end
    local messages = { { role = "user", content = prompt } }
    if args.system then
        table.insert(messages, 1, { role = "system", content = args.system })
    end
    return tokenizer:apply_chat_template(messages, { tokenize = true, add_generation_prompt = true })
end

-- Ids of a prompt and how many may follow: what the model has positions for.
local function room(model, ids, wanted)
    local limit = not model.config.rope_scaling and model.config.max_position_embeddings or math.huge
    if #ids == 0 then
        err.raise("data", "the prompt is empty; give it text")
    elseif #ids >= limit then
        err.raise("data", "the prompt has %d tokens, but the model %d positions; shorten it", #ids, limit)
    end
    return math.min(wanted, limit - #ids)
end

function M.main(argv)
    local args = options.parse(argv, "amlua recipes/generate.lua --model DIR --prompt TEXT", specs)
    if not args then
        return 0
    end
    if args.threads then
        edge.check(edge.C.am_threads_set(args.threads))
    end
    local model = am.AutoModelForCausalLM.from_pretrained(args.model, { torch_dtype = args.torch_dtype })
    local tokenizer = am.AutoTokenizer.from_pretrained(args.model)
    if args.adapter then
        am.peft.load_adapter(model, args.adapter)
    end
    for _, prompt in ipairs(args.prompt) do
        local ids = prompt_ids(tokenizer, args, prompt)
        local out = model:generate(ids, {
            max_new_tokens = room(model, ids, args.max_new_tokens),
            do_sample = args.temperature ~= 0 and (args.temperature or args.top_k or args.top_p) ~= nil,
            temperature = args.temperature or 1, top_k = args.top_k, top_p = args.top_p, seed = args.seed,
        })
        local text = tokenizer:decode({ unpack(out, #ids + 1) }, { skip_special_tokens = true })
        if args.json then
            print(json.encode({ prompt = prompt, text = text }, { keys = { "prompt", "text" }, ascii = true }))
        else
            print(text)
        end
        io.flush()
    end
    return 0
end

return M
