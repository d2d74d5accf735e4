-- What the fuzzers of Lua code do with an input: functions of a text, under the fuzzer's name. They
-- return when the text is read, or refused by an error object, and raise what is a finding.

local chat = require("am.chat")
local config = require("am.config")
local err = require("am.core.error")
local pretokenized = require("am.datasets.pretokenized")
local rows = require("am.datasets.json_rows")

-- The result of fn(...), or nil when it was refused.
local function try(fn, ...)
    local args, n = { ... }, select("#", ...)
    local ok, result = xpcall(function() return fn(unpack(args, 1, n)) end, function(e)
        return err.is(e) and e or debug.traceback(tostring(e))
    end)
    if not ok and not err.is(result) then
        error(result, 0)
    end
    return ok and result or nil
end

local function getenv(name)
    return name == "HOME" and "/folder" or nil
end

local M = {}

--- What is read prints as text that is read again and prints the same.
function M.yaml(text)
    local node = try(config.parse, text, { getenv = getenv })
    if node then
        local printed = config.print(node)
        local again = config.parse(printed, { getenv = getenv, name = "printed" })
        assert(config.print(again) == printed, printed)
    end
end

local name = os.tmpname()

--- Every row is an object or an error.
function M.jsonl(text)
    local file = assert(io.open(name, "wb"))
    file:write(text)
    file:close()
    local source = try(rows.open, name)
    if source then
        for i = 1, source:len() do
            try(source.get, source, i)
        end
        source:close()
    end
    local dataset = try(pretokenized.PretokenizedDataset, { path_or_dataset_id = name, vocab_size = 100 })
    for i = 1, dataset and dataset:len() or 0 do
        try(dataset.get, dataset, i)
    end
end

--- Two renderings of one template are the same. What follows a NUL is what the user says.
function M.template(text)
    local source, said = text:match("^(%Z*)%z?(.*)$")
    local template = try(chat.compile, source, { steps = 20000, output = 1000000, now = 0 })
    local function render()
        return template:render {
            messages = { { role = "system", content = "Be brief." }, { role = "user", content = said },
                         { role = "assistant", content = "Yes." } },
            tools = { { type = "function", ["function"] = { name = "f", parameters = {} } } },
            add_generation_prompt = true, bos_token = "<s>", eos_token = "</s>",
        }
    end
    local out = template and try(render)
    assert(out == (template and try(render)))
end

for reader, read in pairs(M) do
    M[reader] = function(text)
        local ok, e = pcall(read, text)
        if not ok then
            error(tostring(e), 0) -- C prints it
        end
    end
end

return M
