-- Tokenizers of Hugging Face directories and GGUF files. Text to ids and back is the engine's work
-- (am.h, "tokenizer"); this component reads and writes the files around it. Chat templates are
-- rendered by a component that is handed in, so that this one stands alone:
--
--     local AutoTokenizer = require("am.tokenizers").AutoTokenizer
--     local tok = AutoTokenizer.from_pretrained("dir", { chat = require "am.chat" })
--     local ids = tok:encode("Hello", { add_special_tokens = false })
--     print(tok:decode(ids), tok.eos_token, tok.eos_token_id)
--
-- Read next: tokenizer.lua (what a tokenizer can do), engine.lua, files.lua (tokenizer_config.json and
-- friends), formats.lua (vocabularies that are no tokenizer.json).

local err = require("am.core.error")
local core_io = require("am.core.io")
local engines = require("am.tokenizers.engine")
local files = require("am.tokenizers.files")
local formats = require("am.tokenizers.formats")
local path = require("am.utils.path")
local tokenizer = require("am.tokenizers.tokenizer")

local M = { AutoTokenizer = {} }

-- Raise an engine's error again, with the file it is about in front.
local function about(name, call, ...)
    local ok, result = pcall(call, ...)
    if ok then
        return result
    end
    error(err.is(result) and err.new(result.code, name .. ": " .. result.msg) or result, 0)
end

-- The engine of a directory, and the file that it came from.
local function engine_of(dir, config)
    local file = path.join(dir, "tokenizer.json")
    if path.exists(file) then
        local text, why = path.read_file(file, formats.MAX_BYTES)
        if not text then
            err.raise("io", "cannot read %s: %s", file, why)
        end
        return about(file, engines.engine_from_json, text), file
    end
    local engine, from = formats.engine_of(dir, config)
    if not engine then
        err.raise("format", "%s is missing, and so are tokenizer.model, tekken.json, *.tiktoken, vocab.json with "
            .. "merges.txt and vocab.txt; a tokenizer needs one of them, or name a GGUF file", file)
    end
    return engine, from
end

local function from_directory(dir, opts)
    local config = files.read(dir)
    local engine, file = engine_of(dir, config)
    local missing = files.missing_tokens(config, engine)
    if #missing > 0 then
        engine = about(file, engines.engine_from_json, files.with_tokens(engine:json(), missing, file))
    end
    return tokenizer.new(engine, config, opts)
end

local function from_gguf(file, opts)
    local archive = core_io.open(file)
    if archive.kind ~= "gguf" then
        err.raise("format", "%s is a %s file; a tokenizer comes from a directory or a GGUF file", file, archive.kind)
    end
    local engine = about(file, engines.engine_from_gguf, archive)
    local config = about(file, files.from_gguf, archive:metadata_json(), engine)
    archive:close()
    return tokenizer.new(engine, config, opts)
end

--- The tokenizer in a directory, or in a GGUF file. In a directory: tokenizer.json, else tokenizer.model
--- (SentencePiece's, or tiktoken's text as Llama 3 has it), tekken.json, *.tiktoken, vocab.json with merges.txt, or
--- vocab.txt; and where present tokenizer_config.json, special_tokens_map.json, chat_template.jinja,
--- chat_templates/. As in transformers, special tokens that the files name but the vocabulary does not have are
--- added. opts: `chat`, a
--- template engine with compile(source) (am.chat), needed by apply_chat_template only.
--- Raises "io", "format" or "unsupported" naming the file.
---@param name string
---@return am.Tokenizer
function M.AutoTokenizer.from_pretrained(name, opts)
    if type(name) ~= "string" or name == "" then
        err.raise("usage", "a tokenizer is named by a directory or a GGUF file, not by %s", tostring(name))
    elseif not path.exists(name) then
        err.raise("io", "%s does not exist; a tokenizer is a directory or a GGUF file", name)
    end
    return (path.is_dir(name) and from_directory or from_gguf)(name, opts or {})
end

return M
