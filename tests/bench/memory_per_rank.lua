-- The table of docs/distributed.md: memory per rank as am.recipes.memory computes it, of some models' shapes on some
-- numbers of ranks. Prints Markdown; loads no weights.
--
--   amlua tests/bench/memory_per_rank.lua

local llm_finetune = require("recipes.llm_finetune")
local memory = require("am.recipes.memory")
local skeleton = require("am.recipes.skeleton")

local TOKENS = 4096 -- of a micro-batch, a row
local RANKS = { 8, 64, 512 }

local function llama(hidden, inner, layers, heads, kv, vocab, tied)
    return { model_type = "llama", architectures = { "LlamaForCausalLM" }, hidden_size = hidden,
             intermediate_size = inner, num_hidden_layers = layers, num_attention_heads = heads,
             num_key_value_heads = kv, vocab_size = vocab, max_position_embeddings = 8192, tie_word_embeddings = tied }
end

local mixtral = llama(4096, 14336, 32, 32, 8, 32000, false)
mixtral.model_type, mixtral.architectures = "mixtral", { "MixtralForCausalLM" }
mixtral.num_local_experts, mixtral.num_experts_per_tok = 8, 2

local models = {
    { "SmolLM2-135M", llama(576, 1536, 30, 9, 3, 49152, true) },
    { "Llama 3.2 1B", llama(2048, 8192, 16, 32, 8, 128256, true) },
    { "Llama 3.1 8B", llama(4096, 14336, 32, 32, 8, 128256, false) },
    { "Mixtral 8x7B", mixtral },
    { "Llama 3.1 70B", llama(8192, 28672, 80, 64, 8, 128256, false) },
}

local function skeleton_of(config, peft)
    return skeleton.of(llm_finetune.new({
        model = { _target_ = "am.AutoModelForCausalLM.from_config", config = config, torch_dtype = "bfloat16" },
        peft = peft, distributed = { activation_checkpointing = true },
        optimizer = { _target_ = "am.optim.AdamW", lr = 1e-5 },
        dataset = { _target_ = "am.datasets.build_unpacked_dataset" },
    }))
end

local function gib(model, ranks)
    local share = ranks > 1 and function() return 1 / ranks end or nil
    return memory.expected(model, { kind = "adamw", share = share }, TOKENS).total / 2 ^ 30
end

local head = { "model", "LoRA, ddp", "all, ddp" }
for _, ranks in ipairs(RANKS) do
    head[#head + 1] = ("all, fsdp2, %d ranks"):format(ranks)
end
print("| " .. table.concat(head, " | ") .. " |")
print("|" .. ("---|"):rep(#head))
for _, m in ipairs(models) do
    local cells = { m[1], ("%.1f"):format(gib(skeleton_of(m[2], { target_modules = "*_proj", dim = 8 }), 1)) }
    local model = skeleton_of(m[2])
    for _, ranks in ipairs { 1, unpack(RANKS) } do
        cells[#cells + 1] = ("%.1f"):format(gib(model, ranks))
    end
    print("| " .. table.concat(cells, " | ") .. " |")
end
