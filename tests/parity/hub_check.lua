-- Do huggingface_hub and amlua read the caches that each other wrote? From the project's root, with a Python
-- that has huggingface_hub (2.4.0; older ones, like 0.30.2, read both caches, too, but write no CACHEDIR.TAG and
-- no trees/, which the last checks then say):
--
--   luajit tests/parity/hub_check.lua ~/oracle/bin/python
--
-- A hub on loopback serves a model and a data set. amlua brings them, Python reads them offline; Python brings
-- them, amlua reads them offline; names and links of both caches are the same. Exit status 1 when not.

local digest = require("am.utils.digest")
local hub = require("am.utils.hub")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local environment = require("tests.support.environment")
local hub_server = require("tests.support.hub_server")

local python = assert(arg[1], "usage: luajit tests/parity/hub_check.lua PYTHON")
local MODEL = { "config.json", "model.safetensors", "tokenizer.json" }
local ROWS = { "README.md", "data/test-00000-of-00001.jsonl", "data/train-00000-of-00001.jsonl" }

local server = hub_server.start {
    ["org/tiny"] = { commit = ("a1"):rep(20), lfs = { ["model.safetensors"] = true }, files = {
        ["config.json"] = "{}", ["model.safetensors"] = ("weights "):rep(100000), ["tokenizer.json"] = "{ }" } },
    ["datasets/org/rows"] = { commit = ("b2"):rep(20), files = {
        ["README.md"] = "# Rows", ["data/train-00000-of-00001.jsonl"] = '{"a": 1}\n',
        ["data/test-00000-of-00001.jsonl"] = '{"a": 2}\n' } },
}
local home = os.tmpname()
os.remove(home)
environment.set { HF_ENDPOINT = server.url, HF_HUB_DISABLE_XET = "1", HF_HUB_DISABLE_TELEMETRY = "1", HF_TOKEN = false,
                  HF_HUB_CACHE = false, HF_HUB_OFFLINE = false, http_proxy = false, all_proxy = false,
                  ALL_PROXY = false }

local wrong = 0
local function check(what, ok)
    print((ok and "ok: " or "WRONG: ") .. what)
    wrong = wrong + (ok and 0 or 1)
end

local function run(...)
    local pipe = io.popen(table.concat({ python, "tests/parity/hub_check.py", ... }, " "))
    local out = pipe:read("*a")
    pipe:close()
    return out
end

-- Places and links of a cache, without locks and what is made anew each time.
local function listing(cache)
    local pipe = io.popen("cd " .. cache .. " && find . -name .locks -prune -o ! -type d -print | LC_ALL=C sort")
    local out = {}
    for name in pipe:lines() do
        local file = path.join(cache, name)
        out[#out + 1] = name .. (path.is_link(file) and " -> " .. posix.readlink(file) or "")
    end
    pipe:close()
    return table.concat(out, "\n")
end

local function expected(folder, names)
    local out = {}
    for _, name in ipairs(names) do
        out[#out + 1] = digest.file(path.join(folder, name), "sha256") .. " " .. name .. "\n"
    end
    return table.concat(out)
end

environment.set { HF_HOME = home .. "/lua" }
local folder = hub.resolve("org/tiny")
local train = hub.dataset_files("org/rows")
hub.dataset_files("org/rows", { split = "test" })
environment.set { HF_HUB_OFFLINE = "1" }
check("Python reads the model that amlua brought", run("read org/tiny", unpack(MODEL)) == expected(folder, MODEL))
local rows = path.dirname(path.dirname(train[1]))
check("Python reads the data set that amlua brought",
      run("read datasets/org/rows", unpack(ROWS)) == expected(rows, ROWS))
check("Python finds nothing wrong with amlua's cache", run("scan") == "")

environment.set { HF_HOME = home .. "/python", HF_HUB_OFFLINE = false }
run("download org/tiny datasets/org/rows")
environment.set { HF_HUB_OFFLINE = "1" }
check("amlua reads the model that Python brought", expected(hub.resolve("org/tiny"), MODEL) == expected(folder, MODEL))
local files, info = hub.dataset_files("org/rows")
check("amlua reads the data set that Python brought",
      #files == 1 and info.format == "json" and path.read_file(files[1]) == path.read_file(train[1]))

local lua, theirs = listing(home .. "/lua/hub"), listing(home .. "/python/hub")
check("both caches have the same names and links", lua == theirs)
if lua ~= theirs then
    print(lua .. "\n---\n" .. theirs)
end
server:stop()
path.remove_tree(home)
os.exit(wrong == 0 and 0 or 1)
