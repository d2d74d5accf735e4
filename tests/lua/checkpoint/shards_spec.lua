-- Tensors in shards of several writers, one process after the other in place of ranks; what a save knows of its files,
-- and the manifest.

local am = require("am")
local checkpoint = require("am.checkpoint")
local files = require("tests.support.files")
local io_core = require("am.core.io")
local json = require("am.utils.json")
local path = require("am.utils.path")
local tiny = require("tests.support.tiny")

local raised, shards = tiny.raised, checkpoint.shards

local function tensors()
    am.manual_seed(4)
    return { { "b", am.randn { 30, 50 } }, { "a", am.randn({ 7 }):to("bfloat16") }, { "flags", am.ones({ 5 }):eq(1) },
             { "n", am.tensor({ 1, 2 }, { dtype = "int64" }) }, { "one", am.randn {} }, { "none", am.zeros { 0, 3 } },
             { "tall", am.randn({ 2049 }):to("float64") }, { "short", am.randn { 2, 600 } } }
end

local function like(list)
    local out = {}
    for i, item in ipairs(list) do
        out[i] = { item[1], item[2]:clone():fill_(0) }
    end
    return out
end

-- Write as `count` writers do; returns the files, and what is known of them.
local function write(dir, list, count, later)
    local known = {}
    for k = 0, count - 1 do
        local writers = { rank = k, count = count, number = k + 1, total = count }
        local saving = checkpoint.saving.new(dir, writers, later)
        local file = path.join(dir, shards.file_name("optimizer", writers, "optimizer.safetensors"))
        shards.write(saving, file, shards.items(list, nil, writers))
        saving:begin()
        saving:wait()
        saving:close()
        for _, one in ipairs(saving.files) do
            known[one.name] = one
        end
    end
    return shards.find(dir, "optimizer", "optimizer.safetensors"), known
end

local function same(list, into)
    for i, item in ipairs(list) do
        assert.equal(tiny.bits(item[2]), tiny.bits(into[i][2]), item[1])
    end
end

