-- Images that URLs name: brought once, by a server on loopback.
local environment = require("tests.support.environment")
local http_server = require("tests.support.http_server")
local path = require("am.utils.path")
local png = require("am.datasets.vlm.png")
local opened = require("am.processors.sources").open
local sources = require("am.datasets.vlm.sources")
local helpers = require("tests.lua.datasets.helpers")

describe("am.datasets.vlm.sources, URLs", function()
    local server, home
    local picture = png.encode(1, 1, "abc")

    setup(function()
        home = os.tmpname()
        os.remove(home)
        path.mkdir_p(home)
        environment.set { HF_HUB_CACHE = home, HF_HUB_OFFLINE = false, TRANSFORMERS_OFFLINE = false, http_proxy = false,
                          all_proxy = false, ALL_PROXY = false }
        server = http_server.start(function(request)
            if request.path:find("^/page") then
                return { status = 200, body = "<html>Be right back</html>" }
            end
            return request.path:find("^/there") and { status = 200, body = picture } or { status = 404, body = "no" }
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
            assert.equal(picture, path.read_file(here.path))
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

    it("are not kept where the answer is no image", function()
        local source = sources.of(server.url .. "/page.png", "", "row 1")
        local before = #server:requests()
        for _ = 1, 2 do
            helpers.fails("unsupported", "^http.*/page.png: this is no JPEG, PNG, WebP or GIF", sources.here, source)
        end
        assert.equal(before + 2, #server:requests())
    end)
end)
