-- The FFI edge: the one ffi.cdef (am.h itself, preprocessed by the build), the library, and the
-- turning of status codes into error objects. Holds no tensors; read tensor.lua next.

local ffi = require("ffi")
local err = require("am.core.error")

local M = {}

local cdef = require("am.core.cdef")
ffi.cdef(cdef)
ffi.cdef "float powf(float, float);" -- libm

-- Inside `amlua` the symbols are already there; stock LuaJIT loads the library from where it lies as
-- seen from the Lua files: in a build tree, under the prefix that both are installed in, in a rock.
local function load_library()
    local ok, abi = pcall(function() return ffi.C.am_abi() end)
    if ok and abi then
        return ffi.C
    end
    local file = package.searchpath("am.core.cdef", package.path) or ""
    local root = file:match("^(.*)am/core/cdef%.lua$") or "./"
    local lib, tried = root .. "../../../lib/", {}
    local debian = jit.arch == "arm64" and "aarch64-linux-gnu/" or "x86_64-linux-gnu/"
    for _, path in ipairs { root .. "../libamlua.so", lib .. "libamlua.so", lib .. "lua/5.1/libamlua.so",
                            lib .. debian .. "libamlua.so", "libamlua.so.0" } do
        local found, library = pcall(ffi.load, path)
        if found then
            return library
        end
        tried[#tried + 1] = path
    end
    err.raise("io", "libamlua.so was not found; looked for %s", table.concat(tried, ", "))
end

local C = load_library()
if C.am_abi() ~= C.AM_ABI then
    err.raise("internal", "libamlua.so has ABI %d, these Lua files need %d", C.am_abi(), C.AM_ABI)
end

--- The library's namespace: C.am_tensor_new, C.AM_F32, …
M.C = C

local codes = {
    [C.AM_EINVAL] = "argument", [C.AM_ESHAPE] = "shape", [C.AM_ENOMEM] = "memory",
    [C.AM_EIO] = "io", [C.AM_EFORMAT] = "format", [C.AM_EDEVICE] = "device",
    [C.AM_ECOMM] = "comm", [C.AM_ESTATE] = "state", [C.AM_EUNSUP] = "unsupported",
    [C.AM_EINTR] = "interrupted",
}

--- The last error of this thread as an error object.
function M.error(rc)
    return err.new(codes[rc] or "internal", ffi.string(C.am_error_message()))
end

--- Raise the engine's error unless rc is AM_OK.
function M.check(rc)
    if rc ~= 0 then
        error(M.error(rc), 0)
    end
end

--- Run a call that allocates; when memory is out, collect garbage twice and try once more.
---@param call fun(...): integer returns a status
function M.check_retry(call, ...)
    local rc = call(...)
    if rc == C.AM_ENOMEM then
        collectgarbage()
        collectgarbage()
        rc = call(...)
    end
    if rc ~= 0 then
        error(M.error(rc), 0)
    end
end

--- base ^ exponent in single precision, as libm rounds it.
function M.powf(base, exponent)
    return tonumber(ffi.C.powf(base, exponent))
end

--- A fresh out-box for a `T **out` parameter, e.g. box("am_tensor").
function M.box(ctype)
    return ffi.new(ctype .. " *[1]")
end

return M
