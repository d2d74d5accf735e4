-- Files of a repository, from the hub into the cache: gone on with where an earlier try ended, verified, and
-- once only when several processes want the same. Holds no choice of files; hub.lua says which.

local engine = require("am.core.ffi").C
local err = require("am.core.error")
local api = require("am.utils.hub_api")
local cache = require("am.utils.hub_cache")
local digest = require("am.utils.digest")
local log = require("am.utils.log").get("am.hub")
local path = require("am.utils.path")
local posix = require("am.utils.posix")

local M = {}

local RETRIES = 5
local LOCK_WAIT, LOCK_NOTICE = 0.2, 5 -- seconds
local SPARE = 64 * 1024 * 1024 -- bytes of the disk that are left alone

-- ---------------------------------------------------------------- what is seen of it

local units = { "B", "kB", "MB", "GB", "TB" }

--- A number of bytes as people write it: "1.5 GB".
function M.amount(bytes)
    local unit = 1
    while bytes >= 1000 and unit < #units do
        bytes, unit = bytes / 1000, unit + 1
    end
    return string.format(unit == 1 and "%d %s" or "%.1f %s", bytes, units[unit])
end

-- One line on a terminal that says how far a file is; nothing elsewhere.
local function progress_line(name)
    local began, shown_at, from = engine.am_clock(), 0, nil
    local quiet = not posix.isatty(io.stderr) or (os.getenv("HF_HUB_DISABLE_PROGRESS_BARS") or "0") == "1"
    local line = {}
    function line.show(done, total)
        local now = engine.am_clock()
        from = from or done
        if quiet or (now - shown_at < 0.2 and done ~= total) then
            return
        end
        shown_at = now
        local rate = (done - from) / math.max(now - began, 1e-3)
        local left = total and rate > 0 and string.format(", %d s left", math.ceil((total - done) / rate)) or ""
        local share = total and string.format(" of %s (%d %%)", M.amount(total), 100 * done / math.max(total, 1)) or ""
        io.stderr:write(string.format("\r\27[K%s  %s%s  %s/s%s", name, M.amount(done), share, M.amount(rate), left))
        io.stderr:flush()
    end
    function line.clear()
        if shown_at > 0 then
            io.stderr:write("\r\27[K")
            io.stderr:flush()
        end
    end
    return line
end

-- ---------------------------------------------------------------- room, locks, verification

--- Raise "io" unless `bytes` more fit into the cache.
function M.check_room(bytes)
    local folder = cache.cache_dir()
    local free = posix.free_bytes(folder)
    if free and bytes + SPARE > free then
        err.raise("io", "%s more are needed and %s has room for %s: make room, or set HF_HUB_CACHE to another folder",
                  M.amount(bytes), folder, M.amount(math.max(free - SPARE, 0)))
    end
end

local function pause(seconds)
    local before = engine.am_signals_pending()
    posix.sleep(seconds)
    if engine.am_signals_pending() ~= before then
        err.raise("interrupted", "interrupted while waiting for another process")
    end
end

-- Run fn(true) while no other process downloads the same contents. Where files cannot be locked: fn(false).
local function locked(repo, blob, fn)
    local name, waited = cache.lock(repo, blob), 0
    local lock, message, busy
    repeat
        lock, message, busy = posix.lock_file(name, tostring(posix.getpid()))
        if busy then
            pause(LOCK_WAIT)
            waited = waited + LOCK_WAIT
            if waited >= LOCK_NOTICE and waited < LOCK_NOTICE + LOCK_WAIT then
                log:info("waiting for another process that downloads %s", blob)
            end
        end
    until not busy
    if not lock then
        log:debug("no lock: %s", message)
    end
    local ok, result = pcall(fn, lock ~= nil)
    if lock then
        posix.close(lock)
    end
    if not ok then
        error(result, 0)
    end
    return result
end

-- What is wrong with contents that came under that name: nil, or a message. LFS files are named by their
-- SHA-256, others by git's SHA-1 of them (by the plain one on some mirrors); other names say nothing.
local function flaw(file, head)
    local size = path.size(file)
    if head.size and size ~= head.size then
        return string.format("%d bytes came instead of %d", size or 0, head.size)
    end
    local function is(algorithm, prefix)
        local hex, message = digest.file(file, algorithm, prefix)
        if not hex then
            api.fail(message, message:find("interrupted", 1, true) and "interrupted" or "file")
        end
        return hex == head.blob
    end
    if head.blob:find("^%x+$") and #head.blob == 64 then
        return not is("sha256") and "its SHA-256 is not " .. head.blob or nil
    elseif head.blob:find("^%x+$") and #head.blob == 40 then
        return not (is("sha1", "blob " .. size .. "\0") or is("sha1")) and "its SHA-1 is not git's " .. head.blob or nil
    end
    return nil