describe("tensors in shards", function()
    it("come back with equal bits, whoever wrote them", function()
        for _, count in ipairs { 1, 2, 4, 33 } do
            for _, later in ipairs { false, true } do
                files.with_folder(function(root)
                    local dir, list = path.join(root, "optim"), tensors()
                    local found, known = write(dir, list, count, later)
                    assert.equal(count, #found)
                    local into = like(list)
                    into[1], into[3] = into[3], into[1] -- by name, in any order
                    shards.read(found, into)
                    into[1], into[3] = into[3], into[1]
                    same(list, into)
                    path.write_file(path.join(dir, "state.json"), "{}")
                    checkpoint.manifest.write(dir, known)
                    checkpoint.manifest.check(dir, function() return true end, 0, 1)
                end)
            end
        end
    end)

    it("say in the header where a shard begins, as torch's readers want it", function()
        files.with_folder(function(root)
            local found = write(root, tensors(), 4)
            assert.equal("shard-00002-optimizer-00001-of-00001.safetensors", path.basename(found[2]))
            local archive = io_core.open(found[2])
            local metadata = json.decode(archive:metadata_json())
            assert.equal("pt", metadata.format)
            assert.equal("1.0", metadata.DCP_VERSION)
            local info = json.decode(metadata.DCP_SHARDING_INFO)
            assert.equal("[8, 0]", json.encode(info.b.saved_offsets)) -- ceil(30 / 4) rows each
            assert.same({ 8, 50 }, archive:info("b").shape)
            assert.equal("[513]", json.encode(info.tall.saved_offsets))
            assert.equal("[1, 0]", json.encode(info.short.saved_offsets))
            assert.same({ "b", "short", "tall" }, (function(names) table.sort(names) return names end)(archive:names()))
            archive:close()
            archive = io_core.open(found[4])
            assert.same({ 6, 50 }, archive:info("b").shape)
            assert.is_nil(archive:info("short")) -- two rows, for four
            archive:close()
        end)
    end)

    it("that are written later have the numbers of the time of the save", function()
        files.with_folder(function(root)
            local list = tensors()
            local saving = checkpoint.saving.new(root, nil, true)
            shards.write(saving, path.join(root, "optimizer.safetensors"), shards.items(list, nil, saving.writers))
            for _, item in ipairs(list) do
                item[2]:fill_(1)
            end
            saving:begin()
            saving:wait()
            assert.is_true(saving:done())
            assert.equal("optimizer.safetensors", saving.files[1].name)
            saving:close()
            local into = like(list)
            shards.read({ path.join(root, "optimizer.safetensors") }, into)
            same(tensors(), into)
        end)
    end)

    it("go into views", function()
        files.with_folder(function(root)
            local whole = am.zeros { 4, 3 }
            local found = write(root, { { "x", am.ones { 2, 3 } } }, 1)
            shards.read(found, { { "x", whole:narrow(0, 1, 2) } })
            assert.same({ { 0, 0, 0 }, { 1, 1, 1 }, { 1, 1, 1 }, { 0, 0, 0 } }, whole:totable())
        end)
    end)

    it("of another run are told by the tensor", function()
        files.with_folder(function(root)
            local found = write(root, tensors(), 1)
            local file = found[1]
            local function refused(wanted, change)
                local into = like(tensors())
                change(into)
                table.insert(wanted, file)
                raised("format", wanted, shards.read, found, into)
            end
            refused({ "lacks c" }, function(into) into[9] = { "c", am.zeros { 1 } } end)
            refused({ "holds n", "does not have" }, function(into) table.remove(into, 4) end)
            for _, shape in ipairs { { 50, 30 }, { 1500 } } do
                refused({ "b is float32 [30, 50]", "float32 [" .. table.concat(shape, ", ") .. "]" }, function(into)
                    into[1][2] = am.zeros(shape)
                end)
            end
            refused({ "a is bfloat16 [7]", "float32 [7]" }, function(into) into[2][2] = am.zeros { 7 } end)
            raised("io", "nowhere", shards.read, { path.join(root, "nowhere") }, {})
            path.write_file(file, "damaged")
            raised("format", file, shards.read, found, {})
        end)
    end)

    it("of which one lacks, or says nonsense, are refused by name", function()
        files.with_folder(function(root)
            local found = write(root, tensors(), 4)
            path.remove_tree(found[3])
            raised("format", { root, "lacks rows ", "a shard is missing" }, shards.open,
                   shards.find(root, "optimizer"))
            for _, offsets in ipairs { "[0]", "[0, 1]", "[-1, 0]", "[0.5, 0]", "7", "[0, \"a\"]", "[1e300, 0]" } do
                local file = path.join(root, "bad.safetensors")
                io_core.save_safetensors(file, { { "x", am.ones { 2, 3 } } }, json.encode {
                    DCP_SHARDING_INFO = '{"x": {"saved_offsets": ' .. offsets .. "}}",
                })
                raised("format", { file, "x" }, shards.open, { file })
            end
            local file = path.join(root, "bad.safetensors")
            io_core.save_safetensors(file, { { "x", am.ones { 2, 3 } } }, '{"DCP_SHARDING_INFO": "7"}')
            raised("format", { file, "no JSON object" }, shards.open, { file })
            local other = path.join(root, "other.safetensors")
            io_core.save_safetensors(file, { { "x", am.ones { 2, 3 } } })
            io_core.save_safetensors(other, { { "x", am.ones { 2, 4 } } })
            raised("format", { other, "in another shard" }, shards.open, { file, other })
        end)
    end)
end)

describe("a manifest", function()
    local function all() return true end

    it("names what is missing, of another size, or damaged", function()
        files.with_folder(function(root)
            local found, known = write(path.join(root, "optim"), tensors(), 3)
            local with_folder = {}
            for name, one in pairs(known) do
                with_folder["optim/" .. name] = one
            end
            path.write_file(path.join(root, "state.json"), '{"a": 1}')
            checkpoint.manifest.write(root, with_folder)
            local said = json.decode(path.read_file(path.join(root, "manifest.json")))
            assert.equal(path.size(found[2]), said.files["optim/" .. path.basename(found[2])].bytes)
            assert.equal(64, #said.files["state.json"].blake2b)
            local text = path.read_file(found[2])
            path.write_file(found[2], text:sub(1, -2) .. string.char((text:byte(-1) + 1) % 256))
            local name = "optim/" .. path.basename(found[2])
            raised("format", { "is damaged: the checksum of " .. name }, checkpoint.manifest.check, root, all, 0, 1)
            local told = 0
            for k = 0, 2 do -- one of three readers finds it
                told = told + (pcall(checkpoint.manifest.check, root, all, k, 3) and 0 or 1)
            end
            assert.equal(1, told)
            checkpoint.manifest.check(root, function(one) return one:find("json$") ~= nil end, 0, 1)
            path.write_file(found[2], text .. "x")
            raised("format", { name, "bytes, by its manifest " .. #text }, checkpoint.manifest.check, root, all, 0, 1)
            path.remove_tree(found[2])
            raised("format", "lacks " .. name, checkpoint.manifest.check, root, all, 0, 1)
            for _, nonsense in ipairs { "", "7", "{}", '{"files": {"a": 1}}', '{"files": {"a": {}}}', '{"files": {}}',
                                        '{"files": [{"bytes": 1}]}' } do
                path.write_file(path.join(root, "manifest.json"), nonsense)
                raised("format", "manifest.json", checkpoint.manifest.check, root, all, 0, 1)
            end
            path.remove_tree(path.join(root, "manifest.json"))
            checkpoint.manifest.check(root, all, 0, 1) -- there were checkpoints without
        end)
    end)

    it("is not written where a rank's file is not there", function()
        files.with_folder(function(root)
            raised("io", "do all ranks see the same folder?", checkpoint.manifest.write, root,
                   { ["model/x"] = { bytes = 1 } })
        end)
    end)
end)
