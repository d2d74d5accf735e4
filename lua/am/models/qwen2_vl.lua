-- Qwen2-VL (Wang et al. 2024, arXiv:2409.12191) as transformers' modeling_qwen2_vl.py has it: pictures of any size in a
-- tower that sees each whole (vision/qwen2_vl.lua), and Qwen2 (qwen_vl.lua).

local qwen_vl = require("am.models.qwen_vl")

return qwen_vl.architecture {
    name = "Qwen2VLForConditionalGeneration",
    text_name = "Qwen2VLTextForCausalLM",
    vision = require("am.models.vision.qwen2_vl"),
    out = "hidden_size",
}
