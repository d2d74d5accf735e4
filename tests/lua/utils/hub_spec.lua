-- Models from a hub on loopback: what is brought, where it lies, and what is said when it cannot be.

local engine = require("am.core.ffi").C
local cache = require("am.utils.hub_cache")
local digest = require("am.utils.digest")
local err = require("am.core.error")
local hub = require("am.utils.hub")
local log = require("am.utils.log")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local processes = require("am.utils.processes")
local environment = require("tests.support.environment")
local hub_server = require("tests.support.hub_server")

local COMMIT = ("0123456789abcdef"):rep(3):sub(1, 40)
local WEIGHTS = ("weights "):rep(300000) -- 2.4 MB
local FILES = {
    ["config.json"] = '{"model_type": "llama"}', ["tokenizer.json"] = "{}", ["model.safetensors"] = WEIGHTS,
    ["pytorch_model.bin"] = "pickle", ["README.md"] = "# Tiny", ["onnx/model.onnx"] = "onnx", ["merges.txt"] = "",
}
local LFS = { ["model.safetensors"] = true, ["pytorch_model.bin"] = true }

local repositories = {
    ["org/tiny"] = { commit = COMMIT, files = FILES, lfs = LFS,
                     branches = { v1 = { commit = ("1"):rep(40), files = { ["config.json"] = "{}" } } } },
    ["org/gated"] = { commit = COMMIT, files = FILES, lfs = LFS, gated = true },
    ["org/gguf"] = { commit = COMMIT, files = { ["tiny-Q4_0.gguf"] = "GGUF", ["README.md"] = "" } },
    ["org/private"] = { commit = COMMIT, files = FILES, lfs = LFS, private = true },
    ["org/sharded"] = { commit = COMMIT, files = {
        ["config.json"] = "{}",
        ["model-00001-of-00002.safetensors"] = "one", ["model-00002-of-00002.safetensors"] = "two",
        ["model.safetensors.index.json"] = '{"weight_map": {"a": "model-00001-of-00002.safetensors", '
            .. '"b": "model-00002-of-00002.safetensors"}}',
        ["consolidated.safetensors"] = "both",
    } },
}
repositories["org/pytorch"] = { commit = COMMIT, files = {
    ["config.json"] = "{}", ["training_args.bin"] = "pickle", ["optimizer.bin"] = "pickle",
    ["pytorch_model-00001-of-00002.bin"] = "one", ["pytorch_model-00002-of-00002.bin"] = "two",
    ["pytorch_model.bin.index.json"] = '{"weight_map": {"a": "pytorch_model-00001-of-00002.bin", '
        .. '"b": "pytorch_model-00002-of-00002.bin"}}',
} }
for _, name in ipairs { "slow", "huge", "shape", "escape", "busy", "absolute", "commit", "tag" } do
    repositories["org/" .. name] = { commit = COMMIT, files = FILES, lfs = LFS }
end

-- What goes wrong, by the repository's name.
local function disturb(request, answer, where)
    local name = request.path:match("/org/(%w+)/")
    local listing = request.path:find("^/api/")
    local weights = where == "cdn" and request.method == "GET"
    if weights and path.exists(os.getenv("HUB_TEST_CUT") or "") and request.count == 0 then
        answer.length, answer.cut = #answer.body, 1500000
    elseif weights and path.exists(os.getenv("HUB_TEST_WRONG") or "") then
        answer.body = answer.body:gsub("w", "W")
    elseif weights and path.exists(os.getenv("HUB_TEST_LONGER") or "") then
        answer.body, answer.length = answer.body .. ("x"):rep(5000000), nil
    elseif name == "huge" and request.method == "HEAD" and answer.headers["X-Linked-Size"] then
        answer.headers["X-Linked-Size"] = "900000000000000"
    elseif name == "slow" then
        answer.delay = 30
    elseif name == "busy" and listing and request.count < 1 then
        return { status = 503, headers = { ["Retry-After"] = "0" } }
    elseif name == "shape" and listing then
        answer.body = '{"sha": "' .. COMMIT .. '", "siblings": [{"rfilename": ["config.json"]}]}'
    elseif (name == "escape" or name == "absolute") and listing then
        local bad = name == "escape" and "../../../../stolen" or "/tmp/stolen"
        answer.body = '{"sha": "' .. COMMIT .. '", "siblings": [{"rfilename": "' .. bad .. '"}]}'
    elseif name == "commit" and listing then
        answer.body = '{"sha": "../../../x", "siblings": []}'
    elseif name == "tag" and request.method == "HEAD" then
        answer.headers["X-Linked-Etag"], answer.headers.ETag = '"../../../../stolen"', '"../../../../stolen"'
    end
    return answer
