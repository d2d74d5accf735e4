-- amlua's side of random_qwen.py: for each folder given reads model/ and inputs.safetensors, writes out.safetensors and
-- saved/, or error.txt.

local am = require("am")
local edge = require("am.core.ffi")
local io_core = require("am.core.io")
local path = require("am.utils.path")
local qwen = require("tests.parity.vlm.qwen_run")
local run = require("tests.parity.models.run")
local scope = require("am.core.scope")

local function compute(folder)
    local given = am.load_safetensors(path.join(folder, "inputs.safetensors"))
    local out = {}
    local function put(name, t)
        out[#out + 1] = { name, t }
    end
    local model = am.AutoModelForImageTextToText.from_pretrained(path.join(folder, "model"))
    local inputs = qwen.inputs(given)
    put("features", am.no_grad(model.get_image_features, model, inputs))
    local stretches = given.stretches:item() == 1 -- a shorter row has another function
    local other = qwen.other_in_company(model, given, function() return stretches end)
    put("company", am.tensor({ other and 0 or 1 }))
    local total = given.total:item()
    put("greedy", am.tensor(qwen.greedy(model, given, total, false)))
    put("greedy_cached", am.tensor(qwen.greedy(model, given, total, true)))
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
