-- What is asked of the Hugging Face hub (or of what HF_ENDPOINT names), and what its refusals mean.
-- Holds questions and answers; files and folders are hub_cache.lua's and hub_download.lua's.
--
--   HF_ENDPOINT             the hub, https://huggingface.co by default
--   HF_TOKEN                the token that is sent along; else the file HF_TOKEN_PATH, else HF_HOME/token
--   HF_HUB_DISABLE_IMPLICIT_TOKEN=1   sends none
--   HF_HUB_OFFLINE=1        (or TRANSFORMERS_OFFLINE=1) asks nothing
--
-- The token is in no message, log line or file. Everything that a server says is checked before it is used.

local err = require("am.core.error")
local cache = require("am.utils.hub_cache")
local http = require("am.utils.http")
local json = require("am.utils.json")
local path = require("am.utils.path")

local M = {}

local MAX_FILES = 1000000
local RETRIES = 4

local function env(name)
    local value = os.getenv(name)
    return value ~= "" and value or nil
end

local function yes(value)
    return value and ({ ["1"] = true, on = true, yes = true, ["true"] = true })[value:lower()] or false
end

--- True when nothing may be asked.
function M.offline()
    return yes(env("HF_HUB_OFFLINE") or env("TRANSFORMERS_OFFLINE"))
end

function M.endpoint()
    return ((env("HF_ENDPOINT") or "https://huggingface.co"):gsub("/+$", ""))
end

--- The token and where it came from, or nil. Raises when it is no token, without saying what it is.
function M.token()
    if yes(env("HF_HUB_DISABLE_IMPLICIT_TOKEN")) then
        return nil
    end
    local token, source = env("HF_TOKEN") or env("HUGGING_FACE_HUB_TOKEN"), "HF_TOKEN"
    if not token then
        source = env("HF_TOKEN_PATH") or path.join(cache.home(), "token")
        token = path.read_file(source, 65536)
    end
    token = token and token:match("^%s*(.-)%s*$")
    if not token or token == "" then
        return nil
    elseif token:find("[^\33-\126]") then
        err.raise("usage", "%s holds no token: a token has neither spaces nor line breaks", source)
    end
    return token, source
end

local function headers()
    local token = M.token()
    return { Authorization = token and "Bearer " .. token or nil, ["Accept-Encoding"] = "identity" }
end

local function quote(text, safe)
    return (text:gsub("[^%w_.~%-" .. safe .. "]", function(c) return string.format("%%%02X", c:byte()) end))
end

--- Where a file of a commit is.
function M.file_url(repo, commit, name)
    return string.format("%s/%s%s/resolve/%s/%s", M.endpoint(), repo.type == "dataset" and "datasets/" or "", repo.id,
                         quote(commit, ""), quote(name, "/"))
end

-- ---------------------------------------------------------------- refusals

-- What people call the repository.
local function called(repo)
    return (repo.type == "dataset" and "the data set " or "") .. repo.id
end

-- The server's own words, on one line and without the token.
local function said(answer, sent)
    local words = answer.headers["x-error-message"]
    if not words then
        local body = json.decode(answer.body or "")
        words = type(body) == "table" and type(body.error) == "string" and body.error or nil
    end
    return words and ": " .. http.redact(words, sent):gsub("[%c\127-\255]", "?"):sub(1, 300) or ""
end

local function refused(repo, answer, sent)
    local status, code = answer.status, answer.headers["x-error-code"]
    local token, source = M.token()
    local hub = http.shown(M.endpoint())
    local page = hub .. (repo.type == "dataset" and "/datasets/" or "/") .. repo.id
    if code == "GatedRepo" then
        return string.format("%s is gated: ask for access on %s, %s", called(repo), page,
            token and "with the account that the token in " .. source .. " is of"
            or "and set HF_TOKEN to a token of the account that has it")
    elseif code == "RevisionNotFound" then
        return string.format("%s has no revision %q", called(repo), repo.revision or "main")
    elseif code == "RepoNotFound" or status == 401 or (status == 404 and not code) then
        return string.format("%s is not on %s, or not for everyone: check the name%s", called(repo), hub,
            token and ", and that the token in " .. source .. " is valid and may read it"
            or "; for a private or gated repository set HF_TOKEN to a token that may read it")
    elseif status == 429 then
        return string.format("%s has had too many requests: try again later%s", hub,
            token and "" or ", or with a token in HF_TOKEN, which may ask more often")
    elseif status >= 500 then
        return string.format("%s is out of order (%d), try again later", hub, status) .. said(answer, sent)
    end
    return string.format("%s refuses %s (%d)", hub, called(repo), status) .. said(answer, sent)
end

