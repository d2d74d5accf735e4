-- Publishing checkpoints: what lies on the disk after a save, one that failed, one that was cut off, and
-- how old and useless ones go.

local checkpoint = require("am.checkpoint")
local err = require("am.core.error")
local files = require("tests.support.files")
local path = require("am.utils.path")
local posix = require("am.utils.posix")
local tiny = require("tests.support.tiny")

local raised = tiny.raised

-- A writer of one file.
local function text(s)
    return function(dir)
        path.mkdir_p(path.join(dir, "model"))
        path.write_file(path.join(dir, "model/weights"), s)
    end
end

local function content(root, name)
    return path.read_file(path.join(root, name, "model/weights"))
end

-- Folders in a root without pointers, as one text.
local function tree(root)
    return table.concat(path.list_dir(root), " ")
end

-- A folder that looks like a checkpoint, complete or not.
local function folder(root, name, s, incomplete)
    text(s or name)(path.join(root, name))
    if incomplete then
        path.write_file(path.join(root, name, ".incomplete"), "")
    end
end

describe("a folder that stands alone", function()
    it("is there whole or not at all", function()
        files.with_folder(function(dir)
            for _, name in ipairs { "below/merged", "empty" } do
                path.mkdir_p(path.join(dir, "empty"))
                local final = path.join(dir, name)
                raised("io", { "no room", "writing " .. final }, checkpoint.write_folder, final, function(into)
                    text("half")(into)
                    assert.is_true(path.exists(path.join(into, ".incomplete")))
                    err.raise("io", "no room")
                end)
                checkpoint.write_folder(final, text("whole"))
                assert.equal("whole", content(dir, name))
                assert.same({ "model" }, path.names(final))
            end
            path.remove_tree(path.join(dir, "empty"))
            path.mkdir_p(path.join(dir, "empty"))
            checkpoint.write_folder(path.join(dir, "empty") .. "/", text("whole"))
            assert.equal("whole", content(dir, "empty"))
            -- what a killed write of that name left goes, others' stays
            path.remove_tree(path.join(dir, "empty"))
            for _, left in ipairs { "empty.reserving-.1-2-3.tmp", "other.reserving-.1-2-3.tmp" } do
                path.mkdir_p(path.join(dir, left))
                path.write_file(path.join(dir, left, "model"), "half")
            end
            checkpoint.write_folder(path.join(dir, "empty"), text("whole"))
            assert.equal("below empty other.reserving-.1-2-3.tmp", tree(dir))
            path.remove_tree(path.join(dir, "other.reserving-.1-2-3.tmp"))
            -- what is there stays
            raised("io", "below/merged", checkpoint.write_folder, path.join(dir, "below/merged"), text("other"))
            assert.equal("whole", content(dir, "below/merged"))
            assert.equal("below empty", tree(dir))
            assert.equal("merged", tree(path.join(dir, "below")))
        end)
    end)
end)

