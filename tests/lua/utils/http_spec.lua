-- Requests to a real server on loopback: answers, files, redirects, what goes wrong, and what is kept secret.

local engine = require("am.core.ffi").C
local http = require("am.utils.http")
local json = require("am.utils.json")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local processes = require("am.utils.processes")
local environment = require("tests.support.environment")
local http_server = require("tests.support.http_server")

local TOKEN = "Bearer hf_thisIsAVerySecretToken"

describe("http", function()
    local server, other, file
    local routes = {}

    local function serve(request)
        local name = request.path:match("^/(%w*)")
        return routes[name] and routes[name](request) or { status = 404, body = "nothing here" }
    end

    setup(function()
        environment.set { http_proxy = false, all_proxy = false, ALL_PROXY = false } -- loopback is reached directly
        other = http_server.start(function(request) return { body = json.encode(request) } end)
        routes.echo = function(request)
            return { headers = { ["X-Twice"] = { "a", "b" } }, body = json.encode(request) }
        end
        local function redirect(status, to, body)
            return function() return { status = status, headers = { Location = to }, body = body } end
        end
        routes.near = redirect(307, "/echo?from=near")
        routes.far = redirect(302, other.url .. "/there?sig=1", "moved")
        routes.round = redirect(302, "/round")
        routes.ftp = redirect(302, "ftp://127.0.0.1/x")
        routes.slow = function() return { delay = 20 } end
        routes.stall = function() return { body = ("x"):rep(1000), pause = 20 } end
        routes.big = function() return { body = ("x"):rep(3000000), length = false } end
        routes.huge = function() return { body = "x", length = "99999999999999999" } end
        routes.busy = function(request)
            return { status = request.count < 2 and 503 or 200, body = "done after " .. request.count }
        end
        routes.limited = function(request)
            return { status = request.count < 1 and 429 or 200, headers = { ["Retry-After"] = "1" } }
        end
        routes.garbage = function() return { raw = "this is no HTTP\r\n\r\n" } end
        routes.empty = function() return { raw = "" } end
        -- "/file/ranged" knows ranges, "/file/whole" does not; each cuts its first answer short.
        routes.file = function(request)
            local body, kind = ("0123456789"):rep(100000), request.path:match("(%w+)$")
            local from = tonumber((request.headers.range or ""):match("bytes=(%d+)%-"))
            local out = { headers = { ETag = '"v1"' }, body = body, cut = request.count == 0 and 600001 or nil }
            if from and kind == "ranged" then
                out.status, out.body, out.length = 206, body:sub(from + 1), nil
                out.headers["Content-Range"] = ("bytes %d-%d/%d"):format(from, #body - 1, #body)
            elseif from and kind == "shifted" then
                out.status, out.headers["Content-Range"] = 206, ("bytes 0-%d/%d"):format(#body - 1, #body)
            end
            return out
        end
        server = http_server.start(serve)
        file = os.tmpname()
    end)
    teardown(function()
        server:stop()
        other:stop()
        os.remove(file)
        environment.restore()
    end)
    before_each(function()
        server:forget()
        os.remove(file)
    end)

    local function ask(where, opts)
        opts = opts or {}
        opts.url = server.url .. where
        return http.request(opts)
    end

    it("gives status, headers and body, whatever the status", function()
        local answer = assert(ask("/echo?a=b", { headers = { ["X-Mine"] = "yes" } }))
        assert.equal(200, answer.status)
        assert.equal("a, b", answer.headers["x-twice"])
        local seen = json.decode(answer.body)
        assert.same({ "GET", "/echo?a=b", "yes" }, { seen.method, seen.path, seen.headers["x-mine"] })
        answer = assert(ask("/nowhere"))
        assert.same({ 404, "nothing here" }, { answer.status, answer.body })
    end)

    it("sends bodies", function()
        local seen = json.decode(ask("/echo", { json = { a = 1 } }).body)
        assert.same({ "POST", '{"a": 1}', "application/json" },
                    { seen.method, seen.body, seen.headers["content-type"] })
        seen = json.decode(ask("/echo", { method = "PUT", body = "a\0b" }).body)
        assert.same({ "PUT", "a\0b" }, { seen.method, seen.body })
        seen = json.decode(ask("/echo", { method = "DELETE" }).body)
        assert.equal("DELETE", seen.method)
        local answer = ask("/echo", { method = "HEAD" })
        assert.same({ 200, "" }, { answer.status, answer.body })
    end)

    it("keeps a header's secrets on the server that was asked", function()
        local headers = { Authorization = TOKEN, ["X-Api-Key"] = "1234567", ["X-Plain"] = "here" }
        local seen = json.decode(ask("/near", { headers = headers, method = "PUT", body = "kept" }).body)
        assert.same({ TOKEN, "kept" }, { seen.headers.authorization, seen.body })
        local answer = ask("/far", { headers = headers, body = "dropped" })
        seen = json.decode(answer.body)
        assert.same({ "GET", "", "here" }, { seen.method, seen.body, seen.headers["x-plain"] })
        assert.is_nil(seen.headers.authorization)
        assert.is_nil(seen.headers["x-api-key"])
        assert.equal(other.url .. "/there?sig=1", answer.url)
    end)

    it("follows as far as it is told", function()
        assert.equal(302, ask("/far", { follow = false }).status)
        local answer = ask("/far", { follow = "same_host" })
        assert.same({ 302, other.url .. "/there?sig=1" }, { answer.status, answer.redirect_url })
        assert.equal(200, ask("/near", { follow = "same_host" }).status)
        local _, message = ask("/round?sig=1")
        assert.equal(server.url .. "/round: more than 10 redirects", message)
        _, message = ask("/ftp")
        assert.truthy(message:find("no http or https URL", 1, true))
    end)

    it("says what is wrong, and no secret", function()
        for _, where in ipairs { "/garbage?sig=secret", "/empty?sig=secret" } do
            local answer, message, kind = ask(where, { headers = { Authorization = TOKEN } })
            assert.is_nil(answer)
            assert.equal("network", kind)
            assert.is_nil(message:find("secret", 1, true))
        end
        local _, message = http.request { url = "http://me:pass@127.0.0.1:1/x?y" }
        assert.truthy(message:find("http://127.0.0.1:1/x: ", 1, true))
        assert.truthy(message:find("onnect", 1, true))
        for _, url in ipairs { "file:///etc/passwd", "ftp://x/", "nothing", "http://a b/", "http://x/\n" } do
            local answer, why = http.request { url = url }
            assert.is_nil(answer)
            assert.truthy(why:find("is no http or https URL", 1, true), why)
        end
        assert.equal("x *** and ***", http.redact("x " .. TOKEN .. " and " .. TOKEN:sub(8), { Authorization = TOKEN }))
    end)

    it("refuses headers that would be two", function()
        local ok, e = pcall(ask, "/echo", { headers = { Authorization = "Bearer abc\r\nX: y" } })
        assert.is_false(ok)
        assert.equal("the header Authorization must be one line of text", tostring(e))
        assert.is_false(pcall(ask, "/echo", { headers = { ["A: b\r\nC"] = "d" } }))
    end)

    it("gives up on a server that is silent", function()
        local from = engine.am_clock()
        local _, _, kind = ask("/slow", { timeout = 0.3 })
        assert.equal("timeout", kind)
        _, _, kind = ask("/stall", { idle_timeout = 0.5 })
        assert.equal("timeout", kind)
        assert.is_true(engine.am_clock() - from < 10)
    end)

    it("is interrupted by a signal that comes, not by one that came", function()
        engine.am_signals_watch(engine.AM_SIGNALS_FLAG)
        finally(function()
            engine.am_signals_watch(engine.AM_SIGNALS_OFF)
            engine.am_signals_clear()
        end)
        local parent, from = posix.getpid(), engine.am_clock()
        local child = processes.fork(function() os.execute("sleep 0.3; kill -TERM " .. parent) end)
        local answer, message, kind = ask("/slow", { retries = 3 })
        processes.wait(child)
        assert.is_nil(answer)
        assert.equal("interrupted", kind, message)
        assert.is_true(engine.am_clock() - from < 5)
        assert.equal(200, ask("/echo").status)
    end)

    it("takes no more than it is allowed to", function()
        local _, message, kind = ask("/big", { max_bytes = 1000 })
        assert.equal("too large", kind)
        assert.truthy(message:find("larger than 1000 bytes", 1, true))
        _, message = ask("/huge", { to_file = file })
        assert.truthy(message)
    end)

    it("tries again when it is asked to", function()
        assert.equal(503, ask("/busy/a").status)
        assert.equal("done after 2", ask("/busy/b", { retries = 2, retry_wait = 0.01 }).body)
        assert.equal(503, ask("/busy/c", { retries = 1, retry_wait = 0.01 }).status)
        local from = engine.am_clock()
        assert.equal(200, ask("/limited", { retries = 1, retry_wait = 0.01 }).status)
        assert.is_true(engine.am_clock() - from >= 1)
    end)

    it("writes to a file what was asked for, and nothing else", function()
        assert.equal("moved", ask("/far", { to_file = file, follow = false }).body)
        assert.is_nil(path.size(file))
        assert.equal("nothing here", ask("/nowhere", { to_file = file }).body)
        assert.is_nil(path.size(file))
        assert.equal("", ask("/big", { to_file = file }).body)
        assert.equal(3000000, path.size(file))
        local _, message, kind = ask("/echo", { to_file = file .. "/x" })
        assert.equal("file", kind)
        assert.truthy(message:find(file, 1, true))
    end)

    local whole = ("0123456789"):rep(100000)

    it("goes on where a connection broke off", function()
        for _, kind in ipairs { "ranged", "whole" } do
            server:forget()
            local seen
            local answer = assert(ask("/file/" .. kind, {
                to_file = file, retries = 1, retry_wait = 0.01,
                on_progress = function(done, total) seen = { done, total } end,
            }))
            assert.equal(kind == "ranged" or nil, answer.resumed)
            assert.same({ 1000000, 1000000 }, seen)
            assert.equal(whole, path.read_file(file))
            local again = server:requests()[2].headers
            assert.same({ "bytes=600001-", '"v1"' }, { again.range, again["if-range"] })
            os.remove(file)
        end
    end)

    it("goes on with a file of an earlier run", function()
        for _, kind in ipairs { "ranged", "whole" } do
            server:forget()
            assert.is_nil(ask("/file/" .. kind, { to_file = file }))
            assert.equal(600001, path.size(file))
            assert.truthy(ask("/file/" .. kind, { to_file = file, resume_from = 600001 }))
            assert.equal(whole, path.read_file(file))
        end
        server:forget()
        ask("/file/shifted", { to_file = file })
        path.write_file(file, whole:sub(1, 1000))
        local answer, message = ask("/file/shifted", { to_file = file, resume_from = 1000 })
        assert.is_nil(answer)
        assert.truthy(message:find("another part", 1, true))
        assert.equal(1000, path.size(file))
    end)

    it("verifies certificates", function()
        if os.execute("command -v openssl >/dev/null") ~= 0 then
            return pending("openssl is not installed")
        end
        local dir = file .. ".tls"
        path.mkdir_p(dir)
        assert(os.execute("cd " .. dir .. " && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 "
            .. "-nodes -keyout key -out cert -subj /CN=x -addext subjectAltName=IP:127.0.0.1 2>/dev/null") == 0)
        local pipe = io.popen("cd " .. dir .. " && echo $$ && exec openssl s_server -accept 127.0.0.1:0 -key key "
            .. "-cert cert -www 2>/dev/null")
        local process = { pid = tonumber(pipe:read("*l")) }
        finally(function()
            processes.kill(process)
            pipe:close()
            environment.set { SSL_CERT_FILE = false }
            path.remove_tree(dir)
        end)
        local port
        repeat
            port = pipe:read("*l"):match("^ACCEPT.*:(%d+)$")
        until port
        local url = "https://127.0.0.1:" .. port .. "/"
        local _, message = http.request { url = url }
        assert.truthy(message:find("certificate", 1, true), message)
        environment.set { SSL_CERT_FILE = dir .. "/cert" }
        local answer, why = http.request { url = url }
        assert.equal(200, answer and answer.status, why)
    end)
end)
