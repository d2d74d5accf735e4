-- Markdown to HTML, as much of it as the pages here use: headings, paragraphs, lists, tables, fenced code, code spans,
-- links, bold and *emphasis*. No HTML passes through; everything is escaped. Links are the caller's to resolve.

local M = {}

--- A text as HTML shows it.
function M.escape(text)
    return (text:gsub("[&<>\"]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }))
end
local escape = M.escape

-- ---- within a line --------------------------------------------------------------------------

local inline

-- The rules by their first byte: rule(text, at, page) -> HTML and the place behind it, or nil.
local rules = {
    ["\\"] = function(text, at)
        local c = text:match("^\\(%p)", at)
        if c then
            return escape(c), at + 2
        end
    end,
    ["`"] = function(text, at)
        local run = text:match("^`+", at)
        local from = at + #run
        local first, last = text:find("%f[`]" .. run .. "%f[^`]", from)
        if first then
            local code = text:sub(from, first - 1)
            return "<code>" .. escape(code:match("^ (.*) $") or code) .. "</code>", last + 1
        end
    end,
    ["["] = function(text, at, page)
        local label, behind = text:match("^(%b[])()", at)
        local target, stop = text:match("^%(([^%s()]+)%)()", behind or #text + 1)
        if target then
            local href = page.link(target)
            return ('<a href="%s">%s</a>'):format(escape(href), inline(label:sub(2, -2), page)), stop
        end
    end,
    ["*"] = function(text, at, page)
        local bold, stop = text:match("^%*%*(%S.-)%*%*()", at)
        if bold then
            return "<strong>" .. inline(bold, page) .. "</strong>", stop
        end
        local word
        word, stop = text:match("^%*(%w[^*]-)%*()", at)
        if word and word:find("%S$") then
            return "<em>" .. inline(word, page) .. "</em>", stop
        end
    end,
    ["<"] = function(text, at)
        local url, stop = text:match("^<(https?://[^%s<>]+)>()", at)
        if url then
            return ('<a href="%s">%s</a>'):format(escape(url), escape(url)), stop
        end
    end,
}

function inline(text, page)
    local out, at = {}, 1
    while at <= #text do
        local plain = text:match("^[^\\`%[%*<]+", at)
        if plain then
            out[#out + 1] = escape(plain)
            at = at + #plain
        else
            local html, stop = rules[text:sub(at, at)](text, at, page)
            if not html and text:sub(at, at) == "`" then -- a run without an end is text as a whole
                html = text:match("^`+", at)
                stop = at + #html
            end
            out[#out + 1] = html or escape(text:sub(at, at))
            at = stop or at + 1
        end
    end
    return table.concat(out)
end

--- Markdown without its marks, for search: code and link texts stay.
function M.plain(text)
    return (text:gsub("!?%[([^%]]*)%]%([^)]*%)", "%1"):gsub("\\(%p)", "%1"):gsub("%*%*", "")
        :gsub("%f[%S]%*(%w[^*]-)%*", "%1"):gsub("`", ""))
end

--- The name of a heading in links, as GitHub makes it.
function M.slug(heading)
    local text = M.plain(heading):lower():gsub("\226[\128\129][\128-\191]", "") -- U+2000 to U+207F: dashes, dots, …
    return (text:gsub("[%z\1-\127]", function(c)
        return c == " " and "-" or c:find("[%w_-]") and c or ""
    end))
end

-- ---- blocks ---------------------------------------------------------------------------------

local blocks

-- A list's marker: its indent, what it is, and where its text begins.
local function marker(line)
    local indent, mark, space = line:match("^( *)([-*+])( +)%S")
    if not mark then
        indent, mark, space = line:match("^( *)(%d+[.)])( +)%S")
    end
    if mark then
        return #indent, mark:find("%d") and "ol" or "ul", #indent + #mark + #space, tonumber(mark:match("%d+"))
    end
end

local function cells(line)
    local list = {}
    local body = line:gsub("^%s*|", ""):gsub("|%s*$", "")
    for cell in (body:gsub("\\|", "\1") .. "|"):gmatch("(.-)|") do
        list[#list + 1] = (cell:gsub("\1", "|"):gsub("^%s+", ""):gsub("%s+$", ""))
    end
    return list
end

local function is_table(lines, i)
    return lines[i]:find("|", 1, true) and lines[i + 1] and lines[i + 1]:find("^[%s|:-]+$")
        and lines[i + 1]:find("%-%-%-") and lines[i + 1]:find("|", 1, true)
end

local function starts_block(lines, i)
    local line = lines[i]
    return line:find("^```") or line:find("^#+ ") or marker(line) ~= nil or is_table(lines, i)
end

local readers = {}

function readers.code(lines, i)
    local indent, fence = lines[i]:match("^( *)(```+)")
    if not fence then
        return nil
    end
    local code = {}
    i = i + 1
    while lines[i] and not lines[i]:find("^ *" .. fence .. "%s*$") do
        code[#code + 1] = (lines[i]:gsub("^" .. (" ?"):rep(#indent), ""))
        i = i + 1
    end
    return "<pre><code>" .. escape(table.concat(code, "\n")) .. "\n</code></pre>", i + 1
end

function readers.heading(lines, i, page)
    local marks, text = lines[i]:match("^(#+) +(.-)%s*#*$")
    if not marks or #marks > 6 then
        return nil
    end
    local id = page.heading(#marks, text)
    return ('<h%d id="%s">%s <a class="anchor" href="#%s">#</a></h%d>'):format(#marks, escape(id), inline(text, page),
        escape(id), #marks), i + 1
end

function readers.table(lines, i, page)
    if not is_table(lines, i) then
        return nil
    end
    local function row(line, tag, n)
        local out, list = {}, cells(line)
        for k = 1, n or #list do
            out[k] = ("<%s>%s</%s>"):format(tag, inline(list[k] or "", page), tag)
        end
        return "<tr>" .. table.concat(out) .. "</tr>"
    end
    local n = #cells(lines[i])
    local out = { '<div class="table"><table>', "<thead>" .. row(lines[i], "th", n) .. "</thead><tbody>" }
    i = i + 2
    while lines[i] and lines[i]:find("|", 1, true) and lines[i]:find("%S") do
        out[#out + 1] = row(lines[i], "td", n)
        i = i + 1
    end
    out[#out + 1] = "</tbody></table></div>"
    return table.concat(out, "\n"), i
end

-- The lines of an item, without its indent; whether a blank line is among them; the line behind it.
local function item_lines(lines, i, width)
    local item, loose = { lines[i]:sub(width + 1) }, false
    i = i + 1
    while lines[i] do
        local line = lines[i]
        if line:find("^%s*$") then
            local after = lines[i + 1]
            if not after or not after:find("^" .. (" "):rep(width) .. "%S") then
                break
            end
            loose = true
            item[#item + 1] = ""
        elseif line:find("^" .. (" "):rep(width)) then
            item[#item + 1] = line:sub(width + 1)
        elseif starts_block(lines, i) then
            break
        else
            item[#item + 1] = (line:gsub("^%s+", ""))
        end
        i = i + 1
    end
    return item, loose, i
end

function readers.list(lines, i, page)
    local indent, kind, _, start = marker(lines[i])
    if not indent then
        return nil
    end
    local out = { kind == "ol" and start ~= 1 and ('<ol start="%d">'):format(start) or "<" .. kind .. ">" }
    while lines[i] do
        local at, same, width = marker(lines[i])
        if at ~= indent or same ~= kind then
            break
        end
        local item, loose
        item, loose, i = item_lines(lines, i, width)
        local html = blocks(item, page)
        out[#out + 1] = "<li>" .. (loose and html or html:gsub("^<p>(.-)</p>", "%1")) .. "</li>"
        if lines[i] and lines[i]:find("^%s*$") and lines[i + 1] and marker(lines[i + 1]) == indent then
            i = i + 1
        end
    end
    out[#out + 1] = "</" .. kind .. ">"
    return table.concat(out, "\n"), i
end

function readers.paragraph(lines, i, page)
    local words = {}
    repeat
        words[#words + 1] = (lines[i]:gsub("^%s+", ""):gsub("%s+$", ""))
        i = i + 1
    until not lines[i] or lines[i]:find("^%s*$") or starts_block(lines, i)
    local text = table.concat(words, "\n")
    page.text(text)
    return "<p>" .. inline(text, page) .. "</p>", i
end

local order = { "code", "heading", "table", "list", "paragraph" }

function blocks(lines, page)
    local out, i = {}, 1
    while lines[i] do
        if lines[i]:find("^%s*$") then
            i = i + 1
        else
            for _, name in ipairs(order) do
                local from = i
                local html, stop = readers[name](lines, i, page)
                if html then
                    if name == "table" or name == "code" then
                        page.text(table.concat(lines, "\n", from, math.min(stop, #lines + 1) - 1))
                    end
                    out[#out + 1], i = html, stop
                    break
                end
            end
        end
    end
    return table.concat(out, "\n")
end

--- HTML of a text. page has link(target) -> href, heading(level, text) -> id, and text(words), called in the order of
--- the page with what search shall find.
function M.render(text, page)
    local lines = {}
    for line in (text:gsub("\r\n", "\n") .. "\n"):gmatch("(.-)\n") do
        lines[#lines + 1] = line
    end
    return blocks(lines, page)
end

return M
