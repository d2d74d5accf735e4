-- What a rank learns whose NCCL fails, and what the other one does: the last rank has its failure (AM_EMU_FAIL's) from
-- its second collective on, each prints the error that it gets. For dist_failures_spec.lua.
--
--   AMLUA_MEETING=$(mktemp -d) mpirun -n 2 amlua tests/cuda/broken.lua FAILURE WHAT
--
-- WHAT: sum, half (a sum of bf16), matrix (a sum that the host factors), exchange, or meeting.

local ffi = require("ffi")
local am = require("am")
local linalg = require("am.core.linalg")
local meeting = require("tests.dist.meeting")
local posix = require("am.utils.posix")

ffi.cdef "void am_emu_set(const char *name, const char *value);"

local failure, what = arg[1], arg[2]
local world = require("am.distributed").join { timeout = 4 }
local last = world.rank == world.size - 1

local function fail()
    if last then
        ffi.load(os.getenv("AMLUA_CUDA")).am_emu_set("AM_EMU_FAIL", failure)
    end
end

am.set_default_device("cuda:" .. world.rank)
local n = 2 ^ 20 -- more than its first scratch
local t = am.ones({ n }, { dtype = what == "half" and "bfloat16" or "float32" })
local to = am.zeros { n }
if what == "meeting" then
    fail()
end
local ok, e = pcall(function()
    world.group:all_reduce(am.ones { 1 }):wait():item()
    fail()
    if what == "exchange" then
        world.group:all_to_all(to, { n / 2, n / 2 }, t, { n / 2, n / 2 }):wait():narrow(0, 0, 1):item()
    elseif what == "matrix" then
        linalg.eigh(world.group:all_reduce(am.eye(4)):wait())
    else
        world.group:all_reduce(t):wait():narrow(0, 0, 1):item()
    end
end)
local again, same = pcall(function() return to:narrow(0, 0, 1):item() end)
meeting.say(world.rank, 2, ("rank %d: %s\nrank %d then: %s\n")
    :format(world.rank, ok and "came" or tostring(e), world.rank,
            again and "reads" or same == e and "the same" or tostring(same)))
posix.sleep(last and 0 or 6) -- one ends both
world:abort(5, "over")
