-- Writes the API reference from doc comments: docs/api_lua.md from the Lua modules, docs/api_c.md from engine/am.h,
-- and docs/luals/, by which editors with a Lua language server complete `am.`: a file for each section of the page.
-- usage (from the project's root): amlua docs/api.lua
-- What is public: api/sections.lua. How comments are read: api/comments.lua, api/entries.lua, api/header.lua.

local comments = dofile("docs/api/comments.lua")
local entries = dofile("docs/api/entries.lua")
local header = dofile("docs/api/header.lua")
local public = dofile("docs/api/sections.lua")

-- ---- Markdown -------------------------------------------------------------------------------

local function escaped(text)
    local parts = {}
    for plain, code in (text .. "``"):gmatch("([^`]*)(`[^`]*`)") do
        parts[#parts + 1] = plain:gsub("[\\*<]", "\\%0"):gsub("%]%(", "]\\("):gsub("%f[%w_]_", "\\_")
        parts[#parts + 1] = code
    end
    parts[#parts] = nil -- the two that were added
    return table.concat(parts)
end

-- Lines of a comment as Markdown: what is indented stays as it is.
local function paragraphs(lines)
    local out, words, kept = {}, {}, {}
    local function flush()
        if #words > 0 then
            out[#out + 1] = escaped(table.concat(words, " "))
        end
        if kept[1] and kept[1]:find("^%- ") then
            out[#out + 1] = escaped(table.concat(kept, "\n"))
        elseif #kept > 0 then
            out[#out + 1] = "```\n" .. table.concat(kept, "\n") .. "\n```"
        end
        words, kept = {}, {}
    end
    for _, line in ipairs(lines) do
        if line:find("^  ") then
            if #words > 0 then flush() end
            kept[#kept + 1] = line:sub(3)
        else
            if #kept > 0 or line == "" then flush() end
            words[#words + 1] = line ~= "" and line or nil
        end
    end
    flush()
    return table.concat(out, "\n\n")
end

local function of_text(text)
    local lines = {}
    for line in (text .. "\n"):gmatch("(.-)\n") do
        lines[#lines + 1] = line
    end
    return paragraphs(lines)
end

local function add_entry(out, group, entry)
    out[#out + 1] = ("### `%s%s%s(%s)`%s"):format(group.as, entry.separator, entry.name, entry.params,
                                                 entry.method and " *method*" or "")
    local text = paragraphs(entry.doc.text or {})
    out[#out + 1] = text ~= "" and text or nil
    local list = {}
    for _, p in ipairs(entry.doc.params or {}) do
        list[#list + 1] = ("- `%s`: `%s`%s"):format(p.name, p.type, p.about ~= "" and ", " .. escaped(p.about) or "")
    end
    for _, r in ipairs(entry.doc.returns or {}) do
        list[#list + 1] = ("- returns `%s`%s"):format(r.type, r.about ~= "" and " " .. escaped(r.about) or "")
    end
    out[#out + 1] = #list > 0 and table.concat(list, "\n") or nil
end

local function lua_page(sections)
    local out = { "# Lua API", "Written by `docs/api.lua` from the doc comments of `lua/am/`; do not edit.",
        "`local am = require \"am\"` gives what is called `am.` here; the other components are required by name. "
        .. "At the prompt `help(x)` shows the same text. What a configuration may name is in "
        .. "[config_reference.md](config_reference.md), tensors are introduced in [tensors.md](tensors.md), the C API "
        .. "is in [api_c.md](api_c.md). A `?` behind a type: it may be left out." }
    for _, section in ipairs(sections) do
        out[#out + 1] = "## " .. section.title
        out[#out + 1] = section.about ~= "" and section.about or nil
        local file
        for _, group in ipairs(section.groups) do
            if group.is_class then
                out[#out + 1] = ("## `%s`, called `%s` here"):format(group.name, group.as)
                out[#out + 1] = group.doc and group.doc.class_about ~= "" and escaped(group.doc.class_about) or nil
                local fields = {}
                for _, f in ipairs(group.doc and group.doc.fields or {}) do
                    fields[#fields + 1] = ("- `%s.%s`: `%s`%s"):format(group.as, f.name, f.type,
                        f.about ~= "" and ", " .. escaped(f.about) or "")
                end
                out[#out + 1] = #fields > 0 and table.concat(fields, "\n") or nil
            end
            for _, entry in ipairs(group.entries) do
                if entry.file ~= file then
                    file = entry.file
                    out[#out + 1] = ("From [%s](../%s): %s"):format(file, file, escaped(comments.opening(file)))
                end
                add_entry(out, group, entry)
            end
        end
    end
    return table.concat(out, "\n\n") .. "\n"
end

-- ---- the editors' files ---------------------------------------------------------------------

local function is_name(word)
    local keyword = { ["repeat"] = true, ["end"] = true, ["and"] = true, ["or"] = true, ["not"] = true }
    return word:find("^[%a_][%w_]*$") and not keyword[word]
end

local function returns_of(group, entry)
    if #(entry.doc.returns or {}) > 0 then
        local list = {}
        for i, r in ipairs(entry.doc.returns) do
            list[i] = "---@return " .. r.type .. (r.about ~= "" and " " .. r.about or "")
        end
        return table.concat(list, "\n")
    end
    local type_ = group.name == "am.Ops" and (public.op_returns[entry.name] or "am.Tensor")
        or public.returns[group.name .. "." .. entry.name]
    return type_ and "---@return " .. type_:gsub(", ", "\n---@return ") or nil
end

local function meta_function(out, group, variable, entry)
    if not is_name(entry.name) then
        return
    end
    out[#out + 1] = ""
    for _, line in ipairs(entry.doc.text or {}) do
        out[#out + 1] = "---" .. (line ~= "" and " " .. line or "")
    end
    for _, p in ipairs(entry.doc.params or {}) do
        out[#out + 1] = "---@param " .. p.name .. " " .. p.type .. (p.about ~= "" and " " .. p.about or "")
    end
    out[#out + 1] = returns_of(group, entry)
    out[#out + 1] = ("function %s%s%s(%s) end"):format(variable, entry.separator, entry.name, entry.params)
end

-- The class of a group, with its fields, and its functions on a variable.
local function meta_class(out, group, variable, fields)
    local parent = public.parents[group.name]
    out[#out + 1] = "\n---@class " .. group.name .. (parent and ": " .. parent or "")
    for _, f in ipairs(group.doc and group.doc.fields or {}) do
        out[#out + 1] = "---@field " .. f.name .. " " .. f.type .. (f.about ~= "" and " " .. f.about or "")
    end
    out[#out + 1] = fields[group.name] and table.concat(fields[group.name], "\n") or nil
    out[#out + 1] = "local " .. variable .. " = {}"
    for _, entry in ipairs(group.entries) do
        meta_function(out, group, variable, entry)
    end
end

-- What stands under a name: am.nn.Linear. Nil where it is not reached from am: am.datasets is required by name.
local function at(name)
    local value = require("am")
    for part in name:gmatch("%.([%w_]+)") do
        value = type(value) == "table" and value[part] or nil
    end
    return value
end

-- A section as Lua, which gives the table that the section is named after, with those that stand in it: am.nn has
-- Linear, …
local function meta_file(section, fields)
    local function variable(name)
        return (name:gsub("%.", "_"))
    end
    local out = { "---@meta " .. (pcall(require, section.name) and section.name or "_"),
                  "-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.",
                  "-- luacheck: ignore" }
    local is_here = {}
    for _, group in ipairs(section.groups) do
        meta_class(out, group, variable(group.name), fields)
        is_here[group.name] = true
    end
    out[#out + 1] = ""
    for _, group in ipairs(section.groups) do
        local parent, last = group.name:match("^(.+)%.([%w_]+)$")
        if is_here[parent] and at(group.name) then
            out[#out + 1] = ("%s.%s = %s"):format(variable(parent), last, variable(group.name))
        end
    end
    out[#out + 1] = "return " .. variable(section.name)
    return table.concat(out, "\n") .. "\n"
end

-- A section's parts, by what their files' names end in: the whole as "", but for the ops, which are as many as their
-- sources: those of ops.lua as "", those of compose.lua as "_compose". A class may be declared in several files.
local function families(section)
    if section.name ~= "am.Ops" then
        return { [""] = section }
    end
    local parts, group = {}, section.groups[1]
    for _, entry in ipairs(group.entries) do
        local family = entry.file:match("([^/]+)%.lua$"):gsub("_?ops$", "")
        family = family ~= "" and "_" .. family or ""
        parts[family] = parts[family] or { name = section.name, groups = { { name = group.name, entries = {} } } }
        table.insert(parts[family].groups[1].entries, entry)
    end
    parts[""].groups[1].doc = group.doc
    return parts
end

-- Fields beside those of doc comments: the components of am are in files of their own.
local function meta_fields(sections)
    local tensor = {}
    for i, op in ipairs { "add", "sub", "mul", "div", "pow" } do
        tensor[i] = ("---@operator %s(am.Tensor|number): am.Tensor"):format(op)
    end
    tensor[#tensor + 1] = "---@operator unm: am.Tensor"
    tensor[#tensor + 1] = "---@field grad am.Tensor? the gradient"
    tensor[#tensor + 1] = "---@field requires_grad boolean whether the gradient is wanted"
    local own = { "---@field version string", "---@field ops am.Ops" }
    for _, section in ipairs(sections) do
        for _, group in ipairs(section.groups) do
            local name = group.name:match("^am%.([%w_]+)$")
            if name and type(at(group.name)) == "table" then
                own[#own + 1] = ("---@field %s %s"):format(name, group.name)
            end
        end
    end
    return { am = own, ["am.Tensor"] = tensor }
end

-- ---- files ----------------------------------------------------------------------------------

local sections = entries.sections(public.sections)
local files = {
    ["docs/api_lua.md"] = lua_page(sections),
    ["docs/api_c.md"] = header.page(of_text),
}
local fields = meta_fields(sections)
for _, section in ipairs(sections) do
    for family, part in pairs(families(section)) do
        local name = section.name:gsub("^am%.", "") .. family
        files["docs/luals/" .. name .. ".lua"] = meta_file(part, family == "" and fields or {})
    end
end

if arg and arg[0] and arg[0]:find("docs/api.lua", 1, true) then
    for name, text in pairs(files) do
        local file = assert(io.open(name, "wb"))
        file:write(text)
        file:close()
    end
else
    return { files = files, sections = sections, undocumented = entries.undocumented(sections) } -- for a test
end
