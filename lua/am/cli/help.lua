-- help(x) at the prompt: the doc comments of functions, modules, classes and recipes, read from their
-- sources, and the text of ops from the engine's registry. Holds no documentation of its own but the
-- overview.
--
--   help()            the overview             help(am.matmul)     a function, a table, an object
--   help "ops.matmul" the same by name         help "am.peft"      a module's opening comment

local ffi = require("ffi")
local am = require("am")
local edge = require("am.core.ffi")
local tensor = require("am.core.tensor")

local C = edge.C
local M = {}

local MAX_SUMMARY = 90 -- of a line in a list

M.overview = [[
Lines are Lua; an expression is printed, and `_` holds the last value. Tab completes names.

  am.zeros{2, 3}   am.randn{2, 3}   am.tensor{1, 2}       make tensors
  a + b   a:matmul(b)   a:sum()   loss:backward()   a.grad
  am.AutoModelForCausalLM.from_pretrained(name)           a model
  r = require("recipes.llm_finetune").new("cfg.yaml", { "--optimizer.lr", "1e-4" })
  r:setup()   r:step()   r:evaluate()   r.model           a training run by hand

help(x) or help "name" tells what x is: help(am.ops), help "ops.matmul", help(r), help "am.peft".
Ctrl-C interrupts, a second one ends the program; Ctrl-D leaves.]]

-- ---- sources --------------------------------------------------------------------------------

