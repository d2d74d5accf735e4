-- The prompt: reads a line or as many as a statement needs, runs it, prints what it gives. How values
-- look is show.lua's, what Tab offers complete.lua's, what lines are remembered history.lua's, which
-- globals typed code has globals.lua's; lines come from the host's editor (engine/host.c) on a terminal
-- and from plain reading elsewhere.
--
-- Ctrl-C: ops, backward and the data loader raise "interrupted" by themselves; for loops without any
-- of them a hook looks every thousand instructions. Compiled loops run no hooks, so what is typed here
-- is never compiled.
--
-- Out of memory: the host keeps a reserve in slices. One is let go whenever Lua says that memory is
-- out, so that there is enough to print that and to read and run a line that frees some.

local edge = require("am.core.ffi")
local err = require("am.core.error")
local globals = require("am.cli.globals")
local posix = require("am.utils.posix")
local show = require("am.cli.show")

local C = edge.C
local M = {}

local SIGTERM = 15
local CHUNK = "=prompt"
local OUT_OF_MEMORY = "not enough memory" -- LuaJIT's words

-- fill(), release(), wait(): see engine/host.c. The prompt is started by nothing else.
local host = require("am.cli.host")

-- ---- running a chunk ------------------------------------------------------------------------

-- Files of amlua's that are left to end what they began: a scope, a recording, the owner of a tensor
-- that was just made.
local protected = { apply = true, autograd = true, ffi = true, io = true, model_ops = true, ops = true,
                    scope = true, tensor = true }

local function is_protected(source)
    return protected[source:match("/am/core/([%w_]+)%.lua$") or ""] or source:find("/am/cli/repl.lua", 1, true)
end

-- Code that catches the error is given some 100,000 instructions to clean up. When it goes on even then,
-- every single instruction raises: the first one behind its pcall ends it.
local function watch_interrupts()
    local caught, patience = false, 0
    local function look()
        patience = patience - 1
        if patience < 0 then
            local rc = C.am_signals_check()
            if rc ~= 0 and not is_protected(debug.getinfo(2, "S").source) then
                if caught then
                    debug.sethook(look, "", 1)
                else
                    caught, patience = true, 100
                end
                error(edge.error(rc), 0)
            end
        end
    end
    debug.sethook(look, "", 1000)
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

-- Make room when this is Lua's error of having none; true when it is and there was some to make.
local function make_room(e)
    return e == OUT_OF_MEMORY and host.release()
end

-- Behind xpcall: nothing is allocated before there is room.
local function after(scopes, grad_mode, self, ok, ...)
    debug.sethook()
    if not ok then
        make_room((...))
        restore(scopes, grad_mode)
    end
    self.terminated = C.am_signals_pending() == SIGTERM
    C.am_signals_clear()
    return ok, pack(...)
end

-- Run fn; true and its results packed, or false and the error, packed. Ctrl-C raises "interrupted" in it.
local function run(self, fn)
    local scopes, grad_mode = C.am_scope_depth(), C.am_grad_mode()
    C.am_signals_clear()
    if self.interactive then
        edge.check(C.am_signals_watch(C.AM_SIGNALS_INTERRUPT))
        watch_interrupts()
    end
    return after(scopes, grad_mode, self, xpcall(fn, traceback))
end

-- ---- printing -------------------------------------------------------------------------------

-- Errors that say what they are do so; others are shown as any value.
local function error_text(e)
    local meta = debug.getmetatable(e)
    if type(e) ~= "table" or (type(meta) == "table" and rawget(meta, "__tostring")) then
        return tostring(e)
    end
    return show.value(e)
end

local function print_error(e)
    local ok, text = pcall(error_text, e)
    io.stdout:flush()
    io.stderr:write(ok and text or "an error that cannot be printed", "\n")
end

local function print_results(self, results)
    if results[1] ~= nil then
        rawset(self.globals, "_", results[1])
    end
    local texts, separator = {}, "\t"
    for i = 1, results.n do
        texts[i] = show.value(results[i])
        separator = texts[i]:find("\n", 1, true) and "\n" or separator
    end
    io.stdout:write(table.concat(texts, separator), "\n")
end

-- Run a chunk and print what it returns, or why it failed. The first value stays in `_`.
local function execute(self, chunk)
    local ok, results = run(self, chunk)
    local e = not ok and results[1]
    if ok and results.n > 0 then
        ok, e = pcall(print_results, self, results)
        if not ok then
            make_room(e)
        end
    end
    if not ok then
        self.failed = true
        print_error(e)
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
                return setfenv(chunk, self.globals)
            elseif not more or line == nil then
                return function() err.raise("usage", "%s", message) end
            end
        end
    end
end

-- Lines as they come; a prompt only where somebody sees it. Ctrl-C gives the line up there, as the
-- editor does.
local function plain_reader(self)
    if not self.interactive then
        return function() return io.read("*l") end
    end
    return function(prompt)
        C.am_signals_clear()
        edge.check(C.am_signals_watch(C.AM_SIGNALS_INTERRUPT))
        io.stdout:write(prompt)
        io.stdout:flush()
        host.wait()
        local signal = C.am_signals_pending()
        if signal == SIGTERM then
            self.terminated = true
            return nil
        elseif signal ~= 0 then
            io.stdout:write("\n")
            return false
        end
        return io.read("*l")
    end
end

-- The host's editor with completion and history; nil where there is none.
local function editing_reader(self)
    local term = os.getenv("TERM") or "dumb"
    local editor = package.preload["am.cli.editor"] and term ~= "dumb" and require("am.cli.editor")
    local function complete(text)
        return require("am.cli.complete").complete(text, self.globals)
    end
    if not editor or not editor.open(complete) then
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

-- Read and run once; false when there is nothing more to read.
local function turn(self)
    local chunk = read_chunk(self)
    if chunk then
        execute(self, chunk)
    end
    return chunk ~= nil
end

-- Give back what the last line left, and make up the reserve when there is room again.
local function tidy()
    -- shells are small, what they hold is not: the collector would take its time
    local ok, e = pcall(collectgarbage)
    if not ok and not make_room(e) then -- a finalizer's
        print_error(e)
    end
    host.fill()
end

-- A call that memory may end; its result, or true once there is room again for another try.
local function guarded(fn, self)
    local ok, result = pcall(fn, self)
    if ok then
        return result
    elseif not make_room(result) then
        error(result, 0)
    end
    io.stderr:write(OUT_OF_MEMORY, "\n")
    self.failed = true
    return true
end

--- Read and run until the input ends; returns the exit status. opts.first: a function to run before
--- the first prompt, like what is typed; it is given the globals of what is typed.
function M.run(opts)
    local am = require("am")
    local self = { interactive = posix.isatty(io.stdin) and posix.isatty(io.stdout), globals = globals.new() }
    self.globals.am = am
    self.globals.help = function(x) io.stdout:write(require("am.cli.help").text(x, self.globals), "\n") end
    self.read = self.interactive and editing_reader(self) or plain_reader(self)
    if self.interactive then
        io.stdout:write("amlua ", am.version, ": `am` is loaded, help() helps, Ctrl-D leaves\n")
    end
    tidy()
    if opts and opts.first then
        execute(self, function() return opts.first(self.globals) end)
        guarded(tidy, self)
    end
    while not self.terminated do
        if not guarded(turn, self) and not self.terminated then
            if self.interactive then
                io.stdout:write("\n")
            end
            return (self.failed and not self.interactive) and 1 or 0
        end
        guarded(tidy, self)
    end
    err.raise("interrupted", "ended by SIGTERM")
end

return M
