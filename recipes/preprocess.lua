-- Tokenise text, and columns of JSON, CSV and Parquet files, for pretraining: Megatron's .bin and .idx, or shards
-- of nanogpt.
--
--   amlua recipes/preprocess.lua --input FILE --model DIR --output-prefix PREFIX [--format megatron|nanogpt]
--
-- Makes what MegatronPretraining and NanogptDataset read, here and in NeMo Automodel.

local am = require("am")
local err = require("am.core.error")
local glob = require("am.utils.glob")
local options = require("am.cli.options")
local path = require("am.utils.path")
local preprocess = require("am.datasets.preprocess")
local token_writers = require("am.datasets.token_writers")

local M = {}

local specs = {
    { "input", list = true, required = true,
      doc = "JSON, JSONL, CSV, Parquet or text file, or a pattern; also more than once" },
    { "model", required = true, doc = "directory, GGUF file or hub name with the tokenizer" },
    { "output-prefix", required = true, doc = "folder and beginning of the files' names" },
    { "format", default = "megatron", doc = "megatron (.bin and .idx), or nanogpt (shards)" },
    { "json-keys", list = true, doc = "column with documents (text); megatron: more than once" },
    { "split-by", default = "file", doc = "documents of text files: file, line, blank_line, separator" },
    { "separator", doc = "text between documents, for --split-by separator" },
    { "append-eod", type = "flag", doc = "end documents with the end-of-sequence token (megatron)" },
    { "max-tokens", doc = "stop behind the document that reaches so many: 500000, 500K, 1.5M, 2B" },
    { "shard-tokens", doc = "tokens in a shard (nanogpt; 100M)" },
}

local units = { [""] = 1, K = 1e3, M = 1e6, B = 1e9 }

-- "500M" as a number.
local function count_of(name, text)
    local number, unit = text:match("^([%d.]+)%s*([KMBkmb]?)$")
    local n = number and tonumber(number) and math.floor(tonumber(number) * units[unit:upper()])
    return n and n >= 1 and n
        or err.raise("usage", "--%s needs a number of tokens such as 500M, not %s", name, text)
end

-- Names of the files, patterns among them resolved.
local function files_of(names)
    local files = {}
    for _, name in ipairs(names) do
        local found = glob.is_pattern(name) and glob.files(name) or { name }
        for _, file in ipairs(#found > 0 and found or err.raise("usage", "--input: no file is called %s", name)) do
            files[#files + 1] = file
        end
    end
    return files
end

local of_rows = { json = true, jsonl = true, csv = true, tsv = true, parquet = true }

-- True for files of rows, which have columns, false for text; all files must be of one kind.
local function have_columns(files)
    local found
    for _, name in ipairs(files) do
        local extension = path.extension(name)
        if extension == "gz" or extension == "zst" then
            extension = path.extension(name:sub(1, -#extension - 2))
        end
        local kind = of_rows[extension] or false
        if found ~= nil and found ~= kind then
            err.raise("usage", "--input: rows (JSON, CSV, Parquet) and text files need a run each")
        end
        found = kind
    end
    return found
end

local function megatron(args, job, keys)
    for _, key in ipairs(keys) do
        job.key = keys.columns and key or nil
        local prefix = string.format("%s_%s_document", args.output_prefix, key)
        job.writer = token_writers.megatron(prefix, job.tokenizer.vocab_size)
        job.append_eod = args.append_eod
        local documents, tokens, skipped = preprocess.run(job)
        print(string.format("wrote %s.bin and .idx: %d documents, %.0f tokens%s", prefix, documents, tokens,
                            skipped > 0 and string.format("; %d empty or no text", skipped) or ""))
    end
end

local function nanogpt(args, job, keys)
    if #keys > 1 then
        err.raise("usage", "--json-keys: nanogpt's shards hold one column")
    end
    local limit = count_of("shard-tokens", args.shard_tokens or "100M")
    if limit > 2 ^ 31 - 1 then
        err.raise("usage", "--shard-tokens: a shard has less than 2^31")
    end
    job.key = keys.columns and keys[1] or nil
    job.bos = true
    job.writer = token_writers.nanogpt(args.output_prefix, job.tokenizer.vocab_size, limit,
                                       job.tokenizer.bos_token_id)
    local documents, tokens, skipped, shards = preprocess.run(job)
    print(string.format("wrote %d shards, %s_000000.bin and on: %d documents, %.0f tokens%s", shards,
                        args.output_prefix, documents, tokens,
                        skipped > 0 and string.format("; %d empty or no text", skipped) or ""))
end

function M.main(argv)
    local args = options.parse(argv, "amlua recipes/preprocess.lua --input FILE --model DIR --output-prefix PREFIX",
                               specs)
    if not args then
        return 0
    end
    local formats = { megatron = megatron, nanogpt = nanogpt }
    local write = formats[args.format]
        or err.raise("usage", "--format is megatron or nanogpt, not %s", args.format)
    local files = files_of(args.input)
    local columns = have_columns(files)
    if not columns and #args.json_keys > 0 then
        err.raise("usage", "--json-keys is for files with columns: JSON, CSV, Parquet")
    end
    local keys = #args.json_keys > 0 and args.json_keys or { "text" }
    keys.columns = columns
    write(args, {
        files = files, tokenizer = am.AutoTokenizer.from_pretrained(args.model), split_by = args.split_by,
        separator = args.separator, max_tokens = args.max_tokens and count_of("max-tokens", args.max_tokens),
    }, keys)
    return 0
end

return M
