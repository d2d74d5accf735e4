-- The core in one table: tensors, ops, gradients, scopes. `require "am"` promotes these names.

local tensor = require("am.core.tensor")
local ops = require("am.core.ops")
local autograd = require("am.core.autograd")
local scope = require("am.core.scope")

local M = { ops = ops, autograd = autograd, scope = scope.scope, escape = scope.escape,
            no_grad = autograd.no_grad, inference_mode = autograd.inference_mode,
            checkpoint = autograd.checkpoint }

require("am.core.compose")
require("am.core.einsum")
require("am.core.indexing")

for _, name in ipairs { "tensor", "empty", "full", "zeros", "ones", "rand", "randn", "from_buffer" } do
    M[name] = tensor[name]
end
for _, functions in ipairs { require("am.core.constructors"), ops } do
    for name, fn in pairs(functions) do
        M[name] = M[name] or fn
    end
end

return M
