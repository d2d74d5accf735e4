-- recipes/llm_finetune.lua whose last rank is late, by two seconds, for its third step's first collective on a GPU. The
-- first rank says what of that step its host was held up by. For dist_spec.lua.

local ffi = require("ffi")
local comm = require("am.distributed.comm")
local edge = require("am.core.ffi")
local parent = require("recipes.llm_finetune")
local posix = require("am.utils.posix")

ffi.cdef [[
typedef struct am_emu_counts { unsigned long long switches, threads, blocks, launches, waits; } am_emu_counts;
am_emu_counts am_emu_count(void);
]]
local emulator = ffi.load(os.getenv("AMLUA_CUDA"))

local Recipe = parent:extend("ahead")
local LATE, STEP = 2, 2 -- seconds; steps before it

local function on_gpu(t) return t and t:device() ~= "cpu" end

-- From here on collectives of groups like this go through watch(begun work), behind before(tensor).
local function watch_collectives(group, before, watch)
    local methods = getmetatable(group).__index
    for _, kind in ipairs { "all_reduce", "reduce_scatter", "all_gather" } do
        local own = methods[kind]
        methods[kind] = function(self, t, ...)
            before(t)
            return watch(own(self, t, ...))
        end
    end
end

function Recipe:step(window)
    if self.scheduler.step ~= STEP then
        return parent.step(self, window)
    end
    local late, held, works = self.world.rank == self.world.size - 1, 0, 0
    watch_collectives(self.world.group, function(t)
        if late and on_gpu(t) then
            late = false
            posix.sleep(LATE)
        end
    end, function(work)
        local wait = work.wait
        work.wait = function()
            local began = edge.C.am_clock()
            local t = wait(work)
            if on_gpu(t) then
                works = works + 1
                held = held + (edge.C.am_clock() - began > LATE / 2 and 1 or 0)
            end
            return t
        end
        return work
    end)
    local waits, waited = emulator.am_emu_count().waits, comm.waited()
    local metrics = parent.step(self, window)
    if self.world.rank == 0 then
        waits = tonumber(emulator.am_emu_count().waits - waits)
        print(("a host was held up by %d works, its GPU by %d waits; the last rank was late: %s"):format(
            works > 0 and held or -1, waits, comm.waited() - waited > LATE / 2))
    end
    return metrics
end

return Recipe
