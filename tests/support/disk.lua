-- A disk as a power cut may leave it. Fed with the calls of a recorded program (faults.lua), it tells what
-- a folder could look like after each: a file keeps what was synced, a folder the names that were there
-- when it was synced, and of all that came later any part may be lost. Holds no tests.
--
--   local disk = disks.new("/folder")      an empty folder that is there already
--   disk:apply(call)                        true when it changed something
--   disk:tree(disks.states[3])              { name = "text of a file" | { link = target } | { dir = {…} } }

local M = {}

--- What may be left: names and data each as they are `now` or as they were `kept` by a sync; of data that
--- was not synced half may be there, or zeros; of the names the very last change alone (`last`), or all
--- in the folder and those in it, and none further below (`shallow`).
M.states = {
    { names = "now", data = "now" }, { names = "now", data = "kept" }, { names = "now", data = "half" },
    { names = "now", data = "zeros" }, { names = "kept", data = "kept" }, { names = "kept", data = "now" },
    { names = "last", data = "kept" }, { names = "shallow", data = "kept" },
}

local Disk = {}
Disk.__index = Disk

local function new_folder()
    return { dir = true, now = {}, kept = {} }
end

function M.new(root)
    return setmetatable({ root = root, folder = new_folder(), last = {} }, Disk)
end

-- The folder that holds a path, and its name there.
local function locate(self, path)
    assert(path:sub(1, #self.root + 1) == self.root .. "/", path)
    local folder, name = self.folder, nil
    for part in path:sub(#self.root + 2):gmatch("[^/]+") do
        if name then
            folder = assert(folder.now[name], path)
        end
        name = part
    end
    return folder, name
end

-- Change names in one step: folder, name, node or false, …
local function change(self, ...)
    self.last = { ... }
    for i = 1, select("#", ...), 3 do
        local folder, name, node = select(i, ...)
        folder.now[name] = node or nil
    end
    return true
end

local apply = {}

function apply.create(self, folder, name)
    if folder.now[name] then
        folder.now[name].now = ""
        return true
    end
    return change(self, folder, name, { now = "", kept = "" })
end

function apply.append(self, folder, name)
    return not folder.now[name] and apply.create(self, folder, name)
end

function apply.write(_, folder, name, call)
    folder.now[name].now = folder.now[name].now .. call.data
    return true
end

-- Text with n bytes, cut or made longer with zeros.
local function sized(text, n)
    return text:sub(1, n) .. ("\0"):rep(n - #text)
end

function apply.pwrite(_, folder, name, call)
    local node, at = folder.now[name], tonumber(call.other)
    node.now = sized(node.now, math.max(#node.now, at)):sub(1, at) .. call.data .. node.now:sub(at + #call.data + 1)
    return true
end

function apply.ftruncate(_, folder, name, call)
    folder.now[name].now = sized(folder.now[name].now, tonumber(call.other))
    return true
end

function apply.mkdir(self, folder, name)
    return change(self, folder, name, new_folder())
end

function apply.symlink(self, folder, name, call)
    return change(self, folder, name, { link = call.other })
end

function apply.unlink(self, folder, name)
    return change(self, folder, name, false)
end

apply.rmdir = apply.unlink

function apply.rename(self, folder, name, call)
    local to, new_name = locate(self, call.other)
    return change(self, folder, name, false, to, new_name, folder.now[name])
end

function apply.renameat2(self, folder, name, call)
    local to, other = locate(self, call.other)
    return change(self, folder, name, to.now[other], to, other, folder.now[name])
end

function apply.fsync(self, folder, name)
    local node = name and folder.now[name] or self.folder
    if node.dir then
        node.kept = {}
        for entry, child in pairs(node.now) do
            node.kept[entry] = child
        end
    else
        node.kept = node.now
    end
    return true
end

--- Take in a call; true when the states may differ from those before it.
function Disk:apply(call)
    local what = apply[call.call]
    if not what or call.path == self.root and call.call ~= "fsync" then
        return false
    elseif call.path == self.root then
        return apply.fsync(self)
    end
    local folder, name = locate(self, call.path)
    return what(self, folder, name, call)
end

local function file_data(node, how)
    if how == "now" or node.now == node.kept then
        return node.now
    elseif how == "half" then
        return node.now:sub(1, math.max(#node.kept, math.floor(#node.now / 2)))
    elseif how == "zeros" then
        return node.kept .. ("\0"):rep(#node.now - #node.kept)
    end
    return node.kept
end

local function names_of(self, folder, how, depth)
    if how == "now" or (how == "shallow" and depth <= 1) then
        return folder.now
    elseif how ~= "last" then
        return folder.kept
    end
    local names = {}
    for name, node in pairs(folder.kept) do
        names[name] = node
    end
    for i = 1, #self.last, 3 do
        if self.last[i] == folder then
            names[self.last[i + 1]] = self.last[i + 2] or nil
        end
    end
    return names
end

local function view(self, folder, state, depth)
    local out = {}
    for name, node in pairs(names_of(self, folder, state.names, depth)) do
        if node.dir then
            out[name] = { dir = view(self, node, state, depth + 1) }
        else
            out[name] = node.link and { link = node.link } or file_data(node, state.data)
        end
    end
    return out
end

--- The folder in one of M.states.
function Disk:tree(state)
    return view(self, self.folder, state, 0)
end

return M
