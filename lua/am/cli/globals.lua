-- The globals of what is typed at the prompt and of the script that `amlua -i` runs. They begin as a copy
-- of the standard ones and are a table of their own: amlua's files look theirs up when they run, so one
-- typed `table = {}` would otherwise take the prompt with it. It is a copy, `_G` in it included, for
-- scripts do all kinds of things to `_G` (strict.lua sets its metatable), and rely on getting what they
-- would get in a plain Lua.
--
-- Functions made there see what is assigned there later, also those from loadstring, load, loadfile and
-- dofile. Modules that are required have the standard globals: what they define is seen here, what is
-- assigned here is not seen by them. The libraries (`table`, `math`, …) are copies, too, so that their
-- functions can be replaced; but for `package`, which is there to be changed. What is added to `string`
-- is added to the real one, where methods of strings are found.
--
--   local env = require("am.cli.globals").new()   setfenv(chunk, env)

local M = {}

local libraries = { "bit", "coroutine", "debug", "io", "jit", "math", "os", "string", "table" }

local function copy(t)
    local out = {}
    for key, value in next, t do
        out[key] = value
    end
    return out
end

-- What a loader gave, with `env` as its globals; nil and the message as they are.
local function placed(env, chunk, ...)
    return chunk and setfenv(chunk, env), ...
end

-- The functions that run text, for code whose globals are `env`.
local function add_loaders(env)
    function env.loadstring(...)
        return placed(env, loadstring(...))
    end
    function env.load(source, name, mode, ...)
        return placed(select("#", ...) > 0 and (...) or env, load(source, name, mode))
    end
    function env.loadfile(file, mode, ...)
        return placed(select("#", ...) > 0 and (...) or env, loadfile(file, mode))
    end
    function env.dofile(file)
        local chunk, message = loadfile(file)
        if not chunk then
            error(message, 0)
        end
        return setfenv(chunk, env)()
    end
end

--- A table to set as the environment of typed code.
function M.new()
    local env = copy(_G)
    env._G = env
    for _, name in ipairs(libraries) do
        env[name] = copy(_G[name])
    end
    setmetatable(env.string, { __newindex = function(t, key, value)
        rawset(t, key, value)
        if string[key] == nil then
            rawset(string, key, value)
        end
    end })
    add_loaders(env)
    return setmetatable(env, { __index = _G })
end

return M
