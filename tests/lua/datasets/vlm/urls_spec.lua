-- Images that URLs name: brought once, by a server on loopback.
local environment = require("tests.support.environment")
local http_server = require("tests.support.http_server")
local path = require("am.utils.path")
local opened = require("am.processors.sources").open
local sources = require("am.datasets.vlm.sources")
local helpers = require("tests.lua.datasets.helpers")

describe("am.datasets.vlm.sources, URLs", function()
    local server, home

    setup(function()
        home = os.tmpname()
        os.remove(home)
        path.mkdir_p(home)
        environment.set { HF_HUB_CACHE = home, HF_HUB_OFFLINE = false, TRANSFORMERS_OFFLINE = false, http_proxy = false,
                          all_proxy = false, ALL_PROXY = false }
        server = http_server.start(function(request)
            return request.path:find("^/there") and { status = 200, body = "PNG of " .. request.path }
                or { status = 404, body = "no" }
        end)
    end)

    teardown(function()
        server:stop()
        environment.restore()
        path.remove_tree(home)
    end)

    it("are brought into the cache once", function()
        local source = sources.of(server.url .. "/there.png?token=secret", "folder", "row 1")
        for _ = 1, 2 do
            local here = sources.here(source)
            assert.equal("PNG of /there.png?token=secret", path.read_file(here.path))
            assert.equal(server.url .. "/there.png", here.name)
            assert.matches("^" .. home .. "/amlua%-images/%x+$", here.path)
        end
        assert.equal(1, #server:requests())
        environment.set { HF_HUB_OFFLINE = "1" }
        assert.is_table(sources.here(source))
        assert.same(sources.here(source).path, opened(source.url).path) -- a processor's, too
        helpers.fails("io", "^http.*/other.png is not in the cache, and HF_HUB_OFFLINE is set", sources.here,
            sources.of(server.url .. "/other.png", "", "row 1"))
        environment.set { HF_HUB_OFFLINE = false }
        for _, bring in ipairs { opened, function(url) return sources.here { url = url } end } do
            helpers.fails("io", "^http.*/gone.png: the server answers 404", bring, server.url .. "/gone.png?token=x")
        end
        assert.same({ path = "a.png" }, sources.here { path = "a.png" })
        assert.equal(3, #server:requests())
    end)
end)
