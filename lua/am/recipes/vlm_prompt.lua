-- A prompt with pictures as a model gets it: ids, and what forward takes beside them. Holds no generation and no
-- rows of data.

local err = require("am.core.error")
local tensor = require("am.core.tensor")
local sources = require("am.datasets.vlm.sources")

local M = {}

--- Sources of pictures (am.datasets.vlm.sources) with what a URL names brought here.
function M.here(list)
    local out = {}
    for i, source in ipairs(list) do
        out[i] = sources.here(source)
    end
    return out
end

--- Sources of pictures by the names of files, addresses or data: URIs; what: how messages call them.
function M.sources(names, what)
    local list = {}
    for i, name in ipairs(names) do
        list[i] = sources.of(name, "", what)
        if list[i].problem then
            err.raise("data", "%s: %s", what, list[i].problem)
        end
    end
    return M.here(list)
end

--- What forward takes beside the ids of a prompt that a processor rendered with these plans, as tensors on the
--- device: what the pictures are, and where text is seen otherwise than in order (Gemma 3, PaliGemma).
function M.inputs(processor, rendered, plans, device)
    local inputs = #plans > 0 and processor.to_tensors(processor:collect(processor:submit(plans)), device) or {}
    if rendered.token_type_ids then
        inputs.token_type_ids = tensor.tensor({ rendered.token_type_ids }, { dtype = "int32", device = device })
    end
    return inputs
end

--- A request's conversation: a user's message of pictures and text, behind the system's, if there is one.
function M.messages(request)
    local content = {}
    for i = 1, #request.images do
        content[i] = { type = "image" }
    end
    content[#content + 1] = { type = "text", text = request.text }
    local list = { { role = "user", content = content } }
    if request.system then
        table.insert(list, 1, { role = "system", content = { { type = "text", text = request.system } } })
    end
    return list
end

--- A request { text, images = sources, system, raw } -> ids, inputs of generate. raw: no chat template, the pictures'
--- markers before the text, unless it has its own.
function M.make(processor, request, device)
    local plans = {}
    for i, source in ipairs(request.images) do
        plans[i] = processor:plan(source)
    end
    if request.raw or not (processor.chat_template or processor.tokenizer.chat_template) then
        local marker = processor.image_token
        local marked = request.text:find(marker, 1, true) and request.text or marker:rep(#plans) .. request.text
        local encoded = processor:encode(marked, plans)
        return encoded.input_ids, M.inputs(processor, encoded, plans, device)
    end
    local rendered = processor:render(M.messages(request), plans, { add_generation_prompt = true })
    return rendered.input_ids, M.inputs(processor, rendered, plans, device)
end

return M
