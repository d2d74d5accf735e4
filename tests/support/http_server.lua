-- A web server on loopback, for tests: it runs in a process of its own, each connection in another.
-- Holds sockets and HTTP/1.1, one request a connection; what is answered is the test's.
--
--   local server = http_server.start(function(request) return { status = 200, body = "hello" } end)
--   request: method, path (with its query), headers (lower-case names), body,
--            count: how often this method and path were asked for before
--   answer:  status, headers (name = value, or a list of values), body, and how it goes wrong:
--            length = what Content-Length says instead; cut = bytes of the body after which the connection
--            ends; delay = seconds before the answer; pause = seconds before the body's second half;
--            raw = all bytes of the answer instead
--   server.url  server.port  server:requests() -> what was asked so far, in order  server:stop()

local ffi = require("ffi")
local json = require("am.utils.json")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local processes = require("am.utils.processes")

ffi.cdef [[
struct http_server_address { uint16_t family, port; uint32_t host; char zero[8]; };
int socket(int domain, int type, int protocol);
int setsockopt(int fd, int level, int name, const void *value, unsigned size);
int bind(int fd, const struct http_server_address *address, unsigned size);
int listen(int fd, int backlog);
int getsockname(int fd, struct http_server_address *address, unsigned *size);
int accept(int fd, void *address, unsigned *size);
long recv(int fd, void *data, size_t bytes, int flags);
long send(int fd, const void *data, size_t bytes, int flags);
int shutdown(int fd, int how);
intptr_t signal(int number, intptr_t handler);
int usleep(unsigned microseconds);
]]

local C = ffi.C
local NOSIGNAL = 0x4000
local M = {}

local function sleep(seconds)
    C.usleep(math.floor(seconds * 1e6))
end

local function send(fd, text)
    local at = 0
    while at < #text do
        local n = tonumber(C.send(fd, ffi.cast("const char *", text) + at, #text - at, NOSIGNAL))
        if n <= 0 then return end
        at = at + n
    end
end

local function receive(fd)
    local text, data = "", ffi.new("char[65536]")
    local function more()
        local n = tonumber(C.recv(fd, data, 65536, 0))
        if n > 0 then text = text .. ffi.string(data, n) end
        return n > 0
    end
    while not text:find("\r\n\r\n", 1, true) do
        if not more() then return nil end
    end
    local head, rest = text:match("^(.-)\r\n\r\n(.*)$")
    local request = { headers = {} }
    request.method, request.path = head:match("^(%S+) (%S+)")
    for name, value in head:gmatch("\r\n([^:\r\n]+):%s*([^\r\n]*)") do
        request.headers[name:lower()] = value
    end
    text = rest
    while #text < tonumber(request.headers["content-length"] or 0) do
        if not more() then return nil end
    end
    request.body = text
    return request
end

local function answer(fd, request, out)
    sleep(out.delay or 0)
    if out.raw then
        send(fd, out.raw)
        return
    end
    local body = out.body or ""
    local lines = { "HTTP/1.1 " .. (out.status or 200) .. " Status" }
    for name, value in pairs(out.headers or {}) do
        for _, one in ipairs(type(value) == "table" and value or { value }) do
            lines[#lines + 1] = name .. ": " .. one
        end
    end
    if out.length ~= false then
        lines[#lines + 1] = "Content-Length: " .. (out.length or #body)
    end
    send(fd, table.concat(lines, "\r\n") .. "\r\nConnection: close\r\n\r\n")
    if request.method ~= "HEAD" then
        body = body:sub(1, out.cut)
        local half = out.pause and math.floor(#body / 2) or #body
        send(fd, body:sub(1, half))
        sleep(out.pause or 0)
        send(fd, body:sub(half + 1))
    end
end

local function lines_of(log)
    local out = {}
    for line in (path.read_file(log) or ""):gmatch("[^\n]+") do
        out[#out + 1] = assert(json.decode(line))
    end
    return out
end

local function serve(fd, handler, log)
    local request = receive(fd)
    if request then
        request.count = 0
        for _, earlier in ipairs(lines_of(log)) do
            if earlier.method == request.method and earlier.path == request.path then
                request.count = request.count + 1
            end
        end
        local file = assert(posix.open(log, "append"))
        posix.write(file, json.encode(request) .. "\n")
        posix.close(file)
        local ok, out = pcall(handler, request)
        answer(fd, request, ok and out or { status = 599, body = tostring(out) })
    end
    C.shutdown(fd, 2)
end

local Server = {}
Server.__index = Server

--- Begin to serve. The server ends with this process at the latest.
function M.start(handler)
    local fd = C.socket(2, 1 + 0x80000, 0) -- AF_INET, SOCK_STREAM | SOCK_CLOEXEC
    local address, size = ffi.new("struct http_server_address"), ffi.new("unsigned[1]", 16)
    address.family, address.host = 2, 0x0100007f
    assert(C.bind(fd, address, 16) == 0 and C.listen(fd, 64) == 0 and C.getsockname(fd, address, size) == 0)
    local port = bit.bor(bit.lshift(bit.band(address.port, 255), 8), bit.rshift(address.port, 8))
    local self = setmetatable({ port = port, url = "http://127.0.0.1:" .. port, log = os.tmpname() }, Server)
    self.process = assert(processes.fork(function()
        C.signal(17, 1) -- SIGCHLD, SIG_IGN: connections that ended are not waited for
        while true do
            local connection = C.accept(fd, nil, nil)
            if connection >= 0 then
                processes.fork(function() serve(connection, handler, self.log) end)
                C.close(connection)
            end
        end
    end))
    C.close(fd)
    return self
end

function Server:requests()
    return lines_of(self.log)
end

function Server:forget()
    path.write_file(self.log, "")
end

function Server:stop()
    processes.kill(self.process)
    processes.wait(self.process)
    os.remove(self.log)
end

return M
