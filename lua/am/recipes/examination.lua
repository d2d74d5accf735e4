-- What recipes/doctor.lua says of a rank: where it runs, how fast its CPUs and its disk are, what it would run; and of
-- all ranks, which of them are slow or different. What lies between ranks is measured in am.distributed.probe.

local ffi = require("ffi")
local am = require("am")
local config = require("am.config")
local digest = require("am.utils.digest")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local host = require("am.core.host")
local json = require("am.utils.json")
local ops = require("am.core.ops")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local probe = require("am.distributed.probe")
local strings = require("am.utils.strings")
local tensor = require("am.core.tensor")

local C = edge.C
local M = {}

local ROWS, WIDTH, SECONDS = 256, 1024, 0.3 -- of the matrix products, for so long
local FILE_BYTES, BLOCK = 2 ^ 25, 2 ^ 20
local SKEW = 0.5 -- seconds

-- ---- one rank ---------------------------------------------------------------------------------

--- FLOP/s of products of a dtype on a device, of all that were made in a while: whatever else runs there counts.
function M.product_rate(dtype, device)
    return am.no_grad(function()
        local options, id = { dtype = dtype, device = device }, tensor.device_id(device)
        local x, w = am.full({ ROWS, WIDTH }, 0.5, options), am.full({ WIDTH, WIDTH }, 0.5, options)
        local function product()
            am.scope(ops.linear, x, w)
            edge.check(C.am_device_sync(id))
        end
        product()
        local began, calls = C.am_clock(), 0
        while C.am_clock() < began + SECONDS do
            product()
            calls = calls + 1
        end
        return 2 * ROWS * WIDTH * WIDTH * calls / (C.am_clock() - began)
    end)
end

local function done(value, message)
    return value or err.raise("io", "%s", message)
end

-- The folder, or the one above it that is there already.
local function there(folder)
    local at = path.absolute(folder)
    while not path.is_dir(at) and at ~= "/" do
        at = path.dirname(at)
    end
    return at
end

--- Bytes a second that a folder's disk takes until they are on it, and gives.
function M.disk_rates(folder)
    local name = path.unique(path.join(there(folder), ".amlua-doctor"))
    local block = ffi.new("uint8_t[?]", BLOCK)
    ffi.fill(block, BLOCK, 0x5a)
    local ok, write, read = pcall(function()
        local began = C.am_clock()
        local file = done(posix.open(name, "create"))
        for _ = 1, FILE_BYTES / BLOCK do
            done(posix.write(file, block, BLOCK))
        end
        done(posix.fsync(file))
        local write = C.am_clock() - began
        posix.forget(file)
        done(posix.close(file))
        file, began = done(posix.open(name, "read")), C.am_clock()
        for _ = 1, FILE_BYTES / BLOCK do
            done(posix.read_next(file, block, BLOCK))
        end
        posix.close(file)
        return FILE_BYTES / write, FILE_BYTES / (C.am_clock() - began)
    end)
    path.remove_tree(name)
    if not ok then
        error(err.within(write, name), 0)
    end
    return write, read
end

