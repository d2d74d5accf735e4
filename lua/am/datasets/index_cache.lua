-- The indices of a GPTDataset in a folder, for later runs: three arrays of int32 as .npy, named after a digest
-- of all that they depend on. Holds no making of them; what they say is checked where it is used.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local digest = require("am.utils.digest")
local json = require("am.utils.json")
local log = require("am.utils.log").get("am.datasets")
local number_file = require("am.datasets.number_file")
local path = require("am.utils.path")
local posix = require("am.utils.posix")

local M = {}

local FORMAT = 1 -- another number makes all of them anew

-- Shapes of the arrays of a dataset, as Python writes them, and how many numbers that is.
local function shapes_of(dataset)
    local n, rows = dataset.num_documents, dataset.rows
    return { { "documents", string.format("(%d,)", n), n },
             { "samples", string.format("(%d, 2)", rows + 1), 2 * (rows + 1) },
             { "order", string.format("(%d,)", rows), rows } }
end

-- What comes before the numbers in a .npy of this shape (NumPy's format 1.0).
local function npy_head(shape)
    local text = "{'descr': '<i4', 'fortran_order': False, 'shape': " .. shape .. ", }"
    text = text .. (" "):rep(63 - (10 + #text) % 64) .. "\n"
    return "\147NUMPY\1\0" .. string.char(#text % 256, math.floor(#text / 256)) .. text
end

-- The array of a file; nil when there is none, or it is another.
local function load(file, shape, n)
    if not path.is_file(file) then
        return nil
    end
    local head, found = npy_head(shape), number_file.open(file)
    if found.size == #head + 4 * n and ffi.string(found:fill(ffi.new("char[?]", #head), 0, #head), #head) == head then
        local array = found:fill(ffi.new("int32_t[?]", n), #head, 4 * n)
        found:close()
        return array
    end
    found:close()
    log:warning("%s: is not the index that is wanted here; it is made anew", file)
    return nil
end

local function save(file, shape, array, n)
    local tmp = path.unique(file)
    local function must(done, msg)
        if not done then
            posix.unlink(tmp)
            err.raise("io", "dataset.index_mapping_dir: cannot write %s: %s", file, msg)
        end
        return done
    end
    local out = must(posix.open(tmp, "create"))
    must(posix.write(out, npy_head(shape)))
    must(posix.write(out, array, 4 * n))
    must(posix.close(out))
    must(posix.rename(tmp, file))
end

local function digest_of(dataset)
    local idx = ffi.new("uint8_t[?]", edge.C.AM_HASH_BYTES)
    edge.check(edge.C.am_hash_file(idx, dataset.indexed.idx.name))
    return digest.text(json.encode({
        format = FORMAT, idx = digest.hex(idx, edge.C.AM_HASH_BYTES),
        first = dataset.first, stop = dataset.stop, split = dataset.split,
        num_samples = dataset.num_samples, seq_length = dataset.seq_length, seed = dataset.seed,
    }, { sort_keys = true })):sub(1, 32)
end

--- The indices of a dataset, { documents, samples, order }: those in its cache_dir, or what build() gives,
--- which then goes there.
function M.get(dataset, build)
    if not dataset.cache_dir then
        return build()
    end
    path.mkdir_p(dataset.cache_dir)
    local base = path.join(dataset.cache_dir, digest_of(dataset) .. "-GPTDataset-" .. dataset.split .. "-")
    local index = {}
    for _, shape in ipairs(shapes_of(dataset)) do
        index[shape[1]] = load(base .. shape[1] .. ".npy", shape[2], shape[3])
    end
    if index.documents and index.samples and index.order then
        log:info("indices are read from %s*.npy", base)
        return index
    end
    index = build()
    for _, shape in ipairs(shapes_of(dataset)) do
        save(base .. shape[1] .. ".npy", shape[2], index[shape[1]], shape[3])
    end
    return index
end

return M
