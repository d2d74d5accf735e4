-- The pages: they render to HTML without a broken link, their complete configurations are valid, and the messages of
-- the page about symptoms are those of the sources.

local config = require("am.config")
local cross_fields = require("am.recipes.cross_fields")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local names = require("am.recipes.names")
local path = require("am.utils.path")
local targets = require("am.recipes.targets")

local html = dofile("docs/html.lua")
local markdown = html.markdown

-- ---- rendering ------------------------------------------------------------------------------

local function render(text)
    local page = { ids = {}, words = {} }
    function page.link(target) return target end
    function page.heading(_, words) return markdown.slug(words) end
    function page.text(words) table.insert(page.words, words) end
    return (markdown.render(text, page):gsub("\n", " "))
end

describe("Markdown", function()
    for text, wanted in pairs {
        ["a <b> & `c < d` \\*e"] = "<p>a &lt;b&gt; &amp; <code>c &lt; d</code> *e</p>",
        ["**a `b*` c** and *d* 2 * 3 * 4"] = "<p><strong>a <code>b*</code> c</strong> and <em>d</em> 2 * 3 * 4</p>",
        ["``a ` b`` and ` alone"] = "<p><code>a ` b</code> and ` alone</p>",
        ["[a `b`](c.md#d) [x] (y)"] = '<p><a href="c.md#d">a <code>b</code></a> [x] (y)</p>',
        ["[q](a\"b)"] = '<p><a href="a&quot;b">q</a></p>',
        ["```lua\n<a>\n\n# b\n```\nc"] = "<pre><code>&lt;a&gt;  # b </code></pre> <p>c</p>",
        ["- a\n  b\n- c\n  1. d\n  2. e"] = "<ul> <li>a b</li> <li>c <ol> <li>d</li> <li>e</li> </ol></li> </ul>",
        ["3. a\n\n4. b"] = '<ol start="3"> <li>a</li> <li>b</li> </ol>',
        ["|a|b|\n|---|---|\n|`x\\|y`||\n\nz"] = '<div class="table"><table> <thead><tr><th>a</th>'
            .. "<th>b</th></tr></thead><tbody> "
            .. "<tr><td><code>x|y</code></td><td></td></tr> </tbody></table></div> <p>z</p>",
        ["a | b\nc"] = "<p>a | b c</p>",
        ["_target_ and a_b_c"] = "<p>_target_ and a_b_c</p>",
    } do
        it("reads " .. text:gsub("\n", " / "), function()
            assert.equal(wanted, render(text))
        end)
    end

    it("names headings as GitHub does", function()
        assert.equal("-print-config-and-more", markdown.slug("`-Print-config`, and *more*"))
        assert.equal("größe-1", markdown.slug("größe (1)"))
        assert.equal("adding-", markdown.slug("Adding …"))
    end)
end)

