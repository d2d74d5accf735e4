-- Lines typed at the prompt, kept over sessions in $XDG_STATE_HOME/amlua/history (by default
-- ~/.local/state/amlua/history), one a line, readable by their owner only. Never ends a session: a file
-- that cannot be used is set aside or left alone, with a warning.
--
--   local history = require("am.cli.history").open(warn)
--   history.lines    the remembered lines, oldest first
--   history:add(line) -> true unless the line is not to be remembered

local path = require("am.utils.path")
local posix = require("am.utils.posix")

local M = {}

M.MAX_LINES = 2000
local MAX_BYTES = 4 * 1048576
local MAX_LINE_BYTES = 4096

local History = {}
History.__index = History

--- The file's name; nil without a home.
function M.file()
    local state, home = os.getenv("XDG_STATE_HOME"), os.getenv("HOME")
    if state and path.is_absolute(state) then
        return path.join(state, "amlua", "history")
    end
    return home and home ~= "" and path.join(home, ".local", "state", "amlua", "history") or nil
end

-- Text with one line an entry, or nil and what is wrong with it.
local function parse(text)
    if text:find("%z") then
        return nil, "it holds bytes that no line has"
    elseif text ~= "" and text:sub(-1) ~= "\n" then
        text = text:match("^(.*\n)") or "" -- the last write was cut off
    end
    local lines = {}
    for line in text:gmatch("([^\n]*)\n") do
        if #line > MAX_LINE_BYTES then
            return nil, "it has a line of " .. #line .. " bytes"
        end
        lines[#lines + 1] = line
    end
    return lines
end

-- An empty file that only its owner can read, with the folders above it.
local function create(file)
    local ok, e = pcall(path.mkdir_p, path.dirname(file))
    if not ok then
        return nil, tostring(e)
    end
    return posix.create_private(file)
end

-- Raises when it cannot.
local function append(name, text)
    local file = assert(posix.open(name, "append"))
    local ok, why = posix.write(file, text)
    posix.close(file)
    assert(ok, why)
end

-- Keep the newest lines only; a crash leaves the old file.
local function shorten(self)
    local lines = {}
    for i = math.max(1, #self.lines - M.MAX_LINES + 1), #self.lines do
        lines[#lines + 1] = self.lines[i]
    end
    self.lines = lines
    local short = path.unique(self.path)
    if posix.create_private(short) then
        append(short, table.concat(lines, "\n") .. "\n")
        path.rename(short, self.path)
    end
end

local function load(self)
    if not path.exists(self.path) then
        return
    end
    local text, why = path.read_file(self.path, MAX_BYTES)
    if text then
        self.lines, why = parse(text)
    end
    if why then
        self.lines = {}
        local ok = posix.rename(self.path, self.path .. ".damaged")
        self.warn(string.format("%s cannot be used as history (%s)%s", self.path, why,
                                ok and " and is now history.damaged" or ""))
    elseif #self.lines > M.MAX_LINES then
        pcall(shorten, self)
    end
end

--- The history of this user; warn(text) is told what goes wrong.
function M.open(warn)
    local self = setmetatable({ path = M.file(), lines = {}, warn = warn }, History)
    if self.path then
        load(self)
    end
    return self
end

--- Remember a line, unless it is blank, begins with a space or repeats the one before.
function History:add(line)
    if line:find("^%s") or line == "" or line == self.lines[#self.lines] or #line > MAX_LINE_BYTES
        or line:find("%z") then
        return false
    end
    self.lines[#self.lines + 1] = line
    if self.path then
        local ok, e = true, nil
        if not path.exists(self.path) then
            ok, e = create(self.path)
        end
        if ok then
            ok, e = pcall(append, self.path, line .. "\n")
        end
        if not ok then
            self.warn(string.format("history is not saved: %s", tostring(e)))
            self.path = nil
        end
    end
    return true
end

return M
