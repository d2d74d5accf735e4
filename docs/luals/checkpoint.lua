---@meta am.checkpoint
-- Written by docs/api.lua; do not edit. For workspace.library of a Lua language server.
-- luacheck: ignore

---@class am.checkpoint
local am_checkpoint = {}

--- Keep other runs out of a folder while the lock is held; the system lets go of it when the process
--- ends, however it does. The file ".lock" stays and says who held it last.
---@return am.checkpoint.Lock
function am_checkpoint.lock(root) end

--- Put right what an interrupted save left behind.
function am_checkpoint.clean(root) end

--- The checkpoint's name that a pointer holds, or nil.
function am_checkpoint.pointed(root, pointer) end

--- Write a folder that stands alone, as a merged model's: write(dir) fills it. It gets its name, which must be free
--- or an empty folder's, when it is complete and on disk; on an error nothing is there. What a killed write of the
--- same name left beside it goes away.
function am_checkpoint.write_folder(final, write) end

--- Begin a checkpoint that is published later: its reserved folder, which is there.
function am_checkpoint.begin(root, name) end

--- Publish what M.begin has begun: all of it is written. On an error nothing is published, what was there stays, and
--- the reserved folder is removed. pointers: names beside LATEST that shall mean it too. Returns the published folder.
function am_checkpoint.publish(root, name, reserved, pointers) end

--- Remove what M.begin has begun.
function am_checkpoint.abandon(reserved) end

--- Write a checkpoint and publish it: write(dir) fills the folder. As M.publish.
function am_checkpoint.save(root, name, write, pointers) end

--- Names of complete checkpoints under root, oldest step first.
function am_checkpoint.list(root) end

--- The folder to go on from. restore_from: nil for the newest under root (nil when there is none), a
--- pointer ("LATEST", "LOWEST_VAL"), a checkpoint's name under root, or a path. A named one that is not
--- there is an error that lists those that are.
function am_checkpoint.resolve(root, restore_from) end

--- Write a table of numbers, strings and booleans as a JSON file in a folder of a checkpoint, which publishing syncs.
function am_checkpoint.write_json(file, value) end

--- Read what write_json wrote.
function am_checkpoint.read_json(file) end

--- Take back a checkpoint whose state turned out to be useless: it gets another name, and LATEST the
--- newest of the others. Returns that one's folder, or nil, and the new name.
function am_checkpoint.withdraw(root, dir) end

--- Remove all but the newest `keep` checkpoints and those that LATEST and LOWEST_VAL name.
function am_checkpoint.prune(root, keep) end

---@class am.checkpoint.Lock
local am_checkpoint_Lock = {}

--- Let others in.
function am_checkpoint_Lock:release() end

return am_checkpoint
