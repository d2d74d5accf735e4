-- Programs whose calls to the system are recorded, or made to fail: faults.c, preloaded. Holds no tests.
--
--   local preload = faults.preload(folder_for_the_library)
--   helper.run(words, { before = preload { under = dir, log = file } })
--   helper.run(words, { before = preload { under = dir, call = "write", k = 3, errno = faults.ENOSPC } })

local M = { EINTR = 4, EIO = 5, ENOMEM = 12, ENOSPC = 28, SHORT = 0 }

--- Build faults.c in a folder. Returns a function that gives the words to put before a command: `under`
--- (the folder whose files count), `log`, or `call`, `k`, `errno` and `forever` (all calls after it too).
function M.preload(folder)
    local library = folder .. "/faults.so"
    assert(os.execute("gcc -std=gnu11 -D_GNU_SOURCE -O1 -shared -fPIC tests/support/faults.c -o '" .. library
                      .. "' -ldl") == 0)
    return function(opts)
        local words = { "LD_PRELOAD=" .. library, "AM_FAULTS_UNDER=" .. opts.under }
        if opts.log then
            words[#words + 1] = "AM_FAULTS_LOG=" .. opts.log
        end
        if opts.call then
            words[#words + 1] = string.format("AM_FAULTS_FAIL='%s %d %d %d'", opts.call, opts.k, opts.errno,
                                              opts.forever and 1 or 0)
        end
        return table.concat(words, " ")
    end
end

--- The calls of a log, in order: { call, path, other, data }.
function M.read_log(name)
    local file = assert(io.open(name, "rb"))
    local text, calls, at = file:read("*a"), {}, 1
    file:close()
    while at <= #text do
        local _, stop, call, path, other, bytes = text:find("^([^\t]+)\t([^\t]+)\t([^\t]*)\t(%d+)\n", at)
        assert(stop, "the log is damaged at byte " .. at)
        calls[#calls + 1] = { call = call, path = path, other = other, data = text:sub(stop + 1, stop + bytes) }
        at = stop + bytes + 1
    end
    return calls
end

return M
