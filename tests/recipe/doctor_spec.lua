-- The doctor: what it says of ranks that it is told about, alone, and under launchers; a rank that is slow, one whose
-- configuration is another, one that lacks the file.
local examination = require("am.recipes.examination")
local helper = require("tests.recipe.helper")
local json = require("am.utils.json")
local path = require("am.utils.path")
local ranks = require("tests.dist.ranks")

local doctor = "recipes/doctor.lua"

-- Ranks on two hosts of which all is well.
local function cluster(n)
    local list = {}
    for r = 0, n - 1 do
        list[r + 1] = { rank = r, host = "n" .. math.floor(2 * r / n), cpus = 4, cpu_list = "0-3", threads = 1,
                        sharing = 2, device = "cpu", isa = "avx2", memory_bytes = 2 ^ 33, products_f32 = 50e9,
                        products_bf16 = 100e9, disk_write = 1e9, disk_read = 2e9,
                        identity = { amlua = "1", ["x.so"] = "7" },
                        latency = r > 0 and (2 * r < n and 1e-5 or 1e-4) or nil,
                        bandwidth = r > 0 and (2 * r < n and 1e10 or 1e9) or nil, clock = r > 0 and 1e-3 or nil,
                        clock_error = 1e-4 }
    end
    return list
end

describe("what is said of ranks", function()
    it("is nothing where all is well, with a slower way to another host", function()
        local different, machine = examination.different(cluster(8))
        assert.same({ 0, 0, 0 }, { #examination.slow(cluster(8)), #different, #machine })
    end)

    local cases = {
        { "products_f32", 39e9, "rank 5 (host n1) is slow at f32 products: 39.0 GFLOP/s, where the median is 50.0" },
        { "products_bf16", 1e9, "bf16 products: 1.00 GFLOP/s, where the median is 100" },
        { "disk_write", 5e6, "writing to the disk: 5.00 MB/s, where the median is 1000" },
        { "disk_read", 1e9, "reading from the disk: 1000 MB/s" },
        { "latency", 3e-4, "messages to rank 0: 300 us, where the median is 100" },
        { "bandwidth", 4e8, "large messages to rank 0: 400 MB/s, where the median is 1000" },
        { "clock", -2, "a clock that is 2.00 s behind that of rank 0" },
        { "clock", 0.9, "a clock that is 0.90 s ahead of that of rank 0" },
        { "threads", 4, "host n1 has 2 ranks of 4 threads on 4 CPUs" },
    }
    for _, case in ipairs(cases) do
        it("names the one that is slow: " .. case[3], function()
            local list = cluster(8)
            list[6][case[1]] = case[2]
            local lines = examination.slow(list)
            assert.equal(1, #lines, table.concat(lines, "\n"))
            assert.truthy(lines[1]:find(case[3], 1, true), lines[1])
        end)
    end

    it("names the one that is different, also of two", function()
        local list = cluster(4)
        list[3].identity = { amlua = "2", ["y.so"] = "7" }
        list[4].isa = "amx"
        local different, machine = examination.different(list)
        assert.equal([[
rank 2 (host n1) differs in amlua: 2, others have 1
rank 2 (host n1) differs in x.so: absent, others have 7
rank 2 (host n1) differs in y.so: 7, others have absent]], table.concat(different, "\n"))
        assert.equal("rank 3 (host n1) differs in instructions: amx, others have avx2", table.concat(machine, "\n"))
        list = cluster(2)
        list[2].identity.amlua = "2"
        assert.equal("rank 1 (host n1) differs in amlua: 2, others have 1",
                     table.concat((examination.different(list)), "\n"))
    end)
end)

describe("the doctor", function()
    teardown(helper.cleanup)

    it("looks at one process, and leaves no file", function()
        local dir = helper.folder()
        local status, out, errors = helper.run { doctor, "--folder", dir .. "/not/there/yet" }
        assert.equal(0, status, errors)
        assert.matches("\n +0  .* cpu ", out)
        assert.matches("\none process, amlua ", out)
        assert.same({}, path.names(dir))
    end)

    it("says what it can't do", function()
        local dir = helper.folder()
        for _, case in ipairs {
            { 2, { dir .. "/none.yaml" }, "none.yaml" }, { 2, { "a", "b" }, "one configuration" },
            { 2, { "--fold" }, "did you mean" }, { 2, { "--folder" }, "needs a value" },
            { 2, { "--json=maybe" }, "is true or false" },
            { 1, { "--folder", "/proc" }, "/proc/.amlua-doctor" },
        } do
            local status, out, errors = helper.run { doctor, unpack(case[2]) }
            assert.equal(case[1], status, out .. errors)
            assert.truthy((out .. errors):find(case[3], 1, true), out .. errors)
            assert.is_nil((out .. errors):find("traceback", 1, true))
        end
    end)

    if not ranks.can_run then
        pending("there is no mpirun, or no amlua_mpi.so")
        return
    end

    -- Run on n ranks with words of a shell; $r is the rank's number.
    local function run(n, words, before)
        return helper.shell(string.format("%s sh -c 'r=$OMPI_COMM_WORLD_RANK; %s exec timeout 60 %s %s %s'",
                                          ranks.mpirun(n), before or "", helper.amlua, doctor, words))
    end

    it("prints a line for each of four ranks, and all of it as JSON", function()
        local file = helper.yaml(helper.folder(), helper.config(helper.folder()))
        local status, out, errors = run(4, file)
        assert.equal(0, status, out .. errors)
        for rank = 0, 3 do
            assert.matches("\n +" .. rank .. "  ", out)
        end
        assert.matches("\nall_reduce: 4 bytes in %d", out)
        assert.matches("\n4 ranks would run the same", out)
        status, out = run(2, "--json --folder /dev/shm")
        assert.equal(0, status)
        local found = assert(json.decode(out))
        assert.equal(2, #found.ranks)
        for _, key in ipairs { "products_f32", "products_bf16", "disk_write", "disk_read", "memory_bytes" } do
            assert.is_true(found.ranks[1][key] > 0 and found.ranks[2][key] > 0, key)
        end
        assert.is_true(math.abs(found.ranks[2].clock) < 0.05) -- of one host
        assert.is_true(found.ranks[2].latency > 0 and found.all_reduce.bandwidth > 0)
        assert.matches("libamlua%.so[%d.]*\": \"%x+\"", out)
    end)

    it("names the rank that computes slowly", function()
        local status, out, errors = run(3, "", "test $r = 1 && export AMLUA_ISA=generic;")
        assert.equal(0, status, out .. errors)
        assert.matches("warning: rank 1 %(host [^)]+%) is slow at f32 products: ", out)
        assert.matches("warning: rank 1 %(host [^)]+%) differs in instructions: generic, others have ", out)
    end)

    it("fails where a rank has another configuration, and where one has none", function()
        local dir = helper.folder()
        helper.write(dir .. "/0.yaml", "seed: 1\n")
        helper.write(dir .. "/1.yaml", "seed: 2\n")
        local status, out = run(2, dir .. "/$r.yaml")
        assert.equal(1, status)
        assert.matches("error: rank 1 %(host [^)]+%) differs in the configuration: ", out)
        os.remove(dir .. "/1.yaml")
        status, out = run(2, dir .. "/$r.yaml")
        assert.equal(1, status)
        assert.matches("error: rank 1 %(host [^)]+%): [^\n]*1.yaml", out)
        assert.is_nil(out:find("error: rank 0", 1, true))
    end)
end)
