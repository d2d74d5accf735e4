-- What LoRA over weights in few bits costs in time: steps of a configuration with `quantization` and without it, in
-- turns in one process, so that both have the machine as it is.
--
--   amlua tests/bench/qlora_pairs.lua CONFIG [PAIRS] [SEQ_LEN]      7 pairs, rows of 512 tokens
--
-- Rows are random ids; a pair before those that count is left out. Prints tokens a second of both (medians), and the
-- median, the least and the most of the pairs' ratios.

local benchmark = require("recipes.benchmark")

local Recipe = benchmark:extend("benchmark")
local file, count, length = arg[1], tonumber(arg[2] or 7), tonumber(arg[3] or 512)
assert(file, "usage: amlua tests/bench/qlora_pairs.lua CONFIG [PAIRS] [SEQ_LEN]")

function Recipe.step_count() return count + 1 end

local function set_up(few)
    local recipe = Recipe.new(file)
    recipe.cfg:set("benchmark.seq_len", length)
    if not few then
        recipe.cfg:unset("quantization")
    end
    recipe:setup()
    return recipe
end

local function median(list)
    table.sort(list)
    return (list[math.ceil(#list / 2)] + list[math.ceil((#list + 1) / 2)]) / 2
end

local plain, few = set_up(false), set_up(true)
local seconds, ratios = { plain = {}, few = {} }, {}
for i = 0, count do
    local first = i % 2 == 0
    local a = first and plain:step().seconds
    local b = few:step().seconds
    a = a or plain:step().seconds
    if i > 0 then
        seconds.plain[i], seconds.few[i], ratios[i] = a, b, a / b
    end
end
local tokens = plain:batch_rows() * length
print(("LoRA %.1f tokens/s; in few bits %.1f; of %d pairs the ratio is %.3f (median), %.3f to %.3f"):format(
    tokens / median(seconds.plain), tokens / median(seconds.few), count, median(ratios), ratios[1], ratios[count]))
