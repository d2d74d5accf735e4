-- Doc comments of Lua sources: the lines of `---` above a function, read as LuaLS reads them. Knows where
-- they stand and what their annotations mean, not which functions are public (api.lua).

local M = {}

local cache = {}

-- The lines of a file, from the project's root.
local function lines_of(file)
    if not cache[file] then
        local handle, lines = assert(io.open(file, "rb")), {}
        for line in handle:lines() do
            lines[#lines + 1] = line
        end
        handle:close()
        cache[file] = lines
    end
    return cache[file]
end

-- The type that a text begins with, and the rest: types have spaces inside brackets and behind "fun(…):".
local function split_type(text)
    local depth, i = 0, 1
    while i <= #text do
        local c = text:sub(i, i)
        if c:find("[%({<%[]") then
            depth = depth + 1
        elseif c:find("[%)}>%]]") then
            depth = depth - 1
        elseif c == " " and depth == 0 and not text:sub(1, i - 1):find("[:,]$") then
            return text:sub(1, i - 1), text:sub(i + 1)
        end
        i = i + 1
    end
    return text, ""
end

-- { text = lines, params = { { name, type, about } }, returns = { { type, about } }, fields, class }
local function parse(comment)
    local doc, last = { text = {}, params = {}, returns = {}, fields = {} }, nil
    for _, line in ipairs(comment) do
        local tag, rest = line:match("^@(%a+)%s+(.*)$")
        if tag == "param" or tag == "field" then
            local name, more = rest:match("^(%S+)%s+(.*)$")
            last = { name = name }
            last.type, last.about = split_type(more)
            table.insert(tag == "param" and doc.params or doc.fields, last)
        elseif tag == "return" then
            last = {}
            last.type, last.about = split_type(rest)
            table.insert(doc.returns, last)
        elseif tag == "class" then
            doc.class, doc.class_about = rest:match("^(%S+)%s*(.*)$")
        elseif tag == nil and last and line:find("^ ") then -- goes on
            local whole = last.type .. (last.about ~= "" and " " .. last.about or "") .. " " .. line:gsub("^%s+", "")
            last.type, last.about = split_type(whole)
        elseif tag == nil then
            table.insert(doc.text, line)
        end
    end
    return doc
end

--- The doc comment that ends above a line of a file; nil when there is none.
function M.above(file, at)
    local lines, comment, i = lines_of(file), {}, at - 1
    while lines[i] and lines[i]:find("^%s*%-%-%-") do
        table.insert(comment, 1, (lines[i]:gsub("^%s*%-%-%- ?", "")))
        i = i - 1
    end
    return #comment > 0 and parse(comment) or nil
end

--- True where a plain comment, `--`, stands above a line: the function is for the component's own use.
function M.is_private(file, at)
    local line = lines_of(file)[at - 1] or ""
    return line:find("^%s*%-%- ") ~= nil and not line:find("^%s*%-%- %-%-%-%-")
end

--- The first paragraph of the comment that a file opens with, as one line.
function M.opening(file)
    local out = {}
    for _, line in ipairs(lines_of(file)) do
        local text = line:match("^%-%- ?(.*)$")
        if not text or text == "" or text:find("^   ") then
            break
        end
        out[#out + 1] = text
    end
    return table.concat(out, " ")
end

--- Functions of a class that a file keeps to itself, `function Class:name(…)`, in order: { name, separator, params,
--- line }; and the line of `local Class =`.
function M.class_functions(file, class)
    local found, declared = {}, nil
    for at, line in ipairs(lines_of(file)) do
        local separator, name, rest = line:match("^function " .. class .. "([.:])([%w_]+)(%(.*)$")
        if name then
            local i = at
            while not rest:find(")", 1, true) do
                i = i + 1
                rest = rest .. " " .. lines_of(file)[i]:gsub("^%s+", "")
            end
            found[#found + 1] = { name = name, separator = separator, params = rest:match("^%((.-)%)"), line = at }
        elseif line:find("^local " .. class .. "%f[^%w_]") then
            declared = declared or at
        end
    end
    return found, declared
end

--- Where a function is defined: a file below the project's root and a line; nil for what is not Lua's.
function M.place(fn)
    local info = debug.getinfo(fn, "S")
    local file = info.source:match("^@.-(lua/am/[%w_/]+%.lua)$")
    return file, info.linedefined
end

--- The parameters of a function as they are written: "a, b, ...".
function M.parameters(fn)
    local names, i = {}, 1
    local name = debug.getlocal(fn, i)
    while name do
        names[i], i = name, i + 1
        name = debug.getlocal(fn, i)
    end
    if debug.getinfo(fn, "u").isvararg then
        names[#names + 1] = "..."
    end
    return table.concat(names, ", ")
end

return M
