-- Where a model is on this machine: a directory, a file, or a hub name in the Hugging Face cache
-- (HF_HUB_CACHE, HF_HOME/hub, ~/.cache/huggingface/hub). Downloads nothing.

local err = require("am.core.error")
local path = require("am.utils.path")

local M = {}

--- The cache folder, as huggingface_hub chooses it.
function M.cache_dir()
    local set = os.getenv("HF_HUB_CACHE")
    if set and set ~= "" then
        return set
    end
    local home = os.getenv("HF_HOME")
    if home and home ~= "" then
        return path.join(home, "hub")
    end
    local cache = os.getenv("XDG_CACHE_HOME")
    if not cache or cache == "" then
        cache = path.join(os.getenv("HOME") or ".", ".cache")
    end
    return path.join(cache, "huggingface", "hub")
end

-- The snapshot that refs/main names, else the only or newest one with a config.json.
local function snapshot(repo_dir)
    local ref = path.read_file(path.join(repo_dir, "refs", "main"), 256)
    if ref then
        local dir = path.join(repo_dir, "snapshots", (ref:gsub("%s+", "")))
        if path.is_dir(dir) then
            return dir
        end
    end
    local snapshots = path.join(repo_dir, "snapshots")
    for _, name in ipairs(path.is_dir(snapshots) and path.list_dir(snapshots) or {}) do
        local dir = path.join(snapshots, name)
        if path.is_file(path.join(dir, "config.json")) then
            return dir
        end
    end
end

--- The local path of a model, tokenizer or adapter: name itself when it exists, else its snapshot in
--- the cache. Raises an "io" error that says where it looked.
function M.resolve(name)
    if type(name) ~= "string" or name == "" then
        err.raise("usage", "a model is named by a directory, a GGUF file or a hub name, not by %s",
                  tostring(name))
    end
    if path.exists(name) then
        return name
    end
    if name:match("^[%w%-_%.]+/[%w%-_%.]+$") then
        local cached = path.join(M.cache_dir(), "models--" .. name:gsub("/", "--"))
        local dir = path.is_dir(cached) and snapshot(cached)
        if dir then
            return dir
        end
        err.raise("io", "%s is neither here nor in the Hugging Face cache (%s); download it, or give "
                  .. "its directory or GGUF file", name, M.cache_dir())
    end
    err.raise("io", "%s does not exist", name)
end

return M
