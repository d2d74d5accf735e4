-- What is public in Lua: the sections of docs/api_lua.md, in order, each with tables whose functions are offered
-- and classes that a file keeps to itself. Holds no documentation; that is in the sources.
--
--   title, about   of the section
--   name           of the table that its file in docs/luals gives; the file is called after it
--   tables         { name = "am.nn.Linear", value = the table }; is_methods: each function's first argument is the
--                  object; methods: those of its functions that stand in this table are methods of tensors, too
--   classes        { name = "am.Tokenizer", as = "tok": what the page calls an object, file, class = local name }

local am = require("am")
local tensor = require("am.core.tensor")

local M = {}

local function component(name, about, classes, more)
    local value = name == "am.recipe" and am.recipe or require(name)
    return { title = "`" .. name .. "`", name = name, about = about, tables = { { name = name, value = value }, more },
             classes = classes }
end

local function class(name, as, file, own_name)
    return { name = name, as = as, file = "lua/am/" .. file, class = own_name }
end

local function required(name)
    return '`require "' .. name .. '"`.'
end

-- Functions of am that are no ops, and methods of tensors that are none.
local own, methods = {}, {}
for name in pairs(debug.getmetatable(am).lazy) do
    local _ = am[name] -- loads it
end
for name, fn in pairs(am) do
    if type(fn) == "function" and am.ops[name] ~= fn then
        own[name] = fn
    end
end
for name, fn in pairs(tensor.methods) do
    if am.ops[name] ~= fn and not name:find("^__") then
        methods[name] = fn
    end
end

