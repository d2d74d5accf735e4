-- A checkpoint's manifest: manifest.json with the size of every file and a checksum (BLAKE2b, 32 bytes), so that what
-- is damaged or missing is named before anything is loaded.

local err = require("am.core.error")
local ffi = require("ffi")
local digest = require("am.utils.digest")
local edge = require("am.core.ffi")
local json = require("am.utils.json")
local path = require("am.utils.path")
local strings = require("am.utils.strings")

local M = {}

local NAME = "manifest.json"
local MAX_BYTES = 256 * 1024 * 1024

local function digest_of(file)
    local out = ffi.new("uint8_t[?]", edge.C.AM_HASH_BYTES)
    edge.check(edge.C.am_hash_file(out, file))
    return digest.hex(out, edge.C.AM_HASH_BYTES)
end

local function each_file(dir, under, use)
    for _, name in ipairs(path.names(path.join(dir, under))) do
        local inside = path.join(under, name)
        if path.is_dir(path.join(dir, inside)) and not path.is_link(path.join(dir, inside)) then
            each_file(dir, inside, use)
        elseif inside ~= NAME and inside ~= ".incomplete" then
            use(inside)
        end
    end
end

--- Write the manifest of a folder, which is then to be synced. known: { name = { bytes =, blake2b = } } of files whose
--- checksum their writers know (blake2b nil: it has none, as one that several wrote); that of the others is taken here.
function M.write(dir, known)
    local files = {}
    each_file(dir, "", function(name)
        local file = path.join(dir, name)
        local bytes, why = path.size(file)
        if not bytes then
            err.raise("io", "%s", why)
        end
        files[name] = known[name] or { bytes = bytes, blake2b = digest_of(file) }
    end)
    for name in pairs(known) do
        if not files[name] then
            err.raise("io", "%s was written and is not there: do all ranks see the same folder?", path.join(dir, name))
        end
    end
    local text = json.encode({ version = 1, files = files }, { indent = 2, sort_keys = true })
    path.write_unsynced(path.join(dir, NAME), text .. "\n")
end

--- Raise "format" where a file that `wanted(name)` asks for is missing, of another size, or damaged. Of several readers
--- number k (from 0) of `count` takes the checksums of its share. A checkpoint without a manifest, as
--- there were, is not looked at.
function M.check(dir, wanted, k, count)
    local text, why = path.read_file(path.join(dir, NAME), MAX_BYTES)
    if not text and not path.exists(path.join(dir, NAME)) then
        return
    end
    local manifest = text and json.decode(text)
    local files = type(manifest) == "table" and manifest.files
    if type(files) ~= "table" or #files > 0 or next(files) == nil then
        err.raise("format", "%s: %s", path.join(dir, NAME), why or "it is no manifest")
    end
    local i = 0
    for _, name in ipairs(strings.sorted_keys(files)) do
        local said, file = files[name], path.join(dir, name)
        if type(said) ~= "table" or type(said.bytes) ~= "number" then
            err.raise("format", "%s says nothing sound of %s", path.join(dir, NAME), name)
        elseif wanted(name) then
            local bytes = path.is_file(file) and path.size(file)
            if not bytes then
                err.raise("format", "checkpoint %s lacks %s, which its manifest names; choose another", dir, name)
            elseif bytes ~= said.bytes then
                err.raise("format", "checkpoint %s is damaged: %s has %d bytes, by its manifest %d; choose another",
                          dir, name, bytes, said.bytes)
            elseif said.blake2b and i % count == k and digest_of(file) ~= said.blake2b then
                err.raise("format", "checkpoint %s is damaged: the checksum of %s is not the one in its manifest; "
                          .. "choose another", dir, name)
            end
            i = i + 1
        end
    end
end

return M
