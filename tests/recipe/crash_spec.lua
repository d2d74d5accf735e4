-- A power cut at any moment: a run's calls to the system are recorded, and each folder that it could have
-- left after any of them is made and looked at. What LATEST names is whole and not older than the last
-- save that returned, and so is every checkpoint before; the next run tidies up, goes on and ends as a run
-- that nobody stopped. AMLUA_EVERY=1 goes on from each of the folders, not from every 60th only.
local checkpoint = require("am.checkpoint")
local disks = require("tests.support.disk")
local faults = require("tests.support.faults")
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")
local posix = require("am.utils.posix")

local EVERY = tonumber(os.getenv("AMLUA_EVERY")) or 60

local function config(dir, changes)
    return helper.config(dir, helper.changes({
        step_scheduler = { max_steps = 4, ckpt_every_steps = 1, val_every_steps = 1 },
        dataset = { num_sentences = 31 },
        validation_dataset = { _target_ = "am.datasets.build_unpacked_dataset", num_sentences = 3, seed = 1,
                               vocab_size = 67 },
        lr_scheduler = { lr_decay_style = "cosine" },
        checkpoint = { max_recent_checkpoints = 1 },
    }, changes))
end

-- ---- folders --------------------------------------------------------------------------------

local ids, last_id = {}, 0

local function id(text)
    if not ids[text] then
        last_id = last_id + 1
        ids[text] = last_id
    end
    return ids[text]
end

-- The same text for the same tree.
local function print_of(tree)
    local parts = {}
    for name, node in pairs(tree) do
        parts[#parts + 1] = name .. (type(node) == "string" and ":" .. id(node)
                                     or node.link and "->" .. node.link or "{" .. print_of(node.dir) .. "}")
    end
    table.sort(parts)
    return table.concat(parts, " ")
end

local function make(tree, dir)
    posix.mkdir(dir)
    for name, node in pairs(tree) do
        local p = dir .. "/" .. name
        if type(node) == "string" then
            helper.write(p, node)
        elseif node.link then
            posix.symlink(node.link, p)
        else
            make(node.dir, p)
        end
    end
end

local function read(dir)
    local tree = {}
    for _, name in ipairs(path.names(dir)) do
        local p = dir .. "/" .. name
        local link = posix.readlink(p)
        tree[name] = link and { link = link } or path.is_dir(p) and { dir = read(p) } or helper.read(p)
    end
    return tree
end

-- What the next run finds in a tree once it has tidied up: the newest checkpoint, LATEST, names =
-- {[name] = print} of all, and the folder itself.
local function found(tree, top)
    make(tree, top)
    local root = top .. "/run"
    checkpoint.clean(root)
    local out, newest = { names = {}, left = read(root) }, checkpoint.resolve(root)
    out.newest, out.latest = newest and path.basename(newest), checkpoint.pointed(root, "LATEST")
    for _, name in ipairs(checkpoint.list(root)) do
        out.names[name] = print_of(out.left[name].dir)
    end
    return out
end

-- ---- the states -----------------------------------------------------------------------------

-- Names in a folder that the next run has tidied up; nil when there is one that does not belong there.
local function stray(tree)
    for name in pairs(tree) do
        if not (name:find("^epoch_%d+_step_%d+$") or name:find("%.not_finite%-") or name:find("^%l+%.jsonl$")
                or name:find("^LATEST") or name:find("^LOWEST_VAL") or name == ".lock"
                or name:find("^report%.html")) or name:find("^L.*%.tmp$") then
            return name
        end
    end
end

