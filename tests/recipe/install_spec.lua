-- The installed tree: put under a prefix, moved, used from another folder; what embeds libamlua builds
-- against it; its manual page and shell completion.
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")

local BUILD = path.dirname(helper.amlua)
local CLEAN = "env -i PATH=/usr/bin:/bin HOME=/nonexistent OMP_WAIT_POLICY=passive"

-- A shell command that must end with 0, with nothing of the tests' environment; returns its output.
local function run(command)
    local status, out, errors = helper.shell(string.format("%s sh -c %s", CLEAN, helper.quote(command)))
    assert(status == 0, command .. "\n" .. out .. errors)
    return out
end

describe("an installed amlua", function()
    local root, prefix, elsewhere

    setup(function()
        root = run("pwd"):match("^[^\n]+")
        elsewhere = helper.folder()
        local first = helper.folder()
        run(string.format("cmake --install %s --prefix %s/first", BUILD, first))
        prefix = first .. "/moved"
        assert(os.rename(first .. "/first", prefix))
    end)
    teardown(helper.cleanup)

    it("runs from any folder after it was moved", function()
        assert.matches("^amlua %d", run(string.format("cd %s && %s/bin/amlua --version", elsewhere, prefix)))
        assert.equal("6\n", run(string.format("cd %s && %s/bin/amlua -e 'print(am.tensor({ 1, 2, 3 }):sum():item())'",
                                              elsewhere, prefix)))
        local cfg = helper.config(elsewhere .. "/run", {
            model = { pretrained_model_name_or_path = root .. "/" .. helper.tiny },
            step_scheduler = { max_steps = 2 },
        })
        run(string.format("cd %s && %s/bin/amlua recipes/llm_finetune.lua %s", elsewhere, prefix,
                          helper.yaml(helper.folder(), cfg)))
        assert.equal(2, #helper.curve(elsewhere .. "/run"))
    end)

    it("says where its files are nowhere but under the prefix", function()
        local found = helper.read(prefix .. "/lib/pkgconfig/amlua.pc")
        assert.is_nil(found:find(root, 1, true))
        for _, name in ipairs(helper.tree(prefix .. "/lib/cmake/amlua")) do
            assert.is_nil(helper.read(prefix .. "/lib/cmake/amlua/" .. name):find(root, 1, true), name)
        end
    end)

    it("is found by pkg-config", function()
        -- the line at the file's head, from this prefix
        local source = prefix .. "/share/amlua/examples/embed/fit.c"
        local line = helper.read(source):match("\n %*   (cc .-) %*/"):gsub("\\\n %*", "")
        assert.equal("w is 2.0000, the loss 0.0e+00\n",
                     run(string.format("cd %s && cp %s . && export PKG_CONFIG_PATH=%s/lib/pkgconfig && %s", elsewhere,
                                       source, prefix, line)))
    end)

    it("is found by CMake", function()
        local dir = helper.folder()
        helper.write(dir .. "/CMakeLists.txt", string.format([[
cmake_minimum_required(VERSION 3.22)
project(fit C)
find_package(amlua 0.1 REQUIRED)
add_executable(fit %s/share/amlua/examples/embed/fit.c)
target_link_libraries(fit PRIVATE amlua::amlua)
]], prefix))
        run(string.format("cmake -S %s -B %s/build -DCMAKE_PREFIX_PATH=%s && cmake --build %s/build", dir, dir, prefix,
                          dir))
        assert.matches("w is 2.0000", run(dir .. "/build/fit"))
    end)

    it("serves stock LuaJIT", function()
        local lua = prefix .. "/share/amlua/lua"
        local out = run(string.format("printf 'hello world\\n1234\\n' | LUA_PATH='%s/?.lua;%s/?/init.lua;;' luajit "
                                      .. "%s/share/amlua/examples/embed/count_tokens.lua %s", lua, lua, prefix,
                                      root .. "/tests/parity/golden/tokenizers/smollm2"))
        assert.matches("^2%s+hello world\n4%s+1234\n6%s+in all", out)
    end)

    it("has a manual page and completion", function()
        assert.is_truthy(helper.read(prefix .. "/share/man/man1/amlua.1"))
        local function complete(...)
            local words = { ... }
            for i, word in ipairs(words) do
                words[i] = helper.quote(word)
            end
            return run(string.format("bash -c %s", helper.quote(string.format(
                "cd %s; compopt() { :; }; PATH=%s/bin:$PATH; . %s/share/bash-completion/completions/amlua; "
                .. "COMP_WORDS=(amlua %s); COMP_CWORD=%d; _amlua; printf '%%s\\n' \"${COMPREPLY[@]}\"",
                elsewhere, prefix, prefix, table.concat(words, " "), #words))))
        end
        assert.matches("--threads", complete("--t"), 1, true)
        for _, option in ipairs { "-i", "--info" } do
            assert.equal(option .. "\n", complete(option))
            assert.is_truthy(helper.read(prefix .. "/share/man/man1/amlua.1"):find(option:gsub("%-", "\\-"), 1, true))
        end
        assert.matches("recipes/generate.lua", complete("recipes/g"), 1, true)
        helper.write(elsewhere .. "/c.yaml", "model:\n  x: 1\noptimizer:\n  lr: 1\n")
        assert.equal("--optimizer.\n", complete("recipes/llm_finetune.lua", "c.yaml", "--opt"))
    end)
end)
