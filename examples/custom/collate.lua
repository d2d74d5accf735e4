-- A collate function of one's own: batches of the last tokens of each row, where the answers stand, so that one
-- long prompt does not make the whole batch long.
--   dataloader:
--     collate_fn:
--       _target_: collate.lua:last_tokens
--       length: 512

local datasets = require("am.datasets")

local M = {}

-- What the section may hold, so that a mistyped key is found before anything is loaded.
M.fields = {
    last_tokens = {
        length = { type = "integer", required = true, min = 1, doc = "tokens that stay" },
        pad_token_id = { type = "integer", default = 0, min = 0, doc = "input id of padding" },
    },
}

--- Called with an array of rows and the section's keys; returns the batch that the recipe hands to the model: see
--- lua/am/datasets/collate.lua.
function M.last_tokens(rows, args)
    local short = {}
    for i, row in ipairs(rows) do
        local n = #row.input_ids
        local first = math.max(1, n - args.length + 1)
        short[i] = { input_ids = { unpack(row.input_ids, first, n) }, labels = { unpack(row.labels, first, n) } }
    end
    return datasets.default_collater(short, { pad_token_id = args.pad_token_id })
end

return M
