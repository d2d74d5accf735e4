-- Writes docs/ops.md from engine/ops/ops.def and engine/am.h.
-- usage (from the project's root): luajit docs/ops.lua [FILE]     FILE: docs/ops.md; "-" prints

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("*a")
    file:close()
    return text
end

-- The attributes as am.h declares them: {member = "double min, max"}, with the structs that have a
-- name of their own filled in.
local function attributes(header)
    local union = header:match("typedef union am_attrs (%b{})")
    local members, types = {}, { double = true, int32_t = true, int64_t = true }
    local function fields(body)
        local list = {}
        for field, after in body:gmatch("([%w_]+ [%w_, %[%]]+);()") do
            local comment = body:match("^[ \t]*/%*%s*(.-)%s*%*/", after)
            if types[field:match("^%S+")] then -- not a word of a comment
                list[#list + 1] = "`" .. field .. "`" .. (comment and " " .. comment or "")
            end
        end
        return table.concat(list, "; ")
    end
    for body, name, rest in union:gmatch("struct (%b{}) ([%w_]+);([^\n]*)") do
        local comment = rest:match("/%*%s*(.-)%s*%*/")
        members[name] = fields(body:sub(2, -2)) .. (comment and " (" .. comment .. ")" or "")
    end
    for struct, name in union:gmatch("(am_[%w_]+) ([%w_]+);") do
        members[name] = fields(header:match("typedef struct " .. struct .. " (%b{})"):sub(2, -2))
    end
    return members
end

-- Rows and headings in the order of the file.
local function registry(def)
    local items, at = {}, (def:find("*/", 1, true)) + 2
    while true do
        local comment_at, comment_end, comment = def:find("/%*%s*(.-)%s*%*/", at)
        local row_at, row_end, row = def:find("OP(%b())", at)
        if not row_at then
            return items
        elseif comment_at and comment_at < row_at then
            items[#items + 1] = { heading = comment }
            at = comment_end + 1
        else
            local name, least, most, attrs, doc =
                row:match("^%(([%w_]+), (%d+), (%d+), %d+, ([%w_]+),%s*(.*)%)$")
            local parts = {}
            for part in doc:gmatch('"([^"]*)"') do parts[#parts + 1] = part end
            items[#items + 1] = { name = name, least = tonumber(least), most = tonumber(most),
                                  attrs = attrs, doc = table.concat(parts) }
            at = row_end + 1
        end
    end
end

local function page()
    local members = attributes(read("engine/am.h"))
    local out = {
        "# Ops",
        "",
        "Written by `docs/ops.lua` from `engine/ops/ops.def`; do not edit.",
        "",
        "Every op of the engine: what goes in, what comes out. `am_apply` runs it in C; in Lua it is a "
            .. "function of `am.core.ops`, and a method of its first tensor. `[...]` is any number of "
            .. "dims, \"or none\" an optional input. A dim counts from the end when negative. Shapes "
            .. "broadcast as PyTorch's do. Attributes are members of `am_attrs` in `engine/am.h`.",
    }
    local function add(...) out[#out + 1] = string.format(...) end
    for _, item in ipairs(registry(read("engine/ops/ops.def"))) do
        if item.heading then
            add("")
            add("## %s", (item.heading:gsub("^%l", string.upper):gsub("%s+", " ")))
            add("")
            add("| op | inputs | what it does | attributes |")
            add("|---|---|---|---|")
        else
            local count = item.least == item.most and tostring(item.least)
                or item.least .. " to " .. item.most
            local attrs = item.attrs == "NONE" and "" or members[item.attrs]
            add("| `%s` | %s | %s | %s |", item.name, count, (item.doc:gsub("|", "\\|")),
                (attrs:gsub("|", "\\|")))
        end
    end
    return table.concat(out, "\n") .. "\n"
end

local target = arg and arg[0] and arg[0]:find("docs/ops.lua", 1, true) and (arg[1] or "docs/ops.md")
if not target then
    return page -- required by a test
elseif target == "-" then
    io.write(page())
else
    local file = assert(io.open(target, "wb"))
    file:write(page())
    file:close()
end
