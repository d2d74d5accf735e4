-- Fold a LoRA adapter into its model and write a plain Hugging Face directory.
--
--   amlua recipes/merge_lora.lua --base-model DIR_OR_GGUF --adapter-path DIR --output-dir DIR

local am = require("am")
local err = require("am.core.error")
local options = require("am.cli.options")
local path = require("am.utils.path")

local M = {}

local specs = {
    { "base-model", required = true, doc = "Hugging Face directory, GGUF file, or hub name in the cache" },
    { "adapter-path", required = true, doc = "directory with adapter_model.safetensors" },
    { "output-dir", required = true, doc = "new directory to write" },
    { "torch_dtype", default = "auto", doc = "dtype of the merged weights (auto: the checkpoint's)" },
}

function M.main(argv)
    local args = options.parse(argv, "amlua recipes/merge_lora.lua --base-model DIR --adapter-path DIR "
                               .. "--output-dir DIR", specs)
    if not args then
        return 0
    end
    if path.exists(path.join(args.output_dir, "config.json")) then
        err.raise("usage", "%s already holds a model; choose another --output-dir", args.output_dir)
    end
    local model = am.AutoModelForCausalLM.from_pretrained(args.base_model, { torch_dtype = args.torch_dtype })
    am.peft.load_adapter(model, args.adapter_path)
    local count = am.peft.merge(model)
    model:save_pretrained(args.output_dir)
    am.AutoTokenizer.from_pretrained(args.base_model):save_pretrained(args.output_dir)
    print(string.format("merged %d modules into %s", count, args.output_dir))
    return 0
end

return M
