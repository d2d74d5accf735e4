-- The rows of a configuration's dataset as amlua learns them, as JSON lines { input_ids, labels }, for squad_f1.py.
--   amlua tests/parity/squad_rows.lua CONFIG COUNT
local am = require("am")
local config = require("am.config")
local json = require("am.utils.json")
local targets = require("am.recipes.targets")

local cfg = config.load(arg[1])
local tokenizer = am.AutoTokenizer.from_pretrained(cfg:get("model.pretrained_model_name_or_path"))
local rows = config.instantiate(cfg:child("dataset"), { registry = targets.registry() }, { tokenizer = tokenizer })
for i = 1, math.min(rows:len(), tonumber(arg[2])) do
    local row = rows:get(i)
    print(json.encode { input_ids = json.array(row.input_ids), labels = json.array(row.labels) })
end
