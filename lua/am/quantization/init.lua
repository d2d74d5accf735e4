-- Training in few bits: a file for each way.

local M = {}

M.fp8 = require("am.quantization.fp8")
M.qat = require("am.quantization.qat")
M.qlora = require("am.quantization.qlora")

return M
