-- What amlua runs for crash_spec.lua: the checkpoints of a run that goes on from older ones, prunes,
-- takes one back, and meets file systems without links or without swapping names. The line written to
-- training.jsonl after each says that it returned.
local checkpoint = require("am.checkpoint")
local path = require("am.utils.path")
local posix = require("am.utils.posix")

local root = arg[1]
path.mkdir_p(root)
local log = posix.open(path.join(root, "training.jsonl"), "append")
local count = 0

local function save(step, pointers)
    count = count + 1
    checkpoint.save(root, "epoch_0_step_" .. step, function(dir)
        path.mkdir_p(path.join(dir, "model"))
        path.write_file(path.join(dir, "model/weights"), ("weights %d of save %d\n"):format(step, count):rep(9))
        local file = posix.open(path.join(dir, "state"), "create") -- as a library may leave it: not synced
        posix.write(file, ("state %d of save %d\n"):format(step, count):rep(9))
        posix.close(file)
    end, pointers)
    posix.write(log, "saved\n")
end

local function without(name, fn)
    local own = posix[name]
    posix[name] = function() return nil, "not supported" end
    fn()
    posix[name] = own
end

local function prune(keep)
    checkpoint.prune(root, keep)
    posix.write(log, "pruned\n")
end

save(1, { "LOWEST_VAL" })
save(2, { "LOWEST_VAL" })
save(3)
save(2) -- went on from 1
without("exchange", function() save(3, { "LOWEST_VAL" }) end)
prune(2)
without("symlink", function()
    save(4)
    save(5, { "LOWEST_VAL" })
end)
save(6)
prune(1)
checkpoint.withdraw(root, path.join(root, "epoch_0_step_6"))
posix.write(log, "withdrawn\n")
checkpoint.withdraw(root, path.join(root, "epoch_0_step_5"))
posix.write(log, "withdrawn\n")
