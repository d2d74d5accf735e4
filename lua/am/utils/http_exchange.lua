-- One exchange of HTTP: a request, and the answer of the server that it names. Redirects, retries and what
-- messages may hold are http.lua's, whose request takes the options that are named here.

local ffi = require("ffi")
local engine = require("am.core.ffi").C
local libcurl = require("am.utils.libcurl")
local posix = require("am.utils.posix")

local M = {}

local option, info = libcurl.option, libcurl.info
local MAX_BODY = 64 * 1024 * 1024
local MAX_ERROR_BODY = 1024 * 1024 -- of an answer that does not go to the file
local SLICE = 200 -- milliseconds between two looks at signals

-- ---------------------------------------------------------------- connections and signals

local multi -- { pid, handle }: connections are kept between requests, but not by a copy of the process

local function multi_handle(curl)
    local pid = posix.getpid()
    if not multi or multi.pid ~= pid then
        multi = { pid = pid, handle = curl.curl_multi_init() }
    end
    return multi.handle
end

--- True when a signal came since am_signals_pending returned `before`.
local function signalled(before)
    local now = engine.am_signals_pending()
    return now ~= before and now ~= 0
end

--- Wait for some seconds; false when a signal came since `before`.
function M.wait(curl, seconds, before)
    local stop, count = engine.am_clock() + seconds, ffi.new("int[1]")
    while true do
        local left = stop - engine.am_clock()
        if signalled(before) then
            return false
        elseif left <= 0 then
            return true
        end
        curl.curl_multi_poll(multi_handle(curl), nil, 0, math.min(SLICE, math.ceil(left * 1000)), count)
    end
end

-- ---------------------------------------------------------------- the request

local function certificates()
    for _, name in ipairs { "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE" } do
        local file = os.getenv(name)
        if file and file ~= "" then
            return file
        end
    end
    return nil
end

local function header_list(curl, headers)
    local list = curl.curl_slist_append(nil, "Expect:")
    for name, value in pairs(headers) do
        list = curl.curl_slist_append(list, value == "" and name .. ";" or name .. ": " .. value)
    end
    return list
end

