-- Renders jobs for templates_check.py: amlua templates_render.lua JOBS ANSWERS, files of JSON lines.
-- A job is {template, vars, now, turns}; its answer {text, spans}, with `turns` {text, turns} as
-- [first, last, answer] (null where they are not told), or {error, crash}, crash being true for an error
-- that is not one of amlua's.

local chat = require("am.chat")
local err = require("am.core.error")
local json = require("am.utils.json")

local compiled, source = nil, nil

local function turns_of(template, vars)
    local text, turns = template:turns(vars)
    for i, turn in ipairs(turns or {}) do
        turns[i] = json.array { turn[1], turn[2], turn.answer }
    end
    return { text = text, turns = turns and json.array(turns) or json.null }
end

local function answer_to(line)
    local job = chat.from_json(line).map
    if source ~= job.template then
        compiled, source = chat.compile(job.template, { now = job.now }), job.template
    end
    if job.turns then
        return turns_of(compiled, job.vars.map)
    end
    local text, spans = compiled:render(job.vars.map)
    return { text = text, spans = json.array(spans) }
end

local answers = assert(io.open(arg[2], "wb"))
for line in assert(io.open(arg[1], "rb")):lines() do
    local ok, answer = pcall(answer_to, line)
    if not ok then
        answer = { error = tostring(answer), crash = not err.is(answer) }
    end
    answers:write(json.encode(answer), "\n")
end
answers:close()
