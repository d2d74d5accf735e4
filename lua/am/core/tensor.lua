-- Tensors as Lua sees them: `am_tensor *` with methods, made by the constructors below.
-- Arithmetic lives in ops.lua, which adds its functions as methods; gradients in autograd.lua.
--
-- A tensor holds one reference to the engine's object. The engine frees the bytes when a scope ends
-- (scope.lua) or when the last view goes; Lua's collector only ever frees the small shell.

local ffi = require("ffi")
local args = require("am.core.args")
local edge = require("am.core.ffi")
local err = require("am.core.error")

local C, check, check_retry = edge.C, edge.check, edge.check_retry
local need, number = args.tensor, args.number
local M = {}

local methods = {}
local box = edge.box("am_tensor")

--- Take over a reference that an engine call returned in an out-box.
---@return am.Tensor
function M.own(pointer)
    return ffi.gc(pointer, C.am_tensor_release)
end
local own = M.own

-- ---- dtypes and devices ---------------------------------------------------------------------

local dtype_names, element_types = {}, {
    [C.AM_F32] = "float", [C.AM_F64] = "double", [C.AM_I32] = "int32_t", [C.AM_I64] = "int64_t",
    [C.AM_U8] = "uint8_t", [C.AM_BOOL] = "uint8_t", [C.AM_BF16] = "uint16_t",
    [C.AM_F16] = "uint16_t",
}
for id = 0, C.AM_DTYPE_COUNT - 1 do
    dtype_names[id] = ffi.string(C.am_dtype_name(id))
end

local int_box = ffi.new("int[1]")

--- The engine's number of a dtype name ("float32", "bf16", "torch.bfloat16", "F32", …).
function M.dtype_id(name)
    if type(name) == "number" then
        return name
    end
    local aliases = { bf16 = "bfloat16", fp16 = "float16", fp32 = "float32", fp64 = "float64" }
    check(C.am_dtype_find(int_box, aliases[tostring(name):lower()] or tostring(name)))
    return int_box[0]
end

function M.dtype_name(id)
    return dtype_names[id]
end

local default_device = 0

--- The engine's number of a device name; nil gives the default device.
function M.device_id(name)
    if name == nil then
        return default_device
    end
    if type(name) ~= "string" then
        err.raise("argument", "a device is named by a text such as \"cpu\" or \"cuda:0\", not by a %s", type(name))
    end
    check(C.am_device_find(int_box, name))
    return int_box[0]
end

--- The device that constructors use when none is named.
function M.set_default_device(name)
    default_device = M.device_id(name)
end

function M.default_device()
    return ffi.string(C.am_device_name(default_device))
end

-- ---- constructors ---------------------------------------------------------------------------

local function shape_array(shape)
    local n = #args.list("a tensor", "its shape", shape)
    local a = ffi.new("int64_t[?]", math.max(n, 1))
    for i = 1, n do
        a[i - 1] = shape[i]
    end
    return a, n
end
M.shape_array = shape_array

local option_names = { "dtype", "device" }

--- An uninitialised tensor.
---@param shape integer[]
---@param opts? {dtype?: string, device?: string}
function M.empty(shape, opts)
    opts = args.options("a tensor", opts, option_names)
    local a, n = shape_array(shape)
    check_retry(C.am_tensor_new, box, M.dtype_id(opts.dtype or "float32"), n, a,
                M.device_id(opts.device))
    return own(box[0])
end

--- A tensor of a shape ({2, 3}) with value everywhere.
function M.full(shape, value, opts)
    number("full", "value", value)
    local t = M.empty(shape, opts)
    check(C.am_tensor_fill(t, value))
    return t
end

--- Zeros of a shape ({2, 3}); float32 unless opts.dtype says otherwise.
function M.zeros(shape, opts)
    return M.full(shape, 0, opts)
end

--- Ones of a shape ({2, 3}); float32 unless opts.dtype says otherwise.
function M.ones(shape, opts)
    return M.full(shape, 1, opts)
end

--- Uniform in [0, 1), from the engine's generator.
function M.rand(shape, opts)
    local t = M.empty(shape, opts)
    check(C.am_rng_uniform(t, 0, 1))
    return t
end

--- Standard normal, from the engine's generator.
function M.randn(shape, opts)
    local t = M.empty(shape, opts)
    check(C.am_rng_normal(t, 0, 1))
    return t
end

