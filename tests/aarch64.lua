-- What tests/aarch64.sh runs under emulation: training steps of a tiny Llama in f32 and bf16, whose
-- losses and gradients on the CPU's kernels must be those of ref within rounding.
local am = require("am")

local function relative(a, b)
    return math.abs(a - b) / math.abs(b)
end

-- Losses and gradient norms of three steps.
local function train(device, dtype)
    local model = am.AutoModelForCausalLM.from_pretrained("tests/parity/golden/tiny_llama/gqa",
                                                          { device = device, torch_dtype = dtype })
    local optimizer = am.optim.new("adamw", model:named_parameters(), { lr = 1e-2 })
    local ids, out = { {}, {} }, {}
    for t = 1, 33 do
        ids[1][t], ids[2][t] = t * 17 % 67, t * t % 67
    end
    for step = 1, 3 do
        local loss = model:forward { input_ids = ids, labels = ids }.loss
        loss:backward()
        out[2 * step - 1], out[2 * step] = loss:item(), optimizer:grad_norm()
        optimizer:step()
        optimizer:zero_grad()
    end
    return out
end

for dtype, tolerance in pairs { float32 = 1e-5, bfloat16 = 2e-2 } do
    local expected = train("ref", dtype)
    for i, value in ipairs(train("cpu", dtype)) do
        print(dtype, expected[i], value, relative(value, expected[i]))
        assert(relative(value, expected[i]) <= tolerance)
    end
    assert(expected[5] < expected[1], "three steps taught nothing")
end
