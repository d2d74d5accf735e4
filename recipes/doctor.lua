-- Look at all ranks of a run before it begins: where they are, how fast each computes, writes and is reached, and
-- whether all would run the same. Started as the run will be:
--
--   mpirun -n 4 amlua recipes/doctor.lua [config.yaml]        or srun, --nproc-per-node, alone
--
-- Prints a table, a line for each rank, then those that are slow or different. Status 0 where all would run the same,
-- with warnings where one is slow; 1 where one would not.

local am = require("am")
local command = require("am.recipes.command")
local config = require("am.config")
local distributed = require("am.distributed")
local err = require("am.core.error")
local examination = require("am.recipes.examination")
local json = require("am.utils.json")
local options = require("am.cli.options")
local probe = require("am.distributed.probe")

local M = {}

local usage = "amlua recipes/doctor.lua [CONFIG] [--folder DIR] [--json]"
local specs = {
    { "config", words = true, doc = "the run's: its checkpoint folder is measured, and it is compared" },
    { "folder", doc = "whose disk is measured (CONFIG's checkpoint.checkpoint_dir, or the current one)" },
    { "json", type = "flag", doc = "print one object instead of the table" },
}

-- What a rank says of itself. Ranks measure at the same time, as they will run; one that can't says why and stays.
local function examine(world, cfg, problem, folder)
    local out = examination.place(world, cfg and cfg:get("device"))
    local function measure(fn)
        world:barrier()
        local ok, e = pcall(fn)
        out.problem = out.problem or not ok and tostring(e) or nil
    end
    measure(function() return problem and error(problem, 0) end)
    measure(function() out.identity = examination.identity(cfg) end)
    measure(function() out.products_f32 = examination.product_rate("float32", out.device) end)
    measure(function() out.products_bf16 = examination.product_rate("bfloat16", out.device) end)
    measure(function() out.disk_write, out.disk_read = examination.disk_rates(folder) end)
    out.identity = out.identity or {}
    return out
end

-- All ranks' accounts, in order, with what the first measured of its way to them.
local function gather(world, own)
    local links, ranks = probe.links(world), {}
    for i, text in ipairs(world:gather(json.encode(own, { nan = "null" }))) do
        ranks[i] = json.decode(text)
        for key, value in pairs(links[i - 1] or {}) do
            ranks[i][key] = value
        end
    end
    return ranks
end

local function problems(ranks)
    local lines = json.array {}
    for _, rank in ipairs(ranks) do
        if rank.problem then
            lines[#lines + 1] = string.format("rank %d (host %s): %s", rank.rank, rank.host, rank.problem)
        end
    end
    return lines
end

local function report(found)
    io.write(examination.table(found.ranks), "\n")
    local sum = found.all_reduce
    if sum then
        io.write(string.format("all_reduce: 4 bytes in %.3f ms, %d MB in %.2f ms, %.0f MB/s\n", sum.latency * 1e3,
                               sum.bytes / 2 ^ 20, sum.seconds * 1e3, sum.bandwidth / 1e6))
    end
    for _, kind in ipairs { { "failed", "error: " }, { "different", "error: " }, { "other_machine", "warning: " },
                            { "slow", "warning: " } } do
        for _, line in ipairs(found[kind[1]]) do
            io.write(kind[2], line, "\n")
        end
    end
    if #found.failed + #found.different == 0 then
        io.write(#found.ranks == 1 and "one process, amlua " or #found.ranks .. " ranks would run the same, amlua ",
                 am.version, "\n")
    end
end

function M.main(argv)
    local args = options.parse(argv, usage, specs)
    if not args then
        return 0
    elseif #args.config > 1 then
        err.raise("usage", "one configuration, not %d\nusage: %s", #args.config, usage)
    end
    local known, cfg = true, nil
    if args.config[1] then
        known, cfg = pcall(config.load, args.config[1])
    end
    if not known and distributed.find().size == 1 then
        error(cfg, 0)
    end
    local problem = not known and cfg or nil
    cfg = known and cfg or nil
    local world = distributed.join(cfg and {
        backend = cfg:get("dist_env.backend"), timeout = 60 * (tonumber(cfg:get("dist_env.timeout_minutes")) or 0),
    })
    command.divide_threads(world.on_cpus)
    local folder = args.folder or cfg and cfg:get("checkpoint.checkpoint_dir") or "."
    local own = examine(world, cfg, problem, folder)
    local sum = probe.all_reduce(world)
    local ranks = gather(world, own)
    local found = { ranks = ranks, all_reduce = sum, failed = problems(ranks), slow = examination.slow(ranks) }
    found.different, found.other_machine = examination.different(ranks)
    if world:is_main() and args.json then
        io.write(json.encode(found, { sort_keys = true, nan = "null" }), "\n")
    elseif world:is_main() then
        report(found)
    end
    world:close()
    return #found.failed + #found.different > 0 and 1 or 0
end

return M
