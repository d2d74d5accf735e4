-- Generate text: a model, or a model with a LoRA adapter, answers prompts, with pictures where it sees them.
--
--   amlua recipes/generate.lua --model DIR_OR_GGUF [--adapter DIR] --prompt TEXT [--prompt TEXT …]
--   amlua recipes/generate.lua --checkpoint-path DIR [--base-model-path DIR] --image FILE_OR_URL --prompt TEXT
--
-- A prompt is a user's message when the tokenizer has a chat template (--raw: plain text instead). Pictures stand
-- before the prompt.

local am = require("am")
local checkpoint = require("am.checkpoint")
local devices = require("am.recipes.devices")
local err = require("am.core.error")
local json = require("am.utils.json")
local options = require("am.cli.options")
local path = require("am.utils.path")
local saved_model = require("am.recipes.saved_model")
local vlm_prompt = require("am.recipes.vlm_prompt")

local log = require("am.utils.log").get("am.generate")

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
    { "load_in_4bit", type = "flag", doc = "keep the model in 4 bits, as an adapter of QLoRA was trained beside it" },
    { "load_in_8bit", type = "flag", doc = "the same in 8 bits" },
    { "device", doc = "where to compute: cpu, cuda or cuda:1 (a GPU, where there is one)" },
    { "threads", doc = "threads to use" },
    { "json", type = "flag", doc = "print an object with prompt and text a line" },
    { "output-format", default = "text", doc = "text, or json: one object with prompt, image_url and response" },
    { "output-file", doc = "write there and print nothing" },
}

-- ---- the model ------------------------------------------------------------------------------

-- What is to be loaded, { model, adapter, weights }, by --model and --adapter or by --checkpoint-path.
local function wanted(args)
    if args.checkpoint_path and not (args.model or args.adapter) then
        return saved_model.find(args.checkpoint_path, args.base_model_path)
    elseif args.checkpoint_path or not args.model then
        err.raise("usage", "give --model (with --adapter, if there is one) or --checkpoint-path (with "
                  .. "--base-model-path)")
    end
    return { model = args.model, adapter = args.adapter }
end

-- Where the processor is: a run saves the one that it trained with beside its adapter.
local function processor_folder(found)
    for _, name in ipairs { "processor_config.json", "preprocessor_config.json" } do
        if found.adapter and path.is_file(path.join(found.adapter, name)) then
            return found.adapter
        end
    end
    return found.model
end

-- The model, and its processor where it sees pictures.
local function load(args)
    local found = wanted(args)
    local opts = { torch_dtype = args.torch_dtype, device = devices.choose(args.device, 0, log),
                   quantize = am.quantization.qlora.new(args) }
    if found.weights and opts.quantize then
        err.raise("usage", "weights of a checkpoint are not read in few bits; make a whole model of them by "
                  .. "recipes/consolidate.lua")
    end
    local sees = am.models.sees_images(am.AutoConfig.from_pretrained(found.model))
    local class = sees and am.AutoModelForImageTextToText or am.AutoModelForCausalLM
    local model = class.from_pretrained(found.model, opts)
    if found.adapter then
        am.peft.load_adapter(model, found.adapter)
    elseif found.weights then
        local list = {}
        for name, t in model:named_parameters() do
            list[#list + 1] = { name, t }
        end
        checkpoint.shards.read(found.weights, list)
    end
    return model, sees and am.AutoProcessor.from_pretrained(processor_folder(found)) or nil, found.model
end

-- ---- the prompt -----------------------------------------------------------------------------

local function text_ids(tokenizer, args, prompt)
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
local function room(model, ids, most)
    if #ids == 0 then
        err.raise("data", "the prompt is empty; give it text")
    end
    return math.max(1, math.min(most, am.models.position_limit(model.config) - #ids))
end

local function images_of(args)
    local list = {}
    for _, key in ipairs { "image", "image_path", "image_url" } do
        for _, name in ipairs(args[key]) do
            list[#list + 1] = name
        end
    end
    return list
end

-- ---- the answer -----------------------------------------------------------------------------

-- Text that answers a prompt of ids; inputs: what the model sees beside them.
local function answer(model, tokenizer, ids, inputs, args)
    local out, new = model:generate(ids, {
        max_new_tokens = room(model, ids, args.max_new_tokens),
        do_sample = args.temperature ~= 0 and (args.temperature or args.top_k or args.top_p) ~= nil,
        temperature = args.temperature ~= 0 and args.temperature or 1,
        top_k = args.top_k, top_p = args.top_p, seed = args.seed, inputs = inputs,
    }), {}
    for i = #ids + 1, #out do
        new[#new + 1] = out[i]
    end
    return tokenizer:decode(new, { skip_special_tokens = true })
end

local function shown(args, prompt, images, text)
    if args.json then
        return json.encode({ prompt = prompt, text = text }, { keys = { "prompt", "text" }, ascii = true })
    elseif args.output_format == "json" then
        local urls = #images > 1 and json.array(images) or images[1] or json.null
        return json.encode({ prompt = prompt, image_url = urls, response = text },
                           { keys = { "prompt", "image_url", "response" }, indent = 2, ascii = true })
    end
    return text
end

function M.main(argv)
    local args = options.parse(argv, "amlua recipes/generate.lua --model DIR [--image FILE] --prompt TEXT", specs)
    if not args then
        return 0
    elseif args.output_format ~= "text" and args.output_format ~= "json" then
        err.raise("usage", "--output-format is text or json, not %s", args.output_format)
    elseif args.threads then
        require("am.cli").set_threads(args.threads)
    end
    local model, processor, name = load(args)
    local images = images_of(args)
    if #images > 0 and not processor then
        err.raise("usage", "--image: %s reads text alone", name)
    end
    local tokenizer = processor and processor.tokenizer or am.AutoTokenizer.from_pretrained(name)
    local texts = {}
    for i, prompt in ipairs(args.prompt) do
        local text = am.scope(function()
            local ids, inputs
            if processor then
                ids, inputs = vlm_prompt.make(processor, { text = prompt, system = args.system, raw = args.raw,
                                                           images = vlm_prompt.sources(images, "--image") },
                                              model:device())
            else
                ids = text_ids(tokenizer, args, prompt)
            end
            return answer(model, tokenizer, ids, inputs, args)
        end)
        texts[i] = shown(args, prompt, images, text)
        if not args.output_file then
            print(texts[i])
            io.flush()
        end
    end
    if args.output_file then
        path.write_file(args.output_file, table.concat(texts, "\n") .. "\n")
    end
    return 0
end

return M
