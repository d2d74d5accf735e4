-- Training in few bits: a file for each way.

local M = {}

M.qat = require("am.quantization.qat")

return M
