---@meta am.loss
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.loss
local am_loss = {}

--- A loss by opts: cross_entropy of the head's logits.
function am_loss.MaskedCrossEntropy(opts) end

--- A function (hidden [N, C], teacher_hidden [N, D], ctx) -> T^2 times the SUM over rows of the KL between
--- softmax(teacher / T) and softmax(student / T), a scalar tensor; gradients go to the student alone. ctx:
--- head and teacher_head, from hidden states to logits [n, V], and vocab_size. Logits are made in chunks, and
--- again in backward. opts: the keys of `fields`.
function am_loss.KDLoss(opts) end

return am_loss
