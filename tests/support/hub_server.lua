-- A Hugging Face hub on loopback, for tests: the paths and headers of the real one, and what goes wrong.
--
--   local hub = hub_server.start(repositories, handler)
--   repositories: { ["org/name" or "datasets/org/name"] = {
--       commit = 40 digits, files = { [name] = contents }, lfs = { [name] = true },
--       branches = { ["refs/convert/parquet"] = { commit, files } },
--       gated = true, private = true (both need the token hub_server.TOKEN) } }
--   handler(request, answer): may return another answer than the hub's, nil to keep it
--   hub.url  hub.cdn.url  hub:requests()  hub:forget()  hub:stop()
--
-- Contents named in `lfs` come from a second server, the CDN, as large files do. Both honour ranges.

local http_server = require("tests.support.http_server")
local json = require("am.utils.json")

local M = { TOKEN = "hf_aTokenThatMustNotBeSeen" }

-- A digest of a text, by the tool that holds it as truth.
local function digest(tool, text)
    local name = os.tmpname()
    local file = assert(io.open(name, "wb"))
    file:write(text)
    file:close()
    local pipe = io.popen(tool .. " " .. name)
    local hex = pipe:read("*l"):match("^%x+")
    pipe:close()
    os.remove(name)
    return hex
end

local function unquote(text)
    return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

--- `text`, or the part of it that a request's Range asks for.
function M.ranged(request, text, headers)
    local from = tonumber((request.headers.range or ""):match("bytes=(%d+)%-"))
    headers = headers or {}
    if not from then
        return { status = 200, headers = headers, body = text }
    elseif from >= #text then
        return { status = 416, headers = headers }
    end
    headers["Content-Range"] = ("bytes %d-%d/%d"):format(from, #text - 1, #text)
    return { status = 206, headers = headers, body = text:sub(from + 1) }
end

local function refuse(status, code, message)
    return { status = status, headers = { ["X-Error-Code"] = code, ["X-Error-Message"] = message },
             body = json.encode { error = message } }
end

-- The files of a revision: repo's or a branch's, or nil.
local function revision_of(repo, revision)
    if revision == "main" or revision == repo.commit then
        return repo
    end
    for name, branch in pairs(repo.branches or {}) do
        if revision == name or revision == branch.commit then
            return branch
        end
    end
    return nil
end

local function allowed(repo, request)
    local token = request.headers.authorization
    if token and token ~= "Bearer " .. M.TOKEN then
        return refuse(401, nil, "Invalid credentials in Authorization header: " .. token)
    elseif repo and repo.gated and not token then
        return refuse(401, "GatedRepo", "Access to model is restricted")
    elseif not repo or (repo.private and not token) then
        return refuse(token and 404 or 401, "RepoNotFound", "Repository not found")
    end
    return nil
end

local function info(id, of, known)
    local siblings = json.array {}
    for name, text in pairs(of.files) do
        local tag = known[text]
        siblings[#siblings + 1] = {
            rfilename = name, size = #text, blobId = tag.git,
            lfs = tag.sha256 and { sha256 = tag.sha256, size = #text, pointerSize = 134 } or nil,
        }
    end
    table.sort(siblings, function(a, b) return a.rfilename < b.rfilename end)
    return { headers = { ["Content-Type"] = "application/json" },
             body = json.encode { id = id, sha = of.commit, siblings = siblings } }
end

-- The other list of the same, which newer versions of huggingface_hub ask for.
local function tree(of, known)
    local out = json.array {}
    for name, text in pairs(of.files) do
        local tag = known[text]
        out[#out + 1] = {
            type = "file", path = name, size = #text, oid = tag.git,
            lfs = tag.sha256 and { oid = tag.sha256, size = #text, pointerSize = 134 } or nil,
        }
    end
    return { headers = { ["Content-Type"] = "application/json" }, body = json.encode(out) }
end

local function respond(repositories, known, cdn, request)
    local place = request.path:gsub("%?.*$", "")
    local type, id, revision = place:match("^/api/(%w+)s/(.-)/revision/(.+)$")
    local whole = type == nil
    if whole then
        type, id, revision = place:match("^/api/(%w+)s/(.-)/tree/(.+)$")
    end
    local name
    if not type then
        id, revision, name = place:match("^/(.-)/resolve/([^/]+)/(.+)$")
        if not id then
            return refuse(404, nil, "Not found")
        end
        type = "any"
    end
    local repo = repositories[(type == "dataset" and "datasets/" or "") .. id]
    local refusal = allowed(repo, request)
    if refusal then
        return refusal
    end
    local of = revision_of(repo, unquote(revision))
    if not of then
        return refuse(404, "RevisionNotFound", "Invalid rev id: " .. revision)
    elseif not name then
        return whole and tree(of, known) or info(id, of, known)
    end
    name = unquote(name)
    local text = of.files[name]
    if not text then
        local out = refuse(404, "EntryNotFound", "Entry not found")
        out.headers["X-Repo-Commit"] = of.commit
        return out
    end
    local tag = known[text]
    if tag.sha256 then
        return { status = 302, headers = {
            Location = cdn .. "/" .. tag.sha256 .. "?signature=secret", ["X-Repo-Commit"] = of.commit,
            ["X-Linked-Etag"] = '"' .. tag.sha256 .. '"', ["X-Linked-Size"] = tostring(#text),
        }, body = "Found. Redirecting" }
    end
    return M.ranged(request, text, { ETag = '"' .. tag.git .. '"', ["X-Repo-Commit"] = of.commit })
end

local Hub = {}
Hub.__index = Hub

--- Begin to serve.
function M.start(repositories, handler)
    local known = {}
    local function add(of)
        for name, text in pairs(of.files) do
            known[text] = known[text] or { git = digest("sha1sum", "blob " .. #text .. "\0" .. text) }
            if of.lfs and of.lfs[name] then
                known[text].sha256 = digest("sha256sum", text)
            end
        end
    end
    local by_sha = {}
    for _, repo in pairs(repositories) do
        add(repo)
        for _, branch in pairs(repo.branches or {}) do
            add(branch)
        end
    end
    for text, tag in pairs(known) do
        by_sha[tag.sha256 or ""] = text
    end
    handler = handler or function() end
    local cdn = http_server.start(function(request)
        local text = by_sha[request.path:match("^/(%x+)")]
        local answer = text and M.ranged(request, text, { ETag = '"cdn"' }) or { status = 404 }
        return handler(request, answer, "cdn") or answer
    end)
    local main = http_server.start(function(request)
        local answer = respond(repositories, known, cdn.url, request)
        return handler(request, answer, "hub") or answer
    end)
    return setmetatable({ main = main, cdn = cdn, url = main.url, known = known }, Hub)
end

--- What both servers were asked: { where = "hub" or "cdn", method, path, headers }.
function Hub:requests()
    local out = {}
    for where, server in pairs { hub = self.main, cdn = self.cdn } do
        for _, request in ipairs(server:requests()) do
            request.where = where
            out[#out + 1] = request
        end
    end
    return out
end

function Hub:forget()
    self.main:forget()
    self.cdn:forget()
end

function Hub:stop()
    self.main:stop()
    self.cdn:stop()
end

return M
