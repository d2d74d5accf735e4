-- Prompts with pictures for samples.lua's hook: those that the `samples` section lists, and the first rows of a
-- validation set up to their first answer, which is the truth beside what the model says. Pictures go to the report as
-- small JPEG files in data: URIs.

local base64 = require("am.utils.base64")
local err = require("am.core.error")
local image = require("am.core.image")
local log = require("am.utils.log").get("am.recipes")
local samples = require("am.recipes.samples")
local vlm_prompt = require("am.recipes.vlm_prompt")

local M = {}

local SIDE, MOST = 320, 4 -- pixels of a picture in the report, and how many of a prompt's are in it
local ROWS = 4

--- What the `samples` section may hold.
M.fields = {
    prompts = { type = "list", doc = "texts to answer, or sections with a text and its pictures", items = {
        type = "string|table", fields = {
            text = { type = "string", required = true, doc = "what the user says" },
            images = { type = "list|string", items = { type = "string" }, doc = "files or addresses, before the text" },
        } } },
    validation_rows = { type = "integer", min = 0, doc = "so many rows of the first validation set, from its first, "
                        .. "with their pictures (4 where there are no prompts)" },
    max_new_tokens = samples.fields.max_new_tokens,
}

local function thumbnails(sources)
    local list = {}
    for i = 1, math.min(#sources, MOST) do
        list[i] = "data:image/jpeg;base64," .. base64.encode(image.thumbnail(sources[i], SIDE))
    end
    return list
end

-- A conversation's text, without the marks of roles and images.
local function text_of(messages)
    local list = {}
    for _, message in ipairs(messages) do
        for _, part in ipairs(message.content) do
            list[#list + 1] = part.type == "text" and part.text or nil
        end
    end
    return table.concat(list, "\n")
end

-- Messages before the first answer, that answer, and how many pictures these messages have.
local function question_of(conversation)
    local before, count = {}, 0
    for _, message in ipairs(conversation) do
        if message.role == "assistant" then
            return before, text_of { message }, count
        end
        before[#before + 1] = message
        for _, part in ipairs(message.content) do
            count = count + (part.type == "image" and 1 or 0)
        end
    end
end

-- A prompt as samples.hook takes it. run: { processor, device = function, limit, most = new tokens }
local function prompt_of(run, i, text, messages, sources, more)
    local plans = {}
    for k, source in ipairs(vlm_prompt.here(sources)) do
        plans[k] = run.processor:plan(source)
    end
    local rendered = run.processor:render(messages, plans, { add_generation_prompt = true })
    local ids = rendered.input_ids
    local opened = {}
    for k, plan in ipairs(plans) do
        opened[k] = plan.source
    end
    return { text = text, ids = ids, room = samples.room(i, ids, run.limit, run.most), row = more.row,
             truth = more.truth, images = #plans > 0 and thumbnails(opened) or nil,
             inputs = function() return vlm_prompt.inputs(run.processor, rendered, plans, run.device()) end }
end

-- Prompts that the section lists.
local function add_listed(list, run, prompts)
    for i, item in ipairs(prompts) do
        local text = type(item) == "table" and item.text or item
        local names = type(item) == "table" and item.images or {}
        local request = { text = text, images = vlm_prompt.sources(type(names) == "table" and names or { names },
                                                                   "samples.prompts") }
        list[#list + 1] = prompt_of(run, i, text, vlm_prompt.messages(request), request.images, {})
    end
end

-- Rows of a dataset; those whose picture cannot be read are passed over.
local function add_rows(list, run, dataset, count)
    for i = 1, math.min(count, dataset:len()) do
        local example = dataset:example(i)
        local messages, truth, pictures = question_of(example.conversation)
        local ok, prompt = pcall(prompt_of, run, i, text_of(messages), messages,
                                 { unpack(example.images, 1, pictures) },
                                 { row = example.name, truth = truth })
        if ok then
            list[#list + 1] = prompt
        elseif err.is(prompt) and prompt.code ~= "interrupted" and prompt.code ~= "usage" then
            log:warning("samples: %s is left out: %s", example.name, prompt.msg)
        else
            error(prompt, 0)
        end
    end
end

--- A hook. opts: the keys of `fields`. run: { processor, device = function -> where the model is, limit = its
--- positions, dataset = that of a validation set, with example(i), or nil }. log: see samples.hook.
function M.new(opts, run, log_sample)
    local list, rows = {}, opts.validation_rows
    run.most = opts.max_new_tokens
    if rows == nil and not opts.prompts then
        rows = ROWS
    end
    if (rows or 0) > 0 and not run.dataset then
        err.raise("usage", "samples.validation_rows: there is no validation_dataset section; give samples.prompts, or "
                  .. "one")
    end
    add_listed(list, run, opts.prompts or {})
    add_rows(list, run, run.dataset, rows or 0)
    return samples.hook(list, run.processor.tokenizer, log_sample)
end

return M
