-- Numbers of few bits in training: weights that are frozen (qlora.lua).

return {
    qlora = require("am.quantization.qlora"),
}
