-- Names by which NeMo Automodel's configurations call what is here, in every layout that it had, and names of
-- what is not here yet, with the reason. Holds no targets: those are declared by their components.

local strings = require("am.utils.strings")

local M = {}

-- Packages that export what their modules hold, so that a name may leave the module out.
local exporting = { ["datasets.llm"] = true, ["datasets.vlm"] = true, optim = true, loss = true, distributed = true }

-- The further spellings of a full name `nemo_automodel.components.PACKAGE.MODULE.NAME`.
local function spellings(alias)
    local rest = alias:match("^nemo_automodel%.components%.(.+)$")
    if not rest then
        return {}
    end
    local list = { "nemo_automodel." .. rest } -- June 2025: no folder "components" yet
    local package, name = rest:match("^(.-)%.[%w_]+%.([%w_]+)$")
    if package and exporting[package] then
        list[2] = "nemo_automodel.components." .. package .. "." .. name
    end
    return list
end

-- Names that differ by more than their place. Those of a target that is not defined are passed over.
local others = {
    ["am.loss.MaskedCrossEntropy"] = { "nemo_automodel.components.loss.masked_ce.masked_cross_entropy",
                                       "nemo_automodel.components.loss.loss.MaskedCrossEntropyConfig" },
    ["am.loss.FusedLinearCrossEntropy"] = { "nemo_automodel.components.loss.loss.FusedLinearCEConfig" },
    ["am.loss.TEParallelCrossEntropy"] = { "nemo_automodel.components.loss.loss.TEParallelCEConfig" },
    ["am.loss.KDLoss"] = { "nemo_automodel.components.loss.loss.KDLossConfig" },
    ["am.PeftConfig"] = { "nemo_automodel.components._peft.lora.apply_lora_to_linear_modules" },
    ["am.distributed.FSDP2Manager"] = { "nemo_automodel.components.distributed.config.FSDP2Config" },
    ["am.distributed.DDPManager"] = { "nemo_automodel.components.distributed.config.DDPConfig" },
    ["am.distributed.MegatronFSDPManager"] = { "nemo_automodel.components.distributed.config.MegatronFSDPConfig" },
    ["am.datasets.StatefulDataLoader"] = { "torch.utils.data.DataLoader",
                                           "torchdata.stateful_dataloader.stateful_dataloader.StatefulDataLoader" },
    ["am.datasets.default_collater"] = { "nemo_automodel.components.datasets.utils.packed_sequence_thd_collater",
                                         "torch.utils.data.default_collate" },
}

-- What there is no counterpart of yet. Where a target is defined under one of these names, it is there.
local later = {
    { "models that hear", "nemo_automodel.components.datasets.audio.*", "*NeMoAutoModelForTextToWaveform.*",
      "nemo_automodel.components.datasets.vlm.collate_fns.phi4_mm_collate_fn",
      "nemo_automodel.components.datasets.vlm.datasets.make_cv17_dataset" },
    { "models of several kinds of input at once; take NeMoAutoModelForImageTextToText for images and text",
      "*NeMoAutoModelForMultimodalLM.*", "nemo_automodel.components.models.nemotron_parse.*" },
    { "this data set or way to make batches of images and text; see docs/vlm.md for those that are there",
      "nemo_automodel.components.datasets.vlm.*", "nemo_automodel.datasets.vlm.*" },
    { "this processor; transformers.AutoProcessor.from_pretrained chooses the model's own",
      "nemo_automodel.components.models.*process*", "transformers.*Processor.*", "transformers.models.*rocess*" },
    { "models of other kinds than causal ones and classifiers", "*NeMoAutoModelForTokenClassification.*",
      "*NeMoAutoModelForSeq2SeqLM.*", "*NeMoAutoModelBiEncoder.*",
      "*NeMoAutoModelCrossEncoder.*", "nemo_automodel.components.datasets.llm.seq2seq.*" },
    { "models with experts", "nemo_automodel.components.moe.*", "transformers.models.*_moe.*",
      "transformers.models.*_moe_lite.*", "transformers.models.deepseek*" },
    { "this architecture; AutoConfig and AutoModelForCausalLM choose those that are there",
      "nemo_automodel.components.models.*", "nemo_automodel.models.*", "transformers.models.*",
      "transformers.*Config" },
    { "this optimizer; take torch.optim.AdamW", "transformer_engine.*", "flashoptim.*", "dion.*",
      "torchao.optim.*", "bitsandbytes.optim.*", "torch.optim.Adadelta", "torch.optim.Adagrad",
      "torch.optim.Adamax", "torch.optim.ASGD", "torch.optim.LBFGS", "torch.optim.NAdam", "torch.optim.RAdam",
      "torch.optim.RMSprop", "torch.optim.Rprop",
      "nemo_automodel.components.optim.optimizer.*",
      "nemo_automodel.components.optim.*Config" },
    { "this loss; take MaskedCrossEntropy", "nemo_automodel.components.loss.*" },
    { "this dataset; see docs/custom.md for one of your own", "nemo_automodel.components.datasets.llm.*" },
    { "this way to make batches; take default_collater", "nemo_automodel.components.datasets.utils.*" },
    { "weights and products in few bits", "nemo_automodel.components.quantization.*", "torchao.*" },
    { "scoring of tool calls", "nemo_automodel.components.eval.*" },
    { "Python runs nowhere here; port it to a file.lua:function", "nemo_automodel.recipes.*" },
}

