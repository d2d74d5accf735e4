-- amlua --info: what a bug report needs to say about this build, machine and environment. Holds no
-- decisions: the engine's figures are printed with what they were chosen from, secrets by name only.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local secrets = require("am.config.secrets")

local C = edge.C
local M = {}

local GIB = 2 ^ 30

-- Variables that change what amlua does.
local variables = {
    "AMLUA_CUDA", "AM_SYNC", "CUDA_VISIBLE_DEVICES",
    "AMLUA_HOME", "AMLUA_CACHE", "AMLUA_ISA", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN",
    "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "GOMP_SPINCOUNT", "SLURM_CPUS_PER_TASK",
    "ONEDNN_VERBOSE", "DNNL_VERBOSE", "LOGGING_LEVEL", "NO_COLOR", "FORCE_COLOR", "LUA_PATH", "LUA_CPATH",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "LANG", "LC_ALL", "TERM", "XDG_CACHE_HOME", "XDG_STATE_HOME", "WANDB_API_KEY",
}

local function gib(bytes)
    return string.format("%.1f GiB", tonumber(bytes) / GIB)
end

-- "2 by affinity, no limit by cgroup quota, …": the figures that a choice was made from.
local function sources(list)
    local out = {}
    for i, s in ipairs(list) do
        out[i] = s[2] .. " " .. s[1]
    end
    return table.concat(out, ", ")
end

local function threads(l)
    local asked = C.am_threads() ~= C.am_threads_default() and " by --threads" or ""
    return string.format("%d%s (%s)", C.am_threads(), asked, sources {
        { "by affinity", tostring(l.cpus_affinity) },
        { "by cgroup quota", l.cpus_cgroup > 0 and tostring(l.cpus_cgroup) or "no limit" },
        { "by SLURM_CPUS_PER_TASK", l.cpus_slurm > 0 and tostring(l.cpus_slurm) or "no limit" },
        { "by OMP_NUM_THREADS", l.cpus_openmp > 0 and tostring(l.cpus_openmp) or "no limit" },
    })
end

local function memory(l)
    local function limit(bytes)
        return bytes >= 0 and gib(bytes) or "no limit"
    end
    return string.format("%s (%s)", gib(C.am_host_memory_available()), sources {
        { "free", limit(l.memory_free) }, { "by cgroup", limit(l.memory_cgroup) },
        { "by ulimit -v", limit(l.memory_ulimit) },
    })
end

local function first_line(file, pattern)
    local handle = io.open(file, "r")
    for line in handle and handle:lines() or function() end do
        local found = line:match(pattern)
        if found then
            handle:close()
            return found
        end
    end
    return "unknown"
end