-- Set a handle's options. x.stream, x.message, x.list and ask.body live as long as the handle does.
local function configure(x, ask, opts)
    local function set(name, value)
        x.curl.curl_easy_setopt(x.easy, option[name], value)
    end
    local function long(name, value)
        set(name, ffi.cast("long", value))
    end
    set("url", ask.url)
    set("protocols", "http,https")
    set("user_agent", "amlua/" .. ffi.string(engine.am_version()))
    set("write_data", x.stream.file)
    set("error_buffer", x.message)
    set("http_header", ffi.cast("void *", x.list))
    long("no_signal", 1)
    long("quick_exit", 1) -- a slow name server does not hold up an interruption
    long("tcp_keepalive", 1)
    long("connect_timeout_ms", math.ceil((opts.connect_timeout or 30) * 1000))
    if opts.timeout then
        long("timeout_ms", math.max(1, math.ceil(opts.timeout * 1000)))
    end
    local file = certificates()
    if file then
        set("ca_info", file)
    end
    if ask.resume_from > 0 then
        set("range", string.format("%.0f-", ask.resume_from))
    end
    if ask.method == "HEAD" then
        long("no_body", 1)
        return
    end
    if ask.body or ask.method == "POST" or ask.method == "PUT" then
        set("post_fields", ffi.cast("const char *", ask.body or ""))
        set("post_field_size", ffi.cast("int64_t", #(ask.body or "")))
    end
    set("custom_request", ask.method)
end

-- ---------------------------------------------------------------- the answer

local function getinfo(x, which, ctype)
    local box = ffi.new(ctype .. "[1]")
    x.curl.curl_easy_getinfo(x.easy, which, box)
    return box[0]
end

local function headers_of(x)
    local out, header = {}, nil
    while true do
        header = x.curl.curl_easy_nextheader(x.easy, 1, -1, header) -- CURLH_HEADER, of the last answer
        if header == nil then
            return out
        end
        local name, value = ffi.string(header.name):lower(), ffi.string(header.value)
        out[name] = out[name] and out[name] .. ", " .. value or value
    end
end

-- True when a 206 is what was asked for: all from ask.resume_from on.
local function goes_on(ask, headers)
    local from, to, total = (headers["content-range"] or ""):match("^bytes (%d+)%-(%d+)/([%d*]+)$")
    return ask.resume_from > 0 and tonumber(from) == ask.resume_from
        and (total == "*" or tonumber(total) == tonumber(to) + 1)
end

-- Read status and headers, and choose where the body goes: true, or nil, message, kind. Called when the first
-- of the body is there, or the end of an answer without one.
local function begin(x, ask, opts)
    local answer = { url = ask.url, status = tonumber(getinfo(x, info.response_code, "long")), headers = headers_of(x) }
    x.answer = answer
    x.limit = opts.max_bytes or (opts.to_file and math.huge or MAX_BODY)
    if not opts.to_file or (answer.status ~= 200 and answer.status ~= 206) then
        x.limit = opts.to_file and MAX_ERROR_BODY or x.limit
        return true
    end
    if answer.status == 206 then
        if not goes_on(ask, answer.headers) then
            return nil, "the server sent another part of the file than was asked for", "network"
        end
        answer.resumed, x.bytes = true, ask.resume_from
    end
    local length = tonumber(getinfo(x, info.content_length, "int64_t"))
    x.total = length >= 0 and length + x.bytes or nil
    local message
    x.file, message = posix.open(opts.to_file, answer.resumed and "append" or "create")
    if not x.file then
        return nil, message, "file"
    end
    return true
end

local function in_file(opts, ok, message)
    if not ok then
        return nil, opts.to_file .. ": " .. message, "file"
    end
    return true
end

-- Take bytes of the body.
local function take(x, ask, opts, data, bytes)
    if not x.answer then
        local ok, message, kind = begin(x, ask, opts)
        if not ok then
            return nil, message, kind
        end
    end
    x.bytes = x.bytes + bytes
    if x.bytes > x.limit then
        return nil, string.format("the answer is larger than %.0f bytes", x.limit), "too large"
    elseif x.file then
        return in_file(opts, posix.write(x.file, data, bytes))
    end
    x.parts[#x.parts + 1] = ffi.string(data, bytes)
    return true
end

-- After curl's end of the transfer with `code`: true, or nil, message, kind, whether to try again.
local function conclude(x, ask, opts, code)
    if code ~= 0 then
        local said = ffi.string(x.message)
        return nil, said ~= "" and said or ffi.string(x.curl.curl_easy_strerror(code)),
               code == libcurl.TIMED_OUT and "timeout" or "network",
               libcurl.transient[code] or false
    end
    if not x.answer then
        local ok, message, kind = begin(x, ask, opts)
        if not ok then
            return nil, message, kind
        end
    end
    local redirect = getinfo(x, info.redirect_url, "char *")
    x.answer.redirect_url = redirect ~= nil and ffi.string(redirect) or nil
    x.answer.body = table.concat(x.parts)
    return true
end

-- A watch over a transfer in which nothing moves: function() -> true, or nil, message, kind, true.
local function idle_watch(x, seconds)
    local moved, since = -1, engine.am_clock()
    return function()
        local now = tonumber(getinfo(x, info.size_upload, "int64_t") + getinfo(x, info.size_download, "int64_t"))
        if now ~= moved then
            moved, since = now, engine.am_clock()
        elseif engine.am_clock() - since > seconds then
            return nil, string.format("nothing came for %g seconds", seconds), "timeout", true
        end
        return true
    end
end

-- Drive the transfer to its end: true, or nil, message, kind, whether to try again.
local function drive(x, ask, opts, before)
    local handle, running, count = multi_handle(x.curl), ffi.new("int[1]"), ffi.new("int[1]")
    local function took(data, bytes)
        return take(x, ask, opts, data, bytes)
    end
    local watch = idle_watch(x, opts.idle_timeout or 60)
    repeat
        if signalled(before) then
            return nil, "interrupted", "interrupted"
        elseif x.curl.curl_multi_perform(handle, running) ~= 0 then
            return nil, "libcurl failed", "network"
        end
        local ok, message, kind = x.stream:drain(took)
        if not ok then
            return nil, message, kind
        end
        if x.file and opts.on_progress then
            opts.on_progress(x.bytes, x.total)
        end
        if running[0] > 0 then
            x.curl.curl_multi_poll(handle, nil, 0, SLICE, count)
            local moving, idle, what, again = watch()
            if not moving then
                return nil, idle, what, again
            end
        end
    until running[0] == 0
    local done = x.curl.curl_multi_info_read(handle, count)
    if done == nil then
        return nil, "libcurl ended without a result", "network"
    end
    return conclude(x, ask, opts, done.data.result)
end

--- Ask `ask` { url, method, headers, body, resume_from } with http.request's other options. Returns the answer,
--- or nil, message, kind, whether it may go better another time, and the beginning of an answer if there is one.
--- `before` is what am_signals_pending returned: another signal than that interrupts.
function M.run(curl, ask, opts, before)
    local x = { curl = curl, easy = curl.curl_easy_init(), stream = libcurl.stream(), message = ffi.new("char[256]"),
                list = header_list(curl, ask.headers), parts = {}, bytes = 0 }
    configure(x, ask, opts)
    curl.curl_multi_add_handle(multi_handle(curl), x.easy)
    local ran, ok, message, kind, again = pcall(drive, x, ask, opts, before)
    if x.file then
        local closed, why, what = in_file(opts, posix.close(x.file))
        if ran and ok and not closed then
            ok, message, kind = nil, why, what
        end
    end
    curl.curl_multi_remove_handle(multi_handle(curl), x.easy)
    curl.curl_easy_cleanup(x.easy)
    curl.curl_slist_free_all(x.list)
    x.stream:close()
    if not ran then
        error(ok, 0)
    elseif not ok then
        return nil, message, kind, again, x.answer
    end
    return x.answer
end

return M
