-- am.utils.log: format, levels, colours, control characters.
local ffi = require("ffi")
local log = require("am.utils.log")

ffi.cdef "int setenv(const char *, const char *, int); int unsetenv(const char *);"

local function setenv(name, value)
    assert(ffi.C.setenv(name, value, 1) == 0)
end

describe("am.utils.log", function()
    local out
    local sink = { write = function(_, ...) out = out .. table.concat({ ... }) end }

    before_each(function()
        out = ""
    end)

    after_each(function()
        for _, name in ipairs { "LOGGING_LEVEL", "NO_COLOR", "FORCE_COLOR" } do
            ffi.C.unsetenv(name)
        end
        log.setup {}
    end)

    it("prints date, level, name and message", function()
        log.setup { stream = sink }
        log.get("am.test"):info("loss %.2f", 1.5)
        assert.matches("^%d%d%d%d%-%d%d%-%d%d %d%d:%d%d:%d%d | INFO | am%.test | loss 1%.50\n$", out)
        out = ""
        log.get("x"):warning("100% %d as it is")
        assert.matches("| WARNING | x | 100%% %%d as it is\n$", out)
    end)

    it("takes levels by name and number and never drops warnings", function()
        for _, level in ipairs { "ERROR", "40", "critical", "warning" } do
            setenv("LOGGING_LEVEL", level)
            log.setup { stream = sink }
            out = ""
            log.get("x"):info("quiet")
            log.get("x"):warning("kept")
            assert.matches("kept", out)
            assert.not_matches("quiet", out)
        end
        setenv("LOGGING_LEVEL", "10")
        log.setup { stream = sink }
        assert.is_true(log.get("x"):enabled("debug"))
        log.setup { stream = sink, level = "info" }
        assert.is_false(log.get("x"):enabled("debug"))
        assert.has_error(function() log.setup { level = "loud" } end)
    end)

    it("colours when forced, not otherwise", function()
        setenv("FORCE_COLOR", "1")
        log.setup { stream = sink }
        log.get("x"):error("e")
        assert.matches("\27%[31mERROR\27%[0m", out)
        setenv("NO_COLOR", "1")
        log.setup { stream = sink }
        out = ""
        log.get("x"):error("e")
        assert.not_matches("\27", out)
    end)

    it("does not pass terminal control on", function()
        log.setup { stream = sink }
        log.get("x"):info("a\27[2Jb\0c\td\ne")
        assert.matches("a%?%[2Jb%?c\td\ne\n$", out)
    end)
end)
