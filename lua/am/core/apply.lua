-- Running one op of the engine on tensors: what the functions of ops.lua and model_ops.lua share.

local ffi = require("ffi")
local args = require("am.core.args")
local edge = require("am.core.ffi")
local tensor = require("am.core.tensor")

local C, check_retry, own = edge.C, edge.check_retry, tensor.own
local M = {}

M.inputs = ffi.new("am_tensor *[8]")
local inputs, out = M.inputs, edge.box("am_tensor")
local tensor_type = ffi.typeof("am_tensor *")

-- The op's operand, which must be a tensor.
local function given(op, t)
    if t == nil or not ffi.istype(tensor_type, t) then
        local name = ffi.string(C.am_op_name(op)):gsub("_scalar$", "")
        args.tensor(name == "cast" and "to" or name, t)
    end
    return t
end
M.given = given

-- `inputs` keeps nothing alive. Its tensors come along as operands, so that collecting garbage for
-- want of memory (check_retry) can't free them under the op.
local function again(op, n, attrs, operands)
    check_retry(C.am_apply, op, out, inputs, n, attrs)
    return own(out[0]), operands
end

--- Run an op on the first n of `inputs`, which are also given here.
function M.run(op, n, attrs, a, b, c, d, e, f)
    local rc = C.am_apply(op, out, inputs, n, attrs)
    if rc == 0 then
        return own(out[0])
    elseif rc ~= C.AM_ENOMEM then
        error(edge.error(rc), 0)
    end
    return (again(op, n, attrs, { a, b, c, d, e, f }))
end

--- The same for one to three tensors, which are checked; apply3's third may be absent.
function M.apply1(op, a, attrs)
    inputs[0] = given(op, a)
    return M.run(op, 1, attrs, a)
end

function M.apply2(op, a, b, attrs)
    inputs[0], inputs[1] = given(op, a), given(op, b)
    return M.run(op, 2, attrs, a, b)
end

function M.apply3(op, a, b, c, attrs)
    inputs[0], inputs[1], inputs[2] = given(op, a), given(op, b), c ~= nil and given(op, c) or nil
    return M.run(op, c ~= nil and 3 or 2, attrs, a, b, c)
end

--- Attributes to fill in, all zero.
function M.new_attrs()
    return ffi.new("am_attrs")
end

return M
