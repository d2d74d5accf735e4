-- A person at a terminal: starts a program behind a pseudo-terminal, types, and waits for what appears.
-- Nothing sleeps: every wait is for text, with a limit that a busy machine does not reach.
--
--   local t = terminal.start({ "amlua" }, { TERM = "xterm" })
--   t:expect("> ")  t:send("1+1\r")  t:expect("2\r\n> ")  t:send("\4")  t:status() -> 0, or 128 + signal

local ffi = require("ffi")

ffi.cdef [[
struct terminal_pollfd { int fd; short events, revents; };
int forkpty(int *master, char *name, const void *termios, const void *size);
int openpty(int *master, int *slave, char *name, const void *termios, const void *size);
int execvp(const char *file, char *const argv[]);
int setenv(const char *name, const char *value, int overwrite);
int poll(struct terminal_pollfd *fds, unsigned long n, int timeout);
long read(int fd, void *buf, size_t n);
long write(int fd, const void *buf, size_t n);
int close(int fd);
int kill(int pid, int sig);
int waitpid(int pid, int *status, int options);
void _exit(int status);
]]

local C = ffi.C
local SIGKILL, POLLIN = 9, 1
local LIMIT = 60 -- seconds

local M = {}
local Terminal = {}
Terminal.__index = Terminal

--- Does this machine have pseudo-terminals? A bare one may be without /dev/pts.
function M.available()
    local master, slave = ffi.new("int[1]"), ffi.new("int[1]")
    if C.openpty(master, slave, nil, nil, nil) ~= 0 then return false end
    C.close(master[0])
    C.close(slave[0])
    return true
end

--- Start a program (words) with variables added to the environment.
function M.start(words, environment)
    local argv, master = ffi.new("const char *[?]", #words + 1), ffi.new("int[1]")
    for i, word in ipairs(words) do
        argv[i - 1] = word
    end
    local pid = C.forkpty(master, nil, nil, ffi.new("unsigned short[4]", 24, 80))
    if pid == 0 then
        for name, value in pairs(environment or {}) do
            C.setenv(name, value, 1)
        end
        C.execvp(words[1], ffi.cast("char *const *", argv))
        C._exit(127)
    end
    assert(pid > 0, "no pseudo-terminal")
    return setmetatable({ pid = pid, fd = master[0], seen = "", all = "" }, Terminal)
end

-- What appears within `timeout` ms is added to `seen`; false at the end of the output.
function Terminal:read(timeout)
    local fds, buffer = ffi.new("struct terminal_pollfd[1]"), ffi.new("char[4096]")
    fds[0].fd, fds[0].events = self.fd, POLLIN
    if C.poll(fds, 1, timeout) <= 0 then
        return true
    end
    local n = tonumber(C.read(self.fd, buffer, 4096))
    if n <= 0 then
        return false
    end
    local text = ffi.string(buffer, n)
    self.seen, self.all = self.seen .. text, self.all .. text
    return true
end

--- Wait until `text` appears behind what was expected before; returns what came in front of it.
function Terminal:expect(text, limit)
    local stop = os.time() + (limit or LIMIT)
    while true do
        local first, last = self.seen:find(text, 1, true)
        if first then
            local before = self.seen:sub(1, first - 1)
            self.seen = self.seen:sub(last + 1)
            return before
        end
        local open = self:read(200)
        if os.time() > stop or not open and not self.seen:find(text, 1, true) then
            error(string.format("%q did not appear; all there was:\n%s", text, self.all), 2)
        end
    end
end

--- Type; "\r" is Enter, "\3" Ctrl-C.
function Terminal:send(text)
    assert(C.write(self.fd, text, #text) == #text)
end

--- Type a line, wait for its echo, then for `answer` and the next prompt.
function Terminal:line(text, answer)
    self:send(text .. "\r")
    self:expect(text:sub(-20) .. "\r\n")
    if answer then
        self:expect(answer)
    end
    return self:expect("> ")
end

--- Wait for the end; the exit status, or 128 + the number of the signal that ended it.
function Terminal:status()
    local stop, status = os.time() + LIMIT, ffi.new("int[1]")
    while self:read(200) do
        if os.time() > stop then
            C.kill(self.pid, SIGKILL)
            error("the program did not end; all there was:\n" .. self.all, 2)
        end
    end
    C.waitpid(self.pid, status, 0)
    C.close(self.fd)
    self.pid = nil
    local signal = bit.band(status[0], 0x7f)
    return signal > 0 and 128 + signal or bit.rshift(status[0], 8)
end

--- End the program if it still runs: for after a test that failed.
function Terminal:kill()
    if self.pid then
        C.kill(self.pid, SIGKILL)
        C.waitpid(self.pid, nil, 0)
        C.close(self.fd)
        self.pid = nil
    end
end

return M
