-- A dataset of one's own: sums of two numbers, written out and tokenized here.
--   dataset:
--     _target_: dataset.lua:sums
--     count: 200

local M = {}

-- What the section may hold, so that a mistyped key is found before anything is loaded.
M.fields = {
    sums = {
        count = { type = "integer", min = 1, default = 100, doc = "rows" },
        tokenizer = { target = true, default_target = "am.AutoTokenizer.from_pretrained" },
    },
}

local Sums = {}
Sums.__index = Sums

--- Called with the section's keys; the recipe adds `tokenizer`, the model's unless the section has one
--- (and `vocab_size`).
function M.sums(args)
    return setmetatable({ count = args.count, tokenizer = args.tokenizer }, Sums)
end

function Sums:len()
    return self.count
end

--- Row i (from 1): input_ids, and labels shifted by one with -100 where nothing is learnt.
function Sums:get(i)
    local a, b = i % 17, (i * 7) % 23
    local question = string.format("%d + %d =", a, b)
    local ids = self.tokenizer:encode(string.format("%s %d", question, a + b))
    local asked = #self.tokenizer:encode(question)
    local row = { input_ids = {}, labels = {} }
    for t = 1, #ids - 1 do
        row.input_ids[t] = ids[t]
        row.labels[t] = t >= asked and ids[t + 1] or -100
    end
    return row
end

return M
