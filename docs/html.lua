-- Renders the Markdown pages to HTML, with navigation, the sources that they link to, and a search.
-- usage (from the project's root): amlua docs/html.lua FOLDER      or: cmake --build build --target docs
-- The pages and their order are below; Markdown is html/markdown.lua's, everything around it html/template.lua's.

local json = require("am.utils.json")
local path = require("am.utils.path")
local markdown = dofile("docs/html/markdown.lua")
local template = dofile("docs/html/template.lua")

local GROUPS = {
    { "Begin", "README.md where quickstart sft peft datasets hub cli configuration" },
    { "Train", "recipes recipe_deep_dive optimizers low_precision checkpoints trackers performance launching slurm vlm "
        .. "troubleshooting upgrading" },
    { "Lua", "repl tensors custom port_a_model" },
    { "Reference", "models config_reference ops api_lua api_c migration" },
    { "Project", "architecture testing CONTRIBUTING.md CHANGELOG.md" },
}
local MAX_TEXT = 8000 -- bytes of a section that search looks at

-- ---- pages ----------------------------------------------------------------------------------

local function read(name)
    return assert(path.read_file(name))
end

local function html_name(source)
    if source == "README.md" then
        return "index.html"
    end
    return (path.basename(source):gsub("%.md$", "") .. ".html")
end

-- Pages in order: { source, file, title }, and the groups for the navigation. A page that no group names is in the
-- last one.
local function pages()
    local list, groups, seen = {}, {}, {}
    local function add(group, source)
        local page = { source = source, file = html_name(source), title = read(source):match("^# ([^\n]+)") or source }
        page.title = markdown.plain(page.title)
        seen[source] = true
        list[#list + 1] = page
        table.insert(group.pages, page)
    end
    for _, group in ipairs(GROUPS) do
        groups[#groups + 1] = { title = group[1], pages = {} }
        for name in group[2]:gmatch("%S+") do
            add(groups[#groups], name:find("%.md$") and name or "docs/" .. name .. ".md")
        end
    end
    for _, name in ipairs(path.list_dir("docs")) do
        if name:find("%.md$") and not seen["docs/" .. name] then
            add(groups[#groups], "docs/" .. name)
        end
    end
    return list, groups
end

-- ---- links ----------------------------------------------------------------------------------

-- Where a link of a source leads, from the project's root; nil for the web. Second: the part behind #.
local function target_of(source, target)
    if target:find("^https?://") then
        return nil
    end
    local name, anchor = target:match("^([^#]*)#?(.*)$")
    if name == "" then
        return source, anchor
    end
    local dir = path.dirname(source)
    return path.normalize(dir == "." and name or path.join(dir, name)), anchor
end

-- A file or folder of the project as a page, for links that lead to it.
local function source_page(name)
    local title = "<h1><code>" .. markdown.escape(name) .. "</code></h1>\n"
    if path.is_dir(name) then
        local items = {}
        for _, child in ipairs(path.list_dir(name)) do
            items[#items + 1] = "<li><code>" .. markdown.escape(child) .. "</code></li>"
        end
        table.sort(items)
        return title .. "<ul>\n" .. table.concat(items, "\n") .. "\n</ul>"
    end
    return title .. "<pre><code>" .. markdown.escape(read(name)) .. "</code></pre>"
end

local function source_file(name)
    return "source/" .. name:gsub("/+$", "") .. ".html"
end

-- ---- everything -----------------------------------------------------------------------------

-- One page: its HTML, the ids of its headings, entries for search, and its links { target, anchor }.
local function render(page, by_source)
    local ids, index, links, used = {}, {}, {}, {}
    local entry
    local function close()
        if entry then
            entry[5] = table.concat(entry[5], " "):gsub("%s+", " "):sub(1, MAX_TEXT):gsub("[\128-\255]+$", "")
        end
    end
    local html = markdown.render(read(page.source), {
        heading = function(_, text)
            local id = markdown.slug(text)
            used[id] = (used[id] or -1) + 1
            id = used[id] > 0 and id .. "-" .. used[id] or id
            ids[id] = true
            close()
            entry = { page.file, page.title, id, markdown.plain(text), {} }
            index[#index + 1] = entry
            return id
        end,
        text = function(words)
            if entry then
                table.insert(entry[5], markdown.plain(words))
            end
        end,
        link = function(target)
            local name, anchor = target_of(page.source, target)
            if not name then
                return target
            end
            links[#links + 1] = { name = name, anchor = anchor, as = target }
            local there = by_source[name]
            return (there and there.file or source_file(name)) .. (anchor ~= "" and "#" .. anchor or "")
        end,
    })
    close()
    return { html = html, ids = ids, index = index, links = links }
end

--- All files of the site, { name below the folder = text }, and what is wrong with links, an array of texts.
local function site()
    local list, groups = pages()
    local by_source, rendered, files, index, broken = {}, {}, {}, {}, {}
    for _, page in ipairs(list) do
        by_source[page.source] = page
    end
    for _, page in ipairs(list) do
        local r = render(page, by_source)
        rendered[page.source] = r
        files[page.file] = template.page(groups, page.file, page.title, r.html)
        for _, entry in ipairs(r.index) do
            index[#index + 1] = entry
        end
    end
    for _, page in ipairs(list) do
        for _, link in ipairs(rendered[page.source].links) do
            local there = rendered[link.name]
            if there then
                if link.anchor ~= "" and not there.ids[link.anchor] then
                    broken[#broken + 1] = ("%s: %s: no such heading"):format(page.source, link.as)
                end
            elseif not path.exists(link.name) or link.name:find("^%.%.") then
                broken[#broken + 1] = ("%s: %s: no such file"):format(page.source, link.as)
            else
                local file = source_file(link.name)
                files[file] = files[file] or template.page(groups, file, link.name, source_page(link.name))
            end
        end
    end
    files["style.css"] = template.style
    files["search.js"] = template.script
    -- "<" cannot end the script that a page might be pasted into
    files["index.js"] = "var INDEX = " .. json.encode(index):gsub("<", "\\u003c") .. ";\n"
    return files, broken
end

if arg and arg[0] and arg[0]:find("docs/html.lua", 1, true) then
    local folder = arg[1]
    if not folder then
        io.stderr:write("usage: amlua docs/html.lua FOLDER\n")
        os.exit(2)
    end
    local files, broken = site()
    for name, text in pairs(files) do
        local file = path.join(folder, name)
        path.mkdir_p(path.dirname(file))
        local out = assert(io.open(file, "wb"))
        out:write(text)
        out:close()
    end
    for _, text in ipairs(broken) do
        io.stderr:write(text, "\n")
    end
    os.exit(#broken == 0 and 0 or 1)
end
return { site = site, markdown = markdown }
