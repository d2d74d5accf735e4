-- How ranks of a program that fails end it: each says what it saw, and waits until the others have, too, before one
-- ends all. They meet in a folder, AMLUA_MEETING, as what they test is how they talk.

local path = require("am.utils.path")
local posix = require("am.utils.posix")

local M = {}

local function have_said(folder, count)
    for rank = 0, count - 1 do
        if not path.is_file(path.join(folder, tostring(rank))) then
            return false
        end
    end
    return true
end

--- Print a text of this rank and wait, at most 10 s, until ranks 0 to `count` - 1 have printed theirs.
function M.say(rank, count, text)
    io.write(text)
    io.stdout:flush()
    local folder = assert(os.getenv("AMLUA_MEETING"), "AMLUA_MEETING names no folder")
    assert(io.open(path.join(folder, tostring(rank)), "w")):close()
    local latest = posix.time() + 10
    while not have_said(folder, count) and posix.time() < latest do
        posix.sleep(0.02)
    end
end

return M
