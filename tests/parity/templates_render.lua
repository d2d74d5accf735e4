-- Renders jobs for templates_check.py: amlua templates_render.lua JOBS ANSWERS, files of JSON lines.
-- A job is {template, vars, now}; its answer {text, spans} or {error, crash}, crash being true for an
-- error that is not one of amlua's.

local chat = require("am.chat")
local err = require("am.core.error")
local json = require("am.utils.json")

local compiled, source = nil, nil

local function render(line)
    local job = chat.from_json(line).map
    if source ~= job.template then
        compiled, source = chat.compile(job.template, { now = job.now }), job.template
    end
    return compiled:render(job.vars.map)
end

local answers = assert(io.open(arg[2], "wb"))
for line in assert(io.open(arg[1], "rb")):lines() do
    local ok, text, spans = pcall(render, line)
    local answer = ok and { text = text, spans = json.array(spans) }
        or { error = tostring(text), crash = not err.is(text) }
    answers:write(json.encode(answer), "\n")
end
answers:close()
