-- Fold a LoRA or DoRA adapter into its model, prove that the model still says the same, and write a plain
-- Hugging Face directory, whole or not at all.
--
--   amlua recipes/merge_lora.lua --base-model DIR_OR_GGUF --adapter-path DIR --output-dir DIR

local am = require("am")
local checkpoint = require("am.checkpoint")
local err = require("am.core.error")
local hub = require("am.utils.hub")
local io_core = require("am.core.io")
local options = require("am.cli.options")
local path = require("am.utils.path")

local M = {}

local specs = {
    { "base-model", required = true, doc = "Hugging Face directory, GGUF file, or hub name in the cache" },
    { "adapter-path", required = true, doc = "directory with adapter_model.safetensors" },
    { "output-dir", required = true, doc = "new directory to write" },
    { "torch_dtype", default = "auto", doc = "dtype of the merged weights (auto: the checkpoint's)" },
    { "dtype", doc = "the same, as NeMo Automodel calls it" },
    { "qlora", type = "flag", doc = "merge into the numbers that the base has in NF4, as load_in_4bit trains" },
    { "no-save-tokenizer", type = "flag", doc = "write the model alone" },
}

local PROMPT = "The lighthouse keeper wrote in her log: at 5:40 the wind turned north-east, and 12 boats came back to "
    .. "the harbour. Why did they return? Because"
local RANDOM_TOKENS = 64

-- How many ids are text: those of pictures and videos, and what is behind them, need more than an id.
local function text_ids(c)
    local count = c.vocab_size
    for _, key in ipairs { "image_token_id", "image_token_index", "video_token_id" } do
        count = type(c[key]) == "number" and math.min(count, c[key]) or count
    end
    return math.max(count, 1)
end

-- What the model is asked before and after: the prompt's tokens, or where there is no tokenizer random ones.
local function check_ids(model, tokenizer)
    local most, count = math.min(RANDOM_TOKENS, am.models.position_limit(model.config)), text_ids(model.config)
    local ids, state = tokenizer and tokenizer:encode(PROMPT) or {}, 1
    if #ids == 0 then
        for i = 1, most do
            state = (state * 48271) % 2147483647 -- Lehmer's generator, which leaves the model's own alone
            ids[i] = state % count
        end
    end
    return { unpack(ids, 1, math.min(#ids, most)) }
end

-- What makes a model's input, its processor or its tokenizer, and the tokenizer; nil where the folder has none.
local function input_of(model)
    local from = model.resolved_path
    if from and path.is_file(path.join(from, "preprocessor_config.json")) and am.models.sees_images(model.config) then
        local processor = am.AutoProcessor.from_pretrained(from)
        return processor, processor.tokenizer
    end
    local has = from and (path.is_file(from) or path.is_file(path.join(from, "tokenizer.json")))
    local tokenizer = has and am.AutoTokenizer.from_pretrained(from) or nil
    return tokenizer, tokenizer
end

-- The model that the adapter is of: a classifier, with as many labels as its head, where the adapter says so; one with
-- pictures where the base is.
local function base_model(args)
    local opts, dir = { torch_dtype = args.dtype or args.torch_dtype }, hub.resolve(args.adapter_path)
    if args.qlora then
        opts.quantize = am.quantization.qlora.new { load_in_4bit = true }
        opts.quantize.compute_dtype = nil -- the weights' own, in which the merged model is
    end
    local settings = path.join(dir, "adapter_config.json")
    if not path.is_file(settings) or checkpoint.read_json(settings).task_type ~= "SEQ_CLS" then
        local sees = am.models.sees_images(am.AutoConfig.from_pretrained(args.base_model))
        local class = sees and am.AutoModelForImageTextToText or am.AutoModelForCausalLM
        return class.from_pretrained(args.base_model, opts)
    end
    local adapter = io_core.open(path.join(dir, "adapter_model.safetensors"))
    local head = adapter:info("base_model.model.score.weight")
    opts.num_labels = head and head.shape[1]
    adapter:close()
    return am.AutoModelForSequenceClassification.from_pretrained(args.base_model, opts)
end

function M.main(argv)
    local args = options.parse(argv, "amlua recipes/merge_lora.lua --base-model DIR --adapter-path DIR "
                               .. "--output-dir DIR", specs)
    if not args then
        return 0
    end
    local out = args.output_dir
    if path.exists(out) and not (path.is_dir(out) and #path.names(out) == 0) then
        err.raise("usage", "%s is there already and not an empty folder; choose another --output-dir", out)
    end
    local model = base_model(args)
    local input, tokenizer = input_of(model)
    am.peft.load_adapter(model, args.adapter_path)
    local ids = check_ids(model, tokenizer)
    local report = am.peft.merge_checked(model, ids)
    print(string.format("self-check on %d tokens in %s: logits differ by up to %.3g (the largest is %.3g); %d of %d "
                        .. "have the same likeliest next token", #ids, report.dtype, report.worst, report.largest,
                        report.same, report.tokens))
    checkpoint.write_folder(out, function(dir)
        model:save_pretrained(dir)
        if input and not args.no_save_tokenizer then
            input:save_pretrained(dir)
        end
    end)
    print(string.format("merged %d modules into %s", report.modules, out))
    return 0
end

return M
