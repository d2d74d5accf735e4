-- Tasks that say what a model can: choosing among answers, and answering questions. This file is what the
-- component offers; perplexity is a recipe's, from its validation sets.

local likelihood = require("am.evaluation.likelihood")
local multiple_choice = require("am.evaluation.multiple_choice")
local question_answering = require("am.evaluation.question_answering")

local M = { score = likelihood.score, f1 = question_answering.f1, exact_match = question_answering.exact_match }

--- What a configuration may name with `_target_`.
M.targets = {}
for _, module in ipairs { multiple_choice, question_answering } do
    for _, target in ipairs(module.targets) do
        M.targets[#M.targets + 1] = target
    end
end

return M
