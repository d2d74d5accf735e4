-- Rows of pictures for the programs beside this: a file of conversations, or of receipts with ground_truth.

local path = require("am.utils.path")
local vlm = require("am.datasets.vlm")

local M = {}

--- The dataset of a file: its first `limit` rows, all by default. prompt: what receipts are asked.
function M.rows(file, limit, prompt)
    local is_cord = assert(path.read_file(file)):match("^[^\n]*"):find('"ground_truth"', 1, true)
    return (is_cord and vlm.make_cord_v2_dataset or vlm.make_conversation_dataset) {
        path_or_dataset = file, limit_dataset_samples = limit, prompt = is_cord and prompt or nil,
    }
end

return M
