-- File names and whole files: joining, looking, making folders, writing so that no half file stays.
-- Holds no formats. What the caller may expect to be absent returns nil, message; what must work
-- (making a folder, writing a file) raises an error object of code "io".
--
--   path.join(a, b, …)  path.dirname(p)  path.basename(p)  path.extension(p)  path.is_absolute(p)
--   path.absolute(p)  path.normalize(p)  path.relative(p, from)
--   path.exists(p)  path.is_dir(p)  path.is_file(p)  path.is_link(p)  path.size(p)
--   path.list_dir(p) -> sorted names | nil, msg     path.names(p) -> sorted names
--   path.mkdir_p(p)  path.remove_tree(p)  path.rename(from, to)  path.unique(p)
--   path.read_file(p, max_bytes) -> text | nil, msg
--   path.write_file(p, text)  atomic and synced     path.write_unsynced(p, text)     path.sync(p)
--   path.temporary_folders() -> where files that nobody keeps may go
--   path.symlink_swap(target, link)  atomic; target is made relative to the link's folder

local posix = require("am.utils.posix")
local err = require("am.core.error")

local M = {}

local function io_fail(doing, msg)
    err.raise("io", "cannot %s: %s", doing, msg)
end

--- Join with single slashes; an absolute part starts over, empty parts are skipped.
function M.join(...)
    local out = ""
    for i = 1, select("#", ...) do
        local part = select(i, ...)
        if part:sub(1, 1) == "/" or out == "" then
            out = part ~= "" and part or out
        elseif part ~= "" then
            out = out:gsub("/+$", "") .. "/" .. part
        end
    end
    return out
end

function M.is_absolute(p)
    return p:sub(1, 1) == "/"
end

