-- amlua's side of random_configs.py: for each folder given reads model/ and inputs.safetensors, writes
-- out.safetensors and saved/, or error.txt.

local am = require("am")
local edge = require("am.core.ffi")
local ffi = require("ffi")
local io_core = require("am.core.io")
local path = require("am.utils.path")
local run = require("tests.parity.models.run")
local scope = require("am.core.scope")

-- 1 when each row has the same bits alone as in the batch, 0 else.
local function same_in_company(model, inputs, logits, stretches)
    local ids, positions = inputs.input_ids:totable(), inputs.position_ids:totable()
    local mask = inputs.attention_mask:totable()
    local batch, t, v = logits:to_buffer(), logits:size(1), logits:size(2)
    local longest = 0
    for row = 1, #ids do
        for i, on in ipairs(mask[row]) do
            longest = math.max(longest, on * positions[row][i])
        end
    end
    for row = 1, #ids do
        local first, last = nil, nil
        for i, on in ipairs(mask[row]) do
            first, last = on == 1 and (first or i) or first, on == 1 and i or last
        end
        local alone = am.no_grad(model.forward, model, {
            input_ids = { { unpack(ids[row], first, last) } },
            position_ids = { { unpack(positions[row], first, last) } },
        }).logits:to_buffer()
        local bytes, there = (last - first + 1) * v * 4, batch + ((row - 1) * t + first - 1) * v
        local other_function = stretches and positions[row][last] < longest
        if not other_function and ffi.string(alone, bytes) ~= ffi.string(there, bytes) then
            return 0
        end
    end
    return 1
end

local function compute(folder)
    local given = am.load_safetensors(path.join(folder, "inputs.safetensors"))
    local out = {}
    local function put(name, t)
        out[#out + 1] = { name, t }
    end
    local function open() return am.AutoModelForCausalLM.from_pretrained(path.join(folder, "model")) end
    local model = open()
    local inputs = run.inputs(given)
    local plain = { input_ids = inputs.input_ids, attention_mask = inputs.attention_mask,
                    position_ids = inputs.position_ids }
    local logits = am.no_grad(model.forward, model, plain).logits
    put("company", am.tensor({ same_in_company(model, plain, logits, given.stretches:item() == 1) }))
    local prompt, total = given.prompt:totable(), given.total:item()
    put("greedy", am.tensor(run.greedy(model, prompt, total, false)))
    put("greedy_cached", am.tensor(run.greedy(model, prompt, total, true)))
    model:save_pretrained(path.join(folder, "saved"))
    local losses = run.train(model, inputs, function(result)
        put("logits", result.logits:detach():clone())
        for name, t in pairs(run.saved(model, "gradients")) do
            put("grad." .. name, t:clone())
        end
        for _, item in ipairs(out) do
            scope.escape(item[2])
        end
    end)
    put("losses", am.tensor(losses))
    for name, t in pairs(run.saved(model)) do
        put("step." .. name, t)
    end
    io_core.save_safetensors(path.join(folder, "out.safetensors"), out)
    model:close()
end

edge.check(edge.C.am_threads_set(1)) -- there is nothing to share
for _, folder in ipairs(arg) do
    local ok, e = xpcall(am.scope, function(err)
        return tostring(err):find("traceback") and err or debug.traceback(tostring(err))
    end, compute, folder)
    if not ok then
        path.write_file(path.join(folder, "error.txt"), tostring(e) .. "\n")
    end
end
