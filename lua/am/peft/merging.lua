-- Folding adapters into their weights, and the proof that the model still says the same.

local autograd = require("am.core.autograd")
local err = require("am.core.error")
local packed = require("am.core.packed")
local scope = require("am.core.scope")
local adapter = require("am.peft.adapter")
local dora = require("am.peft.dora")
local lora = require("am.peft.lora")
local whole = require("am.peft.whole")

local M = {}

-- Does a path end in a module whose weight another one shares?
local function is_tied(model, path)
    for name, of in pairs(model.tied or {}) do
        if path .. ".weight" == name or path .. ".weight" == of then
            return true
        end
    end
    return false
end

--- Fold every adapter into its weight; the model is a plain one afterwards. A head and an embedding that shared a
--- weight have one each when either was adapted. What was packed is unpacked, also where nothing was adapted. Returns
--- how many adapters there were.
function M.merge(model)
    local list = {}
    for path, module in adapter.modules(model) do
        list[#list + 1] = { path, module }
    end
    local untie = false
    for _, item in ipairs(list) do
        local path, module = item[1], item[2]
        untie = untie or is_tied(model, path)
        lora.replace(model, path, module:merged())
        for _, child in ipairs(module._children) do
            child.module.weight:release()
        end
        dora.release(module)
    end
    if untie then
        whole.untie(model)
    end
    packed.unpack_all(model)
    return #list
end

-- How far logits may move, as a part of the largest, and how many tokens of a hundred must stay the likeliest:
-- weights are rounded once more, and 16-bit ones to some 8 or 11 bits.
local limits = {
    float64 = { 1e-9, 100 }, float32 = { 1e-4, 98 }, float16 = { 2e-2, 90 }, bfloat16 = { 5e-2, 80 },
}

-- The logits of a row of token ids, as an array of C numbers, their number and how many there are a token (or
-- a row, of a classifier).
local function logits_of(model, ids)
    return autograd.no_grad(scope.scope, function()
        local logits = model:forward({ input_ids = { ids } }).logits:to("float64")
        local values, n = logits:to_buffer()
        return values, n, logits:size(logits:dim() - 1)
    end)
end

-- The place of the largest of `count` numbers from `at`.
local function argmax(values, at, count)
    local best = at
    for i = at + 1, at + count - 1 do
        best = values[i] > values[best] and i or best
    end
    return best - at
end

local function compare(before, after, n, vocabulary)
    local report = { worst = 0, largest = 0, same = 0, tokens = n / vocabulary }
    for i = 0, n - 1 do
        local d = math.abs(after[i] - before[i])
        report.worst = (d <= report.worst or report.worst ~= report.worst) and report.worst or d -- a NaN stays
        report.largest = math.max(report.largest, math.abs(before[i]))
    end
    for at = 0, n - 1, vocabulary do
        report.same = report.same + (argmax(before, at, vocabulary) == argmax(after, at, vocabulary) and 1 or 0)
    end
    return report
end

--- Merge, then compare the logits of a row of token ids with those before. Raises a "state" error when they are
--- further apart than rounding to the weights' dtype explains; the model is merged all the same. Returns a report:
--- modules (merged), worst (greatest difference of a logit), largest (logit), same (tokens whose likeliest next
--- token stayed), tokens, dtype.
---@param ids integer[]
function M.merge_checked(model, ids)
    local was_training = model.training
    model:eval()
    local before, n, vocabulary = logits_of(model, ids)
    local modules = M.merge(model)
    local report = compare(before, logits_of(model, ids), n, vocabulary)
    model:train(was_training)
    report.modules, report.dtype = modules, model:dtype()
    local limit = limits[report.dtype]
    if not (report.worst <= limit[1] * report.largest and report.same >= limit[2] / 100 * report.tokens) then
        err.raise("state", "the merged model is another one than base and adapter: logits differ by up to %.3g (the "
                  .. "largest is %.3g), and %d of %d tokens have the same likeliest next one; %s allows %.3g and %d %%",
                  report.worst, report.largest, report.same, report.tokens, report.dtype, limit[1] * report.largest,
                  limit[2])
    end
    return report
end

return M
