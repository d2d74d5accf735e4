-- Pretrain a causal language model, from random weights or on from a checkpoint: llm_finetune on streams of
-- tokens (nanogpt shards, Megatron's indexed files, plain text), which are learnt whole.
--
--   amlua recipes/llm_pretrain.lua config.yaml [--section.key value]

local llm_finetune = require("recipes.llm_finetune")

local Recipe = llm_finetune:extend("llm_pretrain")
Recipe.doc = "Pretrain a causal language model."
Recipe.learns_to_end = false -- rows are cut out of a stream

return Recipe
