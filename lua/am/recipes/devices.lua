-- Where a run computes: on the device that its configuration names, or on a GPU where there is one that can.

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

-- This rank's GPU, of those on its host, and what it is. Raises "device" where there is none that can be used.
local function own_gpu(local_rank)
    local count, text = ffi.new("int[1]"), ffi.new("const char *[1]")
    edge.check(edge.C.am_gpu_count(count))
    local name = "cuda:" .. local_rank % count[0]
    edge.check(edge.C.am_device_about(text, tensor.device_id(name)))
    return name, ffi.string(text[0])
end

--- The device for what `device` says: a name; "cuda" is this rank's GPU; nil that GPU too, or "cpu" where there is
--- none. not_yet: what of the run GPUs can't do, or nil. A GPU that can't be used is an error where it is asked for,
--- else a warning to `log`.
function M.choose(wanted, local_rank, not_yet, log)
    local asked = wanted and wanted:match("^cuda") ~= nil
    if asked and not_yet then
        err.raise("usage", "device: %s: GPUs can't do %s yet; set device: cpu", wanted, not_yet)
    elseif wanted and wanted ~= "cuda" then
        return wanted
    elseif not asked and not has_driver() then
        return "cpu"
    end
    local ok, name, what = pcall(own_gpu, local_rank)
    if ok and not not_yet then
        log:info("%s is %s", name, what)
        return name
    elseif asked then
        err.raise("usage", "device: %s", tostring(name))
    end
    log:warning("%s; computing on the CPU", ok and "GPUs can't do " .. not_yet .. " yet" or tostring(name))
    return "cpu"
end

-- What of a recipe's run GPUs can't do yet.
local function not_yet(recipe)
    return recipe.world.size > 1 and "several ranks" or nil
end

--- The device of a recipe's run.
function M.of(recipe)
    return M.choose(recipe.cfg:get("device"), recipe.world.local_rank, not_yet(recipe), recipe.log)
end

return M
