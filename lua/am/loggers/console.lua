-- The lines about steps on the console. Holds no stream: give the text to a logger.
--
--   log:info(console.train_line(record))   log:info(console.val_line("default", record))

local posix = require("am.utils.posix")
local strings = require("am.utils.strings")

local M = {}

--- fixed(x, precision): as Python's format() prints a number, also NaN and infinities.
local function fixed(x, precision)
    if x ~= x then
        return "nan"
    elseif x == math.huge or x == -math.huge then
        return x > 0 and "inf" or "-inf"
    end
    return posix.fixed(x, precision)
end

M.fixed = fixed

local function scientific(x)
    if x ~= x or x == math.huge or x == -math.huge then
        return fixed(x, 0)
    end
    return posix.scientific(x, 2)
end

--- A training step: step, epoch, loss, grad_norm, lr, mem (GiB), tps, tps_per_gpu, num_label_tokens.
function M.train_line(r)
    return string.format(
        "step %d | epoch %d | loss %s | grad_norm %s | lr %s | mem %s GiB | tps %s(%s/gpu) | num_label_tokens %d",
        r.step, r.epoch, fixed(r.loss, 4), fixed(r.grad_norm, 4), scientific(r.lr), fixed(r.mem, 2), fixed(r.tps, 2),
        fixed(r.tps_per_gpu, 2), r.num_label_tokens)
end

--- A validation: its name ("default", or that of validation_dataset_<name>), step, epoch, val_loss,
--- lr, num_label_tokens, and after these the metrics, val_NAME.
function M.val_line(name, r)
    local line = string.format('[val] name "%s" | step %d | epoch %d | loss %s | lr %s | num_label_tokens %d',
        name, r.step, r.epoch, fixed(r.val_loss, 4), scientific(r.lr), r.num_label_tokens)
    for _, key in ipairs(strings.sorted_keys(r)) do
        local metric = key ~= "val_loss" and key:match("^val_(.+)$")
        if metric then
            line = string.format("%s | %s %s", line, metric, fixed(r[key], 4))
        end
    end
    return line
end

return M
