-- The CPUs that this process may use. How many threads the engine takes of them is the engine's to say.

local ffi = require("ffi")
local edge = require("am.core.ffi")

local M = {}

local function read(file)
    local handle = io.open(file)
    local text = handle and handle:read("*a") or ""
    if handle then
        handle:close()
    end
    return text
end

--- CPUs of this process, by its affinity mask and a container's quota, and whether they are all that the host has.
function M.cpus()
    local limits = ffi.new("am_host_limits")
    edge.check(edge.C.am_host_limits_get(limits))
    local n = limits.cpus_affinity
    if limits.cpus_cgroup > 0 and limits.cpus_cgroup < n then
        return limits.cpus_cgroup, false
    end
    local online = 0
    for from, to in read("/sys/devices/system/cpu/online"):gmatch("(%d+)%-?(%d*)") do
        online = online + (tonumber(to) or tonumber(from)) - tonumber(from) + 1
    end
    return n, online == n
end

--- This process's affinity mask as text: equal where two processes on a host may run on the same CPUs.
function M.cpu_mask()
    return read("/proc/self/status"):match("Cpus_allowed:%s*(%S+)") or ""
end

return M
