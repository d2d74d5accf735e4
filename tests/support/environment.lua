-- Variables of this process's environment, set for a test and put back.
--
--   environment.set { HF_TOKEN = "x", HF_HOME = false }    false: unset
--   environment.restore()

local ffi = require("ffi")

ffi.cdef [[
int setenv(const char *name, const char *value, int overwrite);
int unsetenv(const char *name);
]]

local M = {}
local before = {}

local function put(name, value)
    if value then
        ffi.C.setenv(name, value, 1)
    else
        ffi.C.unsetenv(name)
    end
end

function M.set(variables)
    for name, value in pairs(variables) do
        if before[name] == nil then
            before[name] = os.getenv(name) or false
        end
        put(name, value)
    end
end

function M.restore()
    for name, value in pairs(before) do
        put(name, value)
    end
    before = {}
end

return M
