-- Files of the tests: goldens, temporary folders, and SmolLM2-135M-Instruct when this machine has it.

local json = require("am.utils.json")
local path = require("am.utils.path")

local M = {}

local GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

--- The value of a committed JSON file.
function M.json(file)
    return assert(json.decode(assert(path.read_file(file))))
end

--- The GGUF file that the goldens of SmolLM2 were made from: $AMLUA_TEST_MODEL, which tests/run.sh
--- sets, or where examples/smollm2.sh keeps it. Without it nil and the reason.
function M.smollm2()
    local given = os.getenv("AMLUA_TEST_MODEL")
    local cache = os.getenv("AMLUA_CACHE")
        or (os.getenv("XDG_CACHE_HOME") or (os.getenv("HOME") or "") .. "/.cache") .. "/amlua"
    local file = given and given ~= "" and given or path.join(cache, GGUF)
    if path.is_file(file) then
        return file
    end
    return nil, "no SmolLM2-135M-Instruct: examples/smollm2.sh --gguf fetches it"
end

--- A Python with torch, transformers and PEFT, from $AMLUA_ORACLE_PYTHON; or nil and the reason.
function M.oracle_python()
    local python = os.getenv("AMLUA_ORACLE_PYTHON")
    if python and python ~= "" then
        return python
    end
    return nil, "AMLUA_ORACLE_PYTHON names no Python with transformers and PEFT"
end

local root = path.is_dir("/dev/shm") and "/dev/shm" or "/tmp" -- syncing costs nothing in memory

--- fn(dir) with a temporary folder that goes away afterwards, also when fn fails.
function M.with_folder(fn)
    local dir = path.mkdir_p(path.unique(root .. "/amlua-test"))
    local ok, e = pcall(fn, dir)
    path.remove_tree(dir)
    if not ok then
        error(e, 0)
    end
end

--- Run a shell command; its exit status and what it wrote.
function M.run(command)
    local pipe = assert(io.popen("(" .. command .. ") 2>&1; echo \"exit $?\""))
    local text = pipe:read("*a")
    pipe:close()
    local output, status = text:match("^(.*)exit (%d+)\n$")
    return tonumber(status), output
end

return M
