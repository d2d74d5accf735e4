-- A processor for the specs of am.datasets.vlm: it reads the sizes of PNG files, makes a token of each 4 x 4 pixels,
-- writes ChatML, and "prepares" a picture by summing its bytes. Pictures whose last bytes are not a PNG's end are
-- broken when they are decoded, those without a header at once.
local err = require("am.core.error")
local helpers = require("tests.lua.datasets.helpers")

local Processor = {}
Processor.__index = Processor

local M = {}

--- opts: token_types (have token_type_ids), class_name.
function M.new(opts)
    local self = setmetatable(opts or {}, Processor)
    self.tokenizer = helpers.tokenizer { pad_token_id = 7 }
    self.image_token_id = self.tokenizer:id("<|image|>")
    self.special_ids = { [self.image_token_id] = true, [self.tokenizer:id("<|boi|>")] = true,
                         [self.tokenizer:id("<|eoi|>")] = true }
    self.marks = { ["<|start|>"] = true, ["<|end|>"] = true, ["<|sep|>"] = true }
    function self.tokenizer.decode(tokenizer, ids, decode)
        local text = tokenizer.words[ids[1]]
        return decode and decode.skip_special_tokens and self.marks[text] and "" or text
    end
    self.submitted, self.collected = 0, 0
    return self
end

local function bytes_of(source)
    if source.data then
        return source.data
    end
    local file = io.open(source.path, "rb")
    if not file then
        err.raise("io", "%s: no such file", source.path)
    end
    local bytes = file:read("*a")
    file:close()
    return bytes
end

function Processor:plan(source)
    local bytes, name = bytes_of(source), source.path or source.name
    if bytes:sub(1, 4) ~= "\137PNG" then
        err.raise("format", "%s: no picture", name)
    end
    local width, height = bytes:byte(20), bytes:byte(24)
    return { source = source, name = name, n_floats = self.n_floats or 1,
             num_tokens = math.ceil(width / 4) * math.ceil(height / 4) }
end

function Processor:render(messages, plans, opts)
    assert(opts.tokenize and opts.return_dict and opts.return_assistant_tokens_mask)
    self.template = opts.chat_template
    local out, used = { input_ids = {}, assistant_masks = {}, token_type_ids = self.token_types and {} or nil }, 0
    local function add(text, learnt)
        for _, id in ipairs(self.tokenizer:encode(text, {})) do
            local at = #out.input_ids + 1
            out.input_ids[at], out.assistant_masks[at] = id, learnt and 1 or 0
            if self.token_types then
                out.token_type_ids[at] = id == self.image_token_id and 1 or 0
            end
        end
    end
    for _, message in ipairs(messages) do
        local learnt = message.role == "assistant"
        add("<|start|>" .. message.role .. "<|sep|>")
        for _, part in ipairs(message.content) do
            if part.type == "image" then
                used = used + 1
                add("<|boi|>" .. ("<|image|>"):rep(plans[used].num_tokens) .. "<|eoi|>")
            else
                add(part.text, learnt)
            end
        end
        add("<|end|>\n", learnt)
    end
    assert(used == #plans)
    return out
end

function Processor:submit(plans)
    self.submitted = self.submitted + #plans
    return { plans = plans }
end

function Processor:collect(pendings)
    local plans, sums = {}, {}
    for _, pending in ipairs(pendings) do
        for _, plan in ipairs(pending.plans) do
            plans[#plans + 1] = plan
        end
    end
    for i, plan in ipairs(plans) do
        local bytes, sum = bytes_of(plan.source), 0
        if bytes:sub(-8, -5) ~= "IEND" then
            err.raise("format", "%s: the picture is cut off", plan.name)
        end
        for k = 1, #bytes do
            sum = sum + bytes:byte(k)
        end
        sums[i] = sum
    end
    self.collected = self.collected + #plans
    return { pixel_values = sums }
end

return M
