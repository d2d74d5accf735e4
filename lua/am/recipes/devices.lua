-- Where a run computes: on the device that its configuration names, or on a GPU where there is one.

local edge = require("am.core.ffi")
local err = require("am.core.error")
local ffi = require("ffi")
local path = require("am.utils.path")
local tensor = require("am.core.tensor")

local M = {}

-- Is there a driver's device file, of Linux or of WSL? CUDA's libraries take 150 MB, so they are not asked in vain.
local function has_driver()
    return path.exists("/dev/nvidiactl") or path.exists("/dev/dxg") or os.getenv("AMLUA_CUDA") ~= nil
end

local function gpu_count()
    local count = ffi.new("int[1]")
    edge.check(edge.C.am_gpu_count(count))
    return count[0]
end

local function about(name)
    local text = ffi.new("const char *[1]")
    edge.check(edge.C.am_device_about(text, tensor.device_id(name)))
    return ffi.string(text[0])
end

--- The device for what `device` says: a name; "cuda" is this rank's GPU, of those on its host; nil that GPU too, or
--- "cpu" where there is none. A GPU that can't be used is an error where it is asked for, else a warning to `log`.
function M.choose(wanted, local_rank, log)
    if wanted and wanted ~= "cuda" then
        return wanted
    elseif not wanted and not has_driver() then
        return "cpu"
    end
    local found, count = pcall(gpu_count)
    if not found and not wanted then
        return "cpu" -- no module
    end
    local name = found and count > 0 and "cuda:" .. local_rank % count or "cuda"
    local ok, what = pcall(about, name)
    if ok then
        log:info("%s is %s", name, what)
        return name
    elseif wanted then
        err.raise("usage", "device: %s", tostring(what))
    end
    log:warning("%s; computing on the CPU", tostring(what))
    return "cpu"
end

return M
