-- Where a run computes: on the device that its configuration names, or on a GPU where there is one that can. Ranks
-- have a GPU each.

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

-- What a device is, in words.
local function about(name)
    local text = ffi.new("const char *[1]")
    edge.check(edge.C.am_device_about(text, tensor.device_id(name)))
    return ffi.string(text[0])
end

-- The GPU of a name, "cuda" being this rank's of those on its host, and what it is. Raises where it can't be used.
local function gpu(name, local_rank)
    if name == "cuda" then
        local count = ffi.new("int[1]")
        edge.check(edge.C.am_gpu_count(count))
        name = "cuda:" .. local_rank % count[0]
    end
    return name, about(name)
end

--- The device for what `device` says: a name; "cuda" is this rank's GPU; nil that GPU too, or "cpu" where there is
--- none. A GPU that can't be used is an error ("device") where it is asked for, else a warning to `log`.
function M.choose(wanted, local_rank, log)
    if wanted and not wanted:find("^cuda") then
        return wanted
    elseif not wanted and not has_driver() then
        return "cpu"
    end
    local ok, name, what = pcall(gpu, wanted or "cuda", local_rank)
    if ok then
        log:info("%s is %s", name, what)
        return name
    elseif wanted then
        err.raise("device", "device: %s", tostring(name))
    end
    log:warning("%s; computing on the CPU", tostring(name))
    return "cpu"
end

-- Are all ranks on GPUs, or all on CPUs?
local function agree(world, device)
    for _, other in ipairs(world:gather(device)) do
        if other:match("^%a+") ~= device:match("^%a+") then
            return false
        end
    end
    return true
end

-- Exchange something, so that GPUs that can't be reached are known before a model is loaded.
local function meet(world, device)
    local ok, e = pcall(function()
        local t = world.group:all_reduce(tensor.ones({ 1 }, { device = device })):wait()
        t:item() -- which waits for the others
        t:release()
    end)
    if not ok then
        err.raise("comm", "%s; device: cpu trains on CPUs", tostring(e))
    end
end

--- The device of a recipe's run. Of several ranks all have a GPU, or none has.
function M.of(recipe)
    local world = recipe.world
    local device = world:together(M.choose, recipe.cfg:get("device"), world.local_rank, recipe.log)
    if world.size == 1 then
        return device
    elseif not agree(world, device) then
        recipe.log:warning("not all ranks have a GPU; computing on the CPU")
        return "cpu"
    elseif device:match("^cuda") then
        meet(world, device)
    end
    return device
end

--- Warn when the device of a run is no longer what it was at the call before: a library of it has failed, and own
--- kernels go on.
function M.watch(recipe)
    local before = recipe.device_about
    recipe.device_about = about(recipe.ctx.device)
    if before and recipe.device_about ~= before then
        recipe.log:warning("%s is now %s", recipe.ctx.device, recipe.device_about)
    end
end

return M
