-- Runs processors on the cases of a JSON file, for ../processors_check.py: each case's tensors go to a safetensors
-- file, an error to a text file beside it.
-- usage: luajit tests/parity/processors/run.lua CASES.json
-- A case: { folder, opts, out, saved (where the processor is written to), and text, images, suffix (a call) or
-- messages, chat (apply_chat_template's options) }

local am = require("am")
local json = require("am.utils.json")
local path = require("am.utils.path")

local function run(case)
    local processor = am.AutoProcessor.from_pretrained(case.folder, case.opts)
    processor:save_pretrained(case.saved)
    if case.messages then
        local opts = { tokenize = true, return_dict = true }
        for key, value in pairs(case.chat or {}) do opts[key] = value end
        return processor:apply_chat_template(case.messages, opts)
    end
    return processor { text = case.text, images = case.images, suffix = case.suffix }
end

for _, case in ipairs(assert(json.decode(assert(path.read_file(arg[1]))))) do
    local ok, result = pcall(run, case)
    if ok then
        am.save_safetensors(case.out, result)
    else
        path.write_file(case.out .. ".error", tostring(result))
    end
    collectgarbage()
end
