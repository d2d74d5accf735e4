-- Which part of a rendered conversation the assistant wrote, for templates without {% generation %}
-- blocks. What a message's round of the template's loop writes is that message's (runtime.lua keeps these
-- regions), however the template changes it when more follows; text is never searched for. The header
-- that begins the assistant's turns, "<|im_start|>assistant\n", is the prompt's and not the assistant's:
-- probe conversations, rendered once for a template and its variables, show it.

local printing = require "am.chat.printing"
local values = require "am.chat.values"

local M = {}

-- The bytes that all of the strings begin with.
local function common_prefix(texts)
    local n = #texts[1]
    for i = 2, #texts do
        local other = texts[i]
        local same = 0
        while same < n and same < #other and texts[1]:byte(same + 1) == other:byte(same + 1) do same = same + 1 end
        n = same
    end
    return texts[1]:sub(1, n)
end

-- the regions of a text ---------------------------------------------------------------------------------

-- Regions by message: an array of {first, last} for each that has any, those that touch as one.
local function by_message(regions)
    local out = {}
    for _, region in ipairs(regions) do
        local own = out[region.message] or {}
        out[region.message] = own
        local before = own[#own]
        if before and before[2] + 1 == region.first then
            before[2] = region.last
        else
            own[#own + 1] = { region.first, region.last }
        end
    end
    return out
end

local function last_byte(regions)
    local last = 0
    for _, region in ipairs(regions) do last = math.max(last, region.last) end
    return last
end

-- the header of the assistant's turns -------------------------------------------------------------------

local function message(role, text, as_parts, reasoning)
    local content = text
    if as_parts then
        local part = values.dict()
        values.dict_set(nil, part, "type", "text")
        values.dict_set(nil, part, "text", text)
        content = values.list { part }
    end
    local out = values.dict()
    values.dict_set(nil, out, "role", role)
    values.dict_set(nil, out, "content", content)
    if reasoning then values.dict_set(nil, out, "reasoning_content", reasoning) end
    return out
end

-- The answers begin with different characters, so that a header never seems to reach into them.
local function probe(as_parts, count)
    local all = values.list {
        message("user", "Name a number.", as_parts), message("assistant", "7 is one.", as_parts),
        message("user", "And another.", as_parts), message("assistant", "3 is another.", as_parts),
    }
    for i = count + 1, #all do all[i] = nil end
    return all
end

-- Regions by message for `count` messages; a last one that the loop leaves out is written after the loop.
local function pieces_of(text, regions, count)
    local pieces, last = by_message(regions), last_byte(regions)
    if not pieces[count] and last > 0 and last < #text then pieces[count] = { { last + 1, #text } } end
    return pieces
end

-- What the template appends when it is asked for a prompt.
local function prompt_of(evaluate, question, vars)
    local closed = evaluate(question, vars, false)
    local open, regions = evaluate(question, vars, true)
    if open:sub(1, #closed) == closed then return open:sub(#closed + 1) end
    return open:sub(last_byte(regions) + 1) -- it ends otherwise when it is not asked
end

-- A turn in which the assistant reasons.
local function reasoning_turn(evaluate, vars, as_parts)
    local question = probe(as_parts, 3)
    question[4] = message("assistant", "3 is another.", as_parts, "5 is taken.")
    local text, regions = evaluate(question, vars, false)
    local piece = pieces_of(text, regions, 4)[4]
    return piece and text:sub(piece[1][1], piece[1][2])
end

local function probe_header(evaluate, vars, reads_prompt, as_parts)
    local text, regions = evaluate(probe(as_parts, 4), vars, false)
    local pieces, turns = pieces_of(text, regions, 4), {}
    for i, index in ipairs { 2, 4 } do
        local piece = pieces[index] and pieces[index][1]
        if not piece then return nil end
        turns[i] = text:sub(piece[1], piece[2])
    end
    if reads_prompt then turns[3] = prompt_of(evaluate, probe(as_parts, 3), vars) end
    local ok, turn = pcall(reasoning_turn, evaluate, vars, as_parts)
    if ok and turn then turns[#turns + 1] = turn end
    -- the model opens its reasoning itself, though some prompts already do
    return (common_prefix(turns):gsub("<think>\n?$", ""))
end

--- The header that every turn of the assistant begins with ("" where there is none), nil where the
--- template cannot be probed. `reads_prompt`: whether the template knows add_generation_prompt.
function M.header(evaluate, vars, reads_prompt)
    for _, as_parts in ipairs { false, true } do
        local ok, header = pcall(probe_header, evaluate, vars, reads_prompt, as_parts)
        if ok and header then return header end
    end
end

--- A key of the variables that a header may depend on.
function M.key(vars)
    local parts = {}
    for name, v in pairs(vars) do
        if name ~= "messages" then
            local shown = type(v) == "table" and values.kind(v) or printing.str(nil, v)
            parts[#parts + 1] = name .. "=" .. shown
        end
    end
    table.sort(parts)
    return table.concat(parts, "\n")
end

-- the assistant's turns ---------------------------------------------------------------------------------

--- The turns of the assistant in a text: an array of {first, last, answer =}, answer being the first byte
--- after the header (last + 1 where there is nothing else). Nil when no turn is found.
function M.find(text, regions, messages, header, prompted)
    local own = prompted and by_message(regions) or pieces_of(text, regions, #messages)
    local end_of_loop = last_byte(regions)
    -- what ends the text, the end-of-text token of some templates, ends a last turn too
    local ending = not prompted and (header == "" or text:sub(end_of_loop + 1, end_of_loop + #header) ~= header)
    local turns = {}
    for i, m in ipairs(messages) do
        for number, piece in ipairs(m.map.role == "assistant" and own[i] or {}) do
            local first, last = piece[1], piece[2]
            if ending and i == #messages and last == end_of_loop then last = #text end
            local answer = first
            if number == 1 and text:sub(first, first + #header - 1) == header then answer = first + #header end
            turns[#turns + 1] = { first, last, answer = answer }
        end
    end
    table.sort(turns, function(a, b) return a[1] < b[1] end) -- of several loops over the messages
    return turns[1] and turns or nil
end

return M
