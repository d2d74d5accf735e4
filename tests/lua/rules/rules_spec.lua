-- The rules must be able to fail: each is shown a small tree that breaks it, and one that does not.

local script = io.popen("pwd"):read("*l") .. "/tests/rules/rules.lua"

-- Runs the rules in a new folder with these files; returns {[rule name] = true or false}.
local function check(tree)
    local root = os.tmpname()
    os.remove(root)
    for path, text in pairs(tree) do
        os.execute(("mkdir -p '%s/%s'"):format(root, path:match("^(.*)/") or "."))
        local file = assert(io.open(root .. "/" .. path, "w"))
        file:write(text)
        file:close()
    end
    local results = {}
    for line in io.popen(("cd '%s' && luajit '%s'"):format(root, script)):lines() do
        local status, name = line:match("^(%l*%s?ok) %d+ %- (.*)$")
        if name then results[name] = status == "ok" end
    end
    os.execute(("rm -rf '%s'"):format(root))
    return results
end

local function broken(rule, tree)
    for name, passed in pairs(check(tree)) do
        if name:find(rule, 1, true) then return not passed end
    end
    error("no rule " .. rule)
end

-- rule, a file that breaks it, its text, a text in the same file that does not
local cases = {
    { "lua.h", "engine/core/a.c", "/* a */\n#include <lua.h>\n", "/* #include <lua.h> */\n" },
    { "device libraries", "engine/core/a.c",
        "/* a */\n#include <cuda_runtime.h>\n",
        "/* a */\n#include <math.h>\n" },
    { "no #if", "kernels/cpu/a.c",
        "/* a */\n#ifdef AM_CUDA\n#endif\n",
        "/* a */\n#ifdef __AVX2__\n#endif\n" },
    { "kernels see", "kernels/cpu/a.c",
        "/* a */\n#include \"core/tensor.h\"\n",
        "/* a */\n#include \"backend.h\"\n" },
    { "no exit", "engine/core/a.c",
        "/* a */\nvoid f(void)\n{\n    exit(1);\n}\n",
        "/* exit(1) */\nchar *a = \"exit(1)\";\nint b = snprintf();\n" },
    { "memory from", "engine/core/a.c",
        "/* a */\nvoid *p = malloc(1);\n",
        "/* a */\nvoid *p = am_malloc(1);\nint x = b->free(p);\n" },
    { "ffi.cdef", "lua/am/core/a.lua",
        "-- a\nrequire('ffi').cdef[[int x;]]\n",
        "-- ffi.cdef[[int x;]]\n" },
    { "ffi.cast", "lua/am/core/a.lua",
        "-- a\nlocal f = ffi.cast('void (*)(int)', g)\n",
        "-- a\nlocal f = ffi.cast('void *', g)\n" },
    { "components require", "lua/am/peft/a.lua",
        "-- a\nlocal m = require 'am.models.llama'\n",
        "-- require('am.models.llama')\nlocal m = require('am.core.tensor')\nlocal n = require('am.peft.b')\n" },
    { "components require", "lua/am/loss/a.lua",
        "-- a\nlocal am = require(\"am\")\n",
        "-- a\nlocal cjson = require(\"cjson\")\n" },
    { "components require", "lua/am/core/a.lua",
        "-- a\nlocal nn = require(\"am.nn.linear\")\n",
        "-- a\nlocal e = require(\"am.core.error\")\n" },
    { "budget", "engine/core/a.c", "/* a */" .. ("\n"):rep(801), "/* a */" .. ("\n"):rep(800) },
    { "budget", "recipes/a.lua", "-- a" .. ("\n"):rep(301), "-- a" .. ("\n"):rep(300) },
    { "every file opens", "lua/am/core/a.lua",
        "local M = {}\nreturn M\n",
        "-- a\nlocal M = {}\nreturn M\n" },
    { "left for later", "lua/am/core/a.lua", "-- a\n-- TO" .. "DO: more\n", "-- a\n-- to do so\n" },
    { "somebody's machine", "docs/a.md",
        "see /ho" .. "me/jane/x\n",
        "see ~/x, lib/ho" .. "me/x and /ho" .. "me/me/x\n" },
    { "documentation resolve", "docs/a.md",
        "[here](b.md)\n",
        "[here](a.md#top) [there](https://example.org)\n" },
    { "documentation resolve", "docs/a.md",
        "Open `engine/none.c`.\n",
        "Open `docs/a.md` and `tests/c/test_<file>.c`.\n" },
    { "every op", "engine/ops/ops.def", "/* ops */\nOP(add, 2, 2, 1, NONE, \"\")\n", nil },
    { "quickstart", "examples/data/lighthouse_questions.tsv", "x\tseen\tWho?\n", nil },
}

describe("the rules", function()
    for _, case in ipairs(cases) do
        local rule, path, bad, good = unpack(case)
        it("find what breaks '" .. rule .. "' in " .. path, function()
            assert.is_true(broken(rule, { [path] = bad }))
        end)
        if good then
            it("let pass what keeps '" .. rule .. "' in " .. path, function()
                assert.is_false(broken(rule, { [path] = good }))
            end)
        end
    end
end)
