-- Rules for the sources in kernels/cuda/: what keeps kernels fast on a GPU, repeatable bit for bit, and runnable over
-- the emulated CUDA. Each comes with a fault that it has to find, looked for at every run. Loaded by rules.lua, which
-- hands in what it reads and reports with. What compiling shows (registers, spills) is in tests/cuda/static/.

local tools = ...
local rule, found, files, read = tools.rule, tools.found, tools.files, tools.read
local line_number = tools.line_number

local TARGET = "kernels/cuda/gpu/am_target.h"
-- Kernels of kernels.def that this backend doesn't have.

local device_files = {}
for _, path in ipairs(files("kernels/cuda/", "cu cuh h")) do
    if path ~= TARGET then device_files[#device_files + 1] = path end
end

-- look(code, report) over every file; report(position, what). `fault` is text in which it has to find something.
local function cuda_rule(name, paths, fault, look)
    rule("cuda: " .. name, function()
        local seen = 0
        look(fault, function() seen = seen + 1 end)
        if seen == 0 then found("tests/rules/cuda.lua", nil, "the planted fault is not found") end
        for _, path in ipairs(paths) do
            local code = tools.code_of(path)
            look(code, function(position, what) found(path, line_number(code, position), what) end)
        end
    end)
end

-- Reports every match of the patterns.
local function never(...)
    local patterns = { ... }
    return function(code, report)
        for _, pattern in ipairs(patterns) do
            local from = 1
            while true do
                local first, last = code:find(pattern, from)
                if not first then break end
                report(first, (code:sub(first, last):gsub("%s+", " ")))
                from = last + 1
            end
        end
    end
end

-- The arguments of a call whose bracket opens at `open`, split at its own commas; and where it ends.
local function arguments(code, open)
    local list, depth, from = {}, 0, open + 1
    for at = open, #code do
        local c = code:sub(at, at)
        if c:find("[%(%[{]") then
            depth = depth + 1
        elseif c:find("[%)%]}]") then
            depth = depth - 1
            if depth == 0 then
                list[#list + 1] = code:sub(from, at - 1)
                return list, at
            end
        elseif c == "," and depth == 1 then
            list[#list + 1] = code:sub(from, at - 1)
            from = at + 1
        end
    end
    return list, #code
end

-- A constant without its class and blanks: forward_tile<D>::NT and F::NT are NT.
local function constant(text)
    return (text:gsub("%s+", ""):gsub("[%w_]+%b<>::", ""):gsub("[%w_]+::", ""))
end

-- ---- what only am_target.h may have

cuda_rule("inline PTX only in am_target.h", device_files, 'asm volatile("bar.sync 0;");',
    never("%f[%w_]asm%f[^%w_]", "%f[%w_]__asm__%f[^%w_]"))

cuda_rule("launches by AM_LAUNCH, shared memory by AM_SHARED, branches by AM_ARCH", device_files,
    "k<<<grid, NT>>>(p);",
    never("<<<", "cudaLaunch%w+", "%f[%w_]__shared__%f[^%w_]", "__CUDA_ARCH__"))

cuda_rule("no library of device code, no constant or texture memory", device_files,
    "namespace cg = cooperative_groups;",
    never("nvcuda::", "cooperative_groups", "cuda::", "%f[%w_]cub::", "thrust::", "__constant__", "__managed__",
        "cudaTextureObject_t", "curand"))

cuda_rule("of system headers limits.h only", files("kernels/cuda/", "cu cuh"), "#include <cub/cub.cuh>",
    function(code, report)
        for at, name in code:gmatch("()#%s*include%s*<([^>]+)>") do
            if name ~= "limits.h" then report(at, "includes " .. name) end
        end
    end)

-- ---- results that don't depend on the order of threads

cuda_rule("no atomic addition", device_files, "atomicAdd(&sum, x);",
    never("%f[%w_]atomicAdd%w*", "%f[%w_]atomicSub%w*", "%f[%w_]__nv_atomic%w*"))

cuda_rule("blocks don't wait for one another", device_files, "__threadfence();",
    never("__threadfence%w*", "%f[%w_]volatile%f[^%w_]", "__nanosleep", "atomicCAS[^;]*%)%s*;%s*while"))

cuda_rule("warps take part as a whole: the masks are full", device_files, "__shfl_xor_sync(0xffffu, x, 1)",
    function(code, report)
        for at, name, open in code:gmatch("()(__[%l_]+_sync)()%(") do
            local mask = name ~= "__match_any_sync" and constant(arguments(code, open)[1])
            if mask and mask ~= "AM_WARP" and mask ~= "0xffffffffu" then report(at, name .. " of " .. mask) end
        end
    end)

-- ---- launches

cuda_rule("launchers neither allocate nor wait", files("kernels/cuda/", "cu cuh"), "cudaDeviceSynchronize();",
    never("cuda%w*Malloc%w*%s*%(", "cuda%w*Free%w*%s*%(", "cuda%w+Synchronize%s*%(", "cudaMemcpy%s*%("))

local LAUNCH_FAULT = [[
__global__ void __launch_bounds__(NT) a_kernel(int *p) { p[0] = 0; }
static void f(am_stream *s) { AM_LAUNCH(a_kernel, 1, 256, 0, s->stream, p); }
]]

-- The block of __launch_bounds__ for each kernel of a text.
local function bounds_of(code)
    local bounds = {}
    for open, after in code:gmatch("__launch_bounds__()%b()()") do
        local name = code:match("^%s*([%w_]+)%s*%(", after)
        if name then bounds[name] = constant(arguments(code, open)[1]) end
    end
    return bounds
end

cuda_rule("a kernel's launch bounds are a constant, and its launch takes that", files("kernels/cuda/", "cu cuh"),
    LAUNCH_FAULT, function(code, report)
        local bounds = bounds_of(code)
        for at, after in code:gmatch("()__global__%s+void%s+()") do
            local open = code:match("^__launch_bounds__()%(", after)
            if not open then
                report(at, "a kernel without __launch_bounds__")
            elseif not arguments(code, open)[1]:find("%u") then
                report(at, "__launch_bounds__ of a number")
            end
        end
        for at, open in code:gmatch("()AM_LAUNCH()%(") do
            local a = arguments(code, open)
            local name = a[1]:match("[%a_][%w_]*")
            if not bounds[name] then
                report(at, "launches " .. name .. ", which is not in this file")
            elseif constant(a[3]) ~= bounds[name] then
                report(at, ("launches %s with %s threads, bounds of %s"):format(name, constant(a[3]), bounds[name]))
            end
        end
    end)

cuda_rule("more than 48 kB of shared memory is asked for", files("kernels/cuda/", "cu cuh"),
    "AM_LAUNCH((k<T>), 1, NT, F::SHARED, s->stream, a);", function(code, report)
        for at, open in code:gmatch("()AM_LAUNCH()%(") do
            local a = arguments(code, open)
            local name, asked = a[1]:match("[%a_][%w_]*"), false
            for ask in code:gmatch("cudaFuncSetAttribute()%(") do
                local b = arguments(code, ask)
                asked = asked or (b[1]:find("%f[%w_]" .. name .. "%f[^%w_]") and constant(b[#b]) == constant(a[4]))
            end
            if constant(a[4]) ~= "0" and not asked then
                report(at, name .. " has dynamic shared memory without cudaFuncSetAttribute of as much")
            end
        end
    end)

-- ---- barriers

-- Names in a function's text that depend on the thread: threadIdx, and what is set from it directly.
local function of_thread(body)
    local names = { threadIdx = true }
    for declaration in body:gmatch("%f[%w_]int%d*_?t?%s+([%a_][%w_]*%s*=[^;]*);") do
        local list = arguments("(" .. declaration .. ")", 1)
        for _, one in ipairs(list) do
            local name, value = one:match("^%s*([%a_][%w_]*)%s*=(.*)$")
            if name and value:find("threadIdx", 1, true) then names[name] = true end
        end
    end
    return names
end

local function mentions(text, names)
    for before, word in (" " .. text):gmatch("([^%w_])([%a_][%w_]*)") do
        if before ~= "." and names[word] then return word end
    end
end

cuda_rule("a barrier is for all threads: not under a condition on the thread, nor after a return", device_files, [[
AM_DEVICE void f(int n)
{
    int warp = threadIdx.x >> 5;
    for (int i = warp; i < n; i += 8) {
        __syncthreads();
    }
}
]], function(code, report)
    -- Functions begin with a brace in column 1 (clang-format).
    for start, body in ("\n" .. code):gmatch("\n(){(.-\n)}") do
        local names, stack, header = of_thread(body), {}, 1
        local at, returns = 1, nil
        while at <= #body do
            local c = body:sub(at, at)
            if c == "(" then
                at = select(2, arguments(body, at))
            elseif c == "{" then
                stack[#stack + 1] = body:sub(header, at - 1)
                header = at + 1
            elseif c == "}" then
                stack[#stack] = nil
                header = at + 1
            elseif c == ";" then
                local statement = body:sub(header, at)
                if statement:find("__syncthreads", 1, true) then
                    local why = returns
                    for _, text in ipairs(stack) do why = why or mentions(text, names) end
                    why = why or mentions(statement:match("%f[%w_]if%s*(%b())") or "", names)
                    if why then report(start + header, "a barrier that depends on " .. why) end
                end
                if statement:find("%f[%w_]return%f[^%w_]") then
                    local inside = statement .. table.concat(stack, " ")
                    returns = returns or mentions(inside:gsub("return.*", ""), names)
                end
                header = at + 1
            end
            at = at + 1
        end
    end
end)

-- ---- what is built, and what is there

rule("cuda: every .cu file is built, and weak symbols are the launchers only", function()
    local cmake = read("kernels/cuda/cuda.cmake")
    if not cmake:find("kernels/cuda/*.cu)", 1, true) then
        found("kernels/cuda/cuda.cmake", nil, "doesn't build kernels/cuda/*.cu")
    end
    for _, path in ipairs(files("engine/ kernels/", "cu")) do
        if not path:find("^kernels/cuda/[^/]+$") then found(path, nil, "is not in kernels/cuda/") end
    end
    for _, path in ipairs(files("kernels/cuda/", "c cu cuh h")) do
        if path ~= "kernels/cuda/cuda_backend.h" and tools.code_of(path):find("%f[%w_]weak%f[^%w_]") then
            found(path, nil, "has a weak symbol")
        end
    end
end)

rule("cuda: every kernel of kernels.def has a launcher", function()
    local text = {}
    for _, path in ipairs(files("kernels/cuda/", "c cu")) do text[#text + 1] = tools.code_of(path) end
    text = table.concat(text, "\n")
    for name in tools.code_of("engine/kernels.def"):gmatch("\nK%(([%w_]+)") do
        -- A definition: a launcher, or a macro that makes it.
        if not text:find("int am_cuda_" .. name .. "%(am_stream")
            and not text:find("%u[%u_]*%(" .. name .. "%f[^%w_]") then
            found("engine/kernels.def", nil, "no launcher for " .. name)
        end
    end
end)