-- nil when the tags of a page nest and its ids are unique, else what is wrong.
local function problem(text)
    local open, ids = {}, {}
    local void = { meta = true, link = true, input = true, ["!doctype"] = true }
    for close, tag, rest in text:gmatch("<(/?)(!?%a[%w]*)([^>]*)>") do
        tag = tag:lower()
        if close == "/" then
            local last = table.remove(open)
            if last ~= tag then
                return ("</%s> closes <%s>"):format(tag, tostring(last))
            end
        elseif not void[tag] then
            open[#open + 1] = tag
        end
        local id = rest:match(' id="([^"]*)"')
        if id and ids[id] then
            return "twice: id " .. id
        end
        ids[id or ""] = id
    end
    return #open > 0 and "left open: " .. table.concat(open, " ") or nil, ids
end

describe("the HTML", function()
    local files, broken = html.site()

    it("has no broken link between the pages", function()
        assert.same({}, broken)
    end)

    it("has every page, in the navigation and in the README", function()
        local readme = helper.read("README.md")
        for _, name in ipairs(path.list_dir("docs")) do
            local page = name:match("^(.*)%.md$")
            if page then
                assert.is_string(files[page .. ".html"], name)
                assert.is_truthy(files["index.html"]:find('<a href="' .. page .. '.html"', 1, true), name)
                assert.is_truthy(readme:find("](docs/" .. name .. ")", 1, true), "README.md does not name " .. name)
            end
        end
    end)

    it("nests, and leads to what is there", function()
        local ids = {}
        for name, text in pairs(files) do
            if name:find("%.html$") then
                local wrong
                wrong, ids[name] = problem(text)
                assert.is_nil(wrong, name)
            end
        end
        for name, text in pairs(files) do
            for target in text:gmatch(name:find("%.html$") and ' href="([^"]*)"' or "%z") do
                if not target:find("^https?://") then
                    local file, anchor = target:gsub("&quot;", '"'):match("^([^#]*)#?(.*)$")
                    local there = file == "" and name
                        or path.normalize(path.join(path.dirname(name), file)):gsub("^%./", "")
                    assert.is_string(files[there], name .. ": " .. target)
                    assert.is_truthy(anchor == "" or ids[there][anchor], name .. ": " .. target)
                end
            end
        end
    end)

    it("has a search index that is JSON, with something of every page", function()
        local index = json.decode(files["index.js"]:match("^var INDEX = (.*);\n$"))
        local pages = {}
        for _, entry in ipairs(index) do
            assert.equal(5, #entry)
            pages[entry[1]] = (pages[entry[1]] or "") .. entry[4] .. " " .. entry[5]
        end
        assert.is_truthy(pages["checkpoints.html"]:find("restore_from", 1, true))
        assert.is_truthy(pages["api_lua.html"]:find("am.zeros", 1, true))
        assert.is_nil(files["index.js"]:find("<", 1, true))
    end)

    it("fetches nothing from elsewhere", function()
        for name, text in pairs(files) do
            if name:find("%.html$") then
                for address in text:gmatch('src="([^"]*)"') do
                    assert.is_nil(address:find(":", 1, true), name)
                end
            end
        end
        assert.is_nil(files["style.css"]:find("url%(") or files["style.css"]:find("@import"))
    end)
end)

-- ---- configurations -------------------------------------------------------------------------

-- Blocks of ```yaml complete in the pages: { page, text }.
local function configurations()
    local list = {}
    for _, name in ipairs(path.list_dir("docs")) do
        local page = name:find("%.md$") and helper.read("docs/" .. name) or ""
        for text in page:gmatch("\n```yaml complete\n(.-)\n```") do
            list[#list + 1] = { page = name, text = text .. "\n" }
        end
    end
    return list
end

describe("a complete configuration", function()
    teardown(helper.cleanup)

    for i, block in ipairs(configurations()) do
        it(("is valid: %d, in docs/%s"):format(i, block.page), function()
            local cfg = config.load(helper.write(helper.folder() .. "/" .. block.page .. ".yaml", block.text))
            local class = require("recipes." .. (names.recipe(cfg:get("recipe")) or "llm_finetune"))
            config.validate(cfg, { fields = class.schema() }, { registry = targets.registry() })
            cross_fields.check(cfg, class)
        end)
    end

    it("is in docs/sft.md, and runs", function()
        local text = helper.read("docs/sft.md"):match("\n```yaml complete\n(.-)\n```")
        local dir = helper.folder()
        local file = helper.write(dir .. "/sft.yaml", text .. "\n")
        local status, out, errors = helper.run { helper.finetune, file, "--checkpoint.checkpoint_dir", dir,
            "--model.pretrained_model_name_or_path", helper.text_model(), "--step_scheduler.max_steps", "2",
            "--lr_scheduler.lr_warmup_steps", "1" }
        assert.equal(0, status, out .. errors)
        assert.is_true(path.is_file(helper.latest(dir) .. "/model/consolidated/config.json"))
    end)
end)

it("the README's example in Lua runs as it is written", function()
    local dir = helper.folder()
    finally(helper.cleanup)
    local code = helper.read("README.md"):match("\n```lua\n(.-)\n```")
    local named = '"HuggingFaceTB/SmolLM2-135M-Instruct"'
    local first, last = code:find(named, 1, true)
    code = code:sub(1, first - 1) .. string.format("%q", helper.text_model()) .. code:sub(last + 1) -- no network
    local status, out, errors = helper.run { helper.write(dir .. "/readme.lua", code) }
    assert.equal(0, status, errors)
    assert.is_truthy(out:find("model.embed_tokens.weight", 1, true), out)
    assert.is_nil(out:find("\tnil", 1, true), "every parameter has a gradient")
end)

-- ---- messages -------------------------------------------------------------------------------

-- All string literals of the sources, those that `..` or C joins as one.
local function literals()
    local list = {}
    for _, root in ipairs { "lua/am", "recipes", "engine", "kernels" } do
        for _, name in ipairs(helper.tree(root)) do
            if name:find("%.lua$") or name:find("%.c$") then
                list[#list + 1] = helper.read(path.join(root, name)):gsub('"%s*%.?%.?%s*"', ""):gsub('\\"', '"')
            end
        end
    end
    return table.concat(list, "\n")
end

it("docs/troubleshooting.md has the messages of the sources", function()
    local sources, count = literals(), 0
    for row in helper.read("docs/troubleshooting.md"):gmatch("\n| ([^\n]*)") do
        local cell = row:match("^(.-) | ") or ""
        for message in cell:gmatch("`([^`]+)`") do
            for part in (message .. "…"):gmatch("(.-)…") do
                if #part > 3 then
                    assert.is_truthy(sources:find(part, 1, true), "no message has: " .. part)
                    count = count + 1
                end
            end
        end
    end
    assert.is_true(count > 30)
end)
