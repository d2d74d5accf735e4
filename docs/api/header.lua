-- docs/api_c.md from engine/am.h and its parts in engine/api/: their sections, and under them each comment with the
-- declarations that it stands above. Knows the headers' layout: sections begin with `/* ---- name`, blank lines end
-- groups.

local M = {}

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("*a")
    file:close()
    return text
end

-- The header with its parts in their places, without what these say of themselves.
local function whole()
    return (read("engine/am.h"):gsub('#include "(api/%w+%.h)"\n', function(part)
        return read("engine/" .. part):match("#endif\n\n(.*)$")
    end))
end

-- The words of a comment; paragraphs are kept apart.
local function prose(comment)
    local text = comment:gsub("^/%*+%s?", ""):gsub("%s*%*/%s*$", ""):gsub("\n%s*%* ?", "\n")
    return (text:gsub("^%s+", ""))
end

-- Names that lines of C declare, for a heading: functions, then enums' and structs'.
local function declared(code)
    local names, seen = {}, {}
    local plain = code:gsub("/%*.-%*/", ""):gsub("#[^\n]*", "")
    local function add(name)
        if name and not seen[name] then
            seen[name] = true
            names[#names + 1] = "`" .. name .. "`"
        end
    end
    local outside = plain:gsub("%b{}", "{}")
    for name in outside:gmatch("(am_[%w_]+)%s*%(") do add(name) end
    for name in outside:gmatch("typedef [^;]-(am_[%w_]+)%s*;") do add(name) end
    for body in plain:gmatch("enum (%b{})") do
        local first = body:match("(AM_[%w_]+)")
        add(first and not body:find(",") and first or first and first:match("^AM_%u+") .. "_…")
    end
    return table.concat(names, ", ")
end

-- A group of lines without a blank one: items of a comment and what follows up to the next comment of its own line.
local function items(group)
    local list, item, depth, in_comment = {}, nil, 0, false
    local lines = (group .. "\n"):gsub("/%* clang%-format %a+ %*/\n", "")
    for line in lines:gmatch("(.-)\n") do
        if not in_comment and depth == 0 and line:find("^/%*") then
            item = { comment = "", code = "" }
            list[#list + 1] = item
            in_comment = true
        end
        if in_comment then
            item.comment = item.comment .. line .. "\n"
            in_comment = not line:find("%*/%s*$")
        else
            if not item then
                item = { comment = "", code = "" }
                list[#list + 1] = item
            end
            item.code = item.code .. line .. "\n"
            local bare = line:gsub("/%*.-%*/", "")
            depth = depth + select(2, bare:gsub("{", "")) - select(2, bare:gsub("}", ""))
        end
    end
    return list
end

local function add_group(out, group, escape)
    for _, item in ipairs(items(group)) do
        local code = item.code:gsub("%s+$", "")
        local text = prose(item.comment)
        if code ~= "" then
            local names = declared(code)
            out[#out + 1] = names ~= "" and "### " .. names or nil
            out[#out + 1] = "```c\n" .. code .. "\n```"
        end
        if text ~= "" then
            out[#out + 1] = escape(text)
        end
    end
end

--- The page. escape(text) makes Markdown of a comment's words.
function M.page(escape)
    local text = whole()
    local head = prose(text:match("^(/%*.-%*/)"))
    local out = { "# C API", "Written by `docs/api.lua` from `engine/am.h` and `engine/api/`; do not edit.",
                  escape(head:gsub("^am%.h — the whole C API of amlua%.\n+", "")),
                  "A program finds it by `pkg-config --cflags --libs amlua`, or by `find_package(amlua)` "
                      .. "in CMake." }
    local body = text:match("\n(/%* %-%-%-%- version.*)\nvoid am_shutdown") .. "\nvoid am_shutdown(void);\n"
    for group in (body .. "\n\n"):gmatch("(.-)\n\n+") do
        local title = group:match("^/%* %-%-%-%- (.-) %-%-%-+")
        if title then
            out[#out + 1] = "## " .. title:gsub("^%l", string.upper)
            local rest = group:gsub("^/%* %-%-%-%- .- %-%-%-+[ ]*", "/* ", 1)
            if not rest:find("^/%*%s*%*/%s*$") then
                add_group(out, rest, escape)
            end
        elseif group:find("%S") then
            add_group(out, group, escape)
        end
    end
    return table.concat(out, "\n\n") .. "\n"
end

return M
