-- Packed: a frozen weight [out, in] in few bits, as bitsandbytes keeps it. It stands where a module has a weight:
-- ops.linear and ops.lora_linear take it, and it answers what is asked of a frozen tensor. Its bytes are one uint8
-- tensor; the engine unpacks parts of it as it multiplies (am.h, "weights in few bits").

local ffi = require("ffi")
local apply = require("am.core.apply")
local args = require("am.core.args")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")

local C = edge.C
local inputs, run, given = apply.inputs, apply.run, apply.given
local box = edge.box("am_tensor")

---@class am.Packed
local Packed = {}
Packed.__index = Packed

local types = { nf4 = C.AM_PACK_NF4, fp4 = C.AM_PACK_FP4, int8 = C.AM_PACK_INT8 }

local M = {}

--- Pack a floating matrix [out, in].
---@param weight am.Tensor
---@param opts {type: "nf4"|"fp4"|"int8", nested: boolean?, compute_dtype: string?} nested: scales in 8 bits, of 4-bit
---  types; compute_dtype: what products are in, the weight's own by default
---@return am.Packed
function M.pack(weight, opts)
    args.tensor("pack", weight)
    local packing = ffi.new("am_packing")
    packing.type = types[opts.type]
        or err.raise("argument", "pack: type \"%s\" is none of nf4, fp4 and int8", tostring(opts.type))
    packing.nested = opts.nested and opts.type ~= "int8" and 1 or 0
    edge.check_retry(C.am_pack, box, weight, packing)
    return setmetatable({
        bytes = tensor.own(box[0]), packing = packing, type = opts.type, requires_grad = false,
        weight_dtype = weight:dtype(), compute_dtype = opts.compute_dtype or weight:dtype(),
    }, Packed)
end

--- Bytes of a weight [rows, cols] by the same options.
function M.bytes(rows, cols, opts)
    local packing, bytes = ffi.new("am_packing", types[opts.type], opts.nested and 1 or 0, rows, cols),
        ffi.new("int64_t[1]")
    edge.check(C.am_packed_bytes(packing, bytes))
    return tonumber(bytes[0])
end

--- Is a weight packed?
function M.is(value)
    return getmetatable(value) == Packed
end

--- The matrix as a tensor of the dtype that it was packed from, as bitsandbytes unpacks it.
function Packed:unpack()
    edge.check_retry(C.am_unpack, box, self.bytes, self.packing, tensor.dtype_id(self.weight_dtype))
    return tensor.own(box[0])
end

--- The matrix that a weight is: itself, or unpacked.
function M.unpacked(weight)
    return M.is(weight) and weight:unpack() or weight
end

--- Put unpacked tensors in place of all packed weights of a module and those below. Returns how many there were.
function M.unpack_all(module)
    local count = 0
    for _, owner, slot in module:parameter_slots() do
        local weight = owner[slot.name]
        if M.is(weight) then
            owner[slot.name], count = scope.escape(weight:unpack()), count + 1
            weight:release()
        end
    end
    return count
end

--- x [..., in] -> x weight^T + bias [..., out], computed in compute_dtype and returned in x's.
function Packed:linear(x, bias)
    local op, at = C.AM_OP_packed_linear, apply.new_attrs()
    local dtype = given(op, x):dtype()
    at.packing = self.packing
    x, bias = x:to(self.compute_dtype), bias and bias:to(self.compute_dtype)
    inputs[0], inputs[1], inputs[2] = given(op, x), self.bytes, bias
    return run(op, bias and 3 or 2, at, x, self.bytes, bias):to(dtype)
end

-- ---- what a tensor answers --------------------------------------------------------------------

--- The dtype of products.
function Packed:dtype() return self.compute_dtype end

function Packed:size(d)
    local shape = { tonumber(self.packing.rows), tonumber(self.packing.cols) }
    return d and shape[d + 1] or shape
end

function Packed.dim() return 2 end
function Packed:numel() return tonumber(self.packing.rows * self.packing.cols) end
function Packed:device() return self.bytes:device() end
function Packed:detach() return self end

--- How many bytes it takes.
function Packed:nbytes() return self.bytes:numel() end

--- Free the bytes now.
function Packed:release() self.bytes:release() end

return M
