-- Tensors from and to files: safetensors, GGUF, PyTorch's (reading) and .npy, over the engine's readers and writers.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local tensor = require("am.core.tensor")

local C, check = edge.C, edge.check
local M = {}

local box = edge.box("am_tensor")
local int_box, ndim_box = ffi.new("int[1]"), ffi.new("int[1]")
local text_box, shape_box = ffi.new("const char *[1]"), ffi.new("int64_t[8]")
local shape_length = tonumber(C.AM_MAX_DIMS)

---@class am.Archive an opened safetensors, GGUF or PyTorch file
local Archive = {}
Archive.__index = Archive

--- Open a safetensors, GGUF or PyTorch file (pytorch_model.bin; its pickle is not run); its header is checked.
function M.open(path)
    local b = edge.box("am_archive")
    check(C.am_archive_open(b, path))
    local self = setmetatable({ path = path, handle = ffi.gc(b[0], C.am_archive_release) }, Archive)
    self.kind = ffi.string(C.am_archive_kind(self.handle))
    return self
end

--- Names of all tensors in file order.
function Archive:names()
    local list = {}
    for i = 0, tonumber(C.am_archive_count(self.handle)) - 1 do
        list[i + 1] = ffi.string(C.am_archive_name(self.handle, i))
    end
    return list
end

--- {dtype=, stored_as=, shape=} of a tensor, or nil when the file has none of that name.
function Archive:info(name)
    local i = C.am_archive_find(self.handle, name)
    if i < 0 then
        return nil
    end
    check(C.am_archive_info(self.handle, i, int_box, text_box, ndim_box, shape_box))
    local shape = {}
    for d = 1, ndim_box[0] do
        shape[d] = tonumber(shape_box[d - 1])
    end
    return { dtype = tensor.dtype_name(int_box[0]), stored_as = ffi.string(text_box[0]), shape = shape }
end

--- A tensor by name, as stored or converted to dtype; shares the file's memory where it can.
function Archive:get(name, dtype, device)
    local i = C.am_archive_find(self.handle, name)
    if i < 0 then
        err.raise("format", "%s holds no tensor \"%s\"", self.path, name)
    end
    check(C.am_archive_tensor(box, self.handle, i, dtype and tensor.dtype_id(dtype) or -1,
                              tensor.device_id(device)))
    return tensor.own(box[0])
end

--- Metadata as JSON text.
function Archive:metadata_json()
    return ffi.string(C.am_archive_metadata(self.handle))
end

function Archive:close()
    if self.handle then
        C.am_archive_release(ffi.gc(self.handle, nil))
        self.handle = nil
    end
end

--- All tensors of a safetensors, GGUF or PyTorch file as {name = tensor}.
function M.load_safetensors(path, opts)
    local archive, out = M.open(path), {}
    for _, name in ipairs(archive:names()) do
        out[name] = archive:get(name, opts and opts.dtype, opts and opts.device)
    end
    archive:close()
    return out
end

