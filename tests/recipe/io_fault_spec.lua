-- The system refuses one call of a run that loads a checkpoint, trains and saves: EIO, a full disk, an
-- interruption, half of what was asked for. What can be made again is; all else ends the run with a
-- message, leaves the checkpoints as they were, and the next run ends as if nothing had been.
-- AMLUA_EVERY=1 refuses each call of each kind, not every 29th of a kind only.
local checkpoint = require("am.checkpoint")
local faults = require("tests.support.faults")
local helper = require("tests.recipe.helper")
local path = require("am.utils.path")

local EVERY = tonumber(os.getenv("AMLUA_EVERY")) or 29

-- ends: what the run must do. "well": as if nothing had been. "either": that, or a clean error.
local cases = {
    { "EIO", errno = faults.EIO, ends = "either",
      calls = { "open", "read", "pread", "write", "pwrite", "ftruncate", "fsync", "close", "rename", "renameat2",
                "symlink", "mkdir", "unlink", "rmdir", "statx", "fstat", "readlink", "opendir", "readdir", "mmap" } },
    { "a full disk", errno = faults.ENOSPC, forever = true, ends = "either",
      calls = { "write", "pwrite", "fsync", "mkdir", "symlink", "rename" } },
    { "no memory", errno = faults.ENOMEM, ends = "either", calls = { "mmap" } },
    { "an interruption", errno = faults.EINTR, ends = "well",
      calls = { "open", "read", "pread", "write", "pwrite", "ftruncate", "fsync", "close" } },
    { "half of it", errno = faults.SHORT, ends = "well", calls = { "read", "pread", "write", "pwrite" } },
}

describe("a call that the system refuses", function()
    local top, file, unbroken, before, preload, made

    local function train(words, opts)
        return helper.run({ helper.finetune, file, unpack(words or {}) }, opts)
    end

    setup(function()
        preload = faults.preload(helper.folder())
        top = helper.folder()
        helper.copy(helper.text_model(), top .. "/model")
        local rows = {}
        for i = 1, 9 do
            rows[i] = string.format('{"question": "What is %d?", "answer": "It is %d."}\n', i, i)
        end
        local data = { _target_ = "am.datasets.ColumnMappedTextInstructionDataset",
                       path_or_dataset_id = helper.write(top .. "/rows.jsonl", table.concat(rows)),
                       column_mapping = { question = "question", answer = "answer" }, cache_dir = top .. "/cache" }
        local cfg = helper.config(top .. "/run", {
            model = { pretrained_model_name_or_path = top .. "/model" }, peft = { target_modules = "*_proj", dim = 2 },
            step_scheduler = { max_steps = 3, ckpt_every_steps = 1, num_epochs = 9 },
            checkpoint = { max_recent_checkpoints = 1 },
        })
        cfg.dataset, cfg.validation_dataset = data, data
        file = helper.yaml(helper.folder(), cfg) -- not one of those that count
        local status, _, errors = train { "--step_scheduler.max_steps", "2" }
        assert.equal(0, status, errors)
        before = helper.copy(top .. "/run", helper.folder() .. "/run")
        path.remove_tree(top .. "/cache")
        made = {} -- how many calls there are of each kind, in a run to the end
        local log = helper.folder() .. "/log"
        assert.equal(0, (train({}, { before = preload { under = top, log = log } })))
        for _, call in ipairs(faults.read_log(log)) do
            local kind = call.call:gsub("!$", ""):gsub("create", "open"):gsub("append", "open")
            made[kind] = (made[kind] or 0) + 1
        end
        unbroken = helper.copy(top .. "/run", helper.folder() .. "/run")
    end)
    teardown(helper.cleanup)

    -- Nil when the run ended as an unbroken one; else what differs.
    local function difference()
        local root = top .. "/run"
        local newest = checkpoint.resolve(root)
        return path.basename(newest) ~= path.basename(helper.latest(unbroken)) and newest
            or helper.checkpoint_difference(helper.latest(unbroken), newest)
            or table.concat(helper.curve(unbroken), "\n") ~= table.concat(helper.curve(root), "\n") and "training.jsonl"
            or nil
    end

    -- What is wrong with the run that one refusal gave, or nil; and its status.
    local function problem(case, call, k)
        path.remove_tree(top .. "/run")
        helper.copy(before, top .. "/run")
        if k % 2 == 0 then -- the others find tokenised rows in it
            path.remove_tree(top .. "/cache")
        end
        local status, out, errors = train({}, { before = preload {
            under = top, call = call, k = k, errno = case.errno, forever = case.forever } })
        if status == 0 then
            return difference(), status
        elseif case.ends == "well" then
            return "status " .. status .. ": " .. errors, status
        end
        local wrong = helper.refusal_problem(1, {}, status, out, errors)
        local newest = checkpoint.resolve(top .. "/run")
        if not newest then
            return wrong or "no checkpoint is left", status
        elseif path.basename(newest) == path.basename(helper.latest(before)) then
            wrong = wrong or helper.checkpoint_difference(helper.latest(before), newest)
        else
            wrong = wrong or helper.checkpoint_difference(helper.latest(unbroken), newest)
        end
        if wrong then
            return wrong, status
        end
        local _
        status, _, errors = train()
        if status ~= 0 then
            return "the next run: " .. errors, 1
        end
        for _, name in ipairs(path.names(top .. "/run")) do
            if name:find("%.tmp$") then
                return "the next run left " .. name, 1
            end
        end
        return difference(), 1
    end

    for _, case in ipairs(cases) do
        it("leaves no damage: " .. case[1], function()
            local tries, refused, wrong = 0, 0, {}
            for _, call in ipairs(case.calls) do
                for k = 1, made[call] or 0 do
                    if k % EVERY == 1 % EVERY or k == made[call] then
                        local what, status = problem(case, call, k)
                        tries, refused = tries + 1, refused + status
                        if what then
                            wrong[#wrong + 1] = string.format("%s %d of %d: %s", call, k, made[call], what)
                        end
                    end
                end
            end
            assert.equal("", table.concat(wrong, "\n"))
            print(string.format("# %d calls refused, %d runs ended early", tries, refused))
            assert.is_true(tries > 0)
        end)
    end
end)
