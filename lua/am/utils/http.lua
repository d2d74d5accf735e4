-- A small HTTP client over libcurl: one request at a time, to memory or to a file, that Ctrl-C interrupts.
-- Holds no hub and no tracker; those say what is asked of whom. libcurl is loaded by the first request,
-- and its own rules hold for proxies (http_proxy, https_proxy, all_proxy, no_proxy). Certificates are
-- always verified; SSL_CERT_FILE, REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE name another file of authorities.
--
--   local answer, message, kind = http.request {
--       url = "https://host/path",       http and https only
--       method = "GET",                  POST when there is a body
--       headers = { ["Name"] = "value" },
--       body = "bytes", or json = table, sent as application/json
--       timeout = seconds                for all of one try (none by default)
--       connect_timeout = 30             seconds
--       idle_timeout = 60                seconds without a byte, then it has timed out
--       follow = true                    redirects; false: none; "same_host": only within one server
--       max_bytes = 64 MiB               of an answer's body; none by default for a file
--       to_file = path                   where the body of a 200 or 206 goes (other bodies: answer.body)
--       resume_from = bytes              go on with a file of that size; the server may begin anew
--       retries = 0                      tries after the first, with waits between them that double, when the
--                                        server is busy or the connection breaks off; a file is gone on with,
--                                        and as long as it grows they are counted anew
--       retry_wait = 1                   seconds, the first of these waits
--       on_progress = fn(done, total)    bytes of the file so far, and in all where that is known
--   }
--   answer = { status = 200, headers = { ["content-type"] = "…" }, body = "…", url = where it came from,
--              resumed = true when a file was gone on with, redirect_url = a redirect that was not followed }
--   http.redact(text, headers)           text without the secrets in headers, for messages of one's own
--   http.shown(url)                      url as messages show it: without user, password and query
--
-- Any answer is an answer, whatever its status. No answer is nil, a message and a kind: "network", "timeout",
-- "interrupted" (a signal came during the request), "too large", "file" (the disk refused) or "library"
-- (no libcurl). Nothing is raised but for arguments that no request can have. Secrets of headers (of
-- Authorization, Cookie, and names with "key", "token" or "secret") are in no message, and these headers go
-- to no other server than the one that was asked.

local engine = require("am.core.ffi").C
local err = require("am.core.error")
local exchange = require("am.utils.http_exchange")
local json = require("am.utils.json")
local libcurl = require("am.utils.libcurl")
local path = require("am.utils.path")

local M = {}

local MAX_REDIRECTS, MAX_WAIT = 10, 60
local PROGRESS = 1024 * 1024 -- bytes of a file after which the retries are counted anew
local REDIRECTS = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }
local BUSY = { [408] = true, [429] = true, [500] = true, [502] = true, [503] = true, [504] = true }

-- ---------------------------------------------------------------- what messages may hold

local function is_secret(name)
    name = name:lower()
    return name:find("authorization", 1, true) or name:find("cookie", 1, true) or name:find("key", 1, true)
        or name:find("token", 1, true) or name:find("secret", 1, true)
end