--- Write {name = tensor}, or a list of {name, tensor} to keep an order, as safetensors. metadata is
--- JSON text of an object of strings; {"format":"pt"} by default.
function M.save_safetensors(path, tensors, metadata)
    local list = {}
    for k, v in pairs(tensors) do
        list[#list + 1] = type(k) == "number" and v or { k, v }
    end
    if #tensors == 0 then
        table.sort(list, function(a, b) return a[1] < b[1] end)
    else
        list = tensors
    end
    local n = #list
    local names, handles = ffi.new("const char *[?]", n + 1), ffi.new("am_tensor *[?]", n + 1)
    for i, item in ipairs(list) do
        names[i - 1], handles[i - 1] = item[1], item[2]
    end
    check(C.am_safetensors_save(path, n, names, handles, metadata))
end

-- ---- in parts -------------------------------------------------------------------------------

---@class am.Parts a safetensors file that is written in parts, by several processes
local Parts = {}
Parts.__index = Parts

--- Make or open a file in which each process writes its rows. specs: a list of { name, dtype, shape } of all tensors,
--- the same on all of them. opts: make (one of them makes the file, before the others open it), metadata, later (put
--- keeps tensors, which stay as they are until write_beside has ended), digest (the file is this process's alone).
---@return am.Parts
function M.parts(path, specs, opts)
    local n, places = #specs, {}
    local list = ffi.new("am_parts_spec[?]", n + 1)
    for i, spec in ipairs(specs) do
        local item, shape = list[i - 1], spec[3]
        item.name, item.dtype, item.ndim = spec[1], tensor.dtype_id(spec[2]), #shape
        for d = 1, math.min(#shape, shape_length) do
            item.shape[d - 1] = shape[d]
        end
        places[spec[1]] = i - 1
    end
    local flags = (opts.make and C.AM_PARTS_MAKE or 0) + (opts.later and C.AM_PARTS_LATER or 0)
        + (opts.digest and C.AM_PARTS_DIGEST or 0)
    local b = edge.box("am_parts")
    check(C.am_parts_open(b, path, n, list, opts.metadata, flags))
    return setmetatable({ path = path, places = places, handle = ffi.gc(b[0], C.am_parts_release) }, Parts)
end

--- Rows of a tensor from `row` on (of a tensor of rank 0: it itself, from 0).
function Parts:put(name, row, t)
    check(C.am_parts_put(self.handle, self.places[name] or -1, row, t))
end

--- Bytes of the file when it is whole.
function Parts:size() return tonumber(C.am_parts_size(self.handle)) end

--- Write what waits, sync and close. Returns the file's digest, as am_hash_file has it: a string of bytes; nil where
--- none was asked for.
function Parts:finish(with_digest)
    local digest = ffi.new("uint8_t[?]", C.AM_HASH_BYTES)
    check(C.am_parts_finish(self.handle, digest))
    return with_digest and ffi.string(digest, C.AM_HASH_BYTES) or nil
end

--- Leave off; the file stays as it is.
function Parts:close()
    if self.handle then
        C.am_parts_release(ffi.gc(self.handle, nil))
        self.handle = nil
    end
end

---@class am.Writing files that are written beside the program
local Writing = {}
Writing.__index = Writing

--- Finish files (M.parts) one after the other in a thread, and then sync others and folders by their paths, while the
--- program goes on.
---@return am.Writing
function M.write_beside(files, paths)
    local handles = ffi.new("am_parts *[?]", #files + 1)
    for i, file in ipairs(files) do
        handles[i - 1] = file.handle
    end
    local b = edge.box("am_writing")
    local names = ffi.new("const char *[?]", #paths + 1, paths)
    check(C.am_writing_begin(b, #files, handles, #paths, names))
    -- the files are kept: they must outlive it
    return setmetatable({ files = files, handle = ffi.gc(b[0], C.am_writing_release) }, Writing)
end

--- Would waiting return at once?
function Writing:done() return C.am_writing_done(self.handle) ~= 0 end

--- Wait for its end; raises the error of a file that could not be written.
function Writing:wait()
    check(C.am_writing_wait(self.handle))
end

--- Wait, and let go.
function Writing:close()
    if self.handle then
        C.am_writing_release(ffi.gc(self.handle, nil))
        self.handle = nil
    end
end

-- ---- GGUF, NumPy ----------------------------------------------------------------------------

---@class am.GGUFWriter a GGUF file that is being written
local GGUFWriter = {}
GGUFWriter.__index = GGUFWriter

--- Begin a GGUF file. metadata: JSON text of {key: {type: value or list}}; tensors: a list of { name, type
--- ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_0", "Q4_K"), shape }, to be added in this order. Nothing is at
--- `path` before commit.
function M.gguf_writer(path, metadata, tensors)
    local n, most = #tensors, shape_length
    local names, types = ffi.new("const char *[?]", n + 1), ffi.new("const char *[?]", n + 1)
    local ndims, shapes = ffi.new("int[?]", n + 1), ffi.new("int64_t[?]", n * most + 1)
    for i, item in ipairs(tensors) do
        local shape = item[3]
        names[i - 1], types[i - 1], ndims[i - 1] = item[1], item[2], #shape
        for d = 1, math.min(#shape, most) do
            shapes[(i - 1) * most + d - 1] = shape[d]
        end
    end
    local b = edge.box("am_gguf_writer")
    check(C.am_gguf_writer_begin(b, path, metadata, n, names, types, ndims, shapes))
    return setmetatable({ handle = ffi.gc(b[0], C.am_gguf_writer_release) }, GGUFWriter)
end

--- Write the next tensor: of a floating dtype and the shape announced.
function GGUFWriter:add(t)
    check(C.am_gguf_writer_add(self.handle, t))
end

--- Put the file in its place: all tensors are written.
function GGUFWriter:commit()
    check(C.am_gguf_writer_commit(self.handle))
end

--- Leave off; what was not committed is removed.
function GGUFWriter:close()
    if self.handle then
        C.am_gguf_writer_release(ffi.gc(self.handle, nil))
        self.handle = nil
    end
end

--- A tensor from NumPy's .npy file. opts.device: where to.
function M.load_npy(path, opts)
    check(C.am_npy_load(box, path, tensor.device_id(opts and opts.device)))
    return tensor.own(box[0])
end

--- Write a tensor as NumPy's .npy file.
function M.save_npy(path, t)
    check(C.am_npy_save(path, t))
end

return M
