-- Write a model as a Hugging Face directory: GGUF to safetensors, or one dtype to another.
--
--   amlua recipes/convert.lua --input FILE_OR_DIR --output-dir DIR [--torch_dtype bfloat16]

local am = require("am")
local err = require("am.core.error")
local options = require("am.cli.options")
local path = require("am.utils.path")

local M = {}

local specs = {
    { "input", required = true, doc = "GGUF file, Hugging Face directory, or hub name in the cache" },
    { "output-dir", required = true, doc = "new directory to write" },
    { "torch_dtype", default = "auto", doc = "dtype of the weights (auto: the checkpoint's)" },
}

function M.main(argv)
    local args = options.parse(argv, "amlua recipes/convert.lua --input FILE --output-dir DIR", specs)
    if not args then
        return 0
    end
    if path.exists(path.join(args.output_dir, "config.json")) then
        err.raise("usage", "%s already holds a model; choose another --output-dir", args.output_dir)
    end
    local model = am.AutoModelForCausalLM.from_pretrained(args.input, { torch_dtype = args.torch_dtype })
    model:save_pretrained(args.output_dir)
    am.AutoTokenizer.from_pretrained(args.input):save_pretrained(args.output_dir)
    print(string.format("wrote %s, %s, to %s", model.class_name, model:dtype(), args.output_dir))
    return 0
end

return M
