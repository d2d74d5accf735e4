-- The recipe of fine-tuning on a GPU that fails: before the step of the number STEP the emulated one is told of FAIL,
-- which is AM_EMU_FAIL's value (emulator/failures.h), counted from then on.

local ffi = require("ffi")

ffi.cdef "void am_emu_set(const char *name, const char *value);"

local Failing = require("recipes.llm_finetune"):extend("failing")

function Failing:step(window)
    if self.scheduler.step == tonumber(os.getenv("STEP")) then
        ffi.load(os.getenv("AMLUA_CUDA")).am_emu_set("AM_EMU_FAIL", os.getenv("FAIL"))
    end
    return self.parent.step(self, window)
end

return Failing
