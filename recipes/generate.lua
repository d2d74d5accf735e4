-- Generate text: a model, or a model with a LoRA adapter, answers prompts, with pictures where it sees them.
--
--   amlua recipes/generate.lua --model DIR_OR_GGUF [--adapter DIR] --prompt TEXT [--prompt TEXT …]
--   amlua recipes/generate.lua --checkpoint-path DIR [--base-model-path DIR] --image FILE_OR_URL --prompt TEXT
--
-- A prompt is a user's message when the tokenizer has a chat template (--raw: plain text instead). Pictures stand
-- before the prompt.

local am = require("am")
local checkpoint = require("am.checkpoint")
local err = require("am.core.error")
local json = require("am.utils.json")
local options = require("am.cli.options")
local path = require("am.utils.path")
local saved_model = require("am.recipes.saved_model")

local M = {}

local specs = {
    { "model", doc = "Hugging Face directory, GGUF file, or hub name in the cache" },
    { "adapter", doc = "directory of a LoRA adapter to put on it" },
    { "checkpoint-path", doc = "in place of these: a run's folder or checkpoint, with whatever model is in it" },
    { "base-model-path", doc = "the model that --checkpoint-path was trained from, if that does not say so" },
    { "prompt", list = true, required = true, doc = "may be given several times" },
    { "image", list = true, doc = "file or address of a picture before each prompt; may be given several times" },
    { "image-path", list = true, doc = "the same" },
    { "image-url", list = true, doc = "the same" },
    { "system", doc = "the system's message" },
    { "raw", type = "flag", doc = "no chat template: the prompt is continued as it is" },
    { "max_new_tokens", type = "integer", min = 1, default = 128, doc = "at most so many (128)" },
    { "temperature", type = "number", min = 0, doc = "sample at this temperature (greedy without, or at 0)" },
    { "top_k", type = "integer", min = 1, doc = "sample among the k likeliest" },
    { "top_p", type = "number", min = 0, max = 1, doc = "sample among the likeliest that make up p" },
    { "seed", type = "integer", min = 0, default = 42, doc = "of sampling (42)" },
    { "torch_dtype", default = "auto", doc = "float32, bfloat16, … (auto: the checkpoint's)" },
    { "threads", doc = "threads to use" },
    { "json", type = "flag", doc = "print an object with prompt and text a line" },
    { "output-format", default = "text", doc = "text, or json: one object with prompt, image_url and response" },
    { "output-file", doc = "write there and print nothing" },
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

-- How many ids may follow those of a prompt: what the model has positions for. At least one, for which
-- generate says what is wrong.
local function room(model, ids, wanted)
    if #ids == 0 then
        err.raise("data", "the prompt is empty; give it text")
    end
    return math.max(1, math.min(wanted, am.models.position_limit(model.config) - #ids))
end

function M.main(argv)
    local args = options.parse(argv, "amlua recipes/generate.lua --model DIR --prompt TEXT", specs)
    if not args then
        return 0
    end
    if args.threads then
        require("am.cli").set_threads(args.threads)
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
            temperature = args.temperature ~= 0 and args.temperature or 1,
            top_k = args.top_k, top_p = args.top_p, seed = args.seed,
        })
        local answer = {}
        for i = #ids + 1, #out do
            answer[#answer + 1] = out[i]
        end
        local text = tokenizer:decode(answer, { skip_special_tokens = true })
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
