-- Write a model in another form: a Hugging Face directory of a GGUF file or in another dtype, or a GGUF file for
-- llama.cpp of a directory. An adapter becomes llama.cpp's LoRA file.
--
--   amlua recipes/convert.lua --input FILE_OR_DIR --output-dir DIR [--torch_dtype bfloat16]
--   amlua recipes/convert.lua --input FILE_OR_DIR --output-file FILE.gguf [--type q4_k]

local am = require("am")
local checkpoint = require("am.checkpoint")
local err = require("am.core.error")
local hub = require("am.utils.hub")
local options = require("am.cli.options")
local path = require("am.utils.path")

local M = {}

local specs = {
    { "input", required = true, doc = "GGUF file, Hugging Face directory, adapter, or hub name in the cache" },
    { "output-dir", doc = "new directory to write" },
    { "output-file", doc = "new GGUF file to write" },
    { "torch_dtype", default = "auto", doc = "dtype of a directory's weights (auto: the checkpoint's)" },
    { "type", doc = "of a GGUF file's matrices: f32 (an adapter's), f16 (a model's), bf16, q8_0, q4_0, q4_k" },
    { "base-model", doc = "of an adapter (its adapter_config.json's)" },
}

local function to_directory(args)
    local out = args.output_dir
    if path.exists(path.join(out, "config.json")) then
        err.raise("usage", "%s already holds a model; choose another --output-dir", out)
    end
    local model = am.AutoModelForCausalLM.from_pretrained(args.input, { torch_dtype = args.torch_dtype })
    model:save_pretrained(out)
    am.AutoTokenizer.from_pretrained(args.input):save_pretrained(out)
    print(string.format("wrote %s, %s, to %s", model.class_name, model:dtype(), out))
end

-- The base model that an adapter's configuration or --base-model names.
local function base_of(dir, args)
    local settings = checkpoint.read_json(path.join(dir, "adapter_config.json"))
    local base = args.base_model or settings.base_model_name_or_path
    return type(base) == "string" and base or err.raise("usage", "%s names no base model; give --base-model", dir)
end

local function adapter_to_gguf(dir, args)
    local model = am.AutoModelForCausalLM.from_pretrained(base_of(dir, args))
    local config = am.peft.load_adapter(model, dir, { dtype = "float32" })
    if #(config.modules_to_save or {}) > 0 then
        err.raise("unsupported", "%s has modules that were trained whole (%s), which a GGUF adapter cannot hold; merge "
                  .. "it into the model instead", dir, table.concat(config.modules_to_save, ", "))
    end
    local adapters = am.peft.adapters(model)
    am.models.save_gguf_adapter(args.output_file, model, adapters, { type = args.type, name = path.basename(dir) })
    print(string.format("wrote an adapter of %d modules, %s, to %s", #adapters, args.type or "f32", args.output_file))
end

local function model_to_gguf(dir, args)
    local tokenizer = am.AutoTokenizer.from_pretrained(dir)
    local model = am.AutoModelForCausalLM.from_pretrained(dir)
    model:save_gguf(args.output_file, { type = args.type, name = path.basename(dir),
                                        tokenizer = tokenizer:gguf_metadata(model.config.vocab_size) })
    print(string.format("wrote %s, %s, to %s", model.class_name, args.type or "f16", args.output_file))
end

local function to_gguf(args)
    local out = args.output_file
    if path.exists(out) then
        err.raise("usage", "%s is there already; choose another --output-file", out)
    end
    if args.type then
        am.models.check_gguf_type(args.type)
    end
    local dir = hub.resolve(args.input)
    local function has(name) return path.is_file(path.join(dir, name)) end
    local write = has("adapter_config.json") and not has("config.json") and adapter_to_gguf or model_to_gguf
    write(dir, args)
end

function M.main(argv)
    local args = options.parse(argv, "amlua recipes/convert.lua --input FILE_OR_DIR --output-dir DIR | --output-file "
                               .. "FILE.gguf", specs)
    if not args then
        return 0
    end
    if (args.output_dir == nil) == (args.output_file == nil) then
        err.raise("usage", "give either --output-dir, for a Hugging Face directory, or --output-file, for GGUF")
    end
    (args.output_file and to_gguf or to_directory)(args)
    return 0
end

return M