local function unlike(url, what)
    err.raise("format", "%s %s: check HF_ENDPOINT, and whether a proxy answers instead of the hub",
              http.shown(url), what)
end

--- Raise what http.request's nil, message, kind mean.
function M.fail(message, kind)
    if kind == "interrupted" then
        err.raise("interrupted", message)
    end
    err.raise("io", message)
end

-- An answer, or an error. 404s of files are answers.
local function ask(repo, opts)
    opts.headers, opts.retries, opts.timeout = opts.headers or headers(), RETRIES, 120
    local answer, message, kind = http.request(opts)
    if not answer then
        M.fail(message, kind)
    end
    local missing = answer.status == 404 and answer.headers["x-error-code"] == "EntryNotFound"
    if answer.status >= 400 and not missing then
        err.raise("io", refused(repo, answer, opts.headers))
    end
    return answer
end

-- ---------------------------------------------------------------- questions

local function count_of(value)
    return type(value) == "number" and value >= 0 and value < 2 ^ 53 and value == math.floor(value) and value or nil
end

-- An entry of "siblings" as trees/*.json has it.
local function entry_of(sibling)
    local lfs = type(sibling.lfs) == "table" and sibling.lfs or {}
    return {
        size = count_of(sibling.size),
        blob_id = type(sibling.blobId) == "string" and sibling.blobId or nil,
        lfs_sha256 = type(lfs.sha256) == "string" and lfs.sha256 or nil,
        lfs_size = count_of(lfs.size),
    }
end

--- Read the hub's answer about a repository: { commit, files = { [name] = entry }, complete = every entry
--- has what trees/*.json needs }. Raises "format" for another text. `url` is for messages.
function M.read_info(text, url)
    local info, why = json.decode(text)
    if type(info) ~= "table" then
        unlike(url, "did not answer as a hub does (" .. (why or "no object") .. ")")
    elseif not cache.is_commit(info.sha) or type(info.siblings) ~= "table" then
        unlike(url, "answered without a commit or without files")
    elseif #info.siblings > MAX_FILES then
        err.raise("unsupported", "%s lists more than %d files", http.shown(url), MAX_FILES)
    end
    local out = { commit = info.sha, files = {}, complete = true }
    for _, sibling in ipairs(info.siblings) do
        local name = type(sibling) == "table" and sibling.rfilename
        if type(name) ~= "string" then
            unlike(url, "lists a file without a name")
        elseif not cache.is_safe(name) then
            err.raise("format", "%s lists a file named %q, which is refused: it could be written outside its folder",
                      http.shown(url), name)
        end
        local entry = entry_of(sibling)
        out.files[name] = entry
        out.complete = out.complete and entry.size ~= nil and entry.blob_id ~= nil
    end
    return out
end

--- What a repository's revision holds. Raises when it is not there, or not for this token.
function M.info(repo)
    local url = string.format("%s/api/%ss/%s/revision/%s?blobs=true", M.endpoint(), repo.type, repo.id,
                              quote(repo.revision or "main", ""))
    local answer = ask(repo, { url = url, follow = true })
    if answer.status ~= 200 then
        err.raise("io", refused(repo, answer, {}))
    end
    return M.read_info(answer.body, url)
end

--- What the hub says of a file: { blob = name of its contents, size }, or nil when the commit has no such
--- file. Raises when it is another commit's.
function M.file(repo, commit, name)
    local url = M.file_url(repo, commit, name)
    local answer = ask(repo, { url = url, method = "HEAD", follow = "same_host" })
    if answer.redirect_url and not answer.headers["x-repo-commit"] then -- a mirror sends on to the hub itself
        answer = ask(repo, { url = answer.redirect_url, method = "HEAD", follow = "same_host", headers = {} })
    end
    local head = answer.headers
    if answer.status == 404 then
        return nil
    elseif head["x-repo-commit"] ~= commit then
        unlike(url, "answered for " .. (head["x-repo-commit"] and "another commit" or "no commit"))
    end
    local blob = cache.blob_name(head["x-linked-etag"] or head.etag)
    if not blob then
        unlike(url, "answered without a tag of its contents")
    end
    local length = head["x-linked-size"] or (answer.status == 200 and head["content-length"]) or nil
    return { blob = blob, size = count_of(tonumber(length)) }
end

--- http.request of a file's contents, with the token for the hub alone.
function M.get(repo, commit, name, opts)
    opts.url, opts.headers = M.file_url(repo, commit, name), headers()
    local answer, message, kind = http.request(opts)
    if answer and answer.status >= 400 and answer.status ~= 416 then
        err.raise("io", "%s: %s", name, refused(repo, answer, opts.headers))
    end
    return answer, message, kind
end

return M