local function replace(text, secret)
    local out, at = {}, 1
    while #secret >= 4 do
        local first, last = text:find(secret, at, true)
        if not first then
            break
        end
        out[#out + 1] = text:sub(at, first - 1) .. "***"
        at = last + 1
    end
    return table.concat(out) .. text:sub(at)
end

--- `text` with every secret of `headers` replaced by "***".
function M.redact(text, headers)
    for name, value in pairs(headers or {}) do
        if is_secret(name) then
            text = replace(text, value)
            text = replace(text, value:match("%S+%s*$") or "") -- of "Bearer X", X alone
        end
    end
    return text
end

--- A URL without what may be secret in it.
function M.shown(url)
    return (url:gsub("^(%a+://)[^/?#]*@", "%1"):gsub("[?#].*$", ""))
end

-- ---------------------------------------------------------------- arguments

local function check(opts)
    local headers, has_body = {}, opts.body ~= nil or opts.json ~= nil
    for name, value in pairs(opts.headers or {}) do
        if type(name) ~= "string" or not name:find("^[%w%-_]+$") then
            err.raise("argument", 'a header cannot be named "%s"', tostring(name))
        elseif type(value) ~= "string" or value:find("[%z\r\n]") then
            err.raise("argument", "the header %s must be one line of text", name)
        end
        headers[name] = value
    end
    if opts.json ~= nil then
        headers["Content-Type"] = headers["Content-Type"] or "application/json"
    elseif opts.body then
        headers["Content-Type"] = headers["Content-Type"] or "application/octet-stream"
    end
    return {
        method = opts.method or (has_body and "POST" or "GET"),
        headers = headers,
        body = opts.json ~= nil and json.encode(opts.json) or opts.body,
        resume_from = opts.to_file and opts.resume_from or 0,
    }
end

-- "https", "https://host:443"; nil for what is no URL of ours.
local function origin_of(url)
    local scheme, authority = url:match("^([%a]+)://([^/?#]+)")
    scheme = scheme and scheme:lower()
    if (scheme ~= "http" and scheme ~= "https") or url:find("[%z\1-\32\127]") then
        return nil
    end
    local host = authority:match("([^@]*)$"):lower()
    if not host:find(":%d+$") then
        host = host .. (scheme == "https" and ":443" or ":80")
    end
    return scheme, scheme .. "://" .. host
end

-- ---------------------------------------------------------------- redirects and retries

local function same_origin(a, b)
    return select(2, origin_of(a)) == select(2, origin_of(b))
end

-- What is asked of the place that an answer sends on to, or nil, message.
local function redirected(ask, answer)
    local scheme, origin = origin_of(answer.redirect_url)
    if not scheme then
        return nil, "a redirect leads to what is no http or https URL"
    end
    local was_scheme, was_origin = origin_of(ask.url)
    if was_scheme == "https" and scheme == "http" then
        return nil, "a redirect leads from https to http, which is refused"
    end
    local onward = { url = answer.redirect_url, method = ask.method, body = ask.body, headers = {},
                     resume_from = ask.resume_from }
    for name, value in pairs(ask.headers) do
        if origin == was_origin or not is_secret(name) then
            onward.headers[name] = value
        end
    end
    local status = answer.status
    if ask.method ~= "HEAD" and (status == 303 or (ask.method == "POST" and status < 303)) then
        onward.method, onward.body = "GET", nil
    end
    return onward
end

-- One try: the request and where redirects lead.
local function try(curl, ask, opts, before)
    for _ = 0, MAX_REDIRECTS do
        local answer, message, kind, transient, partial = exchange.run(curl, ask, opts, before)
        if not answer then
            return nil, M.shown(ask.url) .. ": " .. message, kind, transient, partial
        end
        if not REDIRECTS[answer.status] or not answer.redirect_url or opts.follow == false then
            return answer
        end
        if opts.follow == "same_host" and not same_origin(ask.url, answer.redirect_url) then
            return answer
        end
        local onward, refusal = redirected(ask, answer)
        if not onward then
            return nil, M.shown(ask.url) .. ": " .. refusal, "network"
        end
        ask = onward
    end
    return nil, string.format("%s: more than %d redirects", M.shown(ask.url), MAX_REDIRECTS), "network"
end

-- A file that broke off is gone on with when the server can say that it is still the same one.
local function go_on(ask, opts, partial)
    local size = opts.to_file and path.size(opts.to_file)
    if not size or size == ask.resume_from then -- nothing came
        return
    end
    local etag = partial and partial.headers.etag
    local sure = size > 0 and etag and etag:find('^"') and (partial.status == 200 or partial.status == 206)
    ask.resume_from, ask.headers["If-Range"] = sure and size or 0, sure and etag or nil
end

-- Try, and again as long as that may help.
local function persist(curl, ask, opts, before)
    local retries, first_pause = opts.retries or 0, opts.retry_wait or 1
    local left, pause, most = retries, first_pause, ask.resume_from
    while true do
        local answer, message, kind, transient, partial = try(curl, ask, opts, before)
        local size = opts.to_file and path.size(opts.to_file) or 0
        if transient and size >= most + PROGRESS then -- a connection that breaks off gets on all the same
            left, pause, most = retries, first_pause, size
        end
        if left == 0 or not (transient or answer and BUSY[answer.status]) then
            return answer, message, kind
        end
        local asked = answer and tonumber((answer.headers["retry-after"] or ""):match("^%d+$"))
        if not exchange.wait(curl, math.min(math.max(pause, asked or 0), MAX_WAIT), before) then
            return nil, M.shown(opts.url) .. ": interrupted", "interrupted"
        end
        left, pause = left - 1, pause * 2
        go_on(ask, opts, partial)
    end
end

--- Make a request: an answer, or nil, message, kind. See above.
function M.request(opts)
    local ask = check(opts)
    ask.url = opts.url
    if type(ask.url) ~= "string" or not origin_of(ask.url) then
        return nil, string.format("%q is no http or https URL", M.shown(tostring(ask.url))), "network"
    end
    local loaded, curl = pcall(libcurl.load)
    if not loaded then
        return nil, tostring(curl), "library"
    end
    if ask.resume_from > 0 and path.size(opts.to_file) ~= ask.resume_from then
        ask.resume_from = 0
    end
    local answer, message, kind = persist(curl, ask, opts, engine.am_signals_pending())
    return answer, message and M.redact(message, ask.headers), kind
end

return M
