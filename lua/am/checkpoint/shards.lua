-- Tensors in shards: each of several writers has a safetensors file with its rows (of dim 0) of every tensor, and any
-- number of readers take from the files what they need. What is on disk does not depend on how a run's ranks shared
-- the tensors: a layout (am.distributed's, handed in) makes rows of parts and parts of rows.
--
--   writer k of n has rows [k c, (k + 1) c) with c = ceil(rows / n); a small tensor is the first writer's
--   headers are those of torch.distributed.checkpoint's HuggingFaceStorageWriter: DCP_SHARDING_INFO says where a
--   shard's rows begin, tensors have the shard's shape

local constructors = require("am.core.constructors")
local err = require("am.core.error")
local io_core = require("am.core.io")
local json = require("am.utils.json")
local path = require("am.utils.path")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")

local M = {}

local SMALL = 1024 -- elements
local BLOCK = 256  -- of moments of 8 bits, which share an absmax

local function numel(shape)
    local n = 1
    for _, size in ipairs(shape) do
        n = n * size
    end
    return n
end

local function chunk(n, count, k)
    local length = math.ceil(n / count)
    local first = math.min(k * length, n)
    return first, math.min(length, n - first)
end

--- The rows of a tensor that writer k of `count` (from 0) has: the first, and how many; nil where it has none. A tensor
--- of rank 0 is one row.
function M.share(shape, k, count)
    local n = shape[1] or 1
    if numel(shape) < SMALL then
        return k == 0 and 0 or nil, n
    end
    local first, length = chunk(n, count, k)
    return length > 0 and first or nil, length
end

local function same(a, b)
    local equal = #a == #b
    for i = 1, #a do
        equal = equal and a[i] == b[i]
    end
    return equal
end

local function is_absmax(what)
    return what ~= nil and what:find("_absmax$") ~= nil
end

-- Of a parameter that is cut by rows alone: how many blocks a rank has, how many all have together, the axis, and what
-- tells the name where ranks begin new blocks amid those of the whole; nil otherwise.
local function blocks_of(layout, entry)
    local cut = entry.cuts[1]
    if #entry.cuts ~= 1 or cut.dim ~= 0 or #cut.parts ~= 1 then
        return nil
    end
    local size, rows, width, total = layout.mesh:size(cut.axis), entry.shape[1], numel(entry.shape) / entry.shape[1], 0
    for r = 0, size - 1 do
        total = total + math.ceil(select(2, chunk(rows, size, r)) * width / BLOCK)
    end
    local elements = math.ceil(rows / size) * width
    return math.ceil(elements / BLOCK), total, cut.axis, elements % BLOCK == 0 and "" or "@" .. elements
end

-- Which of the three ways to make a whole of this rank's part of a tensor: "own" (it is whole), "part" (as the
-- parameter), "blocks".
local function kind_of(layout, parameter, what, t)
    if not (layout and parameter and layout:is_cut(parameter)) then
        return "own"
    end
    local entry = layout:get(parameter)
    if is_absmax(what) then
        return blocks_of(layout, entry) and "blocks" or err.raise("unsupported", "%s: its moments of 8 bits are in "
            .. "blocks of %d numbers, and ranks share it by columns; set optimizer.state_dtype: bfloat16 or float32",
            parameter, BLOCK)
    elseif same(t:size(), entry.tensor:size()) then
        return "part"
    end
    err.raise("unsupported", "%s: its optimizer state %s is of the whole parameter, of which each rank has a part",
              parameter, what)
end

-- All ranks' blocks in order.
local function gather_blocks(layout, parameter, t)
    local per_rank, total, axis = blocks_of(layout, layout:get(parameter))
    local group = layout.mesh:group(axis)
    local from = tensor.zeros({ per_rank }, { dtype = t:dtype(), device = t:device() })
    from:narrow(0, 0, t:numel()):copy_(t)
    local all = tensor.empty({ per_rank * group:size() }, { dtype = t:dtype(), device = t:device() })
    group:all_gather(all, from):wait()
    return all:narrow(0, 0, total)
end

