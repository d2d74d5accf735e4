-- amlua's side of random_configs.py, random_vlms.py and random_qwen.py: for each folder given reads model/ and
-- inputs.safetensors, writes out.safetensors and saved/, or error.txt.

local am = require("am")
local edge = require("am.core.ffi")
local io_core = require("am.core.io")
local path = require("am.utils.path")
local rows = require("tests.parity.models.rows")
local run = require("tests.parity.models.run")
local scope = require("am.core.scope")

-- A name in files that are written here -> that in files of transformers.
local function theirs(name)
    return (name:gsub("^vision_tower%.vision_model%.", "vision_tower."))
end

-- Does rotary scaling that looks at the longest row make another function of a row alone? (Positions of pictures are
-- not known here: of any row, then.)
local function stretched(given)
    if not given.stretches or given.stretches:item() == 0 then
        return nil
    end
    local longest = given.position_ids and (given.position_ids * given.attention_mask):max():item()
    return function(row) return not longest or row.position_ids[1][row.length] < longest end
end

local function compute(folder)
    local given = am.load_safetensors(path.join(folder, "inputs.safetensors"))
    local auto = given.pixel_values and am.AutoModelForImageTextToText or am.AutoModelForCausalLM
    local model, out = auto.from_pretrained(path.join(folder, "model")), {}
    local function put(name, t)
        out[#out + 1] = { name, t }
    end
    local inputs, prompt, total = run.inputs(given), run.inputs(given, "prompt."), given.total:item()
    if given.pixel_values then
        put("features", am.no_grad(model.get_image_features, model, inputs))
    end
    -- where positions are drawn a row may go on where another ends, which a pack takes for one
    local other = rows.other_in_company(model, given, stretched(given), given.position_ids ~= nil)
    put("company", am.tensor({ other and 0 or 1 }))
    put("greedy", am.tensor(run.greedy(model, prompt, total, false)))
    put("greedy_cached", am.tensor(run.greedy(model, prompt, total, true)))
    model:save_pretrained(path.join(folder, "saved"))
    local losses = run.train(model, inputs, function(result)
        put("logits", result.logits:detach():clone())
        local gradients = run.saved(model, "gradients")
        for name, t in pairs(run.saved(model)) do -- what the loss does not see has none
            put("grad." .. theirs(name), gradients[name] and gradients[name]:clone() or am.zeros(t:size()))
        end
        for _, item in ipairs(out) do
            scope.escape(item[2])
        end
    end)
    put("losses", am.tensor(losses))
    for name, t in pairs(run.saved(model)) do
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
