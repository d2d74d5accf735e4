-- What the model answers to fixed prompts, before training and at every validation: a hook
-- (lua/am/training/hooks.lua). Texts go to the log, to samples.jsonl and to the trackers; what the answers
-- are worth is the reader's to say. Prompts with images are made by vlm_samples.lua.

local autograd = require("am.core.autograd")
local err = require("am.core.error")
local scope = require("am.core.scope")

local M = {}

--- What the `samples` section may hold.
M.fields = {
    prompts = { type = "list", items = { type = "string", required = true }, required = true,
                doc = "texts to answer; a user's message where the tokenizer has a chat template" },
    max_new_tokens = { type = "integer", min = 1, default = 64, doc = "at most so many in an answer" },
    use_chat_template = { type = "boolean", doc = "false: prompts are continued as they are" },
}

local Samples = { name = "samples" }
Samples.__index = Samples

--- A hook over prompts: each { text, ids, room (new tokens at most), row (a row's name) and truth (what it should
--- say) or nil, images (data: URIs) or nil, inputs() -> what forward takes beside the ids, or nil }.
--- log(record, images): takes { step, prompt, text, row, truth }.
function M.hook(prompts, tokenizer, log)
    return setmetatable({ prompts = prompts, tokenizer = tokenizer, log = log }, Samples)
end

--- The positions that are left for an answer to prompt `i`, `wanted` at most. Raises "usage" where there are none.
function M.room(i, ids, limit, wanted)
    if #ids == 0 or #ids >= limit then
        err.raise("usage", "samples.prompts: prompt %d has %d tokens; the model takes 1 to %d", i, #ids, limit - 1)
    end
    return math.min(wanted or M.fields.max_new_tokens.default, limit - #ids)
end

--- A hook over texts; opts: the keys of `fields`. tokenizer: of the model. limit: the positions that it has.
function M.new(opts, tokenizer, limit, log)
    local prompts, chat = {}, opts.use_chat_template
    if chat == nil then
        chat = tokenizer.chat_template ~= nil
    elseif chat and not tokenizer.chat_template then
        err.raise("usage", "samples.use_chat_template: this tokenizer has no chat template")
    end
    for i, prompt in ipairs(opts.prompts) do
        local ids = chat and tokenizer:apply_chat_template({ { role = "user", content = prompt } }, {
            tokenize = true, add_generation_prompt = true,
        }) or tokenizer:encode(prompt)
        prompts[i] = { text = prompt, ids = ids, room = M.room(i, ids, limit, opts.max_new_tokens) }
    end
    return M.hook(prompts, tokenizer, log)
end

-- What the model says to a prompt, greedily.
local function answer(self, model, prompt)
    local opts = { max_new_tokens = prompt.room, inputs = prompt.inputs and prompt.inputs() }
    local out, ids = autograd.no_grad(model.generate, model, prompt.ids, opts), {}
    for i = #prompt.ids + 1, #out do
        ids[#ids + 1] = out[i]
    end
    return self.tokenizer:decode(ids, { skip_special_tokens = true })
end

function Samples:take(recipe, step)
    recipe.model:eval()
    for _, prompt in ipairs(self.prompts) do
        local text = scope.scope(answer, self, recipe.model, prompt)
        self.log({ step = step, prompt = prompt.text, text = text, row = prompt.row, truth = prompt.truth },
                 prompt.images)
    end
end

-- Only a run that begins has something to compare with.
function Samples:setup(recipe)
    if not recipe.restored then
        self:take(recipe, -1)
    end
end

-- Behind the validation sets, and with what they were measured on: averaged weights, if there are some.
function Samples:after_validation(recipe, step)
    if step then -- else validation failed, or is made up for by the run that goes on
        self:take(recipe, step)
    end
end

return M
