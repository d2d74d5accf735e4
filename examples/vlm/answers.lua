-- What a model of pictures and text answers to the first question of each row of a file that make_conversation_dataset
-- or make_cord_v2_dataset reads, with the answer that was expected.
--
--   amlua examples/vlm/answers.lua --model DIR [--adapter DIR] --rows FILE --output FILE [--max-new-tokens 32]
--
-- Writes a JSON object {"expected": …, "answer": …} a line.

local am = require("am")
local json = require("am.utils.json")
local options = require("am.cli.options")
local path = require("am.utils.path")

local args = options.parse(arg, "amlua examples/vlm/answers.lua --model DIR --rows FILE --output FILE", {
    { "model", required = true, doc = "directory" },
    { "adapter", doc = "directory of a LoRA adapter that goes on it" },
    { "rows", required = true, doc = "file of conversations, or of receipts (with ground_truth)" },
    { "output", required = true, doc = "file to write" },
    { "prompt", default = "Describe this image.", doc = "of receipts; conversations have their own" },
    { "limit", type = "integer", min = 1, doc = "of rows" },
    { "max-new-tokens", type = "integer", min = 1, default = 32, doc = "of an answer" },
})
if not args then
    return
end

local rows = require("examples.vlm.rows").rows(args.rows, args.limit, args.prompt)
local processor = am.AutoProcessor.from_pretrained(args.model)
local model = am.AutoModelForImageTextToText.from_pretrained(args.model, { torch_dtype = "bfloat16" })
if args.adapter then
    am.peft.load_adapter(model, args.adapter)
end

local function answer(row)
    local plans = {}
    for i, source in ipairs(row.images) do
        plans[i] = processor:plan(source)
    end
    local prompt = processor:render({ row.conversation[1] }, plans, { add_generation_prompt = true }).input_ids
    local all = model:generate(prompt, {
        max_new_tokens = args.max_new_tokens,
        inputs = processor.to_tensors(processor:collect(processor:submit(plans)), model:device()),
    })
    return processor.tokenizer:decode({ unpack(all, #prompt + 1) }, { skip_special_tokens = true })
end

local function text_of(message)
    local parts = {}
    for i, part in ipairs(type(message.content) == "table" and message.content or { { text = message.content } }) do
        parts[i] = part.text or ""
    end
    return table.concat(parts)
end

local lines = {}
for i = 1, rows:len() do
    local row = rows:get(i)
    lines[i] = json.encode({ expected = text_of(row.conversation[2]), answer = am.scope(answer, row) },
                           { sort_keys = true }) .. "\n"
end
path.write_file(args.output, table.concat(lines))