-- The lines of the file a function is from, or nil for C functions and typed ones.
local function source_lines(fn)
    local info = debug.getinfo(fn, "S")
    local file = info.source:sub(1, 1) == "@" and io.open(info.source:sub(2), "rb")
    if not file then
        return nil
    end
    local lines = {}
    for line in file:lines() do
        lines[#lines + 1] = line
    end
    file:close()
    return lines, info.linedefined
end

-- The comment that ends above line `at`, without its dashes; nil when there is none.
local function comment_above(lines, at)
    local first = at
    while lines[first - 1] and lines[first - 1]:find("^%s*%-%-") do
        first = first - 1
    end
    local out = {}
    for i = first, at - 1 do
        if not lines[i]:find("^%s*%-%- %-%-%-%-") then -- a heading
            out[#out + 1] = (lines[i]:gsub("^%s*%-%-+ ?", ""))
        end
    end
    return #out > 0 and table.concat(out, "\n") or nil
end

-- The comment that a file opens with.
local function opening_comment(file)
    local handle, out = io.open(file, "rb"), {}
    for line in handle and handle:lines() or function() end do
        if not line:find("^%-%-") then
            break
        end
        out[#out + 1] = (line:gsub("^%-%-+ ?", ""))
    end
    if handle then
        handle:close()
    end
    return #out > 0 and table.concat(out, "\n") or nil
end

-- ---- functions and ops ----------------------------------------------------------------------

local function parameters(fn)
    local names, i = {}, 1
    local name = debug.getlocal(fn, i)
    while name do
        names[i], i = name, i + 1
        name = debug.getlocal(fn, i)
    end
    if debug.getinfo(fn, "u").isvararg then
        names[#names + 1] = "..."
    end
    return "(" .. table.concat(names, ", ") .. ")"
end

local int_box = ffi.new("int[1]")

-- The name that a function has in a table, or nil.
local function name_in(t, fn)
    for name, f in next, t do
        if f == fn then
            return name
        end
    end
end

-- What the registry says about the op behind a function of am.ops: "a, b -> a + b"; nil for others.
local function op_text(fn)
    local name = name_in(am.ops, fn)
    return name and C.am_op_find(int_box, name) == 0 and ffi.string(C.am_op_doc(int_box[0])) or nil
end

local function full_name(fn)
    local op, own = name_in(am.ops, fn), name_in(am, fn)
    return op and "am.ops." .. op or own and "am." .. own
end

local function function_text(fn, name)
    local lines, at = source_lines(fn)
    local parts = { (name or full_name(fn) or "function") .. parameters(fn) }
    parts[#parts + 1] = op_text(fn)
    parts[#parts + 1] = lines and at > 0 and comment_above(lines, at) or nil
    if #parts == 1 then
        parts[2] = lines and "(without a comment)" or "(written in C)"
    end
    return table.concat(parts, "\n")
end

local function shortened(text)
    return #text > MAX_SUMMARY and text:sub(1, MAX_SUMMARY - 3) .. "..." or text
end

-- The first sentence about a function, for lists.
local function summary(fn)
    local lines, at = source_lines(fn)
    local text = op_text(fn) or lines and at > 0 and comment_above(lines, at) or ""
    text = text:gsub("%s*@.*", ""):gsub("\n", " ")
    return shortened(text:match("^(.-[.:])%s") or text)
end

-- ---- tables ---------------------------------------------------------------------------------

-- The name under which a module was loaded, or nil.
local function module_name(t)
    for name, value in next, package.loaded do
        if value == t and type(name) == "string" and (t == am or name:find("[.]")) then
            return name
        end
    end
end

-- The comment that the file of a module opens with; nil for other tables.
local function module_comment(t)
    local loaded = module_name(t)
    local file = loaded and package.searchpath(loaded, package.path)
    return file and opening_comment(file)
end

-- The first sentence about a module inside another table, or nil.
local function module_summary(t)
    local text = module_comment(t)
    text = text and text:gsub("\n", " ")
    return text and shortened(text:match("^(.-%.)%s") or text)
end

-- Lines about the functions and modules of a table and of those it inherits from.
local function function_list(t)
    local names, found = {}, {}
    local function offer(name, about)
        if about and not found[name] and name:sub(1, 1) ~= "_" then
            found[name] = about
            names[#names + 1] = name
        end
    end
    for name in next, t == am and debug.getmetatable(am).lazy or {} do
        local _ = am[name] -- loads it
    end
    for _ = 1, 20 do
        for name, value in next, t do
            if type(name) == "string" and type(value) == "function" then
                offer(name, summary(value))
            elseif type(name) == "string" and name ~= "parent" and type(value) == "table" then
                offer(name, module_summary(value))
            end
        end
        local meta = debug.getmetatable(t)
        t = type(meta) == "table" and rawget(meta, "__index")
        if type(t) ~= "table" then
            break
        end
    end
    table.sort(names)
    local lines = {}
    for i, name in ipairs(names) do
        lines[i] = ("  %-24s %s"):format(name, found[name]):gsub("%s+$", "")
    end
    return table.concat(lines, "\n")
end

local function table_text(t, name)
    local class = rawget(t, "class_name") or (debug.getmetatable(t) and t.class_name)
    local own = name_in(am, t)
    local parts = { name or own and "am." .. own or module_name(t) or class or "table" }
    parts[#parts + 1] = module_comment(t) or (debug.getmetatable(t) and t.doc) or nil
    local list = function_list(t)
    parts[#parts + 1] = list ~= "" and list or nil
    return table.concat(parts, "\n\n")
end

-- ---- names ----------------------------------------------------------------------------------

-- What dotted names lead to from x on; fields of `am` are loaded on the way.
local function follow(x, names)
    for key in names:gmatch("[^.:]+") do
        if tensor.is(x) then
            x = tensor.methods
        elseif type(x) ~= "table" then
            return nil
        end
        x = x[key]
    end
    return x
end

-- What a name stands for: a global, a field of am, a tensor's method, a module.
local function named(name, globals)
    local method = name:match("^tensor[.:]([%w_]+)$")
    local found = follow(globals, name) or follow({ am = am }, name) or follow(am, name)
        or (method and tensor.methods[method]) or tensor.methods[name]
    if found == nil and name:find("^[%w_.]+$") and package.searchpath(name, package.path) then
        found = require(name)
    end
    return found
end

--- Text about a value, or about what a name stands for. globals: those of what is typed, by default Lua's.
function M.text(x, globals)
    local name
    if x == nil then
        return M.overview
    elseif type(x) == "string" then
        name, x = x, named(x, globals or _G)
        if x == nil then
            return ("nothing is called %s; help() tells what there is"):format(name)
        end
    end
    if type(x) == "function" then
        return function_text(x, name)
    elseif tensor.is(x) then
        return "A tensor: its methods are\n\n" .. function_list(tensor.methods)
    elseif type(x) == "table" then
        return table_text(x, name)
    end
    return ("a %s"):format(type(x))
end

return M
