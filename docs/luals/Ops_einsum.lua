---@meta _
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.Ops
local am_Ops = {}

--- einsum("bij,bjk->bik", a, b): letters name dims; those that the right side lacks are summed over.
--- "..." stands for any number of further dims, which broadcast.
---@param spec string
---@param ... am.Tensor
---@return am.Tensor
function am_Ops.einsum(spec, ...) end

return am_Ops
