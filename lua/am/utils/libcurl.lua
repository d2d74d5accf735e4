-- libcurl and the C library's memory streams, declared for LuaJIT's FFI.
-- Holds declarations, constants and the loading of libcurl, which happens when it is first needed. How a
-- request is made is http.lua's. Nothing here is a callback: curl writes what it receives to a stream.

local ffi = require("ffi")
local err = require("am.core.error")

ffi.cdef [[
typedef struct am_curl am_curl;
typedef struct am_curl_multi am_curl_multi;
typedef struct am_curl_list am_curl_list;
struct am_curl_message { int kind; am_curl *easy; union { void *whatever; int result; } data; };
struct am_curl_header { char *name, *value; size_t amount, index; unsigned origin; void *anchor; };
int curl_global_init(long flags);
char *curl_version(void);
am_curl *curl_easy_init(void);
int curl_easy_setopt(am_curl *easy, int option, ...);
int curl_easy_getinfo(am_curl *easy, int info, ...);
const char *curl_easy_strerror(int code);
void curl_easy_cleanup(am_curl *easy);
struct am_curl_header *curl_easy_nextheader(am_curl *easy, unsigned origin, int request,
                                            struct am_curl_header *previous);
am_curl_list *curl_slist_append(am_curl_list *list, const char *text);
void curl_slist_free_all(am_curl_list *list);
am_curl_multi *curl_multi_init(void);
int curl_multi_add_handle(am_curl_multi *multi, am_curl *easy);
int curl_multi_remove_handle(am_curl_multi *multi, am_curl *easy);
int curl_multi_perform(am_curl_multi *multi, int *running);
int curl_multi_poll(am_curl_multi *multi, void *extra, unsigned extra_count, int timeout_ms, int *ready);
struct am_curl_message *curl_multi_info_read(am_curl_multi *multi, int *left);
void *open_memstream(char **data, size_t *size);
int fflush(void *stream);
int fseek(void *stream, long offset, int whence);
long ftell(void *stream);
int fclose(void *stream);
void free(void *data);
]]

local M = {}

--- CURLoption
M.option = {
    write_data = 10001, url = 10002, range = 10007, error_buffer = 10010, post_fields = 10015, user_agent = 10018,
    http_header = 10023, custom_request = 10036, ca_info = 10065, protocols = 10318,
    no_body = 44, no_signal = 99, timeout_ms = 155,
    connect_timeout_ms = 156, tcp_keepalive = 213, quick_exit = 322,
    post_field_size = 30120,
}

--- CURLINFO
M.info = { response_code = 0x200002, redirect_url = 0x10001f, size_upload = 0x600007, size_download = 0x600008,
           content_length = 0x60000f }

--- CURLcode
M.TIMED_OUT = 28
-- What may be otherwise in a moment: names, connections, streams that break off, time-outs, empty answers.
M.transient = { [6] = true, [7] = true, [16] = true, [18] = true, [28] = true, [35] = true, [52] = true, [55] = true,
                [56] = true, [92] = true }

local library

--- The library's namespace. Raises "io" when it is not installed.
function M.load()
    if not library then
        local found, lib = pcall(ffi.load, "libcurl.so.4")
        if not found then
            err.raise("io", "libcurl is needed to reach the network and was not found: install the Debian package "
                      .. "libcurl4 (%s)", tostring(lib))
        end
        if lib.curl_global_init(3) ~= 0 then -- CURL_GLOBAL_ALL
            err.raise("io", "libcurl cannot be initialised")
        end
        library = lib
    end
    return library
end

--- What the library calls itself ("libcurl/7.88.1 OpenSSL/3.0.15 …"), or nil when there is none.
function M.version()
    local loaded, lib = pcall(M.load)
    return loaded and ffi.string(lib.curl_version()) or nil
end

-- ---- memory streams

local Stream = {}
Stream.__index = Stream

--- A FILE that keeps what is written to it in memory.
function M.stream()
    local self = setmetatable({ data = ffi.new("char *[1]"), size = ffi.new("size_t[1]") }, Stream)
    self.file = ffi.C.open_memstream(self.data, self.size)
    if self.file == nil then
        err.raise("memory", "not enough memory for a stream")
    end
    return self
end

--- Hand what was written since the last call to take(pointer, bytes), and forget it.
function Stream:drain(take)
    ffi.C.fflush(self.file)
    local bytes = tonumber(ffi.C.ftell(self.file))
    if bytes > 0 then
        ffi.C.fseek(self.file, 0, 0)
        return take(self.data[0], bytes)
    end
    return true
end

function Stream:close()
    ffi.C.fclose(self.file)
    ffi.C.free(self.data[0])
end

return M
