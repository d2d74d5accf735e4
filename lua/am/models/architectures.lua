-- The registry: what config.json's "architectures" names -> the module that has it; and the class of each
-- model_type, for configurations that name none.

local M = {}

M.modules = {
    FalconForCausalLM = "am.models.falcon",
    Gemma2ForCausalLM = "am.models.gemma2",
    Gemma3ForCausalLM = "am.models.gemma3",
    GemmaForCausalLM = "am.models.gemma",
    Glm4ForCausalLM = "am.models.glm4",
    GlmForCausalLM = "am.models.glm",
    GPT2LMHeadModel = "am.models.gpt2",
    GPTNeoXForCausalLM = "am.models.gpt_neox",
    GptOssForCausalLM = "am.models.gpt_oss",
    GraniteForCausalLM = "am.models.granite",
    GraniteMoeForCausalLM = "am.models.granite_moe",
    LlamaForCausalLM = "am.models.llama",
    Ministral3ForCausalLM = "am.models.ministral3",
    MinistralForCausalLM = "am.models.ministral",
    MistralForCausalLM = "am.models.mistral",
    MixtralForCausalLM = "am.models.mixtral",
    NemotronForCausalLM = "am.models.nemotron",
    Olmo2ForCausalLM = "am.models.olmo2",
    OlmoeForCausalLM = "am.models.olmoe",
    OlmoForCausalLM = "am.models.olmo",
    Phi3ForCausalLM = "am.models.phi3",
    PhiForCausalLM = "am.models.phi",
    Qwen2ForCausalLM = "am.models.qwen2",
    Qwen2MoeForCausalLM = "am.models.qwen2_moe",
    Qwen3ForCausalLM = "am.models.qwen3",
    Qwen3MoeForCausalLM = "am.models.qwen3_moe",
    SmolLM3ForCausalLM = "am.models.smollm3",
    Starcoder2ForCausalLM = "am.models.starcoder2",
}

M.by_model_type = {
    falcon = "FalconForCausalLM",
    gemma = "GemmaForCausalLM",
    gemma2 = "Gemma2ForCausalLM",
    gemma3_text = "Gemma3ForCausalLM",
    glm = "GlmForCausalLM",
    glm4 = "Glm4ForCausalLM",
    gpt2 = "GPT2LMHeadModel",
    gpt_neox = "GPTNeoXForCausalLM",
    gpt_oss = "GptOssForCausalLM",
    granite = "GraniteForCausalLM",
    granitemoe = "GraniteMoeForCausalLM",
    llama = "LlamaForCausalLM",
    ministral = "MinistralForCausalLM",
    ministral3 = "Ministral3ForCausalLM",
    mistral = "MistralForCausalLM",
    mixtral = "MixtralForCausalLM",
    nemotron = "NemotronForCausalLM",
    olmo = "OlmoForCausalLM",
    olmo2 = "Olmo2ForCausalLM",
    olmoe = "OlmoeForCausalLM",
    phi = "PhiForCausalLM",
    phi3 = "Phi3ForCausalLM",
    qwen2 = "Qwen2ForCausalLM",
    qwen2_moe = "Qwen2MoeForCausalLM",
    qwen3 = "Qwen3ForCausalLM",
    qwen3_moe = "Qwen3MoeForCausalLM",
    smollm3 = "SmolLM3ForCausalLM",
    starcoder2 = "Starcoder2ForCausalLM",
}

--- Models of images and text, in the same way.
M.image_text_to_text = {
    modules = {
        Gemma3ForConditionalGeneration = "am.models.gemma3_vlm",
        Idefics3ForConditionalGeneration = "am.models.idefics3",
        LlavaForConditionalGeneration = "am.models.llava",
        PaliGemmaForConditionalGeneration = "am.models.paligemma",
        Qwen2_5_VLForConditionalGeneration = "am.models.qwen2_5_vl",
        Qwen2VLForConditionalGeneration = "am.models.qwen2_vl",
        SmolVLMForConditionalGeneration = "am.models.smolvlm",
    },
    by_model_type = {
        gemma3 = "Gemma3ForConditionalGeneration",
        idefics3 = "Idefics3ForConditionalGeneration",
        llava = "LlavaForConditionalGeneration",
        paligemma = "PaliGemmaForConditionalGeneration",
        qwen2_5_vl = "Qwen2_5_VLForConditionalGeneration",
        qwen2_vl = "Qwen2VLForConditionalGeneration",
        smolvlm = "SmolVLMForConditionalGeneration",
    },
}

--- Vision towers alone, in the same way: also out of models that have more than the tower.
M.towers = {
    modules = {
        CLIPVisionModel = "am.models.vision.clip",
        CLIPVisionModelWithProjection = "am.models.vision.clip",
        Dinov2ForImageClassification = "am.models.vision.dinov2",
        Dinov2Model = "am.models.vision.dinov2",
        SiglipForImageClassification = "am.models.vision.siglip",
        SiglipVisionModel = "am.models.vision.siglip",
    },
    by_model_type = {
        clip = "CLIPVisionModel",
        clip_vision_model = "CLIPVisionModel",
        dinov2 = "Dinov2Model",
        siglip = "SiglipVisionModel",
        siglip_vision_model = "SiglipVisionModel",
    },
}

return M