-- Replay what a program did under `top`. go_on(folder) is called for some of the folders it can have left.
-- Returns how many there are, and the checkpoint that is the newest in the end.
local function replay(calls, top, go_on)
    local disk, seen, count, work = disks.new(top), {}, 0, helper.folder()
    local versions = {} -- prints of the checkpoints that the program made
    local since = {} -- what a look at the running program's folder would have found, since its last step
    local function check(tree, where)
        count = count + 1
        local folder = work .. "/" .. count
        local it = found(tree, folder)
        local ok = false
        for _, earlier in ipairs(since) do
            ok = ok or earlier.newest == it.newest
        end
        assert(ok, where .. ": goes on from " .. tostring(it.newest) .. ", not " .. tostring(since[1].newest))
        assert(not it.latest or not it.newest or it.latest == it.newest, where .. ": LATEST is wrong")
        for name, print in pairs(it.names) do
            assert(versions[name .. print], where .. ": " .. name .. " is not whole: " .. print)
        end
        for name in pairs(since[1].names) do
            local always = true
            for _, earlier in ipairs(since) do
                always = always and earlier.names[name]
            end
            assert(not always or it.names[name], where .. ": " .. name .. " is lost")
        end
        assert.is_nil(stray(it.left), where)
        if count % EVERY == 0 and go_on then
            go_on(folder .. "/run")
        end
        path.remove_tree(folder)
    end
    for i, call in ipairs(calls) do
        if disk:apply(call) or i == 1 then
            local where = string.format("after call %d, %s %s", i, call.call, path.basename(call.path))
            local now = disk:tree(disks.states[1])
            local run = now.run and now.run.dir or {}
            for name, node in pairs(run) do
                local print = node.dir and name:find("^epoch_%d+_step_%d+$") and print_of(node.dir)
                if print and (call.call == "rename" or call.call == "renameat2") then
                    versions[name .. print] = true
                end
            end
            local finished = call.call == "write" and path.basename(call.path) == "training.jsonl"
            if finished then
                since, seen = {}, {}
            end
            local print = print_of(now)
            if not seen[print] then
                local folder = work .. "/now"
                since[#since + 1] = found({ run = { dir = run } }, folder)
                path.remove_tree(folder)
            end
            for _, state in ipairs(disks.states) do
                local tree = disk:tree(state)
                tree.run = tree.run or { dir = {} }
                print = print_of(tree)
                if not seen[print] then
                    seen[print] = true
                    check(tree, string.format("%s; names %s, data %s", where, state.names, state.data))
                end
            end
        end
    end
    return count, since[#since].newest
end

describe("a power cut", function()
    local preload
    setup(function() preload = faults.preload(helper.folder()) end)
    teardown(helper.cleanup)

    -- Record a program; returns its calls and the folder that they are under.
    local function record(words)
        local top, log = helper.folder(), helper.folder() .. "/log"
        for i, word in ipairs(words) do
            words[i] = word:gsub("TOP", (top:gsub("%%", "%%%%")))
        end
        local status, _, errors = helper.run(words, { before = preload { under = top, log = log } })
        assert.equal(0, status, errors)
        return faults.read_log(log), top
    end

    for name, changes in pairs {
        LoRA = helper.lora, full = { checkpoint = { save_consolidated = "every" } },
        ["full, written beside the steps"] = { checkpoint = { save_consolidated = "every", is_async = true } },
    } do
        it("in a run loses nothing that was saved: " .. name, function()
            local file = helper.yaml(helper.folder(), config("TOP/run", changes))
            local unbroken = helper.folder() .. "/run"
            helper.train_here(config(unbroken, changes))
            local calls, top = record { helper.finetune, file, "--checkpoint.checkpoint_dir", "TOP/run" }
            local resumed = 0
            local states, newest = replay(calls, top, function(dir)
                resumed = resumed + 1
                helper.train_here(config(dir, changes))
                assert.is_nil(helper.checkpoint_difference(helper.latest(unbroken), helper.latest(dir)))
                assert.same(helper.curve(unbroken), helper.curve(dir))
            end)
            print(string.format("# %d calls, %d folders, gone on from %d", #calls, states, resumed))
            assert.equal(path.basename(helper.latest(unbroken)), newest)
            assert.is_true(states > 300 and resumed > 0)
        end)
    end

    it("loses nothing when checkpoints are replaced, pruned and taken back", function()
        local calls, top = record { "tests/recipe/crash_component.lua", "TOP/run" }
        local states, newest = replay(calls, top)
        print(string.format("# %d calls, %d folders", #calls, states))
        assert.is_nil(newest) -- both were taken back
        assert.is_true(states > 300)
    end)
end)
