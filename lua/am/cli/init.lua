-- The command line of amlua: run a script, a piece of code, or the prompt (repl.lua). Errors end here:
-- error objects print as one message, usage errors with status 2, others with 1.

local err = require("am.core.error")

local M = {}

local usage = [[
usage: amlua [--threads N] SCRIPT [ARGS]    run a Lua script or a recipe
       amlua [--threads N] -e CODE          run Lua code
       amlua                                start the prompt, or run lines from a pipe
       amlua -i SCRIPT [ARGS]               run a script, then start the prompt
       amlua --version | --info | --help    --info: what a bug report needs

A recipe takes a configuration and overrides; a configuration with a key `recipe` finds its own:
       amlua recipes/llm_finetune.lua config.yaml --optimizer.lr 1e-4
       amlua config.yaml --optimizer.lr 1e-4
       amlua finetune|pretrain|kd|benchmark llm|vlm -c config.yaml --optimizer.lr 1e-4

Several processes on this host, by mpirun; --print-launch only says how:
       amlua --nproc-per-node N [--print-launch] SCRIPT [ARGS]
       amlua config.yaml --nproc-per-node N [--print-launch]
]]

local home = _G._AMLUA_HOME
_G._AMLUA_HOME = nil

--- The folder with lua/, recipes/ and examples/; nil when Lua was not started by amlua.
M.home = home

