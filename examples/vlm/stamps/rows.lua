-- Tux Paint's stamps (Debian's tuxpaint-stamps-default: small pictures, each with a sentence that names it) as rows for
-- make_conversation_dataset: what is learnt is the kind of thing, which is the name of the stamp's folder, and the
-- sentence: "vehicles: A container truck."
--
--   amlua examples/vlm/stamps/rows.lua OUTPUT_DIR [STAMPS_DIR]
--
-- Writes train.jsonl and heldout.jsonl, one stamp in five, chosen by a seeded shuffle of the sorted names. The pictures
-- stay where they are. Mirrored copies of stamps (X_mirror.png) are left out, so that none is in both.

local json = require("am.utils.json")
local path = require("am.utils.path")

local out, root = arg[1], arg[2] or "/usr/share/tuxpaint/stamps"
assert(out, "usage: amlua examples/vlm/stamps/rows.lua OUTPUT_DIR [STAMPS_DIR]")
assert(path.is_dir(root), root .. " is no folder: install the Debian package tuxpaint-stamps-default")

local stamps = {}

-- Finds the stamps of a folder and those in it; kind: the outermost folder's name.
local function find(folder, kind)
    for _, name in ipairs(path.names(folder)) do
        local file = path.join(folder, name)
        local stem = file:match("^(.*)%.png$")
        if path.is_dir(file) then
            find(file, kind or name)
        elseif stem and not stem:find("_mirror$") and path.is_file(stem .. ".txt") then
            local sentence = assert(path.read_file(stem .. ".txt")):match("^%s*([^\r\n]+)") -- English comes first
            stamps[#stamps + 1] = sentence and { file = file, kind = kind, sentence = sentence } or nil
        end
    end
end
find(root)
table.sort(stamps, function(a, b) return a.file < b.file end)

local state = 1
local function below(n) -- a whole number from 0, by Park and Miller's generator: the same on every machine
    state = state * 16807 % 0x7fffffff
    return state % n
end
for i = #stamps, 2, -1 do
    local j = below(i) + 1
    stamps[i], stamps[j] = stamps[j], stamps[i]
end

local function row(stamp)
    return json.encode({
        image = path.absolute(stamp.file),
        messages = json.array {
            { role = "user", content = json.array { { type = "image" }, { type = "text", text = "What is this?" } } },
            { role = "assistant", content = stamp.kind .. ": " .. stamp.sentence },
        },
    }, { sort_keys = true }) .. "\n"
end

local heldout = math.floor(#stamps / 5)
local texts = { heldout = {}, train = {} }
for i, stamp in ipairs(stamps) do
    table.insert(i <= heldout and texts.heldout or texts.train, row(stamp))
end
path.mkdir_p(out)
for name, list in pairs(texts) do
    path.write_file(path.join(out, name .. ".jsonl"), table.concat(list))
end
print(string.format("%d stamps to learn and %d held out in %s", #texts.train, #texts.heldout, out))
