-- The Hugging Face cache on disk, laid out as huggingface_hub lays it out, so that both share one.
-- Holds names and places; what is fetched, and how, is hub_api.lua's and hub_download.lua's.
--
--   CACHE/models--ORG--NAME/ (datasets--… for data sets)
--     refs/main                     the commit that a branch or tag stands for
--     blobs/ETAG                    contents; ETAG.incomplete while they come
--     snapshots/COMMIT/FILE         links to ../../blobs/ETAG
--     trees/COMMIT.json             the files of a commit, with sizes
--     .no_exist/COMMIT/FILE         files that were asked for and are not in the repository
--   CACHE/.locks/models--ORG--NAME/ETAG.lock
--
-- A repository is a table { type = "model" or "dataset", id = "org/name", revision = "main" }. Commits, tags
-- of contents and file names come from servers: what could reach another folder is refused here.

local err = require("am.core.error")
local json = require("am.utils.json")
local path = require("am.utils.path")

local M = {}

local MAX_TREE = 256 * 1024 * 1024 -- bytes of a trees/*.json

local function set(name)
    local value = os.getenv(name)
    return value ~= "" and value or nil
end

local function expand(folder)
    return (folder:gsub("^~", os.getenv("HOME") or "."))
end

--- The folder of everything of Hugging Face's: HF_HOME, or huggingface in XDG_CACHE_HOME or ~/.cache.
function M.home()
    local home = set("HF_HOME")
    if home then
        return expand(home)
    end
    local cache = set("XDG_CACHE_HOME") or path.join(os.getenv("HOME") or ".", ".cache")
    return path.join(cache, "huggingface")
end

--- The cache folder, as huggingface_hub chooses it.
function M.cache_dir()
    return expand(set("HF_HUB_CACHE") or set("HUGGINGFACE_HUB_CACHE") or path.join(M.home(), "hub"))
end

-- ---------------------------------------------------------------- what may be a name

--- True for "org/name" and "name" as the hub allows them.
function M.is_repo_id(name)
    local ok = #name <= 96 and (name:find("^[%w_][%w_.-]*/[%w_][%w_.-]*$") or name:find("^[%w_][%w_.-]*$"))
    return ok and not name:find("..", 1, true) and not name:find("--", 1, true) and not name:find("[.-]$")
        and not name:find("%.git$") or false
end

--- A commit: 40 hexadecimal digits.
function M.is_commit(text)
    return type(text) == "string" and #text == 40 and not text:find("[^%x]")
end

--- A branch, tag or other ref that can be a file's name below refs/.
function M.check_revision(revision)
    if not revision:find("^[%w_][%w_./+-]*$") or revision:find("..", 1, true) or revision:find("//", 1, true)
        or revision:find("/$") or #revision > 200 then
        err.raise("usage", "%q is no revision: write a branch, a tag or a commit", revision)
    end
end

--- True for a file's name in a repository that stays in its folder.
function M.is_safe(name)
    if type(name) ~= "string" or name == "" or #name > 1024 or name:find("[%z\1-\31\127]") then
        return false
    end
    for part in (name .. "/"):gmatch("([^/]*)/") do
        if part == "" or part == "." or part == ".." or #part > 255 then
            return false
        end
    end
    return true
end

--- The tag of a file's contents as the name of its blob, from a header; nil when it can be none.
function M.blob_name(etag)
    local name = etag and etag:gsub("^W/", ""):gsub('^"(.*)"$', "%1")
    return name and #name <= 128 and name:find("^[%w_-][%w_.-]*$") and name or nil
end

-- ---------------------------------------------------------------- places

local function folder_name(repo)
    return repo.type .. "s--" .. repo.id:gsub("/", "--")
end

--- The folder of a repository.
function M.folder(repo)
    return path.join(M.cache_dir(), folder_name(repo))
end

function M.blob(repo, name)
    return path.join(M.folder(repo), "blobs", name)