-- The current folder is no place for modules: a yaml.lua that lies there would be run.
local function without_current_folder(list)
    local kept = {}
    for entry in list:gmatch("[^;]+") do
        if entry:sub(1, 2) ~= "./" then
            kept[#kept + 1] = entry
        end
    end
    return table.concat(kept, ";")
end

if home then
    package.path = without_current_folder(package.path) .. ";" .. home .. "/?.lua" -- recipes.*
    package.cpath = without_current_folder(package.cpath)
end

-- ---- errors ---------------------------------------------------------------------------------

local function handler(e)
    if err.is(e) then
        return e
    end
    return debug.traceback(tostring(e), 2)
end

--- Print an error as it should look and return the exit status.
function M.report(e)
    io.stdout:flush()
    io.stderr:write("amlua: ", tostring(e), "\n")
    if err.is(e) then
        return e.code == "usage" and 2 or e.code == "interrupted" and 130 or 1
    end
    return 1
end

local function guarded(fn, ...)
    local args, n = { ... }, select("#", ...)
    local ok, status = xpcall(function() return fn(unpack(args, 1, n)) end, handler)
    if not ok then
        return M.report(status)
    end
    return type(status) == "number" and status or 0
end

-- ---- scripts --------------------------------------------------------------------------------

-- A script's path: as given, else among the installed ones.
local function find_script(name)
    for _, file in ipairs { name, home and home .. "/" .. name } do
        local f = io.open(file, "r")
        if f then
            f:close()
            return file
        end
    end
    err.raise("usage", "there is no script %s", name)
end

-- A script that returns a table with `main` is a recipe: main(args) is called. args[0] is the script,
-- `globals` its globals.
local function run_script(name, args, globals)
    local file = find_script(name)
    local chunk, message = loadfile(file)
    if not chunk then
        err.raise("usage", "%s", message)
    end
    local folder = file:match("^(.*)/[^/]*$") or "."
    package.path = package.path .. ";" .. folder .. "/?.lua" -- behind ours: it replaces none of them
    args[0] = file
    globals.arg = args
    local result = setfenv(chunk, globals)(unpack(args))
    if type(result) == "table" and result.main then
        return result.main(args)
    end
    return result
end

local function run_code(code, args)
    local chunk, message = loadstring(code, "=(command line)")
    if not chunk then
        err.raise("usage", "%s", message)
    end
    args[0] = "-e"
    _G.arg, _G.am = args, require("am")
    chunk(unpack(args))
    return 0
end

-- ---- arguments ------------------------------------------------------------------------------

--- Threads to run with, from the command line's word. More than there are CPUs would only wait for one
--- another: as many as there are then, and a warning, since weights' gradients may round otherwise.
function M.set_threads(text)
    local edge = require("am.core.ffi")
    local n = tonumber(text)
    if not n or n ~= math.floor(n) or n < 1 or n > 1024 then
        err.raise("usage", "--threads needs a whole number from 1 to 1024, not %s",
                  text and '"' .. text .. '"' or "nothing")
    end
    local cpus = require("am.core.host").cpus()
    if n > cpus then
        local s = cpus == 1 and "" or "s"
        require("am.utils.log").get("am.cli"):warning(
            "--threads %d: this process has %d CPU%s; running with %d thread%s", n, cpus, s, cpus, s)
        n = cpus
    end
    edge.check(edge.C.am_threads_set(n))
end

-- Start a script in several processes of this program, or print how.
local function launch(words, options)
    if not words[1] then
        err.raise("usage", "--nproc-per-node needs a script or a configuration")
    end
    local here = require("am.launcher.local")
    local own = { require("am.utils.processes").program() }
    if options.threads then
        own[2], own[3] = "--threads", options.threads
    end
    for _, word in ipairs(words) do
        own[#own + 1] = word
    end
    local plan = here.plan { words = own, ranks = require("am.recipes.launch").ranks(options) or 1,
                             threads = tonumber(options.threads) }
    if options["print-launch"] then
        print(here.text(plan))
        return 0
    end
    return here.run(plan)
end

local own_options = { threads = true, ["nproc-per-node"] = true, ["print-launch"] = "flag" }

-- The program's own options, which stand before all else, and the words behind them.
local function take_options(args)
    local options, i = {}, 1
    while args[i] do
        local name, value = args[i]:match("^%-%-([^=]+)=?(.*)$")
        name = name and name:gsub("_", "-")
        if not own_options[name or ""] then
            break
        end
        if own_options[name] == "flag" then
            options[name] = true
        elseif args[i]:find("=", 1, true) then
            options[name] = value
        else
            i = i + 1
            if name == "threads" and args[i] == nil then
                M.set_threads(nil) -- says what is missing
            end
            options[name] = args[i] or ""
        end
        i = i + 1
    end
    return options, { unpack(args, i) }
end

-- Whether words leave it to a configuration which script is run: `config.yaml`, `-c FILE`, `finetune llm`.
local function leaves_script_open(words)
    local first, second = words[1] or "", words[2]
    return first:find("%.ya?ml$") or first == "-c" or first:find("^%-%-config") ~= nil
        or (second == "llm" or second == "vlm") and require("am.recipes.command").is_command(words)
end

local function dispatch(args)
    local options
    options, args = take_options(args)
    if leaves_script_open(args) then
        for name, value in pairs(options) do -- the recipe's, too
            args[#args + 1] = "--" .. name .. (value ~= true and "=" .. value or "")
        end
        local script, words = require("am.recipes.command").resolve(args)
        return run_script(script, words, _G)
    elseif options["nproc-per-node"] or options["print-launch"] then
        return launch(args, options)
    elseif options.threads then
        M.set_threads(options.threads)
    end
    local first, rest = args[1], { unpack(args, 2) }
    if first == nil then
        return require("am.cli.repl").run()
    elseif first == "--version" then
        print("amlua " .. require("am").version)
        return 0
    elseif first == "--info" then
        print(require("am.cli.info").text())
        return 0
    elseif first == "--help" or first == "-h" then
        io.write(usage)
        return 0
    elseif first == "-i" then
        local script = rest[1] or err.raise("usage", "-i needs a script")
        return require("am.cli.repl").run {
            first = function(globals)
                local result = run_script(script, { unpack(rest, 2) }, globals)
                if result ~= nil then
                    return result
                end
            end,
        }
    elseif first == "-e" then
        return run_code(rest[1] or err.raise("usage", "-e needs a piece of code"), { unpack(rest, 2) })
    elseif first:sub(1, 1) == "-" then
        err.raise("usage", "unknown option %s\n%s", first, usage)
    end
    return run_script(first, rest, _G)
end

--- Called by the host with the command line's words; returns the exit status.
function M.main(_, ...)
    return guarded(dispatch, { ... })
end

return M