-- A digest of a folder's Lua files, with their names.
local function of_sources(folder)
    local parts = {}
    local function walk(sub)
        for _, name in ipairs(path.list_dir(path.join(folder, sub)) or {}) do
            local relative = path.join(sub, name)
            if path.is_dir(path.join(folder, relative)) then
                walk(relative)
            elseif name:match("%.lua$") then
                parts[#parts + 1] = relative .. digest.text(path.read_file(path.join(folder, relative)) or "")
            end
        end
    end
    walk("")
    return digest.text(table.concat(parts)):sub(1, 12)
end

-- Shared libraries that this process has in memory: { [name] = digest of amlua's own, size of others }. What MPI and
-- the C library load to suit a host may differ.
local function libraries()
    local out = {}
    for line in (path.read_file("/proc/self/maps") or ""):gmatch("[^\n]+") do
        local file = line:match("(/%S+%.so[%d.]*)$")
        local name = file and path.basename(file)
        if name and not (out[name] or name:find("^mca_") or name:find("^libnss_")) then
            out[name] = name:find("amlua", 1, true) and digest.text(path.read_file(file) or ""):sub(1, 12)
                or string.format("%d bytes", path.size(file) or 0)
        end
    end
    return out
end

--- What must be the same on all ranks: { [what] = text }. cfg: the configuration, if there is one.
function M.identity(cfg)
    local out = {
        amlua = am.version .. ", " .. ffi.string(C.am_build()),
        ["amlua's Lua files"] = of_sources(path.dirname(package.searchpath("am", package.path))),
    }
    if cfg then
        out["the configuration"] = digest.text(config.print(cfg)):sub(1, 12)
    end
    for name, what in pairs(libraries()) do
        out[name] = what
    end
    return out
end

local function cpu_list()
    return (path.read_file("/proc/self/status") or ""):match("Cpus_allowed_list:%s*(%S+)") or "?"
end

--- Where a rank runs, by what it was asked: no measurement.
function M.place(world, device)
    local cpus, whole = host.cpus()
    return { rank = world.rank, host = posix.hostname(), pid = posix.getpid(), local_rank = world.local_rank,
             cpus = cpus, cpu_list = cpu_list(), bound = not whole, sharing = world.on_cpus,
             threads = C.am_threads(), device = device or "cpu", isa = ffi.string(C.am_cpu_isa()),
             memory_bytes = tonumber(C.am_host_memory_available()) }
end

-- ---- all ranks --------------------------------------------------------------------------------

--- What is measured of a rank: how a table heads it, its unit, what slow ranks are slow at, the share of the median
--- below which one is (of messages, which vary more, a lower one).
M.measures = {
    { key = "products_f32", head = "f32", unit = "GFLOP/s", per = 1e9, what = "f32 products", share = 0.8 },
    { key = "products_bf16", head = "bf16", unit = "GFLOP/s", per = 1e9, what = "bf16 products", share = 0.8 },
    { key = "disk_write", head = "write", unit = "MB/s", per = 1e6, what = "writing to the disk", share = 0.8 },
    { key = "disk_read", head = "read", unit = "MB/s", per = 1e6, what = "reading from the disk", share = 0.8 },
    { key = "latency", head = "message", unit = "us", per = 1e-6, what = "messages to rank 0", share = 0.5, less = true,
      between = true },
    { key = "bandwidth", head = "to rank 0", unit = "MB/s", per = 1e6, what = "large messages to rank 0", share = 0.5,
      between = true },
}

local function named(rank)
    return string.format("rank %d (host %s)", rank.rank, rank.host)
end

local function figure(x)
    return posix.fixed(x, x < 10 and 2 or x < 100 and 1 or 0)
end

-- A measure of the ranks that are compared with one: messages on a host are not those between hosts.
local function peers(ranks, rank, m)
    local list = {}
    for _, other in ipairs(ranks) do
        if other[m.key] and (not m.between or (other.host == ranks[1].host) == (rank.host == ranks[1].host)) then
            list[#list + 1] = other[m.key]
        end
    end
    return list
end

-- One line for each host whose ranks have more threads than CPUs.
local function crowded(ranks, lines)
    local said = {}
    for _, rank in ipairs(ranks) do
        if rank.threads * rank.sharing > rank.cpus and not said[rank.host] then
            said[rank.host] = true
            lines[#lines + 1] = string.format("host %s has %d ranks of %d threads on %d CPUs", rank.host, rank.sharing,
                                              rank.threads, rank.cpus)
        end
    end
end

--- Lines that name the ranks that are slow, and what at.
function M.slow(ranks)
    local lines = json.array {}
    for _, rank in ipairs(ranks) do
        for _, m in ipairs(M.measures) do
            local value = rank[m.key]
            local middle = value and probe.median(peers(ranks, rank, m))
            if value and (m.less and middle / value or value / middle) < m.share then
                lines[#lines + 1] = string.format("%s is slow at %s: %s %s, where the median is %s", named(rank),
                                                  m.what, figure(value / m.per), m.unit, figure(middle / m.per))
            end
        end
        if rank.clock and math.abs(rank.clock) > SKEW + rank.clock_error then
            lines[#lines + 1] = string.format("%s has a clock that is %s s %s that of rank 0", named(rank),
                                              figure(math.abs(rank.clock)), rank.clock > 0 and "ahead of" or "behind")
        end
    end
    crowded(ranks, lines)
    return lines
end

-- What most ranks have, by get(rank); the first's where as many have another.
local function usual(ranks, get)
    local counts, best = {}, nil
    for _, rank in ipairs(ranks) do
        local value = get(rank)
        counts[value] = (counts[value] or 0) + 1
        if not best or counts[value] > counts[best] then
            best = value
        end
    end
    return best
end

-- Add a line for each rank that has another than most.
local function compare(ranks, what, get, lines)
    local most = usual(ranks, get)
    for _, rank in ipairs(ranks) do
        if get(rank) ~= most then
            lines[#lines + 1] = string.format("%s differs in %s: %s, others have %s", named(rank), what, get(rank),
                                              most)
        end
    end
end

--- Lines that name the ranks whose program, configuration or libraries are others than most have (first list), and
--- those whose machine is another (second).
function M.different(ranks)
    local what, lines, machine = {}, json.array {}, json.array {}
    for _, rank in ipairs(ranks) do
        for key in pairs(rank.identity) do
            what[key] = true
        end
    end
    for _, key in ipairs(strings.sorted_keys(what)) do
        compare(ranks, key, function(rank) return rank.identity[key] or "absent" end, lines)
    end
    for _, key in ipairs { "isa", "device", "threads" } do
        compare(ranks, key == "isa" and "instructions" or key, function(rank) return tostring(rank[key]) end, machine)
    end
    return lines, machine
end

local columns = {
    { "rank", function(r) return r.rank end }, { "host", function(r) return r.host end },
    { "CPUs", function(r) return r.cpu_list .. (r.sharing > 1 and "/" .. r.sharing or "") end },
    { "threads", function(r) return r.threads end }, { "device", function(r) return r.device end },
    { "instructions", function(r) return r.isa end },
    { "memory GiB", function(r) return string.format("%.1f", r.memory_bytes / 2 ^ 30) end },
}
for _, m in ipairs(M.measures) do
    columns[#columns + 1] = { m.head .. " " .. m.unit,
                              function(r) return r[m.key] and figure(r[m.key] / m.per) or "-" end }
end
columns[#columns + 1] = { "clock s", function(r)
    return r.clock and string.format("%+.4f", r.clock) or "-"
end }

--- All ranks as a table, a line each.
function M.table(ranks)
    local rows, widths = { {} }, {}
    for c, column in ipairs(columns) do
        rows[1][c] = column[1]
        for i, rank in ipairs(ranks) do
            rows[i + 1] = rows[i + 1] or {}
            rows[i + 1][c] = tostring(column[2](rank))
        end
        for _, row in ipairs(rows) do
            widths[c] = math.max(widths[c] or 0, #row[c])
        end
    end
    local lines = {}
    for i, row in ipairs(rows) do
        for c, cell in ipairs(row) do
            local pad = (" "):rep(widths[c] - #cell)
            row[c] = (c == 2 or c == 3 or c == 5 or c == 6) and cell .. pad or pad .. cell
        end
        lines[i] = table.concat(row, "  "):gsub("%s+$", "")
    end
    return table.concat(lines, "\n")
end

return M