end

describe("hub", function()
    local server, home, said

    setup(function()
        home = os.tmpname()
        os.remove(home)
        path.mkdir_p(home)
        environment.set { HUB_TEST_CUT = home .. "/cut", HUB_TEST_WRONG = home .. "/wrong",
                          HUB_TEST_LONGER = home .. "/longer", http_proxy = false, all_proxy = false,
                          ALL_PROXY = false }
        server = hub_server.start(repositories, disturb)
    end)
    teardown(function()
        server:stop()
        path.remove_tree(home)
        environment.restore()
        log.setup()
    end)
    before_each(function()
        path.remove_tree(home)
        path.mkdir_p(home)
        server:forget()
        environment.set { HF_ENDPOINT = server.url, HF_HOME = home, HF_HUB_CACHE = false, HUGGINGFACE_HUB_CACHE = false,
                          HF_HUB_OFFLINE = false, TRANSFORMERS_OFFLINE = false, HF_TOKEN = false, HF_TOKEN_PATH = false,
                          HUGGING_FACE_HUB_TOKEN = false, HF_HUB_DISABLE_IMPLICIT_TOKEN = false }
        said = {}
        log.setup { level = "debug", color = false, stream = { write = function(_, ...)
            said[#said + 1] = table.concat { ... }
        end } }
    end)

    local function folder(id)
        return home .. "/hub/models--" .. id:gsub("/", "--")
    end

    local function refusal(...)
        local ok, e = pcall(...)
        assert.is_false(ok, "no error")
        assert.is_true(err.is(e), tostring(e))
        return tostring(e), e.code
    end

    local function has(part, text)
        assert.truthy(text:find(part, 1, true), text)
    end

    -- Nothing outside the cache folder, no link that leads out of it, and no token anywhere.
    local function check_tree()
        local pipe = io.popen("find '" .. home .. "' -type f -o -type l")
        for file in pipe:lines() do
            has(home, file)
            if path.is_link(file) then
                local target = path.normalize(path.join(path.dirname(file), posix.readlink(file)))
                has(home .. "/hub/models--", target)
                assert.truthy(target:find("/blobs/[%w]+$"), target)
            end
            assert.is_nil((path.read_file(file) or ""):find(hub_server.TOKEN, 1, true), file)
        end
        pipe:close()
        assert.is_nil(table.concat(said):find(hub_server.TOKEN, 1, true))
        assert.is_false(path.exists("/tmp/stolen"))
    end

    it("brings a model in the layout of huggingface_hub", function()
        local dir = hub.resolve("org/tiny")
        assert.equal(folder("org/tiny") .. "/snapshots/" .. COMMIT, dir)
        assert.same({ "config.json", "merges.txt", "model.safetensors", "tokenizer.json" }, path.list_dir(dir))
        assert.equal(WEIGHTS, path.read_file(dir .. "/model.safetensors"))
        assert.equal(COMMIT, path.read_file(folder("org/tiny") .. "/refs/main"))
        local sha = digest.file(dir .. "/model.safetensors", "sha256")
        assert.equal("../../blobs/" .. sha, posix.readlink(dir .. "/model.safetensors"))
        assert.truthy(path.is_file(folder("org/tiny") .. "/trees/" .. COMMIT .. ".json"))
        assert.truthy(path.is_file(home .. "/hub/.locks/models--org--tiny/" .. sha .. ".lock"))
        assert.equal("Signature: 8a477f597d28d172789f06886806bc55",
                     path.read_file(home .. "/hub/CACHEDIR.TAG"):match("^[^\n]*"))
        assert.same(4, #path.list_dir(folder("org/tiny") .. "/blobs"))
        check_tree()
    end)

    it("asks nothing when all is there, and of what is not whole only the rest", function()
        local dir = hub.resolve("org/sharded")
        assert.same({ "config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                      "model.safetensors.index.json" }, path.list_dir(dir))
        server:forget()
        assert.equal(dir, hub.resolve("org/sharded"))
        assert.same({}, server:requests())
        os.remove(dir .. "/model-00002-of-00002.safetensors")
        hub.resolve("org/sharded")
        assert.equal("two", path.read_file(dir .. "/model-00002-of-00002.safetensors"))
        for _, request in ipairs(server:requests()) do
            assert.is_nil(request.path:find("00001", 1, true))
        end
    end)

    it("brings PyTorch's files where there are no safetensors, and those that are missing", function()
        local dir = hub.resolve("org/pytorch")
        assert.same({ "config.json", "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin",
                      "pytorch_model.bin.index.json" }, path.list_dir(dir))
        server:forget()
        assert.equal(dir, hub.resolve("org/pytorch"))
        assert.same({}, server:requests())
        os.remove(dir .. "/pytorch_model-00002-of-00002.bin")
        hub.resolve("org/pytorch")
        assert.equal("two", path.read_file(dir .. "/pytorch_model-00002-of-00002.bin"))
        check_tree()
    end)

    it("brings a processor and its tokenizer without weights", function()
        local model = require("am.utils.hub_model")
        local names = { "chat_template.json", "config.json", "generation_config.json", "model.safetensors",
                        "preprocessor_config.json", "processor_config.json", "tokenizer.json" }
        local chosen = model.choose(names, { part = "processor" })
        table.remove(names, 4)
        assert.same(names, chosen)
        local dir = home .. "/processor"
        path.mkdir_p(dir)
        assert.is_false(model.complete(dir, "processor"))
        path.write_file(dir .. "/preprocessor_config.json", "{}")
        assert.is_true(model.complete(dir, "processor"))
    end)

    it("brings a tokenizer without weights, and what is asked for", function()
        local dir = hub.resolve("org/tiny", { part = "tokenizer" })
        assert.same({ "config.json", "merges.txt", "tokenizer.json" }, path.list_dir(dir))
        hub.resolve("org/tiny")
        assert.equal(WEIGHTS, path.read_file(dir .. "/model.safetensors"))
        dir = hub.snapshot("org/tiny", { include = { "*.md", "onnx/*" }, exclude = { "x*" } })
        assert.equal("onnx", path.read_file(dir .. "/onnx/model.onnx"))
        assert.equal("# Tiny", path.read_file(dir .. "/README.md"))
        assert.is_false(path.exists(dir .. "/pytorch_model.bin"))
        check_tree()
    end)

    it("takes the only GGUF file of a repository without a configuration", function()
        local file = hub.resolve("org/gguf")
        assert.equal(folder("org/gguf") .. "/snapshots/" .. COMMIT .. "/tiny-Q4_0.gguf", file)
        server:forget()
        assert.equal(file, hub.resolve("org/gguf"))
        assert.same({}, server:requests())
    end)

    it("takes another revision", function()
        local dir = hub.resolve("org/tiny", { revision = "v1" })
        assert.equal(folder("org/tiny") .. "/snapshots/" .. ("1"):rep(40), dir)
        assert.equal(("1"):rep(40), path.read_file(folder("org/tiny") .. "/refs/v1"))
        has('has no revision "v2"', refusal(hub.resolve, "org/tiny", { revision = "v2" }))
        for _, bad in ipairs { "../x", "/x", "a//b", "a\nb", "" } do
            local message, code = refusal(hub.resolve, "org/tiny", { revision = bad })
            assert.equal("usage", code)
            has("is no revision", message)
        end
    end)

    it("goes on where a connection broke off, in this run and in the next", function()
        path.write_file(home .. "/cut", "")
        local dir = hub.resolve("org/tiny")
        assert.equal(WEIGHTS, path.read_file(dir .. "/model.safetensors"))
        local ranges = {}
        for _, request in ipairs(server:requests()) do
            ranges[#ranges + 1] = request.where == "cdn" and request.headers.range or nil
        end
        assert.same({ "bytes=1500000-" }, ranges)

        os.remove(home .. "/cut")
        local sha = posix.readlink(dir .. "/model.safetensors"):match("[^/]+$")
        path.remove_tree(folder("org/tiny"))
        path.mkdir_p(folder("org/tiny") .. "/blobs")
        path.write_file(folder("org/tiny") .. "/blobs/" .. sha .. ".incomplete", WEIGHTS:sub(1, 1000))
        server:forget()
        hub.resolve("org/tiny")
        assert.equal(WEIGHTS, path.read_file(dir .. "/model.safetensors"))
        for _, request in ipairs(server:requests()) do
            if request.where == "cdn" then
                assert.equal("bytes=1000-", request.headers.range)
            end
        end
        assert.is_false(path.exists(folder("org/tiny") .. "/blobs/" .. sha .. ".incomplete"))
    end)

    it("begins anew when the part that is there is of something else", function()
        local sha = digest.file(hub.resolve("org/tiny") .. "/model.safetensors", "sha256")
        for _, part in ipairs { "another beginning", ("x"):rep(#WEIGHTS), ("x"):rep(#WEIGHTS + 1) } do
            path.remove_tree(folder("org/tiny"))
            path.mkdir_p(folder("org/tiny") .. "/blobs")
            path.write_file(folder("org/tiny") .. "/blobs/" .. sha .. ".incomplete", part)
            assert.equal(WEIGHTS, path.read_file(hub.resolve("org/tiny") .. "/model.safetensors"))
        end
    end)

    it("refuses contents that are not what their name says", function()
        path.write_file(home .. "/wrong", "")
        local message = refusal(hub.resolve, "org/tiny")
        has("model.safetensors of org/tiny is not what the hub says it is (its SHA-256 is not", message)
        os.remove(home .. "/wrong")
        path.write_file(home .. "/longer", "")
        path.remove_tree(folder("org/tiny") .. "/blobs")
        message = refusal(hub.resolve, "org/tiny")
        has("larger than 2400000 bytes", message)
        for _, name in ipairs(path.list_dir(folder("org/tiny") .. "/blobs")) do
            assert.is_nil(name:find("incomplete"))
        end
        os.remove(home .. "/longer")
        assert.equal(WEIGHTS, path.read_file(hub.resolve("org/tiny") .. "/model.safetensors"))
    end)

    it("says what to do about a refusal", function()
        local message, code = refusal(hub.resolve, "org/gated")
        assert.equal("io", code)
        has("org/gated is neither here nor in the Hugging Face cache (" .. home .. "/hub)", message)
        has("is gated: ask for access on " .. server.url .. "/org/gated, and set HF_TOKEN", message)
        message = refusal(hub.resolve, "org/private")
        has("or not for everyone: check the name; for a private or gated repository set HF_TOKEN", message)
        has("check the name", (refusal(hub.resolve, "org/nothing")))
        environment.set { HF_TOKEN = "hf_anotherWrongToken" }
        message = refusal(hub.resolve, "org/private")
        has("that the token in HF_TOKEN is valid", message)
        assert.is_nil(message:find("anotherWrong", 1, true))
        environment.set { HF_TOKEN = "two\nlines" }
        message = refusal(hub.resolve, "org/private")
        has("HF_TOKEN holds no token", message)
        assert.is_nil(message:find("lines", 1, true))
    end)

    it("sends the token to the hub alone, and shows it nowhere", function()
        path.write_file(home .. "/token", hub_server.TOKEN .. "\n")
        for _, place in ipairs { "HF_HOME", "HF_TOKEN_PATH", "HF_TOKEN" } do
            path.remove_tree(home .. "/hub")
            server:forget()
            if place == "HF_TOKEN_PATH" then
                path.rename(home .. "/token", home .. "/mine")
                environment.set { HF_TOKEN_PATH = home .. "/mine" }
            elseif place == "HF_TOKEN" then
                environment.set { HF_TOKEN = hub_server.TOKEN, HF_TOKEN_PATH = false }
                os.remove(home .. "/mine")
            end
            assert.equal(WEIGHTS, path.read_file(hub.resolve("org/gated") .. "/model.safetensors"))
            for _, request in ipairs(server:requests()) do
                assert.equal(request.where == "hub" and "Bearer " .. hub_server.TOKEN or nil,
                             request.headers.authorization)
            end
        end
        check_tree()
    end)

    it("stays in its folder whatever a server says", function()
        for name, what in pairs { escape = "../../../../stolen", absolute = "/tmp/stolen" } do
            local message, code = refusal(hub.resolve, "org/" .. name)
            assert.equal("format", code)
            has('lists a file named "' .. what .. '"', message)
        end
        has("lists a file without a name", (refusal(hub.resolve, "org/shape")))
        has("answered without a commit", (refusal(hub.resolve, "org/commit")))
        has("without a tag of its contents", (refusal(hub.resolve, "org/tag")))
        check_tree()
    end)

    it("looks for room first", function()
        local message = refusal(hub.resolve, "org/huge")
        has("more are needed and " .. home .. "/hub has room for", message)
        has("HF_HUB_CACHE", message)
    end)

    it("waits for a server that is busy", function()
        assert.equal(WEIGHTS, path.read_file(hub.resolve("org/busy") .. "/model.safetensors"))
    end)

    it("brings the same contents once for two processes", function()
        local children = {}
        for i = 1, 3 do
            children[i] = processes.fork(function(out)
                local text = path.read_file(hub.resolve("org/tiny") .. "/model.safetensors")
                posix.write(out, text == WEIGHTS and "y" or "n")
            end)
        end
        for _, child in ipairs(children) do
            assert.equal("y", posix.read(child.file))
            processes.wait(child)
        end
        local brought = 0
        for _, request in ipairs(server:requests()) do
            brought = brought + (request.where == "cdn" and 1 or 0)
        end
        assert.equal(1, brought)
    end)

    it("ends when a signal comes", function()
        engine.am_signals_watch(engine.AM_SIGNALS_FLAG)
        local parent, from = posix.getpid(), engine.am_clock()
        local child = processes.fork(function() os.execute("sleep 0.3; kill -TERM " .. parent) end)
        finally(function()
            engine.am_signals_watch(engine.AM_SIGNALS_OFF)
            engine.am_signals_clear()
        end)
        local _, code = refusal(hub.resolve, "org/slow")
        processes.wait(child)
        assert.equal("interrupted", code)
        assert.is_true(engine.am_clock() - from < 5)
    end)

    it("asks nothing offline", function()
        environment.set { HF_HUB_OFFLINE = "1" }
        local message = refusal(hub.resolve, "org/tiny")
        has("org/tiny is neither here nor in the Hugging Face cache (" .. home .. "/hub)", message)
        has("HF_HUB_OFFLINE is set", message)
        assert.same({}, server:requests())
        environment.set { HF_HUB_OFFLINE = false }
        local dir = hub.resolve("org/tiny", { part = "tokenizer" })
        environment.set { HF_HUB_OFFLINE = "1" }
        assert.equal(dir, hub.resolve("org/tiny"))
    end)

    it("uses what it has when the hub is away", function()
        local dir = hub.resolve("org/tiny", { part = "tokenizer" })
        local away = require("tests.support.http_server").start(function() return { status = 404 } end)
        environment.set { HF_ENDPOINT = away.url }
        has("it cannot be downloaded: org/tiny is not on " .. away.url, (refusal(hub.resolve, "org/tiny")))
        path.remove_tree(folder("org/tiny") .. "/trees") -- as older versions of huggingface_hub leave it
        said = {}
        assert.equal(dir, hub.resolve("org/tiny"))
        has("what is in the cache is used", table.concat(said))
        away:stop()
    end)

    it("shows no password of HF_ENDPOINT", function()
        local answers = { none = { status = 404 }, closed = { status = 403 },
                          gated = { status = 403, headers = { ["X-Error-Code"] = "GatedRepo" } } }
        local away = require("tests.support.http_server").start(function(request)
            return answers[request.path:match("/org/(%w+)")]
        end)
        environment.set { HF_ENDPOINT = (away.url:gsub("://", "://me:hunter22@")) }
        for name, part in pairs { none = "is not on ", closed = "", gated = "ask for access on " } do
            local message = refusal(hub.resolve, "org/" .. name)
            has(part .. away.url, message)
            assert.is_nil(message:find("hunter22", 1, true), message)
        end
        away:stop()
    end)

    it("knows a repository's name from a file's", function()
        for _, name in ipairs { "model.gguf", "dir/config.yaml", "../x/y", "a/b/c", "a--b/c", "a/b..c", "/x",
                                ".x/y" } do
            local message = refusal(hub.resolve, name)
            assert.equal(name .. " does not exist", message)
        end
        assert.same({}, server:requests())
        assert.equal("usage", select(2, refusal(hub.resolve, nil)))
        assert.is_true(cache.is_repo_id("gpt2"))
    end)
end)
