---@meta _
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.AutoTokenizer
local am_AutoTokenizer = {}

--- A tokenizer from a Hugging Face directory, a GGUF file, or a hub name. opts.revision: of a hub name.
---@return am.Tokenizer
function am_AutoTokenizer.from_pretrained(name, opts) end

---@class am.Tokenizer
---@field bos_token string? and eos_token, unk_token, pad_token, sep_token, cls_token, mask_token
---@field bos_token_id integer? and the others' ids
---@field chat_template string|table|nil the source, or sources by name
---@field add_bos_token boolean whether tokenizer_config.json says so; encode does what tokenizer.json says
---@field model_max_length number? of tokenizer_config.json
---@field padding_side string "left" or "right": of tokenizer_config.json, else of tokenizer.json
---@field truncation_side string the same
---@field limits table what tokenizer.json says about truncation and padding
---@field vocab_size integer highest id + 1, added tokens included
local am_Tokenizer = {}

--- Number of tokens, added ones included.
function am_Tokenizer:len() end

--- Ids of a text, as an array. opts.add_special_tokens (default true): put around it what the
--- tokenizer's post-processor says. opts.return_offsets: a second array of { first, last } with
--- text:sub(first, last) being what each id came from (empty for added ids). opts.truncation: true cuts the
--- ids to opts.max_length (default: that of tokenizer.json's truncation, else model_max_length) at
--- truncation_side, what goes around the text staying; not together with return_offsets.
---@return integer[]
function am_Tokenizer:encode(text, opts) end

--- Ids of an array of texts, encoded on all threads, the same as one by one: an array of arrays. opts: those of
--- encode but return_offsets, and
---   padding              true or "longest": to the longest row; "max_length": to opts.max_length
---   pad_to_multiple_of   the length rounded up
--- With padding a second array of arrays is the attention mask.
function am_Tokenizer:encode_batch(texts, opts) end

--- Text of ids (an array, or one id). Ids beyond the vocabulary, which a model with a longer table of embeddings may
--- say, give none, as in transformers. opts.skip_special_tokens (default false); opts.errors: "replace"
--- (default; bytes that are not UTF-8 become U+FFFD, as in transformers) or "keep" (the bytes themselves,
--- for joining pieces).
---@return string
function am_Tokenizer:decode(ids, opts) end

--- Id of a token, or ids of an array of tokens. An unknown token gives unk_token_id, or raises "data"
--- where there is none.
function am_Tokenizer:convert_tokens_to_ids(tokens) end

--- Token of an id, or tokens of an array of ids, as the vocabulary spells them.
function am_Tokenizer:convert_ids_to_tokens(ids) end

--- Text of a token that tokenizer_config.json names ("image_token", "boi_token", …, by itself or under
--- extra_special_tokens), nil where it names none.
function am_Tokenizer:named_token(name) end

--- All that ids depend on, as text: the tokenizer, its special tokens and chat templates. For the keys of
--- caches.
function am_Tokenizer:content() end

--- Write tokenizer.json, tokenizer_config.json and special_tokens_map.json into a directory.
function am_Tokenizer:save_pretrained(dir) end

--- What a GGUF file says of this tokenizer: a list of { key, type, value } for a model with `rows` embeddings
--- (tokens that the tokenizer lacks are padding). Raises "unsupported" for one that llama.cpp cannot have.
function am_Tokenizer:gguf_metadata(rows) end

--- The source of the template to use: `wanted` (source or name), else the one for tools when there
--- are tools, else the default.
function am_Tokenizer:get_chat_template(wanted, tools) end

--- A conversation as text, with the options of apply_chat_template that shape it. With
--- return_assistant_tokens_mask also the spans that the assistant wrote, an array of { first, last } bytes (for
--- callers that change the text before it is encoded; an empty span has last = first - 1).
function am_Tokenizer:chat_text(messages, opts) end

--- A conversation as ids, or as text. `messages`: { { role = "user", content = "…" }, … }. opts:
---   tokenize (default true)          ids; false: the text
---   add_generation_prompt            end with the header of an assistant's turn
---   tools, documents                 for templates that use them
---   chat_template                    another template: its source, or its name among several
---   return_dict                      { input_ids, attention_mask } instead of the array of ids
---   return_assistant_tokens_mask     with return_dict: assistant_masks too, 1 for what the assistant wrote:
---                                    the template's {% generation %} blocks; where it has none, the
---                                    assistant's turns without the header that a prompt supplies, with it
---                                    when the option is "turns" (transformers gives zeros there)
---   continue_final_message           true, or a field of the last message: end where that one ends
--- Any other option becomes a variable of the template. Special tokens are not added: the template
--- writes them.
function am_Tokenizer:apply_chat_template(messages, opts) end

return am_AutoTokenizer
