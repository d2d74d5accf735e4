-- amlua's side of real_weights.py: REQUEST has a model's path, prompts and how they are tokenized; writes to OUT how
-- amlua tokenizes them, how it goes on, and the text of that.

local am = require("am")
local json = require("am.utils.json")
local path = require("am.utils.path")

local request = json.decode(assert(path.read_file(arg[1], 1e6)))
local model = am.AutoModelForCausalLM.from_pretrained(request.model, { torch_dtype = "float32" })
local tokenizer = am.AutoTokenizer.from_pretrained(request.model)
local rows = json.array {}
for i, prompt in ipairs(request.prompts) do
    -- goes on from the ids that were given, so that a tokenizer's mistake is not taken for the model's
    local ids = request.ids[i]
    local out = model:generate({ unpack(ids) }, { max_new_tokens = request.new, eos_token_id = false })
    local new = json.array { unpack(out, #ids + 1) }
    rows[i] = { ids = json.array(tokenizer:encode(prompt)), new = new, text = tokenizer:decode(new) }
end
path.write_file(arg[2], json.encode(rows))
