-- Qwen2.5-VL (Bai et al. 2025, arXiv:2502.13923) as transformers' modeling_qwen2_5_vl.py has it: pictures of any size
-- in a tower most of whose layers see windows (vision/qwen2_5_vl.lua), and Qwen2 (qwen_vl.lua).

local qwen_vl = require("am.models.qwen_vl")

return qwen_vl.architecture {
    name = "Qwen2_5_VLForConditionalGeneration",
    text_name = "Qwen2_5_VLTextForCausalLM",
    vision = require("am.models.vision.qwen2_5_vl"),
    out = "out_hidden_size",
}