M.sections = {
    { title = "`am`", name = "am",
      about = "Making tensors, files, scopes, gradients.", tables = { { name = "am", value = own } } },
    { title = "Methods of tensors", name = "am.Tensor",
      about = "Beside the ops below. `t.grad` is the gradient (nil: none), "
          .. "`t.requires_grad` says whether it is wanted; both can be set. `t[{…}]` reads and writes parts: see "
          .. "[tensors.md](tensors.md).",
      tables = { { name = "am.Tensor", as = "t", value = methods, is_methods = true } } },
    { title = "Ops", name = "am.Ops",
      about = "Functions of `am`, and of `am.ops`. Those marked *method* are also methods of their "
          .. "first tensor: `am.add(a, b)` is `a:add(b)`. What the engine computes is in [ops.md](ops.md).",
      tables = { { name = "am.Ops", as = "am", value = am.ops, methods = tensor.methods } } },
    { title = "`am.autograd`", name = "am.autograd",
      about = "", tables = { { name = "am.autograd", value = am.autograd } } },
    { title = "`am.nn`", name = "am.nn",
      about = "Modules: parameters, children and `forward`, named as Hugging Face does.",
      tables = {
        { name = "am.nn", value = {} }, -- which has no functions of its own
        { name = "am.nn.Module", value = am.nn.Module }, { name = "am.nn.Linear", value = am.nn.Linear },
        { name = "am.nn.Embedding", value = am.nn.Embedding }, { name = "am.nn.RMSNorm", value = am.nn.RMSNorm },
        { name = "am.nn.LayerNorm", value = am.nn.LayerNorm },
        { name = "am.nn.GatedMLP", value = am.nn.GatedMLP }, { name = "am.nn.MLP", value = am.nn.MLP },
        { name = "am.nn.Attention", value = am.nn.Attention },
        { name = "am.nn.DecoderLayer", value = am.nn.DecoderLayer },
        { name = "am.nn.ParallelDecoderLayer", value = am.nn.ParallelDecoderLayer },
        { name = "am.nn.moe", value = am.nn.moe }, { name = "am.nn.moe.SparseMoE", value = am.nn.moe.SparseMoE },
        { name = "am.nn.moe.Experts", value = am.nn.moe.Experts },
        { name = "am.nn.moe.GroupedLinear", value = am.nn.moe.GroupedLinear },
        { name = "am.nn.Cache", value = am.nn.Cache },
    } },
    { title = "Models", name = "am.models",
      about = "`am.AutoModelForCausalLM` and its like are in `am.models` too.",
      tables = {
        { name = "am.AutoModelForCausalLM", value = am.AutoModelForCausalLM },
        { name = "am.AutoModelForSequenceClassification", value = am.AutoModelForSequenceClassification },
        { name = "am.AutoConfig", value = am.AutoConfig },
        { name = "am.models", value = am.models },
    }, classes = {
        class("am.CausalLM", "model", "models/causal_lm.lua", "CausalLM"),
        class("am.SequenceClassifier", "classifier", "models/sequence_classification.lua", "Classifier"),
        class("am.PretrainedConfig", "config", "models/config.lua", "Config"),
    } },
    component("am.models.decoder", required("am.models.decoder") .. " What the file of an architecture is made with: "
        .. "[port_a_model.md](port_a_model.md)."),
    { title = "Tokenizers", name = "am.AutoTokenizer",
      about = "", tables = { { name = "am.AutoTokenizer", value = am.AutoTokenizer } },
      classes = { class("am.Tokenizer", "tok", "tokenizers/tokenizer.lua", "Tokenizer") } },
    { title = "Processors", name = "am.AutoProcessor",
      about = "What they are and what they take: [processors.md](processors.md).",
      tables = { { name = "am.AutoProcessor", value = am.AutoProcessor },
                 { name = "am.AutoImageProcessor", value = am.AutoImageProcessor } },
      classes = { class("am.Processor", "processor", "processors/processor.lua", "Processor"),
                  class("am.Processor", "processor", "processors/batch.lua", "Processor"),
                  class("am.ImageProcessor", "image_processor", "processors/image_processor.lua",
                        "ImageProcessor") } },
    component("am.peft", "`am.PeftConfig` is `am.peft.PeftConfig`. What is computed: [peft.md](peft.md)."),
    component("am.optim", "Kinds and their options: [optimizers.md](optimizers.md).", {
        class("am.Optimizer", "optimizer", "optim/optimizer.lua", "Optimizer"),
        class("am.Scheduler", "schedule", "optim/scheduler.lua", "OptimizerParamScheduler") },
        { name = "am.optim.scheduler", value = require("am.optim.scheduler") }),
    component("am.loss", ""),
    component("am.recipe", "Also `require \"am.recipes.base\"`. How to write one: [custom.md](custom.md)."),
    component("am.chat", required("am.chat"), { class("am.chat.Template", "template", "chat/init.lua", "Template") }),
    component("am.datasets", required("am.datasets") .. " Options are those of [config_reference.md]"
        .. "(config_reference.md).", { class("am.DataLoader", "loader", "datasets/dataloader.lua", "Loader") }),
    component("am.training", required("am.training"), {
        class("am.StepScheduler", "scheduler", "training/step_scheduler.lua", "StepScheduler"),
        class("am.StatefulRNG", "rng", "training/rng.lua", "StatefulRNG"),
        class("am.Signals", "signals", "training/signals.lua", "Signals") }),
    component("am.evaluation", required("am.evaluation")),
    component("am.checkpoint", required("am.checkpoint") .. " What lies where: [checkpoints.md](checkpoints.md).", {
        class("am.checkpoint.Lock", "lock", "checkpoint/init.lua", "Lock") }),
    component("am.loggers", required("am.loggers") .. " A tracker of one's own: [trackers.md](trackers.md).", {
        class("am.Trackers", "trackers", "loggers/init.lua", "Trackers") }),
    component("am.config", required("am.config"), {
        class("am.config.Node", "node", "config/node.lua", "Node"),
        class("am.config.Registry", "registry", "config/registry.lua", "Registry") }),
}

-- am.recipe is the table of am.recipes.base: its functions are Recipe's.
for _, section in ipairs(M.sections) do
    if section.name == "am.recipe" then
        table.insert(section.tables, { name = "am.recipe.Recipe", value = am.recipe.Recipe })
    end
