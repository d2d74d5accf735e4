-- The devices that specs go over: beside the CPU's own, CUDA's where AMLUA_CUDA names its module (tests/run.sh names
-- one over an emulated CUDA: docs/testing.md).

local M = { "cpu", "ref", "fence" }

if os.getenv("AMLUA_CUDA") then
    M[#M + 1] = "cuda"
end

--- The same without the first, which the caller has taken already.
M.others = { unpack(M, 2) }

return M
