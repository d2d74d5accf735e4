-- Compare a model with what another program computed of it: logits, loss, the states after each layer, gradients.
--
--   amlua recipes/compare.lua --model DIR [--golden FILE]
--
-- FILE (DIR/golden.safetensors) holds input_ids and any of attention_mask, position_ids, labels, what goes with
-- pictures (pixel_values, image_grid_thw, pixel_attention_mask, token_type_ids), logits, loss (or losses, whose first
-- counts), hidden.0 (embeddings) to hidden.N (after the last norm), grad.NAME under the
-- checkpoint's names: docs/port_a_model.md has a script that makes one with transformers.

local am = require("am")
local err = require("am.core.error")
local options = require("am.cli.options")
local path = require("am.utils.path")
local registry = require("am.models.architectures")
local weights = require("am.models.weights")

local M = {}

-- Numbers in f32 round at 6e-8, and some hundred roundings in another order make some 1e-6. Gradients go through
-- twice as many sums. Those that are next to nothing hold the rounding of the others: the least that one is
-- measured by is a part of the largest of all.
local STATES, GRADIENTS, FLOOR = 1e-5, 1e-4, 1e-3

-- What forward takes of a golden.
local INPUTS = { "input_ids", "attention_mask", "position_ids", "labels", "pixel_values", "image_grid_thw",
                 "pixel_attention_mask", "token_type_ids" }

local specs = {
    { "model", required = true, doc = "Hugging Face directory" },
    { "golden", doc = "what to compare with (golden.safetensors in that directory)" },
}

-- The largest |difference| of a tensor's numbers that count, NaN infinitely far, and their largest |value|.
-- keep: nil, or {flags, of how many numbers each}.
local function distances(name, actual, expected, keep)
    local have, want = table.concat(actual:size(), ", "), table.concat(expected:size(), ", ")
    if have ~= want then
        err.raise("shape", "%s: the shape is [%s], not [%s]", name, have, want)
    end
    local a, n = actual:to("float64"):to_buffer()
    local b = expected:to("float64"):to_buffer()
    local worst, largest = 0, 0
    for i = 0, n - 1 do
        if not keep or keep.flags[math.floor(i * keep.count / n)] ~= 0 then
            local d = math.abs(a[i] - b[i])
            worst, largest = math.max(worst, d < math.huge and d or math.huge), math.max(largest, math.abs(b[i]))
        end
    end
    return worst, largest
end

-- Infinite for what is no finite number.
local function relative(a, b)
    local d = math.abs(a - b) / math.abs(b)
    return d < math.huge and d or math.huge
end

local function item(name, error_, limit)
    return { name = name, error = error_, differs = error_ > limit }
end

-- Run fn, and `use(number, states)` on the input of the first layer (0) and on what each gives (from 1).
local function watching_layers(layers, use, fn)
    for i, child in ipairs(layers) do
        local layer = child.module
        local forward = layer.forward
        local function seen(out, ...)
            use(i, out)
            return out, ...
        end
        layer.forward = function(self, x, ...)
            if i == 1 then
                use(0, x)
            end
            return seen(forward(self, x, ...))
        end
    end
    local out = fn()
    for _, child in ipairs(layers) do
        child.module.forward = nil -- the class's again
    end
    return out
end

-- Adds the errors of states, logits and loss to a list. The last of a golden's states is that after the last norm.
local function compare_forward(model, golden, list)
    local mask, last = golden.attention_mask, 0
    local keep = mask and { flags = mask:to_buffer(), count = mask:numel() }
    while golden["hidden." .. last + 1] do
        last = last + 1
    end
    local function states(name, actual, expected)
        if expected then
            local worst, largest = distances(name, actual, expected, keep)
            list[#list + 1] = item(name, worst / math.max(largest, 1e-30), STATES)
        end
    end
    local holder = model.model[model.names.layers]
    local layers = holder and holder._children or {}
    if last > 0 and #layers > 0 and last ~= #layers then
        err.raise("format", "the golden has %d layers, the model %d", last, #layers)
    end
    local function note(i, x)
        if i == 0 or i < last then
            states(i == 0 and "embeddings" or "layer " .. i - 1, x, golden["hidden." .. i])
        end
    end
    local inputs = { output_hidden_states = true }
    for _, name in ipairs(INPUTS) do
        inputs[name] = golden[name]
    end
    local out = watching_layers(layers, note, function() return model:forward(inputs) end)
    states("layer " .. last - 1 .. " and the last norm", out.hidden_states, last > 0 and golden["hidden." .. last])
    states("logits", out.logits, golden.logits)
    local loss = golden.loss or golden.losses
    if loss and out.loss then
        local want = tonumber(loss:reshape(-1):to_buffer()[0])
        list[#list + 1] = item("loss", relative(out.loss:item(), want), STATES)
    end
    return out
end

-- A parameter's name in files that amlua writes, by any that it reads.
local function written_name(model, name)
    local known = model.file_names and model.file_names:to_model(name) or name
    return model.file_names and model.file_names:to_file(type(known) == "table" and known[1] or known) or known
end

local function compare_gradients(model, golden, list)
    local have, want, expected, top = weights.saved_gradients(model), {}, {}, 0
    for name, t in pairs(golden) do
        local of = name:match("^grad%.(.+)$")
        if of then
            local buffer, n = t:to("float64"):to_buffer()
            of = written_name(model, of)
            local largest = 0
            for i = 0, n - 1 do
                largest = math.max(largest, math.abs(buffer[i]))
            end
            if have[of] or largest > 0 then -- of what is not used there may be none
                want[#want + 1], expected[of] = of, t
            end
            top = math.max(top, largest)
        end
    end
    table.sort(want)
    for _, name in ipairs(want) do
        if have[name] then
            local worst, largest = distances(name, have[name], expected[name])
            list[#list + 1] = item("gradient of " .. name, worst / math.max(largest, FLOOR * top), GRADIENTS)
        else
            list[#list + 1] = item("gradient of " .. name .. " (there is none)", math.huge, GRADIENTS)
        end
    end
end

--- What differs between a model and a golden (tensors by name, as in this file's head): a list of {name, error, as a
--- part of the largest number; differs: by more than rounding} in the order in which they are computed.
function M.errors(model, golden)
    if not golden.input_ids then
        err.raise("format", "the golden has no input_ids")
    end
    return am.scope(function()
        local list = {}
        local out = compare_forward(model, golden, list)
        if out.loss then
            out.loss:backward()
            compare_gradients(model, golden, list)
        end
        return list
    end)
end

--- The model in a folder, of either kind.
function M.open(dir)
    local names = am.AutoConfig.from_pretrained(dir).architectures
    local sees = type(names) == "table" and registry.image_text_to_text.modules[names[1] or ""]
    local class = sees and am.AutoModelForImageTextToText or am.AutoModelForCausalLM
    return class.from_pretrained(dir, { torch_dtype = "float32" })
end

function M.main(argv)
    local args = options.parse(argv, "amlua recipes/compare.lua --model DIR [--golden FILE]", specs)
    if not args then
        return 0
    end
    local file = args.golden or path.join(args.model, "golden.safetensors")
    local model = M.open(args.model)
    local first
    for _, e in ipairs(M.errors(model, am.load_safetensors(file))) do
        print(string.format("%-60s %8.1e%s", e.name, e.error, e.differs and "  differs" or ""))
        first = first or e.differs and e.name
    end
    print(first and "the first that differs: " .. first
          or string.format("all equal but for rounding (%g of the largest, gradients %g)", STATES, GRADIENTS))
    return first and 1 or 0
end

return M
