---@meta am.evaluation
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.evaluation
local am_evaluation = {}

--- Log-likelihoods of continuations. requests: an array of { context, continuation }, texts. limit: the
--- positions that the model has; of longer texts the end counts. Returns an array of { sum (natural
--- logarithm), tokens, greedy (every token is the model's first choice) }.
function am_evaluation.score(model, tokenizer, requests, limit) end

--- F1 over the words that two answers share.
function am_evaluation.f1(prediction, truth) end

--- 1 when two answers are the same but for case, punctuation, articles and white space, else 0.
function am_evaluation.exact_match(prediction, truth) end

return am_evaluation