-- Recipes by the class that a configuration's `recipe` key names.
local recipes = {
    TrainFinetuneRecipeForNextTokenPrediction = "llm_finetune", FinetuneRecipeForNextTokenPrediction = "llm_finetune",
    LLMFinetuneRecipe = "llm_finetune", BenchmarkingRecipeForNextTokenPrediction = "benchmark",
    KnowledgeDistillationRecipeForNextTokenPrediction = "llm_kd",
    TrainFinetuneRecipeForSequenceClassification = "llm_seq_cls",
    FinetuneRecipeForVLM = "vlm_finetune", VLMFinetuneRecipe = "vlm_finetune",
}
-- Recipes of the original's that there is no counterpart of yet, by patterns of their paths and classes.
local later_recipes = {
    { "a teacher that sees; recipes/llm_kd.lua distils text models", "KnowledgeDistillationRecipeForVLM" },
    { "diffusion", "nemo_automodel.recipes.diffusion.*", "nemo_automodel.recipes.dllm.*", "*Diffusion*", "*Flux*",
      "*Wan*" },
    { "speculative decoding", "*Eagle*", "*DFlash*", "*DSpark*", "*JetSpec*", "*ViSpec*", "*Domino*", "*PEagle*" },
    { "encoders for retrieval", "nemo_automodel.recipes.biencoder.*", "nemo_automodel.recipes.encoder.*",
      "nemo_automodel.recipes.retrieval.*", "*Encoder*", "*Retriev*", "*HardNegative*" },
    { "models that hear", "nemo_automodel.recipes.asr.*", "*ASR*" },
    { "models of several kinds of input at once", "nemo_automodel.recipes.multimodal.*", "*Multimodal*" },
}

--- The classes that a `recipe` key may name, sorted.
function M.recipes()
    return strings.sorted_keys(recipes)
end

--- ' (did you mean …)' for a class that is like one of the recipes', or "".
function M.like_recipe(name)
    return strings.did_you_mean(name:match("[^.]*$"), strings.sorted_keys(recipes))
end

--- The recipe ("llm_finetune", a file of recipes/) that the value of a `recipe` key means: a class, a dotted
--- path to one, or a section with _target_. nil and the name for one that is not known, and why for one that is
--- not there yet; nil for no name.
function M.recipe(value)
    if type(value) == "table" and value.get then
        value = value:get("_target_")
    end
    if type(value) ~= "string" then
        return nil
    end
    local class = value:match("[^.]*$")
    for _, item in ipairs(recipes[class] and {} or later_recipes) do
        for i = 2, #item do
            if strings.wildcard(item[i], value) or strings.wildcard(item[i], class) then
                return nil, value, item[1]
            end
        end
    end
    return recipes[class], value
end

--- Give the registry's targets all their names, and say what is not there yet.
function M.complete(registry)
    for _, entry in ipairs(registry.entries) do
        local aliases = {}
        for _, list in ipairs { entry.aliases or {}, others[entry.name] or {} } do
            for _, alias in ipairs(list) do
                aliases[#aliases + 1] = alias
                for _, spelling in ipairs(spellings(alias)) do
                    aliases[#aliases + 1] = spelling
                end
            end
        end
        registry:alias(entry.name, aliases)
    end
    for _, item in ipairs(later) do
        registry:define_later({ unpack(item, 2) }, item[1])
    end
    return registry
end

return M
