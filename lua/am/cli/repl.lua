-- The prompt: reads a line or as many as a statement needs, runs it, prints what it gives. How values
-- look is show.lua's, what Tab offers complete.lua's, what lines are remembered history.lua's; lines
-- come from the host's editor (engine/host.c) on a terminal and from plain reading elsewhere.
--
-- Ctrl-C: ops, backward and the data loader raise "interrupted" by themselves; for loops without any
-- of them a hook looks every thousand instructions. Compiled loops run no hooks, so what is typed here
-- is never compiled.

local edge = require("am.core.ffi")
local err = require("am.core.error")
local posix = require("am.utils.posix")
local show = require("am.cli.show")

local C = edge.C
local M = {}

local SIGTERM = 15
local CHUNK = "=prompt"

-- ---- running a chunk ------------------------------------------------------------------------

-- The engine's own Lua is left to end what it began (a scope, a recording); its callers and its ops
-- are interrupted. One that catches the error gets it again, later, so that it can clean up; the
-- number of instructions between two looks varies, or a loop of that length would be met at the same
-- place, inside its pcall, for ever.
local function watch_interrupts()
    local patience, interval = 0, 1000
    local function look()
        patience, interval = patience - 1, 500 + (interval * 229 + 77) % 1009
        debug.sethook(look, "", interval)
        if patience < 0 and not debug.getinfo(2, "S").source:find("/am/core/", 1, true) then
            local rc = C.am_signals_check()
            if rc ~= 0 then
                patience = 100
                error(edge.error(rc), 0)
            end
        end
    end
    debug.sethook(look, "", interval)
end

-- The part of a traceback that is the user's: nothing for what was typed itself.
local function traceback(e)
    if type(e) ~= "string" then
        return e
    end
    local lines, kept = {}, 0
    for line in debug.traceback("", 2):gmatch("\n(\t[^\n]*)") do
        if line:find("[C]: in function 'xpcall'", 1, true) then
            break
        end
        lines[#lines + 1] = line
        kept = (line:find("^\tprompt:") or line:find("^\t%[")) and kept or #lines -- "[C]:", "[builtin#19]:"
    end
    if kept == 0 then
        return e
    end
    return e .. "\nstack traceback:\n" .. table.concat(lines, "\n")
end

-- Scopes and grad mode as they were: an error inside a coroutine leaves its scopes open.
local function restore(scopes, grad_mode)
    while C.am_scope_depth() > scopes do
        C.am_scope_pop()
    end
    C.am_grad_mode_set(grad_mode)
end

local function pack(...)
    return { n = select("#", ...), ... }
end

-- Run fn; true and its results packed, or false and the error. Ctrl-C raises "interrupted" in it.
local function run(self, fn)
    local scopes, grad_mode = C.am_scope_depth(), C.am_grad_mode()
    C.am_signals_clear()
    if self.interactive then
        edge.check(C.am_signals_watch(C.AM_SIGNALS_INTERRUPT))
        watch_interrupts()
    end
    local results = pack(xpcall(fn, traceback))
    debug.sethook()
    self.terminated = C.am_signals_pending() == SIGTERM
    C.am_signals_clear()
    if not results[1] then
        restore(scopes, grad_mode)
    end
    return table.remove(results, 1), results
end

-- ---- printing -------------------------------------------------------------------------------

local function print_error(e)
    local ok, text = pcall(tostring, e)
    io.stdout:flush()
    io.stderr:write(ok and text or "an error that cannot be printed", "\n")
end

local function print_results(results)
    local texts, separator = {}, "\t"
    for i = 1, results.n - 1 do
        texts[i] = show.value(results[i])
        separator = texts[i]:find("\n", 1, true) and "\n" or separator
    end
    io.stdout:write(table.concat(texts, separator), "\n")
end

-- Run a chunk and print what it returns, or why it failed. The first value stays in `_`.
local function execute(self, chunk)
    local ok, results = run(self, chunk)
    if ok and results.n > 1 then
        if results[1] ~= nil then
            _G._ = results[1]
        end
        ok, results = pcall(print_results, results)
    end
    if not ok then
        self.failed = true
        print_error(results[1] or results)
    end
    io.stdout:flush()
end

-- ---- reading --------------------------------------------------------------------------------

-- An expression or statements as a function. For text that is not complete: nil, message, true.
local function compile(text)
    local chunk = loadstring("return " .. text:gsub("^%s*=", ""), CHUNK)
    if chunk then
        return chunk
    end
    local message
    chunk, message = loadstring(text, CHUNK)
    local more = message and message:find("near '<eof>'$") and not message:find("unfinished string", 1, true)
        and not message:find("'=' expected", 1, true)
    return chunk, message, more
end

-- The next chunk to run; nil at the end of the input.
local function read_chunk(self)
    local text
    while true do
        local line = self.read(text and ">> " or "> ")
        if line == nil and not text then
            return nil
        elseif line == false then -- cancelled by Ctrl-C
            text = nil
        else
            text = line and text and text .. "\n" .. line or text or line
            local chunk, message, more = compile(text)
            if chunk then
                jit.off(chunk, true)
                return chunk
            elseif not more or line == nil then
                return function() err.raise("usage", "%s", message) end
            end
        end
    end
end

-- Lines as they come; a prompt only where somebody sees it. Signals have their usual effect here.
local function plain_reader(interactive)
    return function(prompt)
        if interactive then
            C.am_signals_watch(C.AM_SIGNALS_OFF)
            io.stdout:write(prompt)
            io.stdout:flush()
        end
        return io.read("*l")
    end
end

-- The host's editor with completion and history; nil where there is none.
local function editing_reader()
    local term = os.getenv("TERM") or "dumb"
    local editor = package.preload["am.cli.editor"] and term ~= "dumb" and require("am.cli.editor")
    if not editor or not editor.open(function(text) return require("am.cli.complete").complete(text) end) then
        return nil
    end
    local history = require("am.cli.history").open(function(text) io.stderr:write("amlua: ", text, "\n") end)
    for _, line in ipairs(history.lines) do
        editor.remember(line)
    end
    return function(prompt)
        local line = editor.read(prompt)
        if line and history:add(line) then
            editor.remember(line)
        end
        return line
    end
end

-- ---- the loop -------------------------------------------------------------------------------

--- Read and run until the input ends; returns the exit status. opts.first: a function to run before
--- the first prompt, like what is typed.
function M.run(opts)
    local am = require("am")
    local self = { interactive = posix.isatty(io.stdin) and posix.isatty(io.stdout) }
    _G.am = am
    _G.help = function(x) io.stdout:write(require("am.cli.help").text(x), "\n") end
    self.read = self.interactive and editing_reader() or plain_reader(self.interactive)
    if self.interactive then
        io.stdout:write("amlua ", am.version, ": `am` is loaded, help() helps, Ctrl-D leaves\n")
    end
    if opts and opts.first then
        execute(self, opts.first)
    end
    while not self.terminated do
        local chunk = read_chunk(self)
        if not chunk then
            if self.interactive then
                io.stdout:write("\n")
            end
            return (self.failed and not self.interactive) and 1 or 0
        end
        execute(self, chunk)
        chunk = nil -- luacheck: ignore 311 (it may hold tensors)
        collectgarbage() -- shells are small, what they hold is not: the collector would take its time
    end
    err.raise("interrupted", "ended by SIGTERM")
end

return M
