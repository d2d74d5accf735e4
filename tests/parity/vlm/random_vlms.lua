-- amlua's side of random_vlms.py: for each folder given reads model/ and inputs.safetensors, writes out.safetensors and
-- saved/, or error.txt.

local am = require("am")
local edge = require("am.core.ffi")
local io_core = require("am.core.io")
local path = require("am.utils.path")
local training = require("tests.parity.models.run")
local run = require("tests.parity.vlm.vlm_run")
local scope = require("am.core.scope")

-- A name in files that are written here -> that in files of transformers.
local function theirs(name)
    return (name:gsub("^vision_tower%.vision_model%.", "vision_tower."))
end

local function compute(folder)
    local given = am.load_safetensors(path.join(folder, "inputs.safetensors"))
    local out = {}
    local function put(name, t)
        out[#out + 1] = { name, t }
    end
    local model = am.AutoModelForImageTextToText.from_pretrained(path.join(folder, "model"))
    local inputs = run.inputs(given)
    put("features", am.no_grad(model.get_image_features, model, inputs))
    put("company", am.tensor({ run.other_in_company(model, given) and 0 or 1 }))
    local total = given.total:item()
    put("greedy", am.tensor(run.greedy(model, given, total, false)))
    put("greedy_cached", am.tensor(run.greedy(model, given, total, true)))
    model:save_pretrained(path.join(folder, "saved"))
    local losses = training.train(model, inputs, function(result)
        put("logits", result.logits:detach():clone())
        local gradients = training.saved(model, "gradients")
        for name, t in pairs(training.saved(model)) do -- what the loss does not see has none
            put("grad." .. theirs(name), gradients[name] and gradients[name]:clone() or am.zeros(t:size()))
        end
        for _, item in ipairs(out) do
            scope.escape(item[2])
        end
    end)
    put("losses", am.tensor(losses))
    for name, t in pairs(training.saved(model)) do
        put("step." .. theirs(name), t)
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