end

-- What functions without @return give, for editors: of all ops a tensor, but for these.
M.op_returns = {
    split = "am.Tensor[]", chunk = "am.Tensor[]", unbind = "am.Tensor[]", sort = "am.Tensor, am.Tensor",
    topk = "am.Tensor, am.Tensor", max = "am.Tensor, am.Tensor?", min = "am.Tensor, am.Tensor?",
}

M.returns = {}
for name in ("zeros ones full empty rand randn tensor from_buffer arange linspace eye randint randperm load_npy")
    :gmatch("%S+") do
    M.returns["am." .. name] = "am.Tensor"
end
for name in ("clone detach copy_ fill_ zero_ uniform_ normal_ requires_grad_ add_ sub_ mul_ div_ empty_like ones_like "
    .. "zeros_like full_like rand_like randn_like"):gmatch("%S+") do
    M.returns["am.Tensor." .. name] = "am.Tensor"
    M.returns["am." .. name] = "am.Tensor"
end
for name, of in pairs {
    ["am.Tensor.size"] = "integer[]|integer", ["am.Tensor.shape"] = "integer[]", ["am.Tensor.dim"] = "integer",
    ["am.Tensor.numel"] = "integer", ["am.Tensor.dtype"] = "string", ["am.Tensor.device"] = "string",
    ["am.Tensor.item"] = "number",
    ["am.AutoModelForCausalLM.from_pretrained"] = "am.CausalLM",
    ["am.AutoModelForCausalLM.from_config"] = "am.CausalLM",
    ["am.AutoModelForSequenceClassification.from_pretrained"] = "am.SequenceClassifier",
    ["am.AutoModelForSequenceClassification.from_config"] = "am.SequenceClassifier",
    ["am.AutoConfig.from_pretrained"] = "am.PretrainedConfig", ["am.AutoTokenizer.from_pretrained"] = "am.Tokenizer",
    ["am.Tokenizer.encode"] = "integer[]", ["am.Tokenizer.decode"] = "string", ["am.CausalLM.generate"] = "integer[]",
    ["am.optim.new"] = "am.Optimizer", ["am.optim.scheduler.new"] = "am.Scheduler",
    ["am.optim.scheduler.from_config"] = "am.Scheduler", ["am.datasets.StatefulDataLoader"] = "am.DataLoader",
    ["am.training.StepScheduler"] = "am.StepScheduler", ["am.training.StatefulRNG"] = "am.StatefulRNG",
    ["am.training.watch_signals"] = "am.Signals", ["am.loggers.new"] = "am.Trackers",
    ["am.loggers.open"] = "am.Trackers", ["am.config.load"] = "am.config.Node", ["am.config.parse"] = "am.config.Node",
    ["am.config.from_table"] = "am.config.Node", ["am.config.new_registry"] = "am.config.Registry",
    ["am.checkpoint.lock"] = "am.checkpoint.Lock",
} do
    M.returns[name] = of
end

-- What classes inherit, for editors.
M.parents = {
    am = "am.Ops", ["am.Tensor"] = "am.Ops", ["am.CausalLM"] = "am.nn.Module",
    ["am.SequenceClassifier"] = "am.CausalLM", ["am.nn.Linear"] = "am.nn.Module", ["am.nn.Embedding"] = "am.nn.Module",
    ["am.nn.RMSNorm"] = "am.nn.Module", ["am.nn.GatedMLP"] = "am.nn.Module", ["am.nn.Attention"] = "am.nn.Module",
    ["am.nn.LayerNorm"] = "am.nn.Module", ["am.nn.MLP"] = "am.nn.Module", ["am.nn.DecoderLayer"] = "am.nn.Module",
    ["am.nn.ParallelDecoderLayer"] = "am.nn.Module", ["am.nn.moe.SparseMoE"] = "am.nn.Module",
    ["am.nn.moe.Experts"] = "am.nn.Module", ["am.nn.moe.GroupedLinear"] = "am.nn.Module",
}

return M
