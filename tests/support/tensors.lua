-- What specs of tensors and gradients share. Holds no tests.

local assert = require("luassert")
local ffi = require("ffi")
local am = require("am.core")
local err = require("am.core.error")
local C = require("am.core.ffi").C

local M = {}

--- A tensor that collects its gradient.
function M.leaf(data, opts)
    local t = am.tensor(data, opts)
    t.requires_grad = true
    return t
end

--- The message of the error object with that code which fn(...) must raise.
function M.raised(code, fn, ...)
    local ok, e = pcall(fn, ...)
    assert.is_false(ok, "nothing was raised")
    assert.is_true(err.is(e), "not an error object: " .. tostring(e))
    assert.equal(code, e.code, tostring(e))
    return tostring(e)
end

--- Bytes of storages that are in use.
function M.live_bytes()
    local stats = ffi.new("am_mem_stats")
    C.am_mem_get(0, stats)
    return tonumber(stats.live_bytes)
end

return M
