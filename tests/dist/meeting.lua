-- How ranks of a program that fails end it: each says what it saw, and waits until the others have, too, before one
-- ends all. They meet in a folder, AMLUA_MEETING (ranks.meeting makes it), as what they test is how they talk.

local path = require("am.utils.path")
local posix = require("am.utils.posix")

--- Print a text of this rank and wait, at most 10 s, until `count` ranks have printed theirs.
return function(rank, count, text)
    io.write(text)
    io.stdout:flush()
    local folder = assert(os.getenv("AMLUA_MEETING"), "AMLUA_MEETING names no folder")
    io.open(path.join(folder, tostring(rank)), "w"):close()
    local latest = posix.time() + 10
    while #path.list_dir(folder) < count and posix.time() < latest do
        posix.sleep(0.02)
    end
end
