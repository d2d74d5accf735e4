-- Finding checkpoints to go on from, and their parts in JSON.

local checkpoint = require("am.checkpoint")
local files = require("tests.support.files")
local path = require("am.utils.path")
local tiny = require("tests.support.tiny")

local raised = tiny.raised

-- fn(root) with checkpoints of these names under it; a name that ends in "!" is unfinished.
local function with_root(names, fn)
    files.with_folder(function(root)
        for _, name in ipairs(names) do
            local plain, unfinished = name:match("^(.-)(!?)$")
            path.mkdir_p(path.join(root, plain))
            if unfinished ~= "" then
                path.write_file(path.join(root, plain, ".incomplete"), "")
            end
        end
        fn(root)
    end)
end

local function point(root, pointer, name)
    path.symlink_swap(path.join(root, name), path.join(root, pointer))
end

describe("the checkpoints of a folder", function()
    it("are the finished ones, oldest step first", function()
        with_root({ "epoch_0_step_100", "epoch_0_step_20", "epoch_1_step_9!", "epoch_10_step_3", "step_5",
                    "epoch_0_step_x", "epoch_0_step_7.reserving-1.tmp", "x_epoch_0_step_8" }, function(root)
            path.write_file(path.join(root, "epoch_0_step_1"), "no folder")
            assert.same({ "epoch_10_step_3", "epoch_0_step_20", "epoch_0_step_100" }, checkpoint.list(root))
            assert.same({}, checkpoint.list(path.join(root, "nowhere")))
        end)
    end)
end)

describe("going on", function()
    local names = { "epoch_0_step_1", "epoch_0_step_2", "epoch_0_step_10", "epoch_0_step_11!" }

    it("is from what LATEST names, else from the highest step", function()
        with_root(names, function(root)
            local function latest() return path.relative(checkpoint.resolve(root), root) end
            assert.equal("epoch_0_step_10", latest())
            point(root, "LATEST", "epoch_0_step_2")
            assert.equal("epoch_0_step_2", latest())
            point(root, "LATEST", "epoch_0_step_11") -- unfinished
            assert.equal("epoch_0_step_10", latest())
            point(root, "LATEST", "epoch_0_step_12") -- gone
            assert.equal("epoch_0_step_10", latest())
            os.remove(path.join(root, "LATEST"))
            path.write_file(path.join(root, "LATEST.txt"), "epoch_0_step_1\n")
            assert.equal("epoch_0_step_1", latest())
        end)
    end)

    it("is from nothing when there is nothing", function()
        with_root({ "epoch_0_step_1!", "other" }, function(root)
            assert.is_nil(checkpoint.resolve(root))
            assert.is_nil(checkpoint.resolve(path.join(root, "nowhere")))
        end)
    end)

    it("is from a pointer, a name or a path that is given", function()
        with_root(names, function(root)
            point(root, "LATEST", "epoch_0_step_10")
            point(root, "LOWEST_VAL", "epoch_0_step_2")
            for given, name in pairs {
                LATEST = "epoch_0_step_10", latest = "epoch_0_step_10", LOWEST_VAL = "epoch_0_step_2",
                lowest_val = "epoch_0_step_2", epoch_0_step_1 = "epoch_0_step_1",
            } do
                assert.equal(path.join(root, name), checkpoint.resolve(root, given))
            end
            local other = path.join(root, "elsewhere")
            path.mkdir_p(path.join(other, "mine"))
            for _, given in ipairs { path.join(other, "mine"), path.join(root, "epoch_0_step_1"), "tests/lua" } do
                assert.equal(given, checkpoint.resolve(root, given))
            end
        end)
    end)

    it("is from another run's LATEST, not from this one's checkpoint of that name", function()
        with_root({ "epoch_0_step_1", "A/epoch_0_step_1", "A/epoch_0_step_2" }, function(root)
            for _, name in ipairs { "epoch_0_step_1", "epoch_0_step_2" } do
                path.write_file(path.join(root, "A", name, "mark"), "A")
                point(path.join(root, "A"), "LATEST", name)
                for _, given in ipairs { "A/LATEST", path.join(root, "A/LATEST"), path.join(root, "A", name) } do
                    local dir = checkpoint.resolve(root, given)
                    assert.is_true(path.exists(path.join(dir, "mark")), given .. " gave " .. dir)
                end
            end
        end)
    end)

    it("is refused where there is none, with those that are", function()
        with_root(names, function(root)
            raised("usage", { "restore_from", "epoch_0_step_3", root, table.concat(names, ", ", 1, 3) },
                   checkpoint.resolve, root, "epoch_0_step_3")
            raised("usage", { "LOWEST_VAL", "epoch_0_step_10" }, checkpoint.resolve, root, "LOWEST_VAL")
            raised("usage", { "/no/such/place" }, checkpoint.resolve, root, "/no/such/place")
            raised("usage", { "7" }, checkpoint.resolve, root, 7)
            raised("format", { "epoch_0_step_11", ".incomplete" }, checkpoint.resolve, root, "epoch_0_step_11")
            point(root, "LATEST", "epoch_0_step_12")
            raised("usage", { "epoch_0_step_12" }, checkpoint.resolve, root, "LATEST")
        end)
        with_root({}, function(root)
            raised("usage", { "LATEST", "is none" }, checkpoint.resolve, root, "LATEST")
        end)
    end)

    it("does not believe what a pointer says about other folders", function()
        with_root({ "epoch_0_step_1" }, function(root)
            path.write_file(path.join(root, "LATEST.txt"), "../../etc\n")
            assert.equal("etc", checkpoint.pointed(root, "LATEST"))
            assert.equal(path.join(root, "epoch_0_step_1"), checkpoint.resolve(root))
            path.write_file(path.join(root, "LATEST.txt"), ("x"):rep(1000))
            assert.is_nil(checkpoint.pointed(root, "LATEST"))
            assert.is_nil(checkpoint.pointed(root, "LOWEST_VAL"))
        end)
    end)
end)

describe("a part in JSON", function()
    it("comes back as it was", function()
        files.with_folder(function(root)
            local file = path.join(root, "rng/state.json")
            for _, value in ipairs {
                { step = 3, lr = 1e-5, kind = "adamw", seed = "18446744073709551615", on = true, off = false },
                { x = 0.1, y = 1 / 3, z = 2 ^ 53, huge = 1e300, tiny = 5e-324 },
            } do
                checkpoint.write_json(file, value)
                assert.same(value, checkpoint.read_json(file))
            end
            checkpoint.write_json(file, { b = 1, a = 2 })
            assert.equal('{\n  "a": 2,\n  "b": 1\n}\n', path.read_file(file))
        end)
    end)

    it("that is missing or damaged is told", function()
        files.with_folder(function(root)
            local file = path.join(root, "state.json")
            raised("format", { "lacks", file }, checkpoint.read_json, file)
            for _, text in ipairs { "", "{", '{"step": 3', "7", "null", "\0\0\0" } do
                path.write_file(file, text)
                raised("format", file, checkpoint.read_json, file)
            end
        end)
    end)
end)
