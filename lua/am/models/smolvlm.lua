-- SmolVLM (Marafioti et al. 2025, arXiv:2504.05299) as transformers' modeling_smolvlm.py has it: Idefics3's parts.

local idefics3 = require("am.models.idefics3")
local image_text_to_text = require("am.models.image_text_to_text")

return image_text_to_text.architecture(idefics3.describe("SmolVLMForConditionalGeneration", true))