-- Is this rank's part what it is to write? Alike on all ranks.
local function is_share(layout, entry, writers)
    local cut, mesh = entry.cuts[1], layout.mesh
    return #entry.cuts == 1 and cut.dim == 0 and #cut.parts == 1 and numel(entry.shape) >= SMALL
        and mesh:size(cut.axis) == writers.count and mesh:rank(cut.axis) == writers.rank
end

---@class am.checkpoint.Item a tensor of which ranks have parts, or each the whole
---@field name string in files
---@field dtype string
---@field shape integer[] of the whole
---@field rows fun(first: integer, n: integer): any  rows of the whole; all ranks of its cuts call this together

--- What there is to write of tensors of this rank: an array of Items. list: { name, tensor, parameter, what } with the
--- parameter that the layout knows, and of its optimizer state the state's name; writers: { rank =, count = }. Raises
--- "unsupported" for what can't be made whole.
---@return am.checkpoint.Item[]
function M.items(list, layout, writers)
    local items = {}
    for i, one in ipairs(list) do
        local name, t, parameter = one[1], one[2], one[3]
        local kind = kind_of(layout, parameter, one[4], t)
        local item = { name = name, dtype = t:dtype(), shape = t:size() }
        local function rows_of(whole, first, n)
            return #item.shape == 0 and whole or whole:narrow(0, first, n)
        end
        if kind == "own" then
            function item.rows(first, n) return rows_of(t:detach(), first, n) end
        elseif kind == "blocks" then
            local _, total, _, suffix = blocks_of(layout, layout:get(parameter))
            item.shape, item.name = { total }, name .. suffix
            function item.rows(first, n) return rows_of(gather_blocks(layout, parameter, t), first, n) end
        else
            item.shape = layout:get(parameter).shape
            local share = is_share(layout, layout:get(parameter), writers)
            function item.rows(first, n)
                return share and t:detach() or rows_of(layout:whole(parameter, t:detach()), first, n)
            end
        end
        items[i] = item
    end
    return items
end

--- The name of a writer's file: of one writer alone `alone`, if given.
function M.file_name(stem, writers, alone)
    return writers.total == 1 and alone
        or string.format("shard-%05d-%s-00001-of-00001.safetensors", writers.number, stem)
end

-- What a header says of the rows that a writer has: names, dtypes and shapes, and metadata.
local function header(items, writers)
    local specs, offsets = {}, {}
    for _, item in ipairs(items) do
        local first, n = M.share(item.shape, writers.rank, writers.count)
        if first then
            local shape, at = { unpack(item.shape) }, {}
            for d = 1, #shape do
                at[d] = 0
            end
            if #shape > 0 then
                shape[1], at[1] = n, first
            end
            specs[#specs + 1] = { item.name, item.dtype, shape }
            offsets[item.name] = { saved_offsets = json.array(at) }
        end
    end
    return specs, json.encode {
        format = "pt", DCP_VERSION = "1.0", DCP_SHARDING_INFO = json.encode(offsets, { sort_keys = true }),
    }
end

--- Write this writer's rows of items as a file of `saving` (saving.lua). All writers call this together. also(item,
--- first, rows), if given, gets them too. file nil: only `also` does.
function M.write(saving, file, items, also)
    local writers = saving.writers
    local parts
    if file then
        local specs, metadata = header(items, writers)
        path.mkdir_p(path.dirname(file), true)
        parts = saving:open(file, specs, { make = true, digest = true, metadata = metadata })
    end
    for _, item in ipairs(items) do
        scope.scope(function()
            local first, n = M.share(item.shape, writers.rank, writers.count)
            local rows = item.rows(first or 0, first and n or 0) -- a collective
            if first then
                rows = saving:kept(rows)
                if parts then
                    parts:put(item.name, 0, rows)
                end
                if also then
                    also(item, first, rows)
                end
            end
        end)
    end
    if parts then
        saving:close_file(parts)
    end
end

-- ---- reading --------------------------------------------------------------------------------