--- Resolve "." and ".." by text alone; "a/../../b" keeps the ".." it cannot resolve.
function M.normalize(p)
    local absolute = M.is_absolute(p)
    local parts = {}
    for part in p:gmatch("[^/]+") do
        if part == ".." and #parts > 0 and parts[#parts] ~= ".." then
            parts[#parts] = nil
        elseif part == ".." and absolute then
            parts[1] = nil -- "/.." is "/"
        elseif part ~= "." then
            parts[#parts + 1] = part
        end
    end
    local text = table.concat(parts, "/")
    if absolute then
        return "/" .. text
    end
    return text == "" and "." or text
end

--- Absolute and normalized; what it names need not exist.
function M.absolute(p)
    if not M.is_absolute(p) then
        p = M.join(assert(posix.getcwd()), p)
    end
    return M.normalize(p)
end

--- The folder part; "." when there is none.
function M.dirname(p)
    p = p:gsub("(.)/+$", "%1")
    local dir = p:match("^(.*)/[^/]*$")
    if not dir then
        return "."
    end
    dir = dir:gsub("/+$", "")
    return dir == "" and "/" or dir
end

function M.basename(p)
    return (p:gsub("(.)/+$", "%1"):match("([^/]+)$")) or "/"
end

--- Extension without the dot, lower case, or nil.
function M.extension(p)
    local ext = M.basename(p):match("^.+%.([^.]+)$")
    return ext and ext:lower()
end

--- `p` as seen from folder `from`; both may be relative to the current folder.
function M.relative(p, from)
    local to, base = {}, {}
    for part in M.absolute(p):gmatch("[^/]+") do
        to[#to + 1] = part
    end
    for part in M.absolute(from):gmatch("[^/]+") do
        base[#base + 1] = part
    end
    local same = 0
    while same < #to and same < #base and to[same + 1] == base[same + 1] do
        same = same + 1
    end
    local out = {}
    for _ = same + 1, #base do
        out[#out + 1] = ".."
    end
    for i = same + 1, #to do
        out[#out + 1] = to[i]
    end
    return #out == 0 and "." or table.concat(out, "/")
end

-- Nil when nothing is there. A disk that can't answer is an error: what it holds must not be taken for
-- absent, or a run would begin anew beside its own checkpoints.
local function type_of(p, nofollow)
    local st, msg, errno = posix.stat(p, nofollow)
    if errno == posix.EIO then
        io_fail("look at", msg)
    end
    return st and st.type
end

--- True when something is there; a link that leads nowhere is not.
function M.exists(p)
    return type_of(p) ~= nil
end

function M.is_dir(p)
    return type_of(p) == "dir"
end

function M.is_file(p)
    return type_of(p) == "file"
end

function M.is_link(p)
    return type_of(p, true) == "link"
end

--- The first of these folders in `dir` that holds a file of that name, joined to `dir`; nil where none does.
function M.folder_with(dir, name, folders)
    for _, folder in ipairs(folders) do
        local there = M.join(dir, folder)
        if M.is_file(M.join(there, name)) then
            return there
        end
    end
end

--- Size of a file in bytes, or nil, message.
function M.size(p)
    local st, msg = posix.stat(p)
    if not st then
        return nil, msg
    end
    return st.size
end

--- Sorted names in a folder, or nil, message.
function M.list_dir(p)
    local names, msg = posix.readdir(p)
    if not names then
        return nil, msg
    end
    table.sort(names)
    return names
end

--- Sorted names in a folder that must be there.
function M.names(p)
    local names, msg = M.list_dir(p)
    if not names then
        io_fail("list", msg)
    end
    return names
end

--- Make a folder and those above it, so that they survive a power cut; being there already is fine. unsynced: into a
--- folder that is synced as a whole later.
function M.mkdir_p(p, unsynced)
    if p == "" or M.is_dir(p) then
        return p
    end
    local parent = M.dirname(p)
    if parent ~= p then
        M.mkdir_p(parent, unsynced)
    end
    local ok, msg, errno = posix.mkdir(p)
    if not ok and not (errno == posix.EEXIST and M.is_dir(p)) then
        io_fail("make folder", msg)
    end
    if not unsynced then
        M.sync(parent)
    end
    return p
end

--- Remove a file, link or folder with all that is in it; links are removed, not followed.
function M.remove_tree(p)
    local kind = type_of(p, true)
    if not kind then
        return
    end
    local ok, msg
    if kind == "dir" then
        for _, name in ipairs(M.names(p)) do
            M.remove_tree(M.join(p, name))
        end
        ok, msg = posix.rmdir(p)
    else
        ok, msg = posix.unlink(p)
    end
    if not ok then
        io_fail("remove", msg)
    end
end

--- Wait until a file, or the names in a folder, are on the disk itself.
function M.sync(p)
    local ok, msg = posix.fsync_path(p)
    if not ok then
        io_fail("sync", msg)
    end
end

--- Atomic rename within one file system, synced to the disk.
function M.rename(from, to)
    local ok, msg = posix.rename(from, to)
    if not ok then
        io_fail("rename", msg)
    end
    M.sync(M.dirname(to))
end

--- Folders for large files that nobody keeps, the best first: TMPDIR, then one on a disk rather than in
--- memory where there is a choice.
function M.temporary_folders()
    local set = os.getenv("TMPDIR")
    return { set ~= "" and set or "/var/tmp", "/var/tmp", "/tmp" }
end

local unique_count = 0

--- A name beside `p` that no other process uses, for building what is later renamed to `p`.
function M.unique(p)
    unique_count = unique_count + 1
    return string.format("%s.%d-%d-%d.tmp", p, posix.getpid(), os.time(), unique_count)
end

--- A whole file, or nil, message. Refuses folders and, with `max_bytes`, larger files.
function M.read_file(p, max_bytes)
    local st, stat_msg = posix.stat(p)
    if not st then
        return nil, stat_msg
    end
    if st.type == "dir" then
        return nil, p .. ": is a folder"
    end
    if max_bytes and st.size > max_bytes then
        return nil, string.format("%s: %d bytes, more than the %d that are read", p, st.size, max_bytes)
    end
    local file, open_msg = posix.open(p, "read")
    if not file then
        return nil, open_msg
    end
    local text, read_msg = posix.read(file, max_bytes and max_bytes + 1) -- a growing file's size says little
    posix.close(file)
    if not text then
        return nil, p .. ": " .. read_msg
    end
    if max_bytes and #text > max_bytes then
        return nil, string.format("%s: more than the %d bytes that are read", p, max_bytes)
    end
    return text
end

--- Write a file without waiting for the disk: into a folder that is synced as a whole before anybody reads it.
function M.write_unsynced(p, text)
    local tmp = M.unique(p)
    local file, msg = posix.open(tmp, "create")
    if not file then
        io_fail("write", msg)
    end
    local written, why = posix.write(file, text)
    local closed, close_msg = posix.close(file)
    local renamed, rename_msg = posix.rename(tmp, p)
    if not (written and closed and renamed) then
        posix.unlink(tmp)
        io_fail("write " .. p, why or close_msg or rename_msg)
    end
end

--- Replace a file atomically: readers see the old text or the new, also after a power cut.
function M.write_file(p, text)
    local tmp = M.unique(p)
    local file, msg = posix.open(tmp, "create")
    if not file then
        io_fail("write", msg)
    end
    local function must(done, why)
        if not done then
            posix.unlink(tmp)
            io_fail("write " .. p, why)
        end
    end
    local written, why = posix.write(file, text)
    if written then
        written, why = posix.fsync(file)
    end
    local closed, close_msg = posix.close(file)
    must(written, why)
    must(closed, close_msg)
    must(posix.rename(tmp, p))
    M.sync(M.dirname(p))
end

--- Point `link` at `target` by one atomic rename; the link stored is relative to its own folder,
--- so that the tree may be moved. A relative `target` is seen from the current folder.
function M.symlink_swap(target, link)
    local tmp = M.unique(link)
    local ok, msg = posix.symlink(M.relative(target, M.dirname(link)), tmp)
    if not ok then
        io_fail("make link", msg)
    end
    ok, msg = posix.rename(tmp, link)
    if not ok then
        posix.unlink(tmp)
        io_fail("make link", msg)
    end
    M.sync(M.dirname(link))
end

return M
