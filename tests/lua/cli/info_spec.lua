-- amlua --info: that each figure is the one in use, with what it was chosen from, and no secret.

local ffi = require("ffi")
local C = require("am.core.ffi").C
local files = require("tests.support.files")
local amlua = os.getenv("AMLUA")

local function info(environment)
    local status, out = files.run(string.format("env %s '%s' --info", environment or "", amlua))
    assert.equal(0, status, out)
    return out
end

-- What stands behind a name, e.g. line(out, "threads").
local function line(out, name)
    return out:match("\n  " .. name:gsub("[%-.]", "%%%0") .. " +([^\n]*)") or error("no line " .. name .. " in " .. out)
end

describe("amlua --info", function()
    it("names version, build, instruction sets and libraries", function()
        local out = info("AMLUA_ISA=generic")
        assert.equal("amlua " .. require("am").version, out:match("^[^\n]*"))
        assert.truthy(line(out, "build"):find("^Release, %a+ %d+"), out)
        assert.equal("generic in use, " .. ffi.string(C.am_cpu_isa_available()) .. " available",
                     line(out, "instructions"))
        for _, name in ipairs { "onednn", "pcre2", "utf8proc", "zlib", "zstd", "snappy", "libjpeg-turbo", "spng",
                                "webp", "giflib", "openmp", "lua-cjson",
                                "lua-yaml", "libcurl" } do
            assert.truthy(line(out, name):find("%d"), name)
        end
        assert.truthy(line(out, "LuaJIT"):find(jit.version, 1, true))
        assert.truthy(line(out, "libedit"):find("^%d") or line(out, "libedit"):find("libedit-dev", 1, true))
        assert.truthy(line(out, "devices"):find("cpu", 1, true))
    end)

    it("says how many threads, how much memory, and why", function()
        local out = info("-u SLURM_CPUS_PER_TASK OMP_NUM_THREADS=3")
        assert.truthy(line(out, "threads"):find("^3 %(%d+ by affinity, .*no limit by SLURM_CPUS_PER_TASK, "
            .. "3 by OMP_NUM_THREADS%)$"), out)
        out = info("-u OMP_NUM_THREADS SLURM_CPUS_PER_TASK=1")
        assert.truthy(line(out, "threads"):find("^1 %(.*1 by SLURM_CPUS_PER_TASK"), out)
        local status, text = files.run(string.format("OMP_NUM_THREADS=2 '%s' --threads 1 --info", amlua))
        assert.equal(0, status, text)
        assert.truthy(line(text, "threads"):find("^1 by %-%-threads %("), text)
        status, text = files.run(string.format("ulimit -v 4194304; env -u AMLUA_CUDA '%s' --info", amlua))
        assert.equal(0, status, text)
        local chosen, limit = line(text, "memory"):match("^([%d.]+) GiB %(.*, ([%d.]+) GiB by ulimit %-v%)$")
        assert.is_true(tonumber(chosen) <= tonumber(limit) and tonumber(limit) <= 4, text)
    end)

    it("says which GPU there is, or why none, and what amlua_cuda.so needs", function()
        local out = info("AMLUA_CUDA=/nowhere/amlua_cuda.so")
        assert.truthy(line(out, "GPU"):find("^no GPU: amlua_cuda%.so can't be opened: /nowhere/amlua_cuda%.so"), out)
        assert.truthy(line(out, "amlua_cuda.so"):find("^absent: "), out)
        assert.truthy(line(out, "NVIDIA driver"):find("^unknown") or line(out, "NVIDIA driver"):find("^%d+%.%d"), out)
        if not os.getenv("AMLUA_CUDA") then
            return
        end
        out = info()
        assert.truthy(line(out, "GPU"):find("cuda:0 is .+, sm_%d+, [%d.]+ GiB, driver for CUDA %d+%.%d"), out)
        assert.truthy(line(out, "amlua_cuda.so"):find("^CUDA %d+%.%d, .+; needs the NVIDIA driver 5%d+%.[%d.]+ or"))
        out = info("AM_EMU_DEVICES=0 CUDA_VISIBLE_DEVICES=")
        assert.equal("no GPU: no CUDA-capable device is detected", line(out, "GPU"))
        assert.truthy(line(out, "amlua_cuda.so"):find("^CUDA %d"), out)
    end)

    it("says where files lie, and of secrets only that they are set", function()
        local out = info("XDG_STATE_HOME=/s HF_HOME=/h AMLUA_CACHE=/c HF_TOKEN=tiger WANDB_API_KEY=lion")
        assert.equal("/s/amlua/history", line(out, "history"))
        assert.equal("/h/hub", line(out, "models"))
        assert.equal("/c", line(out, "downloads"))
        assert.equal("set, not shown", line(out, "HF_TOKEN"))
        assert.is_nil(out:find("tiger", 1, true) or out:find("lion", 1, true))
    end)

    it("names HOME where it is not set, and AMLUA_HOME where it is wrong", function()
        local out = info("-u HOME -u XDG_CACHE_HOME -u XDG_STATE_HOME -u HF_HOME -u HF_HUB_CACHE -u AMLUA_CACHE")
        for _, name in ipairs { "models", "downloads", "history" } do
            assert.truthy(line(out, name):find("HOME is not set", 1, true), name)
        end
        out = info("-u HOME -u XDG_STATE_HOME HF_HUB_CACHE=/h XDG_CACHE_HOME=/x")
        assert.equal("/h", line(out, "models"))
        assert.equal("/x/amlua", line(out, "downloads"))
        local status, text = files.run(string.format("env -u LUA_PATH AMLUA_HOME=/no/where '%s' --version 2>&1", amlua))
        assert.equal(1, status)
        assert.equal("amlua: AMLUA_HOME is /no/where, and there is no lua/am/cli/init.lua there\n", text)
    end)
end)
