-- The command line of a recipe: `recipe.lua [config.yaml] [--a.b value | --a.b=value | --flag] …`.
-- Splits words only: values stay text, and what they mean is the configuration's to say. Raises
-- "usage" for words that are neither, so that nothing is ignored silently.
--
--   local args = require("am.cli.args").parse(argv, options)
--   args.config      path given by -c, --config or as the first plain word, or nil
--   args.options     { ["allow-user-code"] = true, help = "dataset", … }: the host's own, by long name
--   args.overrides   { { path = "a.b", value = "text" or nil for a bare flag }, … } in order
--
-- A value is the next word unless that starts with "--" or is a short option, so negative numbers
-- are values. A bare flag takes the word behind it: put the configuration first, or use -c.

local err = require("am.core.error")
local strings = require("am.utils.strings")

local M = {}

--- Options of every recipe: name -> { flag = true } for those without a value; short names. `topic`: may have
--- a word behind it that is no file of YAML. `values`: what may stand behind `=` of a flag.
M.options = {
    config = { short = "c", doc = "the configuration; also the first plain word" },
    help = { short = "h", flag = true, topic = true, doc = "sections; with a section's or target's name its keys" },
    ["print-config"] = { flag = true, values = { defaults = true },
                         doc = "print the resolved configuration (=defaults: with defaults filled in) and stop" },
    ["dry-run"] = { flag = true, doc = "say what the run would do and need, and stop" },
    ["allow-user-code"] = { flag = true, doc = "run Lua files that the configuration names anywhere" },
    threads = { doc = "of the process; as many as there are CPUs by default" },
    ["nproc-per-node"] = { doc = "processes on this host, or on each node of the section slurm" },
    ["print-launch"] = { flag = true, doc = "print what would be started or submitted, and stop" },
}

local function fail(fmt, ...)
    err.raise("usage", fmt, ...)
end

local function long_of_short(options, short)
    for name, option in pairs(options) do
        if option.short == short then
            return name
        end
    end
    return nil
end

-- The option that a word names, and the value after "=": name, value; nil for other words.
local function known_option(options, word)
    local short = word:match("^%-(%a)$")
    if short then
        return long_of_short(options, short)
    end
    local name, value = word:match("^%-%-([^=]+)=(.*)$")
    name = name or word:match("^%-%-(.+)$")
    name = name == "nproc_per_node" and "nproc-per-node" or name -- torchrun's other spelling
    if name and options[name] then
        return name, value
    end
    return nil
end

-- `a.b.c`: keys as YAML has them, with nothing empty in between.
local function check_path(path, word)
    for _, key in ipairs(strings.split(path, ".")) do
        if key == "" or not key:find("^[%w_][%w_-]*$") then
            fail('"%s" is no key: write --section.key value or --section.key=value', word)
        end
    end
end

local function set_config(out, path)
    if out.config then
        fail('unexpected argument "%s": the configuration is already "%s" (a setting is written --section.key '
            .. "value)", path, out.config)
    elseif path == "" then
        fail("the name of the configuration is empty")
    end
    out.config = path
end

--- Parse an array of words. `options` (default M.options) are the host's own.
function M.parse(argv, options)
    options = options or M.options
    local out = { options = {}, overrides = {} }
    local i = 1

    -- The word behind the current one if it is a value.
    local function take_value()
        local word = argv[i + 1]
        if word == nil or strings.starts_with(word, "--") or known_option(options, word) then
            return nil
        end
        i = i + 1
        return word
    end

    -- The same, if it is no configuration either.
    local function take_topic()
        local word = argv[i + 1]
        if word and not strings.starts_with(word, "-") and not word:find("%.ya?ml$") then
            return take_value()
        end
        return nil
    end

    while i <= #argv do
        local word = argv[i]
        local name, value = known_option(options, word)
        if name and options[name].flag then
            if value and not (options[name].values or {})[value] and not options[name].topic then
                fail("--%s takes no value%s", name, options[name].values and " but "
                     .. table.concat(strings.sorted_keys(options[name].values), ", ") or "")
            end
            out.options[name] = value or options[name].topic and take_topic() or true
        elseif name then
            value = value or take_value()
            if not value then
                fail("%s needs a value", word)
            elseif name == "config" then
                set_config(out, value)
            else
                out.options[name] = value
            end
        elseif strings.starts_with(word, "--") then
            local path
            path, value = word:match("^%-%-([^=]*)=(.*)$")
            path = path or word:sub(3)
            check_path(path, word)
            out.overrides[#out.overrides + 1] = { path = path, value = value or take_value() }
        elseif strings.starts_with(word, "-") and word ~= "-" then
            fail('unknown option "%s": write --section.key value, -c file or -h', word)
        else
            set_config(out, word)
        end
        i = i + 1
    end
    return out
end

return M