local function devices()
    local names = {}
    for i = 0, C.am_device_count() - 1 do
        names[#names + 1] = ffi.string(C.am_device_name(i))
    end
    return table.concat(names, ", ")
end

-- The GPU that a run would take, or why there is none.
local function gpu()
    local count, text, device = ffi.new("int[1]"), ffi.new("const char *[1]"), ffi.new("int[1]")
    local rc = C.am_gpu_count(count)
    if rc == 0 then
        edge.check(C.am_device_find(device, "cuda"))
        rc = C.am_device_about(text, device[0])
    end
    if rc ~= 0 then
        return "no GPU: " .. edge.error(rc).msg:gsub("^no GPU can be used: ", "")
    end
    return ("%scuda:0 is %s"):format(count[0] > 1 and count[0] .. ", " or "", ffi.string(text[0]))
end

local function cuda()
    local text = ffi.new("const char *[1]")
    local rc = C.am_gpu_built(text)
    return rc == 0 and ffi.string(text[0]) or "absent: " .. edge.error(rc).msg
end

-- A Lua library's version; "absent" with what was looked for.
local function lua_library(name)
    local ok, lib = pcall(require, name)
    if not ok then
        return 'absent: require "' .. name .. '" found nothing in package.path and package.cpath'
    end
    return tostring(lib._VERSION or lib.version or "found, without a version")
end

local function editor()
    local ok, lib = pcall(require, "am.cli.editor")
    return ok and lib.version or "absent: pkg-config knew no libedit when amlua was built (Debian: libedit-dev)"
end

local function libraries()
    local out = { { "LuaJIT", jit.version .. ", compiler " .. (jit.status() and "on" or "off") } }
    for _, name in ipairs { "onednn", "pcre2", "utf8proc", "zlib", "zstd", "snappy",
                        "libjpeg-turbo", "spng", "webp", "giflib", "openmp" } do
        out[#out + 1] = { name, ffi.string(C.am_library_version(name)) }
    end
    out[#out + 1] = { "lua-yaml", lua_library("yaml") }
    out[#out + 1] = { "lua-cjson", lua_library("cjson") }
    out[#out + 1] = { "libedit", editor() }
    out[#out + 1] = { "libcurl", require("am.utils.libcurl").version() or "absent (Debian: libcurl4)" }
    return out
end

local function is_set(name)
    return (os.getenv(name) or "") ~= ""
end

-- A folder that lies under HOME unless one of the variables says otherwise.
local function place(folder, ...)
    for _, name in ipairs { "HOME", ... } do
        if is_set(name) then
            return folder
        end
    end
    return "unknown: HOME is not set"
end

-- Where examples/smollm2.sh keeps what it fetched.
local function cache_dir()
    local set, cache = os.getenv("AMLUA_CACHE"), os.getenv("XDG_CACHE_HOME")
    return set or (cache or (os.getenv("HOME") or "") .. "/.cache") .. "/amlua"
end

local function places()
    return {
        { "Lua files", require("am.cli").home or "beside package.path" },
        { "models", place(require("am.utils.hub").cache_dir(), "HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME") },
        { "downloads", place(cache_dir(), "AMLUA_CACHE", "XDG_CACHE_HOME") },
        { "history", require("am.cli.history").file() or "none: HOME is not set" },
    }
end

local function environment()
    local out = {}
    for _, name in ipairs(variables) do
        local value = os.getenv(name)
        if value then
            out[#out + 1] = { name, secrets.is_secret_key(name) and "set, not shown" or secrets.redact_text(value) }
        end
    end
    return #out > 0 and out or { { "(nothing set)", "" } }
end

local function section(title, rows)
    local lines = { title }
    for _, row in ipairs(rows) do
        lines[#lines + 1] = ("  %-20s %s"):format(row[1], row[2]):gsub("%s+$", "")
    end
    return table.concat(lines, "\n")
end

--- The report as text.
function M.text()
    local limits = ffi.new("am_host_limits")
    edge.check(C.am_host_limits_get(limits))
    return table.concat({
        section("amlua " .. ffi.string(C.am_version()), {
            { "build", ffi.string(C.am_build()) },
            { "system", jit.os .. " " .. jit.arch .. ", " .. first_line("/etc/os-release", '^PRETTY_NAME="?(.-)"?$')
                .. ", kernel " .. first_line("/proc/sys/kernel/osrelease", "^%S+") },
            { "CPU", first_line("/proc/cpuinfo", "^model name%s*:%s*(.*)$") },
            { "instructions", string.format("%s in use, %s available", ffi.string(C.am_cpu_isa()),
                                            ffi.string(C.am_cpu_isa_available())) },
            { "threads", threads(limits) },
            { "memory", memory(limits) },
            { "devices", devices() },
            { "GPU", gpu() },
            { "amlua_cuda.so", cuda() },
            { "NVIDIA driver", first_line("/proc/driver/nvidia/version", "Module.-%s(%d[%d.]+)%s") },
        }),
        section("libraries", libraries()),
        section("places", places()),
        section("environment", environment()),
    }, "\n")
end

return M