--- The files of a stem in a folder: the shards of it, or `alone` where there are none; empty where that is not there.
function M.find(dir, stem, alone)
    local files = {}
    for _, name in ipairs(path.is_dir(dir) and path.names(dir) or {}) do
        if name:match("^shard%-%d+%-(.*)%-%d+%-of%-%d+%.safetensors$") == stem then
            files[#files + 1] = path.join(dir, name)
        end
    end
    if #files == 0 and alone and path.is_file(path.join(dir, alone)) then
        files[1] = path.join(dir, alone)
    end
    return files
end

---@class am.checkpoint.Set tensors in one or several files
local Set = {}
Set.__index = Set

-- Where a file's rows begin, by tensor; empty for a file that is a whole.
local function offsets_of(archive)
    local metadata = json.decode(archive:metadata_json())
    local text = type(metadata) == "table" and metadata.DCP_SHARDING_INFO
    local info = type(text) == "string" and json.decode(text) or {}
    if type(info) ~= "table" then
        err.raise("format", "%s: DCP_SHARDING_INFO is no JSON object", archive.path)
    end
    return info
end

local function first_row(archive, name, info, shape)
    local said = info[name]
    local at = type(said) == "table" and said.saved_offsets or nil
    if said == nil or #shape == 0 then
        return 0
    elseif type(at) ~= "table" or #at ~= #shape then
        err.raise("format", "%s: DCP_SHARDING_INFO says nothing sound of %s", archive.path, name)
    end
    for d, n in ipairs(at) do
        if type(n) ~= "number" or n < 0 or n > 2 ^ 53 or n % 1 ~= 0 or d > 1 and n ~= 0 then
            err.raise("format", "%s: %s begins at [%s], but shards here are cut by rows alone", archive.path, name,
                      table.concat(at, ", "))
        end
    end
    return at[1]
end

local function add_piece(self, archive, name, info)
    local found = archive:info(name)
    local first = first_row(archive, name, info, found.shape)
    local entry = self.entries[name]
    if not entry then
        entry = { dtype = found.dtype, shape = { unpack(found.shape) }, pieces = {} }
        self.entries[name], self.names[#self.names + 1] = entry, name
    elseif entry.dtype ~= found.dtype or not same({ unpack(entry.shape, 2) }, { unpack(found.shape, 2) }) then
        err.raise("format", "%s: %s is %s [%s], in another shard %s [%s]", archive.path, name, found.dtype,
                  table.concat(found.shape, ", "), entry.dtype, table.concat(entry.shape, ", "))
    end
    table.insert(entry.pieces, { archive = archive, first = first, n = found.shape[1] or 1 })
    if #found.shape > 0 then
        entry.shape[1] = math.max(entry.shape[1], first + found.shape[1])
    end
end

-- Pieces in order, without those that repeat another's rows. Raises "format" for a gap.
local function put_in_order(self, name, entry)
    table.sort(entry.pieces, function(a, b)
        return a.first < b.first or a.first == b.first and a.archive.path < b.archive.path
    end)
    local kept, next_row = {}, 0
    for _, piece in ipairs(entry.pieces) do
        if piece.first > next_row then
            err.raise("format", "%s lacks rows %d to %d of %s: a shard is missing", self.where, next_row,
                      piece.first - 1, name)
        elseif piece.first + piece.n > next_row or #kept == 0 then
            kept[#kept + 1] = piece
            next_row = piece.first + piece.n
        end
    end
    entry.pieces = kept
end

--- Open files that together hold tensors whole. Raises "format" where one is damaged or a part of a tensor lacks.
---@return am.checkpoint.Set
function M.open(files)
    local self = setmetatable({ entries = {}, names = {}, archives = {},
                                where = #files == 1 and files[1] or path.dirname(files[1]) }, Set)
    for i, file in ipairs(files) do
        local archive = io_core.open(file)
        self.archives[i] = archive
        local info = offsets_of(archive)
        for _, name in ipairs(archive:names()) do
            add_piece(self, archive, name, info)
        end
    end
    for name, entry in pairs(self.entries) do
        put_in_order(self, name, entry)
    end
    return self
end

--- Copy rows [first, first + n) of a tensor into `into`, which has n rows.
function Set:read(name, first, n, into)
    for _, piece in ipairs(self.entries[name].pieces) do
        local from, to = math.max(first, piece.first), math.min(first + n, piece.first + piece.n)
        if to > from then
            scope.scope(function()
                local t = piece.archive:get(name, nil, into:device())
                if into:dim() == 0 then
                    into:copy_(t)
                else
                    into:narrow(0, from - first, to - from):copy_(t:narrow(0, from - piece.first, to - from))
                end
            end)
        end
    end
end

function Set:close()
    for _, archive in ipairs(self.archives) do
        archive:close()
    end
end

-- Rows of the whole that this rank's part consists of, as runs { first, n }; nil where it is cut along another dim.
local function runs_of(layout, parameter, rows)
    for _, cut in ipairs(layout:get(parameter).cuts) do
        if cut.dim ~= 0 then
            return nil
        end
    end
    local numbers = layout:part(parameter, constructors.arange(rows, { dtype = "float64" })):contiguous()
    local list, runs, n = numbers:to_buffer(), {}, 0
    for i = 0, numbers:numel() - 1 do
        local row = list[i]
        if n > 0 and runs[n][1] + runs[n][2] == row then
            runs[n][2] = runs[n][2] + 1
        else
            n = n + 1
            runs[n] = { row, 1 }
        end
    end
    return runs
end

-- Copy into t what it is of the whole tensor.
local function read_part(set, item, t, layout, parameter, kind)
    if kind == "own" then
        set:read(item, 0, t:dim() == 0 and 1 or t:size(0), t)
        return
    elseif kind == "blocks" then
        local per_rank, _, axis = blocks_of(layout, layout:get(parameter))
        set:read(item, layout.mesh:rank(axis) * per_rank, t:numel(), t)
        return
    end
    local shape = layout:get(parameter).shape
    local runs, at = runs_of(layout, parameter, shape[1]), 0
    if not runs then
        local whole = tensor.empty(shape, { dtype = t:dtype(), device = t:device() })
        set:read(item, 0, shape[1], whole)
        t:copy_(layout:part(parameter, whole))
    else
        for _, run in ipairs(runs) do
            set:read(item, run[1], run[2], t:narrow(0, at, run[2]))
            at = at + run[2]
        end
    end
end

-- Does a set have the absmaxes of other parts than this rank's?
local function blocks_elsewhere(set, name)
    for _, other in ipairs(set.names) do
        if other == name or other:sub(1, #name + 1) == name .. "@" then
            return true
        end
    end
    return false
end

--- Copy what files hold into this rank's tensors: list and layout as in M.items. Names, dtypes and whole shapes must be
--- the same on both sides; opts.some: the files hold others, too.
function M.read(files, list, layout, opts)
    local set, left = M.open(files), {}
    for _, name in ipairs(set.names) do
        left[name] = true
    end
    for _, one in ipairs(list) do
        local name, t, parameter = one[1], one[2], one[3]
        local kind = kind_of(layout, parameter, one[4], t)
        local wanted, plain = t:size(), name
        if kind == "part" then
            wanted = layout:get(parameter).shape
        elseif kind == "blocks" then
            local _, total, _, suffix = blocks_of(layout, layout:get(parameter))
            wanted, name = { total }, name .. suffix
        end
        local entry = set.entries[name]
        if not entry and is_absmax(one[4]) and blocks_elsewhere(set, plain) then
            err.raise("unsupported", "%s: the moments of 8 bits of %s are in blocks of parts of another size; go on "
                      .. "with the strategy and the number of ranks that it was saved with", set.where, parameter)
        elseif not entry then
            err.raise("format", "%s lacks %s; it belongs to another model or configuration", set.where, name)
        elseif not same(entry.shape, wanted) or entry.dtype ~= t:dtype() then
            err.raise("format", "%s: %s is %s [%s], but this run has %s [%s]; it belongs to another model "
                      .. "or configuration", set.where, name, entry.dtype, table.concat(entry.shape, ", "), t:dtype(),
                      table.concat(wanted, ", "))
        end
        scope.scope(read_part, set, name, t:detach(), layout, parameter, kind)
        left[name] = nil
    end
    set:close()
    local extra = next(left)
    if extra and not (opts and opts.some) then
        err.raise("format", "%s holds %s, which this run does not have; it belongs to another model or "
                  .. "configuration", set.where, extra)
    end
end

return M
