-- The public functions of Lua, with their places, parameters and doc comments: entries for the page and for the
-- editors' file. Which those are sections.lua says.

local comments = dofile("docs/api/comments.lua")

local M = {}

local function by_place(a, b)
    if a.file ~= b.file then
        return a.file < b.file
    elseif a.line ~= b.line then
        return a.line < b.line
    end
    return a.name < b.name
end

-- The functions of a table, in the order of their sources.
local function of_table(spec)
    local found = {}
    for name, fn in pairs(spec.value) do
        local file, line
        if type(fn) == "function" and type(name) == "string" and not name:find("^_") then
            file, line = comments.place(fn)
        end
        if file and not comments.is_private(file, line) then
            local params = comments.parameters(fn)
            local first, others = params:match("^([%w_]+),? ?(.*)$")
            local rest = (first == "self" or spec.is_methods) and others or nil
            found[#found + 1] = { name = name, file = file, line = line, params = rest or params,
                                  separator = rest and ":" or ".", doc = comments.above(file, line) or {},
                                  method = spec.methods and spec.methods[name] == fn }
        end
    end
    table.sort(found, by_place)
    return found
end

local function of_class(spec)
    local functions, declared = comments.class_functions(spec.file, spec.class)
    local found = {}
    for _, f in ipairs(functions) do
        if not f.name:find("^_") and not comments.is_private(spec.file, f.line) then
            found[#found + 1] = { name = f.name, file = spec.file, line = f.line, params = f.params,
                                  separator = f.separator, doc = comments.above(spec.file, f.line) or {} }
        end
    end
    return found, declared and comments.above(spec.file, declared) or nil
end

--- An array of sections { title, name, about, groups }, whose groups are { name, as, entries, doc of the class }.
--- An entry has name, separator, params, file, line, method, and doc, empty where there is no comment.
function M.sections(list)
    local out = {}
    for _, section in ipairs(list) do
        local groups = {}
        for _, spec in ipairs(section.tables) do
            groups[#groups + 1] = { name = spec.name, as = spec.as or spec.name, entries = of_table(spec) }
        end
        for _, spec in ipairs(section.classes or {}) do
            local entries, doc = of_class(spec)
            groups[#groups + 1] = { name = spec.name, as = spec.as, entries = entries, doc = doc, is_class = true }
        end
        out[#out + 1] = { title = section.title, name = section.name, about = section.about, groups = groups }
    end
    return out
end

--- Names of entries without a comment: "lua/am/x.lua:12: am.x.name".
function M.undocumented(sections)
    local list = {}
    for _, section in ipairs(sections) do
        for _, group in ipairs(section.groups) do
            for _, entry in ipairs(group.entries) do
                if not entry.doc.text then
                    list[#list + 1] = ("%s:%d: %s%s%s"):format(entry.file, entry.line, group.as, entry.separator,
                                                               entry.name)
                end
            end
        end
    end
    return list
end

return M