end

-- ---------------------------------------------------------------- one file

-- Bring the contents into `file`, where a part of them may be. Returns true, or nil and what is wrong.
local function transfer(repo, commit, name, head, file)
    local have = path.size(file) or 0
    if head.size and have > head.size then
        os.remove(file)
        have = 0
    end
    if not head.size or have < head.size or have == 0 then
        if head.size then
            M.check_room(head.size - have)
        end
        local line = progress_line(name)
        local answer, message, kind = api.get(repo, commit, name, {
            to_file = file, resume_from = have, retries = RETRIES, max_bytes = head.size,
            on_progress = line.show,
        })
        line.clear()
        if not answer and kind ~= "too large" then
            api.fail(message, kind)
        elseif not answer or answer.status == 416 or (answer.status ~= 200 and answer.status ~= 206) then
            return nil, message or string.format("status %d", answer.status)
        end
    end
    local wrong = flaw(file, head)
    return not wrong or nil, wrong
end

local function sync(file)
    local ok, message = posix.fsync_path(file)
    if not ok then
        err.raise("io", "cannot write %s", message)
    end
end

-- Make the blob, unless it is there. A part that an earlier try left is gone on with once; a wrong whole is
-- removed, and brought once more.
local function make_blob(repo, commit, name, head, alone)
    local blob = cache.blob(repo, head.blob)
    if path.exists(blob) then
        return
    end
    local file = (alone and blob or path.unique(blob)) .. ".incomplete"
    local done, wrong
    for _ = 1, 2 do
        done, wrong = transfer(repo, commit, name, head, file)
        if done then
            break
        end
        os.remove(file)
    end
    if not done then
        err.raise("io", "%s of %s is not what the hub says it is (%s): try again later, and check HF_ENDPOINT and "
                  .. "proxies", name, repo.id, wrong)
    end
    sync(file)
    path.rename(file, blob)
end

--- A file of a commit in the cache: its path, or nil when the commit has none of that name.
function M.file(repo, commit, name)
    local pointer = path.join(cache.snapshot(repo, commit), name)
    if path.exists(pointer) then
        return pointer
    end
    local head = api.file(repo, commit, name)
    if not head then
        cache.note_absent(repo, commit, name)
        return nil
    end
    cache.make(repo)
    if not path.exists(cache.blob(repo, head.blob)) then
        locked(repo, head.blob, function(alone) make_blob(repo, commit, name, head, alone) end)
    end
    return cache.link(repo, commit, name, head.blob)
end

-- Remove a file of a snapshot whose contents are not what its name says, so that it is brought anew.
local function drop_if_damaged(repo, commit, name, size)
    local pointer = path.join(cache.snapshot(repo, commit), name)
    local target = posix.readlink(pointer)
    local blob = target and cache.blob_name(path.basename(target))
    if blob and path.exists(pointer) then
        local wrong = flaw(pointer, { blob = blob, size = size })
        if wrong then
            log:warning("%s of %s is damaged (%s) and is brought anew", name, repo.id, wrong)
            os.remove(cache.blob(repo, blob))
            os.remove(pointer)
        end
    end
end

--- Bring files of a commit into the cache: paths in the order of `names`. `info` is api.info's, or read_tree's
--- files as info.files. With `verify` what is there is read once and compared with its digest, too. Raises
--- when a file is missing or wrong; what came stays.
function M.files(repo, info, names, verify)
    local missing, bytes = {}, 0
    for _, name in ipairs(names) do
        if verify then
            drop_if_damaged(repo, info.commit, name, (info.files[name] or {}).size)
        end
        if not path.exists(path.join(cache.snapshot(repo, info.commit), name)) then
            missing[#missing + 1] = name
            bytes = bytes + ((info.files[name] or {}).size or 0)
        end
    end
    if #missing > 0 then
        path.mkdir_p(cache.cache_dir())
        M.check_room(bytes)
        log:info("downloading %s: %d file%s, %s, into %s", repo.id, #missing, #missing == 1 and "" or "s",
                 M.amount(bytes), cache.cache_dir())
    end
    local out = {}
    for i, name in ipairs(names) do
        out[i] = M.file(repo, info.commit, name)
            or err.raise("io", "%s has no file %s, although its list names it", repo.id, name)
    end
    return out
end

return M
