-- Fine-tune a model of images and text: fully, or LoRA with a `peft` section. llm_finetune with a processor that makes
-- pixel values of pictures, datasets of conversations with images, and parts that are frozen by name.
--
--   amlua recipes/vlm_finetune.lua config.yaml [--section.key value]
--
-- What it has of its own is in lua/am/recipes/vlm.lua.

local llm_finetune = require("recipes.llm_finetune")
local vlm = require("am.recipes.vlm")

local Recipe = llm_finetune:extend("vlm_finetune")
Recipe.doc = "Fine-tune a model of images and text, fully or with LoRA."

function Recipe.schema()
    return vlm.schema(llm_finetune.schema())
end

for name, method in pairs(vlm.Methods) do
    Recipe[name] = method
end

return Recipe