describe("a saved checkpoint", function()
    it("is whole under its name, and LATEST names it", function()
        files.with_folder(function(dir)
            local root = path.join(dir, "deep/checkpoints")
            local seen
            local final = checkpoint.save(root, "epoch_0_step_1", function(reserved)
                seen = { reserved, path.exists(path.join(reserved, ".incomplete")), path.list_dir(root) }
                text("one")(reserved)
            end)
            assert.equal(path.join(root, "epoch_0_step_1"), final)
            assert.matches("/epoch_0_step_1%.reserving%-", seen[1])
            assert.same({ true, { path.basename(seen[1]) } }, { seen[2], seen[3] })
            assert.equal("LATEST epoch_0_step_1", tree(root))
            assert.equal("epoch_0_step_1", posix.readlink(path.join(root, "LATEST"))) -- relative: the folder may move
            assert.same({ "model" }, path.list_dir(final))
            assert.equal("one", content(root, "epoch_0_step_1"))
            assert.equal("one", content(root, "LATEST"))
        end)
    end)

    it("moves the pointers, and those that are asked for", function()
        files.with_folder(function(root)
            checkpoint.save(root, "epoch_0_step_1", text("one"), { "LOWEST_VAL" })
            checkpoint.save(root, "epoch_0_step_2", text("two"))
            assert.same({ "epoch_0_step_2", "epoch_0_step_1" }, { checkpoint.pointed(root, "LATEST"),
                                                                  checkpoint.pointed(root, "LOWEST_VAL") })
            checkpoint.save(root, "epoch_0_step_3", text("three"), { "LOWEST_VAL" })
            assert.equal("three", content(root, "LOWEST_VAL"))
            assert.equal("LATEST LOWEST_VAL epoch_0_step_1 epoch_0_step_2 epoch_0_step_3", tree(root))
        end)
    end)

    it("takes the place of one of the same name", function()
        files.with_folder(function(root)
            checkpoint.save(root, "epoch_0_step_1", text("old"))
            path.write_file(path.join(root, "epoch_0_step_1/model/more"), "x")
            local exchange, swapped = posix.exchange, 0
            posix.exchange = function(a, b)
                swapped = swapped + 1
                return exchange(a, b)
            end
            checkpoint.save(root, "epoch_0_step_1", function(reserved)
                assert.equal("old", content(root, "LATEST"))
                text("new")(reserved)
            end)
            posix.exchange = exchange
            assert.equal(1, swapped) -- so that the name never leads nowhere
            assert.equal("LATEST epoch_0_step_1", tree(root))
            assert.equal("new", content(root, "LATEST"))
            assert.same({ "weights" }, path.list_dir(path.join(root, "epoch_0_step_1/model")))
        end)
    end)

    it("takes that place also where the file system cannot swap two folders", function()
        files.with_folder(function(root)
            checkpoint.save(root, "epoch_0_step_1", text("old"))
            local exchange = posix.exchange
            posix.exchange = function() return nil, "not supported" end
            local ok, e = pcall(checkpoint.save, root, "epoch_0_step_1", text("new"))
            posix.exchange = exchange
            assert.is_true(ok, tostring(e))
            assert.equal("LATEST epoch_0_step_1", tree(root))
            assert.equal("new", content(root, "LATEST"))
        end)
    end)

    it("is named by a file where links cannot be made", function()
        files.with_folder(function(root)
            checkpoint.save(root, "epoch_0_step_1", text("one"), { "LOWEST_VAL" })
            local symlink = posix.symlink
            posix.symlink = function() return nil, "not supported" end
            local ok, e = pcall(checkpoint.save, root, "epoch_0_step_2", text("two"))
            posix.symlink = symlink
            assert.is_true(ok, tostring(e))
            assert.equal("epoch_0_step_2\n", path.read_file(path.join(root, "LATEST.txt")))
            assert.equal("epoch_0_step_2", checkpoint.pointed(root, "LATEST"))
            assert.equal("epoch_0_step_1", checkpoint.pointed(root, "LOWEST_VAL"))
            assert.equal(path.join(root, "epoch_0_step_2"), checkpoint.resolve(root))
            -- with links again the file is gone
            checkpoint.save(root, "epoch_0_step_3", text("three"))
            assert.is_false(path.exists(path.join(root, "LATEST.txt")))
            assert.equal("epoch_0_step_3", checkpoint.pointed(root, "LATEST"))
        end)
    end)

    it("is on the disk before it has its name", function()
        files.with_folder(function(root)
            local originals, events = { fsync_path = posix.fsync_path, rename = posix.rename }, {}
            for name, original in pairs(originals) do
                posix[name] = function(p, to)
                    events[#events + 1] = name .. " " .. path.basename(to or p)
                    return original(p, to)
                end
            end
            local ok, e = pcall(checkpoint.save, root, "epoch_0_step_1", function(dir)
                path.mkdir_p(path.join(dir, "optim"))
                posix.close(posix.open(path.join(dir, "optim/state"), "create")) -- by another library, unsynced
                events = {}
            end)
            for name, original in pairs(originals) do
                posix[name] = original
            end
            assert.is_true(ok, tostring(e))
            local order = table.concat(events, ", ")
            assert.matches("^fsync_path state, fsync_path optim, fsync_path epoch_0_step_1%.reserving.*, "
                .. "rename epoch_0_step_1, .*rename LATEST", order)
        end)
    end)

    it("that fails leaves everything as it was, and says so", function()
        files.with_folder(function(root)
            checkpoint.save(root, "epoch_0_step_1", text("one"), { "LOWEST_VAL" })
            for _, name in ipairs { "epoch_0_step_1", "epoch_0_step_2" } do
                raised("io", { "disk full", name, "earlier checkpoints are untouched" }, checkpoint.save, root, name,
                       function(reserved)
                           text("half")(reserved)
                           err.raise("io", "disk full")
                       end, { "LOWEST_VAL" })
                assert.equal("LATEST LOWEST_VAL epoch_0_step_1", tree(root))
                assert.equal("one", content(root, "LATEST"))
            end
            local ok, e = pcall(checkpoint.save, root, "epoch_0_step_2", function() error("a mistake in Lua", 0) end)
            assert.same({ false, "a mistake in Lua" }, { ok, e })
            assert.equal("LATEST LOWEST_VAL epoch_0_step_1", tree(root))
            path.write_file(path.join(root, "file"), "")
            raised("io", "file", checkpoint.save, path.join(root, "file"), "epoch_0_step_2", text("two"))
        end)
    end)
end)

describe("what a run that was cut off left", function()
    it("is removed; all else stays", function()
        files.with_folder(function(root)
            folder(root, "epoch_0_step_1", "one")
            folder(root, "epoch_0_step_2.reserving-123.tmp", "half", true)
            folder(root, "epoch_0_step_2.reserving-124.tmp", "written, not renamed")
            folder(root, "epoch_0_step_1.replaced-125.tmp", "older")
            folder(root, "epoch_0_step_3.not_finite-126.tmp", "useless")
            folder(root, "mine.reserving-x", "mine")
            folder(root, "epoch_0_step_4", "unfinished", true)
            path.write_file(path.join(root, "training.jsonl"), "{}")
            path.symlink_swap(path.join(root, "epoch_0_step_1"), path.join(root, "LATEST"))
            checkpoint.clean(root)
            assert.equal("LATEST epoch_0_step_1 epoch_0_step_3.not_finite-126.tmp epoch_0_step_4 mine.reserving-x "
                         .. "training.jsonl", tree(root))
            assert.equal("one", content(root, "LATEST"))
            checkpoint.clean(root)
            checkpoint.clean(path.join(root, "nowhere"))
            assert.equal("one", content(root, "LATEST"))
        end)
    end)

    it("is put back when the new one had not taken its name", function()
        files.with_folder(function(root)
            folder(root, "epoch_0_step_1.replaced-125.tmp", "older")
            folder(root, "epoch_0_step_1.reserving-123.tmp", "newer")
            path.symlink_swap(path.join(root, "epoch_0_step_1"), path.join(root, "LATEST"))
            checkpoint.clean(root)
            assert.equal("LATEST epoch_0_step_1", tree(root))
            assert.equal("older", content(root, "LATEST"))
        end)
    end)

    it("never was a checkpoint, wherever the save was cut off", function()
        -- The save dies at its nth step on the disk; LATEST must name a whole checkpoint each time.
        local steps = { "mkdir", "rename", "fsync_path", "exchange", "symlink", "unlink", "rmdir" }
        for _, name in ipairs { "epoch_0_step_1", "epoch_0_step_2" } do
            local cut, done = 0, false
            while not done do
                files.with_folder(function(root)
                    checkpoint.save(root, "epoch_0_step_1", text("old"))
                    local count, originals = 0, {}
                    for _, step in ipairs(steps) do
                        originals[step] = posix[step]
                        posix[step] = function(...)
                            count = count + 1
                            if count > cut then
                                error("killed", 0)
                            end
                            return originals[step](...)
                        end
                    end
                    done = pcall(checkpoint.save, root, name, text("new"))
                    for _, step in ipairs(steps) do
                        posix[step] = originals[step]
                    end
                    checkpoint.clean(root)
                    local found = content(root, path.basename(checkpoint.resolve(root)))
                    assert.is_true(found == "new" or (not done and found == "old"), name .. " cut at " .. cut)
                    assert.equal(found, content(root, "LATEST"))
                    assert.is_nil(tree(root):find("reserving", 1, true))
                end)
                cut = cut + 1
            end
            assert.is_true(cut > 10, "only " .. cut .. " steps on the disk")
        end
    end)
end)

describe("pruning", function()
    local function pruned(keep, pointers)
        local left
        files.with_folder(function(root)
            for step = 1, 12, 2 do -- 1 3 5 7 9 11: names sort otherwise than steps
                folder(root, ("epoch_%d_step_%d"):format(step > 6 and 1 or 0, step))
            end
            folder(root, "epoch_1_step_13", "unfinished", true)
            folder(root, "epoch_0_step_1.not_finite-1.tmp")
            folder(root, "other")
            for pointer, name in pairs(pointers or {}) do
                path.symlink_swap(path.join(root, name), path.join(root, pointer))
            end
            checkpoint.prune(root, keep)
            left = checkpoint.list(root)
            for _, name in ipairs { "epoch_1_step_13", "epoch_0_step_1.not_finite-1.tmp", "other" } do
                assert.is_true(path.is_dir(path.join(root, name)))
            end
        end)
        return table.concat(left, " "):gsub("epoch_%d_step_", "")
    end

    it("keeps the newest", function()
        assert.equal("9 11", (pruned(2)))
        assert.equal("11", (pruned(1)))
        assert.equal("1 3 5 7 9 11", (pruned(6)))
        assert.equal("1 3 5 7 9 11", (pruned(99)))
    end)

    it("keeps what pointers name", function()
        assert.equal("3 9 11", (pruned(2, { LOWEST_VAL = "epoch_0_step_3" })))
        assert.equal("3 5 11", (pruned(1, { LOWEST_VAL = "epoch_0_step_3", LATEST = "epoch_0_step_5" })))
        assert.equal("9 11", (pruned(2, { LOWEST_VAL = "epoch_1_step_9", LATEST = "epoch_1_step_11" })))
    end)
end)

describe("withdrawing", function()
    it("renames the checkpoint, and LATEST names the newest of the others", function()
        files.with_folder(function(root)
            checkpoint.save(root, "epoch_0_step_1", text("one"), { "LOWEST_VAL" })
            checkpoint.save(root, "epoch_0_step_10", text("ten"))
            local bad = checkpoint.save(root, "epoch_0_step_9", text("nine"), { "LOWEST_VAL" })
            local before, aside = checkpoint.withdraw(root, bad)
            assert.equal(path.join(root, "epoch_0_step_10"), before)
            assert.matches("/epoch_0_step_9%.not_finite%-[^/]*$", aside)
            assert.equal("nine", content(root, path.basename(aside)))
            assert.equal("epoch_0_step_10", checkpoint.pointed(root, "LATEST"))
            assert.is_nil(checkpoint.pointed(root, "LOWEST_VAL"))
            assert.same({ "epoch_0_step_1", "epoch_0_step_10" }, checkpoint.list(root))
            checkpoint.clean(root)
            assert.equal("nine", content(root, path.basename(aside)))
        end)
    end)

    it("leaves pointers to others alone", function()
        files.with_folder(function(root)
            checkpoint.save(root, "epoch_0_step_1", text("one"), { "LOWEST_VAL" })
            checkpoint.save(root, "epoch_0_step_2", text("two"))
            checkpoint.withdraw(root, path.join(root, "epoch_0_step_2"))
            assert.same({ "epoch_0_step_1", "epoch_0_step_1" }, { checkpoint.pointed(root, "LATEST"),
                                                                  checkpoint.pointed(root, "LOWEST_VAL") })
        end)
    end)

    it("takes back pointers that are files", function()
        files.with_folder(function(root)
            folder(root, "epoch_0_step_1")
            path.write_file(path.join(root, "LATEST.txt"), "epoch_0_step_1\n")
            path.write_file(path.join(root, "LOWEST_VAL.txt"), "epoch_0_step_1\n")
            local _, aside = checkpoint.withdraw(root, path.join(root, "epoch_0_step_1"))
            assert.equal(path.basename(aside), tree(root))
        end)
    end)

    it("the only one leaves none", function()
        files.with_folder(function(root)
            local only = checkpoint.save(root, "epoch_0_step_1", text("one"), { "LOWEST_VAL" })
            local before, aside = checkpoint.withdraw(root, only)
            assert.is_nil(before)
            assert.equal(path.basename(aside), tree(root))
            assert.is_nil(checkpoint.resolve(root))
            assert.same({}, checkpoint.list(root))
        end)
    end)
end)
