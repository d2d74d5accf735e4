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
local MAX_LINE_BYTES = 4096
local MAX_BYTES = 262144 -- that are read, from the end: 2000 lines of 128 bytes
local MAX_DAMAGED = 99

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

-- The file's last bytes, from the beginning of a line on, and whether there are more before them; nil
-- and what is wrong with it.
local function read_end(name, size)
    local file, why = posix.open(name, "read")
    if not file then
        return nil, why
    end
    local first = math.max(0, size - MAX_BYTES)
    local text, wrong = posix.read_at(file, first, MAX_BYTES)
    posix.close(file)
    return text and first > 0 and text:gsub("^[^\n]*\n", "", 1) or text, wrong or first > 0
end

-- Text with one line an entry, or nil and what is wrong with it.
local function parse(text)
    if text:find("%z") then
        return nil, "it holds bytes that no line has"
    end
    text = text:match("^(.*\n)") or "" -- without a last write that was cut off
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

-- true, or nil and why not.
local function append(name, text)
    local file, why = posix.open(name, "append")
    if not file then
        return nil, why
    end
    local ok
    ok, why = posix.write(file, text)
    posix.close(file)
    return ok, why
end

-- Keep the newest lines only; a crash leaves the old file.
local function shorten(self)
    local lines = {}
    for i = math.max(1, #self.lines - M.MAX_LINES + 1), #self.lines do
        lines[#lines + 1] = self.lines[i]
    end
    self.lines = lines
    local short = path.unique(self.path)
    if posix.create_private(short) and append(short, table.concat(lines, "\n") .. "\n") then
        posix.rename(short, self.path)
    end
end

-- Give a file that cannot be used another name that is not taken; that name, or nil.
local function set_aside(file)
    for i = 0, MAX_DAMAGED do
        local name = file .. ".damaged" .. (i > 0 and "." .. i or "")
        if not posix.stat(name, true) then
            return posix.rename(file, name) and name or nil
        end
    end
end

local function load(self)
    local st = posix.stat(self.path)
    if not st then
        return
    elseif st.type ~= "file" then -- opening a pipe or a terminal would wait for ever
        self.warn(string.format("history is not saved: %s is no regular file", self.path))
        self.path = nil
        return
    end
    local text, more = read_end(self.path, st.size)
    local why = not text and more or nil
    if text then
        self.lines, why = parse(text)
    end
    if why then
        self.lines = {}
        local name = set_aside(self.path)
        self.warn(string.format("%s cannot be used as history (%s)%s", self.path, why,
                                name and " and is now " .. path.basename(name) or ""))
        return
    end
    self.torn = text ~= "" and text:sub(-1) ~= "\n"
    if more or #self.lines > M.MAX_LINES then
        self.torn = not pcall(shorten, self) and self.torn
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

-- Write a line to the file, which may have gone; true, or nil and why not.
local function save(self, line)
    local st = posix.stat(self.path)
    if not st then
        local ok, why = create(self.path)
        if not ok then
            return nil, why
        end
    elseif st.type ~= "file" then
        return nil, self.path .. " is no regular file"
    end
    local text = (self.torn and "\n" or "") .. line .. "\n"
    self.torn = false
    return append(self.path, text)
end

--- Remember a line, unless it is blank, begins with a space or repeats the one before.
function History:add(line)
    if line:find("^%s") or line == "" or line == self.lines[#self.lines] or #line > MAX_LINE_BYTES
        or line:find("%z") then
        return false
    end
    self.lines[#self.lines + 1] = line
    if self.path then
        local ok, why = save(self, line)
        if not ok then
            self.warn("history is not saved: " .. why)
            self.path = nil
        end
    end
    return true
end

return M
