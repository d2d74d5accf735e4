-- Writes docs/models.md: every architecture, what is measured of it and what it can do.
-- usage (from the project's root): amlua docs/models.lua [FILE]     FILE: docs/models.md; "-" prints
--
-- Errors are those of the goldens in tests/parity; features are read off the modules that the architectures make. By
-- hand are only the names of models and of the kinds of their tokenizers.

local am = require("am")
local compare = require("recipes.compare")
local json = require("am.utils.json")
local path = require("am.utils.path")
local registry = require("am.models.architectures")
local strings = require("am.utils.strings")

local ROOT = "tests/parity/models/golden"
-- Goldens of models of images and text, among others.
local SEEING = { "tests/parity/vision/golden", "tests/parity/vlm/golden", "tests/parity/vlm/qwen" }
local BYTES, PIECES = "byte-level BPE", "SentencePiece BPE"

-- Architecture -> models of that kind, the tokenizer they come with.
local KNOWN = {
    FalconForCausalLM = { "Falcon 7B, 40B, 180B, 11B, RW", BYTES },
    Gemma2ForCausalLM = { "Gemma 2", PIECES },
    Gemma3ForCausalLM = { "Gemma 3 270M, 1B", PIECES },
    GemmaForCausalLM = { "Gemma, CodeGemma", PIECES },
    Glm4ForCausalLM = { "GLM-4-0414", BYTES },
    GlmForCausalLM = { "GLM-4, GLM-Edge", BYTES },
    GPT2LMHeadModel = { "GPT-2, DistilGPT2", BYTES },
    GPTNeoXForCausalLM = { "Pythia, GPT-NeoX, Dolly 2", BYTES },
    GptOssForCausalLM = { "gpt-oss", BYTES },
    GraniteForCausalLM = { "Granite 3", BYTES },
    GraniteMoeForCausalLM = { "Granite 3 MoE", BYTES },
    LlamaForCausalLM = { "Llama 2, 3, 3.1, 3.2, 3.3, SmolLM, SmolLM2, Yi, TinyLlama, DeepSeek distills",
                         BYTES .. "; Llama 2, Yi, TinyLlama " .. PIECES },
    Ministral3ForCausalLM = { "Ministral 3", BYTES },
    MinistralForCausalLM = { "Ministral 8B", BYTES },
    MistralForCausalLM = { "Mistral 7B, Nemo, Small, Zephyr", PIECES .. "; Nemo, Small " .. BYTES },
    MixtralForCausalLM = { "Mixtral 8x7B, 8x22B", PIECES },
    NemotronForCausalLM = { "Nemotron-4, Minitron", PIECES },
    Olmo2ForCausalLM = { "OLMo 2", BYTES },
    OlmoeForCausalLM = { "OLMoE", BYTES },
    OlmoForCausalLM = { "OLMo", BYTES },
    Phi3ForCausalLM = { "Phi-3, Phi-3.5, Phi-4, Phi-4-mini", PIECES .. "; Phi-4 " .. BYTES },
    PhiForCausalLM = { "Phi-1, Phi-1.5, Phi-2", BYTES },
    Qwen2ForCausalLM = { "Qwen1.5, Qwen2, Qwen2.5, QwQ", BYTES },
    Qwen2MoeForCausalLM = { "Qwen1.5-MoE, Qwen2-57B-A14B", BYTES },
    Qwen3ForCausalLM = { "Qwen3", BYTES },
    Qwen3MoeForCausalLM = { "Qwen3-30B-A3B, Qwen3-235B-A22B", BYTES },
    SmolLM3ForCausalLM = { "SmolLM3", BYTES },
    Starcoder2ForCausalLM = { "StarCoder2", BYTES },
}

-- Architecture of images and text -> models of that kind, their towers.
local KNOWN_SEEING = {
    Gemma3ForConditionalGeneration = { "Gemma 3 4B, 12B, 27B", "SigLIP" },
    Idefics3ForConditionalGeneration = { "Idefics3, SmolVLM", "SigLIP's layers, positions by size" },
    LlavaForConditionalGeneration = { "LLaVA 1.5", "CLIP, SigLIP, DINOv2" },
    PaliGemmaForConditionalGeneration = { "PaliGemma, PaliGemma 2", "SigLIP" },
    Qwen2VLForConditionalGeneration = { "Qwen2-VL", "its own: pictures of any size" },
    Qwen2_5_VLForConditionalGeneration = { "Qwen2.5-VL", "its own: pictures of any size, windows" },
    SmolVLMForConditionalGeneration = { "SmolVLM2", "SigLIP's layers, positions by size" },
}

local INTRODUCTION = table.concat({
    "# Models",
    "Written by `docs/models.lua` from the architectures, their goldens and their modules; do not edit.",
    "A checkpoint is one of these by `architectures` in its config.json (or by `model_type`, where that is "
        .. "all it has). Another decoder is a Lua file: [port_a_model.md](port_a_model.md).",
    "Every one of them trains fully and with LoRA (on which matrices of its layers, the table says), is made "
        .. "from a configuration with random weights, generates with a cache, is saved as transformers opens it, and "
        .. "takes packed and padded rows with the bits of single ones: `tests/parity/models/models_spec.lua` shows "
        .. "it of each. Chat templates are those of the checkpoint, whatever its architecture "
        .. "([datasets.md](datasets.md)).",
    "Errors are against transformers on tiny random checkpoints in f32, logits as a part of the largest, "
        .. "gradients of the larger of that tensor's largest and a thousandth of the model's largest. They are "
        .. "rounded up, to 1e-6, 1e-5, 1e-4 or 2e-4 and by a factor of two at least, so that they hold on any machine.",
}, "\n\n") .. "\n"

local SEEING_INTRODUCTION = table.concat({
    "\n## Images and text",
    "`am.AutoModelForImageTextToText` opens these. The text part of LLaVA, Idefics3 and SmolVLM is any architecture "
        .. "of the table above. Several pictures a row, rows of text alone among them, packed and padded rows and "
        .. "frozen parts work for all. Errors are measured as above. CLIP, SigLIP and DINOv2 are models of their own, "
        .. "too: `am.AutoModel`.",
    "| architecture | models | logits | gradients | vision tower |\n|---|---|---|---|---|",
}, "\n\n")

-- ---- what can be read off modules -----------------------------------------------------------

local function fields_of(case)
    return json.decode(assert(path.read_file(path.join(ROOT, case, "config.json"), 1e6)))
end

-- The modules of a golden's model with some fields changed, or nil where these are refused.
local function structure(case, changes)
    local fields = fields_of(case)
    for key, value in pairs(changes or {}) do
        fields[key] = value
    end
    local ok, model = pcall(am.models.structure, fields)
    return ok and model or nil
end

local function has(model, test)
    if model then
        for _, module in model:named_modules() do
            if test(module) then
                return true
            end
        end
    end
    return false
end

local function is_attention(m) return m.kernel == "attention" end
local function windowed(m) return is_attention(m) and m.window and m.window > 0 end

-- Names of features that a case's model has, as far as its configuration switches them on.
local function add_features(found, case)
    local model = structure(case)
    local windows = structure(case, { use_sliding_window = true, sliding_window = 8, max_window_layers = 0,
                                      layer_types = json.null })
    local tied = structure(case, { tie_word_embeddings = true })
    local function note(name, on) found[name] = found[name] or on or nil end
    note("sliding window", has(model, windowed) or has(windows, windowed))
    note("soft caps", model.logit_softcap or has(model, function(m) return is_attention(m) and m.softcap end))
    note("norms of queries and keys", has(model, function(m) return is_attention(m) and m.q_norm or m.q_layernorm end))
    note("sinks", has(model, function(m)
        local last = m._parameters[#m._parameters]
        return last and last.name == "sinks"
    end))
    note("experts", has(model, function(m) return m.top_k and m.num_experts end))
    note("shared expert", has(model, function(m) return m.top_k and m.names and m.names.shared end))
    note("attention beside feed-forward", has(model, function(m) return m.class_name == "ParallelDecoderLayer" end))
    note("ALiBi", has(model, function(m) return is_attention(m) and m.slopes end))
    note("learned positions", model.model.positions)
    note("tied head", tied and next(tied.tied))
end

-- rope_parameters of a kind, with what the kind needs; `half`: numbers that are rotated in pairs.
local function scaling_of(kind, base, half)
    local values = { rope_type = kind, factor = 2, original_max_position_embeddings = 16, low_freq_factor = 1,
                     high_freq_factor = 4, short_factor = {}, long_factor = {}, rope_theta = base.rope_theta,
                     partial_rotary_factor = base.partial_rotary_factor }
    for i = 1, half do
        values.short_factor[i], values.long_factor[i] = 1, 1
    end
    return values
end

-- Kinds of RoPE scaling that a case's model takes.
local function add_scalings(kinds, case)
    local plain, rope = structure(case), fields_of(case).rope_parameters
    local rotary = plain.model.rotaries.full_attention
    for _, kind in ipairs(rotary and { "linear", "dynamic", "yarn", "llama3", "longrope" } or {}) do
        local all = rope and rope.full_attention
        local values = scaling_of(kind, all or rope or {}, rotary.options.dim / 2)
        local model = structure(case, { rope_parameters = all and { full_attention = values, sliding_attention =
                                        rope.sliding_attention } or values })
        local found = model and model.model.rotaries.full_attention.options.scaling
        kinds[kind] = kinds[kind] or found and found.rope_type == kind or nil
    end
end

-- Which matrices of the layers LoRA goes to: "all", "none", or all but the experts'.
local function lora_of(case)
    local model = am.AutoModelForCausalLM.from_pretrained(path.join(ROOT, case))
    am.peft.apply(model, am.PeftConfig { match_all_linear = true, dim = 2 })
    local inside = model.names.body .. "." .. model.names.layers .. "."
    local adapted, others, experts = 0, 0, 0
    for name, module in model:named_modules() do
        local shape = name:sub(1, #inside) == inside and module._parameters[1] and module._parameters[1].shape or {}
        if module.class_name:find("LoRA$") then
            adapted = adapted + 1
        elseif #shape == 3 and not name:find("lora_", 1, true) then
            experts = experts + 1
        elseif #shape == 2 and not name:find("lora_", 1, true) then
            others = others + 1
        end
    end
    model:close()
    return others > 0 and (adapted > 1 and "some" or "none") or experts > 0 and "all but experts" or "all"
end

-- ---- what is measured -----------------------------------------------------------------------

-- Adds the largest errors of logits and gradients of a golden to `worst`.
local function add_errors(worst, dir)
    local golden = am.load_safetensors(path.join(dir, "golden.safetensors"))
    local model = compare.open(dir)
    for _, e in ipairs(compare.errors(model, golden)) do
        local key = e.name == "logits" and "logits" or e.name:find("^gradient") and "gradients"
        if key then
            worst[key] = math.max(worst[key] or 0, e.error)
        end
    end
    worst.classes = worst.classes or golden.classes ~= nil
    model:close()
end

-- A bound of an error that another machine stays below, too.
local function bound(error_)
    for _, limit in ipairs { 1e-6, 1e-5, 1e-4, 2e-4 } do
        if 2 * error_ <= limit then
            return string.format("< %.0e", limit)
        end
    end
    return string.format("%.1e", error_)
end

--- {architecture -> its goldens}
local function cases()
    local list = {}
    for _, case in ipairs(path.names(ROOT)) do
        local name = fields_of(case).architectures[1]
        list[name] = list[name] or {}
        table.insert(list[name], case)
    end
    return list
end

-- {architecture of images and text -> paths of its goldens}
local function seeing_cases()
    local list = {}
    for _, root in ipairs(SEEING) do
        for _, case in ipairs(path.names(root)) do
            local dir = path.join(root, case)
            local fields = json.decode(assert(path.read_file(path.join(dir, "config.json"), 1e6)))
            local name = fields.architectures and fields.architectures[1]
            if registry.image_text_to_text.modules[name or ""] then
                list[name] = list[name] or {}
                table.insert(list[name], dir)
            end
        end
    end
    return list
end

local function row(name, goldens)
    local found, kinds, worst = {}, {}, {}
    for _, case in ipairs(goldens) do
        add_features(found, case)
        add_scalings(kinds, case)
        add_errors(worst, path.join(ROOT, case))
    end
    found.classification = worst.classes or nil
    local gguf = require(registry.modules[name]).gguf
    local known = KNOWN[name]
    local scalings = next(kinds) and table.concat(strings.sorted_keys(kinds), ", ") or "none"
    return string.format("| `%s` | %s | %s | %s | %s | %s | %s | %s | %s |", name, known[1], bound(worst.logits),
                         bound(worst.gradients), lora_of(goldens[1]), table.concat(strings.sorted_keys(found), ", "),
                         scalings,
                         gguf and "`" .. gguf.architecture .. "`" or "", known[2])
end

local function page()
    local out = { INTRODUCTION, "| architecture | models | logits | gradients | LoRA | features | RoPE scaling "
        .. "| GGUF | tokenizer |", "|---|---|---|---|---|---|---|---|---|" }
    local goldens = cases()
    for _, name in ipairs(strings.sorted_keys(goldens)) do
        out[#out + 1] = row(name, goldens[name])
    end
    out[#out + 1] = "\nA feature is named where a configuration can switch it on; classification, which all have, "
        .. "where transformers has a class to compare with. GGUF names the architecture in llama.cpp's files that are "
        .. "read."
    out[#out + 1] = SEEING_INTRODUCTION
    local seeing = seeing_cases()
    for _, name in ipairs(strings.sorted_keys(seeing)) do
        local worst = {}
        for _, dir in ipairs(seeing[name]) do
            add_errors(worst, dir)
        end
        out[#out + 1] = string.format("| `%s` | %s | %s | %s | %s |", name, KNOWN_SEEING[name][1], bound(worst.logits),
                                      bound(worst.gradients), KNOWN_SEEING[name][2])
    end
    return table.concat(out, "\n") .. "\n"
end

local target = arg and arg[0] and arg[0]:find("docs/models.lua", 1, true) and (arg[1] or "docs/models.md")
if not target then
    return { page = page, cases = cases, known = KNOWN, seeing_cases = seeing_cases, known_seeing = KNOWN_SEEING }
elseif target == "-" then
    io.write(page())
else
    path.write_file(target, page())
end
