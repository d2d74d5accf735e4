-- SHA-256 and SHA-1 of files, by OpenSSL's libcrypto: the digests that the Hugging Face hub names files by.
-- libcrypto is what libcurl4 verifies certificates with, so it is there wherever something was downloaded,
-- and it uses the CPU's own instructions for both. And BLAKE2b of texts, the engine's, which no hub speaks: for names
-- of files of one's own.
--
--   digest.text(text) -> hexadecimal digits
--   digest.file(path, "sha256") -> 64 hexadecimal digits, or nil, message
--   digest.file(path, "sha1", prefix)  of prefix and file; git's name of a blob has "blob SIZE\0" before it

local ffi = require("ffi")
local engine = require("am.core.ffi").C
local err = require("am.core.error")
local posix = require("am.utils.posix")

ffi.cdef [[
typedef struct am_evp_context am_evp_context;
am_evp_context *EVP_MD_CTX_new(void);
void EVP_MD_CTX_free(am_evp_context *context);
const void *EVP_sha1(void);
const void *EVP_sha256(void);
int EVP_DigestInit_ex(am_evp_context *context, const void *type, void *engine);
int EVP_DigestUpdate(am_evp_context *context, const void *data, size_t bytes);
int EVP_DigestFinal_ex(am_evp_context *context, unsigned char *digest, unsigned *bytes);
]]

local M = {}

local BLOCK = 1024 * 1024

local library

--- Bytes as hexadecimal digits.
function M.hex(bytes, count)
    return (ffi.string(bytes, count):gsub(".", function(c) return string.format("%02x", c:byte()) end))
end

--- A digest of a text, as hexadecimal digits.
function M.text(text)
    local out = ffi.new("uint8_t[?]", engine.AM_HASH_BYTES)
    engine.am_hash(out, text, #text)
    return M.hex(out, engine.AM_HASH_BYTES)
end

local function load()
    if not library then
        local found, lib = pcall(ffi.load, "libcrypto.so.3")
        if not found then
            err.raise("io", "libcrypto is needed to verify what is downloaded and was not found: install the Debian "
                      .. "package libssl3 (%s)", tostring(lib))
        end
        library = lib
    end
    return library
end

-- Digest what file holds: hexadecimal digits, or nil, message.
local function of(lib, context, file)
    local data, before = ffi.new("uint8_t[?]", BLOCK), engine.am_signals_pending()
    repeat
        local n, message = posix.read_next(file, data, BLOCK)
        if not n then
            return nil, message
        elseif engine.am_signals_pending() ~= before then
            return nil, "interrupted"
        end
        lib.EVP_DigestUpdate(context, data, n)
    until n < BLOCK
    local out, bytes = ffi.new("unsigned char[64]"), ffi.new("unsigned[1]")
    lib.EVP_DigestFinal_ex(context, out, bytes)
    return M.hex(out, bytes[0])
end

--- The digest of a file, with `prefix` before it: hexadecimal digits, or nil, message.
function M.file(path, algorithm, prefix)
    local lib = load()
    local file, message = posix.open(path, "read")
    if not file then
        return nil, message
    end
    local context = ffi.gc(lib.EVP_MD_CTX_new(), lib.EVP_MD_CTX_free)
    lib.EVP_DigestInit_ex(context, algorithm == "sha256" and lib.EVP_sha256() or lib.EVP_sha1(), nil)
    if prefix then
        lib.EVP_DigestUpdate(context, prefix, #prefix)
    end
    local hex, why = of(lib, context, file)
    posix.close(file)
    return hex, why and path .. ": " .. why
end

return M