local function nested_shape(data, shape)
    if type(data) == "table" then
        shape[#shape + 1] = #data
        if #data > 0 and #shape <= C.AM_MAX_DIMS then
            nested_shape(data[1], shape)
        end
    end
    return shape
end

local function flatten(data, shape, depth, out)
    if depth > #shape then
        out[#out + 1] = type(data) == "boolean" and (data and 1 or 0) or data
        if type(out[#out]) ~= "number" then
            err.raise("argument", "a tensor is made of numbers or booleans, not of a %s", type(data))
        end
        return
    end
    if type(data) ~= "table" or #args.dense("tensor: a table", data) ~= shape[depth] then
        err.raise("shape", "rows of a nested table differ in length (dim %d should be %d)",
                  depth - 1, shape[depth])
    end
    for i = 1, #data do
        flatten(data[i], shape, depth + 1, out)
    end
end

--- A tensor from a number or nested tables of numbers; float32 unless opts.dtype says otherwise
--- (bool for booleans).
function M.tensor(data, opts)
    opts = args.options("tensor", opts, option_names)
    local shape, values = nested_shape(data, {}), {}
    flatten(data, shape, 1, values)
    local first = data
    while type(first) == "table" do
        first = first[1]
    end
    local dtype = opts.dtype or (type(first) == "boolean" and "bool" or "float32")
    local staged = type(first) == "boolean" and dtype == "bool" and "bool" or "float64"
    local id = M.dtype_id(staged)
    local array = ffi.new(element_types[id] .. "[?]", math.max(#values, 1), values)
    local t = M.from_buffer(array, shape, { dtype = staged, device = opts.device })
    if M.dtype_id(dtype) == id then
        return t
    end
    local out = M.empty(shape, { dtype = dtype, device = opts.device })
    check(C.am_tensor_copy(out, t))
    t:release()
    return out
end

--- A tensor with a copy of a C array (row-major, elements of opts.dtype). An array that is too short is an
--- error; how much lies behind a bare pointer nobody knows.
function M.from_buffer(array, shape, opts)
    if type(array) ~= "cdata" then
        err.raise("argument", "from_buffer: a C array is needed, not a %s", type(array))
    end
    local t = M.empty(shape, opts)
    local bytes = tonumber(C.am_tensor_numel(t)) * M.itemsize(t)
    local pointer = tostring(ffi.typeof(array)):find("*>", 1, true)
    if not pointer and ffi.sizeof(array) < bytes then
        err.raise("argument", "from_buffer: the array has %d bytes, the tensor needs %d", ffi.sizeof(array), bytes)
    end
    check(C.am_tensor_write(t, array, bytes))
    return t
end

function M.itemsize(t)
    return C.am_dtype_size(C.am_tensor_dtype(t))
end

-- ---- methods --------------------------------------------------------------------------------

--- Sizes as a Lua table, or the size of one dim (0-based, negative from the end).
function methods:size(dim)
    local n, s = C.am_tensor_ndim(need("size", self)), C.am_tensor_shape(self)
    if dim then
        dim = args.whole("size", "dim", dim)
        local d = dim < 0 and dim + n or dim
        if d < 0 or d >= n then
            err.raise("shape", "size: dim %d of a tensor with %d dims", dim, n)
        end
        return tonumber(s[d])
    end
    local out = {}
    for i = 0, n - 1 do
        out[i + 1] = tonumber(s[i])
    end
    return out
end

--- Sizes as a Lua table.
function methods:shape() return methods.size(self) end
--- How many dims there are.
function methods:dim() return C.am_tensor_ndim(need("dim", self)) end
--- How many elements there are.
function methods:numel() return tonumber(C.am_tensor_numel(need("numel", self))) end
--- The dtype's name: "float32", "bfloat16", "int64", ...
function methods:dtype() return dtype_names[C.am_tensor_dtype(need("dtype", self))] end
--- The device's name: "cpu", "ref", ...
function methods:device() return ffi.string(C.am_device_name(C.am_tensor_device(need("device", self)))) end
--- Do the elements lie in memory one after the other, in row-major order?
function methods:is_contiguous() return C.am_tensor_is_contiguous(need("is_contiguous", self)) ~= 0 end
--- False once its memory is gone: released, or at the end of its scope.
function methods:alive() return C.am_tensor_alive(need("alive", self)) ~= 0 end
--- Bytes of all elements.
function methods:nbytes() return methods.numel(self) * M.itemsize(self) end

local double_box = ffi.new("double[1]")

--- The one element as a Lua number; waits for the device.
function methods:item()
    check(C.am_tensor_item(need("item", self), double_box))
    return double_box[0]
end

--- A C array with a row-major copy of the elements (bf16 and f16 as float), and their count.
function methods:to_buffer()
    local dtype = C.am_tensor_dtype(need("to_buffer", self))
    if dtype == C.AM_BF16 or dtype == C.AM_F16 then
        local wide = M.empty(self:size(), { dtype = "float32", device = self:device() })
        check(C.am_tensor_copy(wide, self))
        local array, n = wide:to_buffer()
        wide:release()
        return array, n
    end
    local n = self:numel()
    local array = ffi.new(element_types[dtype] .. "[?]", math.max(n, 1))
    check(C.am_tensor_read(self, array, n * C.am_dtype_size(dtype)))
    if dtype == C.AM_F32 or dtype == C.AM_F64 then
        check(C.am_floats_canonical(array, dtype, n))
    end
    return array, n
end

--- Nested Lua tables (a number for rank 0, booleans for bool).
function methods:totable()
    local array = methods.to_buffer(need("totable", self))
    local shape, at = self:size(), 0
    local bool = self:dtype() == "bool"
    local function build(depth)
        if depth > #shape then
            at = at + 1
            local v = tonumber(array[at - 1])
            if bool then
                return v ~= 0
            end
            return v
        end
        local out = {}
        for i = 1, shape[depth] do
            out[i] = build(depth + 1)
        end
        return out
    end
    return build(1)
end

--- Fail where a change in place would escape the history that t is a result of.
function M.check_history(t, what)
    if C.am_tensor_requires_grad(need(what, t)) ~= 0 and C.am_tensor_is_leaf(t) == 0 then
        err.raise("state", "%s: the tensor has a history, and a change in place is not recorded; "
            .. "change its :detach() or :clone() instead", what)
    end
end
local check_history = M.check_history

--- Overwrite with src (a tensor, broadcast and converted as needed, or a number). Not recorded.
function methods:copy_(src)
    check_history(self, "copy_")
    if type(src) == "number" then
        check(C.am_tensor_fill(self, src))
    else
        check(C.am_tensor_copy(self, need("copy_", src)))
    end
    return self
end

--- Overwrite with a number. Not recorded.
function methods:fill_(value)
    check_history(self, "fill_")
    check(C.am_tensor_fill(self, number("fill_", "value", value)))
    return self
end

--- Overwrite with 0. Not recorded.
function methods:zero_() return methods.fill_(self, 0) end

--- Overwrite with random numbers, uniform from lo (0) to below hi (1). Not recorded.
function methods:uniform_(lo, hi)
    check_history(self, "uniform_")
    check(C.am_rng_uniform(self, number("uniform_", "lo", lo, 0), number("uniform_", "hi", hi, 1)))
    return self
end

--- Overwrite with random numbers, normal with mean (0) and standard deviation (1). Not recorded.
function methods:normal_(mean, std)
    check_history(self, "normal_")
    check(C.am_rng_normal(self, number("normal_", "mean", mean, 0), number("normal_", "std", std, 1)))
    return self
end

--- See the elements of source, a dense tensor of the same dtype and shape, from now on; with nil let go of its own
--- (torch's `t.data = source`). For parameters whose bytes come and go: backward looks them up again.
function methods:set_data(source)
    need("set_data", self)
    check(C.am_tensor_set_data(self, source and need("set_data", source) or nil))
    return self
end

--- A copy with storage of its own and no history.
function methods:clone()
    need("clone", self)
    local t = M.empty(self:size(), { dtype = C.am_tensor_dtype(self), device = self:device() })
    check(C.am_tensor_copy(t, self))
    return t
end

--- The same bytes without history.
function methods:detach()
    check(C.am_tensor_detach(box, need("detach", self)))
    return own(box[0])
end

--- Free now what this tensor holds; using it afterwards is an error.
function methods:release()
    C.am_tensor_drop(need("release", self))
end

--- What print shows: sizes, dtype, device.
function methods:__tostring()
    local shape = table.concat(methods.size(self), ", ")
    local head = string.format("tensor([%s], %s, %s)", shape, self:dtype(), self:device())
    if not self:alive() then
        return head .. " (released)"
    end
    return head
end

--- Write src [B, T, ...] into store [B, S, ...] from index `at` of dim 1 on; a view of all up to its end.
--- Not recorded.
function M.append(store, src, at)
    check(C.am_tensor_append(box, need("append", store), need("append", src), at))
    return own(box[0])
end

M.methods = methods

-- Names ending in `grad` are fields, as in PyTorch; everything else is a method. A table is an index:
-- get_items and set_items are indexing.lua's.
local fields = {}
M.fields = fields

-- Lua makes a boolean of what a comparison gives. With a tensor on both sides nobody asks us.
local function no_order()
    err.raise("argument", "a tensor has no order: a < b is a:lt(b), and <=, >, >= are le, gt, ge")
end

ffi.metatype("am_tensor", {
    __index = function(t, key)
        local method = methods[key]
        if method then
            return method
        end
        local field = fields[key]
        if field then
            return field.get(t)
        elseif type(key) == "table" then
            return M.get_items(t, key)
        end
    end,
    __newindex = function(t, key, value)
        if type(key) == "table" then
            return M.set_items(t, key, value)
        end
        local field = fields[key]
        if not field or not field.set then
            err.raise("argument", "a tensor has no field %s to set", tostring(key))
        end
        field.set(t, value)
    end,
    __tostring = function(t) return methods.__tostring(t) end,
    __add = function(a, b) return methods.add(a, b) end,
    __sub = function(a, b) return methods.sub(a, b) end,
    __mul = function(a, b) return methods.mul(a, b) end,
    __div = function(a, b) return methods.div(a, b) end,
    __pow = function(a, b) return methods.pow(a, b) end,
    __unm = function(a) return methods.neg(a) end,
    __lt = no_order,
    __le = no_order,
})

--- True for tensors.
function M.is(t)
    return ffi.istype("am_tensor *", t) or ffi.istype("am_tensor", t)
end

return M
