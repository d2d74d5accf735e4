-- Evaluate a model: perplexity on the validation sets of a configuration, and tasks. Trains nothing.
--
--   amlua recipes/evaluate.lua config.yaml [--checkpoint.restore_from LATEST] [--section.key value]
--
-- A configuration for training does: its optimizer and data are passed over. Without checkpoint.restore_from
-- the model is the one that the model section names (with peft.adapter_path, if given).

local am = require("am")
local checkpoint = require("am.checkpoint")
local devices = require("am.recipes.devices")
local err = require("am.core.error")
local file_rows = require("am.datasets.file_rows")
local json = require("am.utils.json")
local llm_finetune = require("recipes.llm_finetune")
local number = require("am.utils.number")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local rows_utils = require("am.datasets.utils")
local strings = require("am.utils.strings")

local Recipe = llm_finetune:extend("evaluate")
Recipe.doc = "Measure a model: perplexity, multiple choice, answers to questions."
Recipe.trains = false

function Recipe.schema()
    local fields = llm_finetune.schema()
    fields.dataset.required, fields.optimizer.required = nil, nil
    fields.evaluation = { doc = "what is measured beside perplexity", fields = {
        tasks = { type = "list", items = { type = "object" }, doc = "targets am.evaluation.*" },
        json_output_path = { type = "string", doc = "write the results there, too" },
    } }
    return fields
end

-- ---- setup ------------------------------------------------------------------------------------

Recipe.takes_ranks = false

function Recipe:setup()
    self.seed = self:choose_seed()
    self.rng = am.manual_seed(self.seed)
    self.ctx.device = devices.of(self)
    self:check_ranks()
    self.model = self:build_model()
    self.restored = self:load_trained()
    self.loss_fn = self:build_loss()
    self.validation_sets = self:build_validation_sets()
    self.tasks = self:build_list("evaluation.tasks")
    if #self.validation_sets == 0 and #self.tasks == 0 then
        err.raise("usage", "there is nothing to evaluate: give a validation_dataset section, or evaluation.tasks")
    end
    for _, task in ipairs(self.tasks) do -- what is missing is known before anything is measured
        local files = file_rows.files(task.path_or_dataset, { split = task.split })
        task.source = rows_utils.split(file_rows.open(files, { texts = task.texts }), task.split)
    end
end

--- The weights of the checkpoint that checkpoint.restore_from names, and no other state.
function Recipe:load_trained()
    local from = self.cfg:get("checkpoint.restore_from")
    local dir = from and checkpoint.resolve(self:checkpoint_dir(), from)
    if dir then
        self:check_checkpoint(dir)
        self:load_weights(dir)
    end
    return dir
end

-- ---- measuring --------------------------------------------------------------------------------

function Recipe.not_finite(_, what, value)
    err.raise("data", "the %s is %s: do the weights belong to this configuration, and are they whole?", what,
              tostring(value))
end

-- { name = { metric = number } } of all validation sets and tasks.
function Recipe:measure()
    local results = {}
    for _, set in ipairs(self.validation_sets) do
        local record = am.no_grad(function() return self:evaluate_set(set) end)
        if not record then
            return nil
        end
        record.perplexity = math.exp(record.val_loss)
        results["validation " .. set.name] = record
    end
    local limit = am.models.position_limit(self.model.config)
    for _, task in ipairs(self.tasks) do
        if results[task.name] then
            err.raise("usage", 'evaluation.tasks: two are called "%s"; give one of them another name', task.name)
        end
        results[task.name] = task:run(task.source, self.model, self:get_tokenizer(), limit)
    end
    return results
end

function Recipe:train()
    self.model:eval()
    local results = self:measure()
    if not results then
        return -- asked to end
    end
    io.write(string.format("%s%s\n", self.model.name_or_path or "(new)",
                           self.restored and ", weights of " .. self.restored or ""))
    for _, name in ipairs(strings.sorted_keys(results)) do
        for _, metric in ipairs(strings.sorted_keys(results[name])) do
            local value = results[name][metric]
            if not metric:find("_stderr$") then
                local spread = results[name][metric .. "_stderr"]
                io.write(string.format("%-28s %-18s %s%s\n", name, metric,
                                       value % 1 == 0 and number.text(value) or posix.fixed(value, 4),
                                       spread and " ± " .. posix.fixed(spread, 4) or ""))
            end
        end
    end
    local output = self.cfg:get("evaluation.json_output_path")
    if output then
        local all = { model = self.model.name_or_path, checkpoint = self.restored, results = results }
        path.write_file(output, json.encode(all, { sort_keys = true, indent = 2, nan = "null" }) .. "\n")
    end
end

return Recipe
