-- The project's rules that reading the sources can prove: who may include, require or call what,
-- sizes of files, paths, links. Prints TAP, one line a rule, and what breaks it.
-- usage (from the project's root): luajit tests/rules/rules.lua [libamlua.so]
-- Rules that a tool knows already (format, warnings, globals) are left to tests/run.sh lint.

local library = arg[1]

-- ---- reading the tree

local function lines_of(command)
    local list = {}
    local pipe = assert(io.popen(command))
    for line in pipe:lines() do list[#list + 1] = line end
    pipe:close()
    return list
end

local cache = {}
local function read(path)
    if not cache[path] then
        local file = io.open(path, "rb")
        cache[path] = file and file:read("*a") or ""
        if file then file:close() end
    end
    return cache[path]
end

local function exists(path)
    local file = io.open(path, "rb")
    if file then file:close() end
    return file ~= nil
end

local all_files = {}
for _, path in ipairs(lines_of("find . -type f -not -path './.git/*' -not -path './build*' "
    .. "-not -path './checkpoints/*' -not -name '.git' | sort")) do
    all_files[#all_files + 1] = path:sub(3)
end

-- files("engine/ kernels/", "c h"): paths below one of the folders with one of the endings
local function files(folders, endings)
    local found = {}
    for _, path in ipairs(all_files) do
        local below, ends = false, false
        for folder in folders:gmatch("%S+") do
            below = below or folder == "./" or path:sub(1, #folder) == folder
        end
        for ending in endings:gmatch("%S+") do
            ends = ends or path:sub(-#ending - 1) == "." .. ending
        end
        if below and ends then found[#found + 1] = path end
    end
    return found
end

local function blank(text) return (text:gsub("[^\n]", " ")) end

-- The text with comments (and strings, where asked) blanked out, lines kept.
local function code_of(path, without_strings)
    local text, out, i = read(path), {}, 1
    local lua = path:sub(-4) == ".lua"
    while i <= #text do
        local stop, is_string, _
        local quote = text:match("^[\"']", i)
        local level = lua and text:match("^%-%-%[(=*)%[", i)
        local long = lua and text:match("^%[(=*)%[", i)
        if quote then
            stop, is_string = i + 1, true
            while stop <= #text and text:sub(stop, stop) ~= quote do
                stop = stop + (text:sub(stop, stop) == "\\" and 2 or 1)
            end
        elseif level then
            _, stop = text:find("]" .. level .. "]", i, true)
        elseif long then
            _, stop = text:find("]" .. long .. "]", i, true)
            is_string = true
        elseif text:match(lua and "^%-%-" or "^//", i) then
            stop = (text:find("\n", i, true) or #text + 1) - 1
        elseif not lua and text:match("^/%*", i) then
            _, stop = text:find("*/", i + 2, true)
        end
        if stop or quote or level then
            stop = stop or #text
            local piece = text:sub(i, stop)
            out[#out + 1] = (is_string and not without_strings) and piece or blank(piece)
            i = stop + 1
        else
            local next_stop = text:find("[\"'/%-%[]", i + 1) or #text + 1
            out[#out + 1] = text:sub(i, next_stop - 1)
            i = next_stop
        end
    end
    return table.concat(out)
end

local function line_number(text, position)
    local _, n = text:sub(1, position):gsub("\n", "")
    return n + 1
end

-- ---- rules: each adds its findings to a list

local rules, findings = {}, nil
local function rule(name, check) rules[#rules + 1] = { name = name, check = check } end
local function found(path, line, what)
    findings[#findings + 1] = ("%s%s: %s"):format(path, line and ":" .. line or "", what)
end

-- Every match of a Lua pattern in the code of the files is a finding unless allowed(path).
local function forbid(paths, pattern, allowed, without_strings)
    for _, path in ipairs(paths) do
        if not (allowed and allowed(path)) then
            local text, from = code_of(path, without_strings), 1
            while true do
                local first, last = text:find(pattern, from)
                if not first then break end
                found(path, line_number(text, first), (text:sub(first, last):gsub("%s+", " ")))
                from = last + 1
            end
        end
    end
end

local function one_of(...)
    local names = { ... }
    return function(path)
        for _, name in ipairs(names) do
            if path == name or (name:sub(-1) == "/" and path:sub(1, #name) == name) then
                return true
            end
        end
        return false
    end
end

local engine_c = files("engine/ kernels/", "c h cu cuh def")
local lua_files = files("lua/ recipes/ examples/", "lua")

rule("lua.h only in engine/host.c", function()
    forbid(engine_c, "#%s*include%s*[<\"]lua", one_of("engine/host.c"))
end)

rule("device libraries only in kernels/cuda/ and engine/dist/comm_nccl.c", function()
    for _, header in ipairs { "cuda", "cublas", "cudnn", "nccl" } do
        forbid(engine_c, "#%s*include%s*[<\"]" .. header,
            one_of("kernels/cuda/", "engine/dist/comm_nccl.c"))
    end
end)

rule("no #if for a device or a communicator", function()
    for _, word in ipairs { "CUDA", "NCCL", "MPI", "GLOO", "GPU", "HIP" } do
        forbid(engine_c, "#%s*e?l?ifn?d?e?f?[^\n]*%f[%w]" .. word)
    end
end)

rule("kernels see backend.h, dtype.h and rng.h only", function()
    local own = {}
    for _, path in ipairs(files("kernels/", "h inc def c cuh")) do own[path:match("[^/]+$")] = true end
    for _, name in ipairs { "backend.h", "dtype.h", "rng.h", "kernels.def" } do own[name] = true end
    for _, path in ipairs(files("kernels/", "c h cu cuh")) do
        for name in code_of(path):gmatch("#%s*include%s*\"([^\"]+)\"") do
            local border = path == "kernels/cuda/nccl.c" and name == "dist/comm.h" -- it is a communicator, too
            if not border and not own[name:match("[^/]+$")] then found(path, nil, "includes " .. name) end
        end
    end
end)

-- A rank that fails ends the others: that is what engine/dist/ is asked for.
rule("no exit, abort or printing in the engine outside error.c, log.c, host.c and dist/", function()
    local function allowed(path)
        return path == "engine/core/error.c" or path == "engine/core/log.c" or path == "engine/host.c"
            or path:find("^engine/dist/") ~= nil
    end
    for _, name in ipairs { "exit", "_exit", "abort", "printf", "puts", "perror", "assert" } do
        forbid(engine_c, "%f[%w_]" .. name .. "%s*%(", allowed, true)
    end
    forbid(engine_c, "%f[%w_]fprintf%s*%(%s*std", allowed, true)
end)

-- A backend's own allocator, behind the vtable, is where device memory comes from; modules of communicators see
-- nothing of the engine but am.h and comm.h.
rule("memory from engine/core/mem.c, the backends and modules only", function()
    local function allowed(path)
        return path == "engine/core/mem.c" or path:find("^kernels/%w+/backend_%w+%.c$") ~= nil
            or (path:find("^engine/dist/") ~= nil and not path:find("^engine/dist/comm"))
            or path == "kernels/cuda/nccl.c"
    end
    for _, name in ipairs { "malloc", "calloc", "realloc", "free", "aligned_alloc",
        "posix_memalign", "strdup", "strndup", "asprintf" } do
        forbid(engine_c, "%f[%w_>.]" .. name .. "%s*%(", allowed, true)
    end
end)

-- The engine is declared in one place; the operating system's calls and each library in another.
rule("ffi.cdef only in lua/am/core/ffi.lua and lua/am/utils/{posix,processes,libcurl,digest}.lua", function()
    forbid(lua_files, "%f[%w_]cdef%s*[%(%[\"']", one_of("lua/am/core/ffi.lua", "lua/am/utils/posix.lua",
        "lua/am/utils/processes.lua", "lua/am/utils/libcurl.lua", "lua/am/utils/digest.lua"))
end)

rule("no ffi.cast to a function pointer in Lua", function()
    forbid(lua_files, "cast%s*%(%s*[\"'][^\"'\n]*%(%s*%*")
end)

rule("components require core, nn, utils and themselves only", function()
    local above = { recipes = true, cli = true } -- where components meet
    local room = {
        core = { core = true },
        utils = { core = true, utils = true },
        nn = { core = true, utils = true, nn = true },
    }
    for _, path in ipairs(files("lua/am/", "lua")) do
        local component = path:match("^lua/am/([%w_]+)/") or path:match("^lua/am/([%w_]+)%.lua$")
        if component ~= "init" and not above[component] then
            local allowed = room[component]
                or { core = true, utils = true, nn = true, [component] = true }
            local text, from = code_of(path), 1
            while true do
                local first, last, name = text:find("require%s*%(?%s*[\"']([^\"']+)[\"']", from)
                if not first then break end
                local target = name == "am" and "am" or name:match("^am%.([%w_]+)")
                    or name:match("^(recipes)%.")
                if target and not allowed[target] then
                    found(path, line_number(text, first), "requires " .. name)
                end
                from = last + 1
            end
        end
    end
end)

rule("files within their budget of lines: 800 of C, 500 of Lua, 300 of a recipe", function()
    local function budget(paths, limit)
        for _, path in ipairs(paths) do
            local _, n = read(path):gsub("\n", "")
            if n > limit then found(path, nil, n .. " lines, " .. limit .. " at most") end
        end
    end
    budget(files("engine/ kernels/ tests/", "c h cc cu cuh"), 800)
    budget(files("lua/ tests/ examples/", "lua"), 500)
    budget(files("recipes/", "lua"), 300)
end)

rule("every file opens by saying what it holds", function()
    local opening = { lua = "^%-%-", c = "^/[*/]", h = "^/[*/]", cc = "^/[*/]", cu = "^/[*/]", sh = "^#", yaml = "^#" }
    for ending, pattern in pairs(opening) do
        for _, path in ipairs(files("engine/ kernels/ lua/ recipes/ examples/ tests/", ending)) do
            if not path:find("^tests/.*/data/") then
                local text = read(path):gsub("^#![^\n]*\n", "")
                if not text:find(pattern) then found(path, 1, "no comment at the top") end
            end
        end
    end
end)

rule("nothing left for later (TO" .. "DO, FIX" .. "ME, XX" .. "X)", function()
    for _, path in ipairs(files("./", "c h cu def lua sh yaml md py txt cmake")) do
        for _, word in ipairs { "TO" .. "DO", "FIX" .. "ME", "XX" .. "X" } do
            local at = read(path):find("%f[%w]" .. word .. "%f[%W]")
            if at then found(path, line_number(read(path), at), word) end
        end
    end
end)

rule("no path of somebody's machine", function()
    for _, path in ipairs(files("./", "c h cu def lua sh yaml md py txt cmake json jsonl tsv jinja")) do
        for _, place in ipairs { "/wo" .. "rk/", "/ro" .. "ot/", "/ho" .. "me/", "/tm" .. "p/wt" } do
            -- "me" is nobody: the stand-in of examples and tests
            local at = read(path):gsub("/ho" .. "me/me", "//me//me"):find("%f[/%w.]" .. place)
            if at then found(path, line_number(read(path), at), place) end
        end
    end
end)

rule("links and paths in the documentation resolve", function()
    for _, path in ipairs(files("./", "md")) do
        local text, folder = read(path), path:match("^(.*/)") or ""
        for target in text:gmatch("%]%(([^)%s]+)%)") do
            local name = target:gsub("#.*$", "")
            if name ~= "" and not name:find("^%a+:") and not exists(folder .. name) then
                found(path, nil, "links to " .. target)
            end
        end
        -- `engine/tensor.c` in running text; the changelog may speak of what is gone
        for name in text:gmatch("`([%w_./-]+)`") do
            local top = name:match("^(%l+)/")
            local ours = top and ("engine lua recipes kernels examples tests docs "):find(top .. " ", 1, true)
            if ours and path ~= "CHANGELOG.md" and not name:find("%u%u%u") and not exists(name) then
                found(path, nil, "speaks of " .. name)
            end
        end
    end
end)

rule("every op has a test case and a line in docs/ops.md", function()
    local tests = {}
    for _, path in ipairs(files("tests/op/", "c h lua")) do tests[#tests + 1] = read(path) end
    local cases, page = table.concat(tests), read("docs/ops.md")
    local n, untested, unwritten = 0, {}, {}
    for name in code_of("engine/ops/ops.def"):gmatch("%f[%w_]OP%(%s*([%w_]+)") do
        n = n + 1
        if not cases:find("%f[%w_]" .. name .. "%f[^%w_]")
            and not cases:find("AM_OP_" .. name:upper() .. "%f[^%w_]") then
            untested[#untested + 1] = name
        end
        if not page:find("`" .. name .. "`", 1, true) then unwritten[#unwritten + 1] = name end
    end
    if #untested > 0 then found("tests/op", nil, "no case for " .. table.concat(untested, ", ")) end
    if #unwritten > 0 then
        found("docs/ops.md", nil, "no line for " .. table.concat(unwritten, ", "))
    end
    if n == 0 then found("engine/ops/ops.def", nil, "no op found") end
end)

rule("every function of am.h is in the library", function()
    if not library or not exists(library) then return "no library given" end
    local symbols = {}
    for _, line in ipairs(lines_of("nm -D --defined-only '" .. library .. "'")) do
        symbols[line:match("(%S+)$")] = true
    end
    local n, missing = 0, {}
    for _, header in ipairs { "engine/am.h", unpack(files("engine/api/", "h")) } do
        for name in code_of(header):gmatch("%f[%w_](am_[%w_]+)%s*%(") do
            n = n + 1
            if not symbols[name] then missing[#missing + 1] = name end
        end
    end
    if #missing > 0 then found(library, nil, "lacks " .. table.concat(missing, ", ")) end
    if n == 0 then found("engine/am.h", nil, "no function found") end
end)

rule("the quickstart asks what its training set answers", function()
    local rows, answers = {}, ""
    for question, answer in read("examples/data/lighthouse.jsonl"):gmatch('"question": "(.-)", "answer": "(.-)"') do
        rows[question] = true
        answers = answers .. answer
    end
    local path, n, paraphrases = "examples/data/lighthouse_questions.tsv", 0, 0
    for line in read(path):gmatch("[^\n]+") do
        n = n + 1
        local expected, kind, question = line:match("^([^\t]+)\t(%l+)\t([^\t]+)$")
        if not expected then
            found(path, n, "not: expected text, seen or paraphrase, question")
        else
            if kind == "paraphrase" then paraphrases = paraphrases + 1 end
            if (kind == "seen") ~= (rows[question] or false) then found(path, n, "is not " .. kind) end
            if not answers:find(expected, 1, true) then found(path, n, "no row answers " .. expected) end
            if question:lower():find(expected:lower(), 1, true) then found(path, n, "the question tells") end
        end
    end
    if n ~= 3 or paraphrases ~= 2 then found(path, nil, "three questions, two of them paraphrases") end
end)

assert(loadfile(arg[0]:match("^.*/") .. "cuda.lua")) {
    rule = rule, found = found, files = files, read = read, code_of = code_of, line_number = line_number,
}

-- ---- the run

local failed = 0
for i, r in ipairs(rules) do
    findings = {}
    local skip = r.check()
    if skip then
        print(("ok %d - # SKIP %s: %s"):format(i, r.name, skip))
    elseif #findings == 0 then
        print(("ok %d - %s"):format(i, r.name))
    else
        failed = failed + 1
        print(("not ok %d - %s"):format(i, r.name))
        for _, finding in ipairs(findings) do print("# " .. finding) end
    end
end
print("1.." .. #rules)
os.exit(failed == 0 and 0 or 1)