end

function M.lock(repo, name)
    return path.join(M.cache_dir(), ".locks", folder_name(repo), name .. ".lock")
end

function M.snapshot(repo, commit)
    return path.join(M.folder(repo), "snapshots", commit)
end

--- The commit that the repository's revision stands for here, or nil.
function M.commit(repo)
    local revision = repo.revision or "main"
    if M.is_commit(revision) then
        return revision
    end
    local text = path.read_file(path.join(M.folder(repo), "refs", revision), 256)
    local commit = text and text:match("^%s*(%x+)%s*$")
    return M.is_commit(commit) and commit or nil
end

--- Make the folders of a repository; what is made is known to backup programs as a cache.
function M.make(repo)
    path.mkdir_p(path.join(M.folder(repo), "blobs"))
    path.mkdir_p(path.dirname(M.lock(repo, "x")))
    local tag = path.join(M.cache_dir(), "CACHEDIR.TAG")
    if not path.exists(tag) then
        path.write_file(tag, "Signature: 8a477f597d28d172789f06886806bc55\n"
            .. "# This file is a cache directory tag created by amlua.\n"
            .. "# For information about cache directory tags, see:\n#\thttps://bford.info/cachedir/\n")
    end
end

--- Remember which commit the repository's revision stands for.
function M.write_ref(repo, commit)
    local revision = repo.revision or "main"
    if revision == commit or M.commit(repo) == commit then
        return
    end
    local file = path.join(M.folder(repo), "refs", revision)
    path.mkdir_p(path.dirname(file))
    path.write_file(file, commit)
end

--- Let a snapshot's file be the blob of that name.
function M.link(repo, commit, name, blob)
    local pointer = path.join(M.snapshot(repo, commit), name)
    path.mkdir_p(path.dirname(pointer))
    if not path.exists(pointer) then
        path.symlink_swap(M.blob(repo, blob), pointer)
    end
    return pointer
end

--- Remember that a commit has no file of that name.
function M.note_absent(repo, commit, name)
    local file = path.join(M.folder(repo), ".no_exist", commit, name)
    path.mkdir_p(path.dirname(file))
    path.write_file(file, "")
end

-- ---------------------------------------------------------------- the files of a commit

--- Write what a commit holds: { [name] = { size, blob_id, lfs_sha256, lfs_size } }.
function M.write_tree(repo, commit, files)
    local file = path.join(M.folder(repo), "trees", commit .. ".json")
    if not path.exists(file) then
        path.mkdir_p(path.dirname(file))
        path.write_file(file, json.encode({ format_version = 1, files = json.object(files) }, { indent = 1 }) .. "\n")
    end
end

--- What a commit holds, if that is known: the same table, or nil. A damaged file counts as none.
function M.read_tree(repo, commit)
    local text = path.read_file(path.join(M.folder(repo), "trees", commit .. ".json"), MAX_TREE)
    local tree = text and json.decode(text)
    local files = type(tree) == "table" and tree.format_version == 1 and tree.files
    if type(files) ~= "table" then
        return nil
    end
    for name, entry in pairs(files) do
        if not M.is_safe(name) or type(entry) ~= "table" or type(entry.size) ~= "number" then
            return nil
        end
    end
    return files
end

-- Add the names below a folder to `out`. Links are followed, as snapshots consist of them; depth ends loops.
local function walk(folder, prefix, depth, out)
    for _, name in ipairs(path.list_dir(folder) or {}) do
        local place = path.join(folder, name)
        if path.is_dir(place) then
            if depth < 32 then
                walk(place, prefix .. name .. "/", depth + 1, out)
            end
        elseif path.is_file(place) then
            out[#out + 1] = prefix .. name
        end
    end
    return out
end

--- The names of the files below a folder, sorted.
function M.files_below(folder)
    local out = walk(folder, "", 0, {})
    table.sort(out)
    return out
end

return M
