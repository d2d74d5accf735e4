-- StreamLoader: batches of a dataset that is only read in order and does not know its length (utils.lua
-- says what such a dataset has). dataloader.lua makes one when it is given such a dataset; what it does for
-- others, this does here: next, set_epoch, remaining, batches, state_dict, load_state_dict.
--
-- With shuffle, shuffle_buffer_size rows at a time are read and taken in random order, which depends on
-- seed, epoch and the number of the block. A state says where its block begins and how many rows of it are
-- taken: going on reads that block again, and gives the same rows in the same order.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local philox = require("am.datasets.philox")
local utils = require("am.datasets.utils")

local M = {}

local StreamLoader = {}
StreamLoader.__index = StreamLoader

local BLOCKS = 1048576 -- of an epoch, each with an order of its own

--- opts: dataset, collate_fn, batch_size, shuffle, shuffle_buffer_size, seed, drop_last, rank, ranks. Every rank reads
--- all rows, and keeps its own.
function M.new(opts)
    return setmetatable({
        dataset = opts.dataset, collate_fn = opts.collate_fn, batch_size = opts.batch_size,
        shuffle = opts.shuffle or false, buffer_size = opts.shuffle_buffer_size or 10000, seed = opts.seed or 0,
        drop_last = opts.drop_last or false, epoch = 0, rank = opts.rank or 0, ranks = opts.ranks or 1,
    }, StreamLoader)
end

-- ---------------------------------------------------------------- rows that wait in the buffer

-- A row with its arrays of numbers as C arrays, an eighth of their size.
local function compact(row)
    local out = { lengths = {} }
    for key, value in pairs(row) do
        if type(value) == "table" and type(value[1]) == "number" then
            out[key], out.lengths[key] = ffi.new("int32_t[?]", #value, value), #value
        else
            out[key] = value
        end
    end
    return out
end

local function expand(packed)
    local row = {}
    for key, value in pairs(packed) do
        local n = packed.lengths[key]
        if n then
            row[key] = {}
            for k = 1, n do
                row[key][k] = value[k - 1]
            end
        elseif key ~= "lengths" then
            row[key] = value
        end
    end
    return row
end

-- ---------------------------------------------------------------- reading

-- Read the next block of rows and choose their order. `block_state` is where it begins.
local function fill_buffer(self)
    self.block_state = self.iterator:state_dict()
    local rows = {}
    while #rows < self.buffer_size do
        local row = self.iterator:next()
        if not row then
            break
        end
        rows[#rows + 1] = compact(row)
        edge.check(edge.C.am_signals_check())
    end
    self.rows, self.taken = rows, 0
    self.order = philox.permutation(#rows, self.seed, self.epoch * BLOCKS + self.block % BLOCKS)
    self.block = self.block + 1
end

local function next_row(self)
    if not self.shuffle then
        return self.iterator:next()
    elseif self.taken == #self.rows then
        fill_buffer(self)
        if #self.rows == 0 then
            return nil
        end
    end
    local i = self.order[self.taken]
    self.taken = self.taken + 1
    local row = expand(self.rows[i])
    self.rows[i] = false -- it is not needed again
    return row
end

-- Where next_row goes on from.
local function place(self)
    if self.shuffle and self.taken < #self.rows then
        return { block = self.block - 1, taken = self.taken, iterator = self.block_state }
    end
    return { block = self.block, taken = 0, iterator = self.iterator:state_dict() }
end

-- Read a row ahead, so that an end is known with the batch before it.
local function look_ahead(self)
    self.place = place(self)
    self.ahead = next_row(self)
    self.ended = self.ahead == nil
end

local function begin(self)
    self.iterator = self.dataset:iter()
    self.rows, self.taken, self.block, self.count = {}, 0, 0, 0
end

local function start(self)
    if not self.iterator then
        begin(self)
        look_ahead(self)
        if self.ended then
            err.raise("data", "the dataset has no row")
        end
    end
end

-- Of batch_size rows for each rank, each from take(), this rank's as a batch, and how many were read; nil where there
-- is none. A rank that has none gets the first of all, idle.
local function collate(self, take, count)
    edge.check(edge.C.am_signals_check())
    local rows, names, read, first_row = {}, {}, 0, nil
    local from, most = self.rank * self.batch_size, self.ranks * self.batch_size
    while read < most do
        local row = take()
        if not row then
            break
        end
        read, first_row = read + 1, first_row or row
        if read > from and #rows < self.batch_size then
            rows[#rows + 1] = row
            names[#rows] = type(row.name) == "string" and row.name or string.format("row %d", count + read)
        end
    end
    if read == 0 or (self.drop_last and read < most) then
        return nil
    end
    local is_idle = #rows == 0
    local batch = self.collate_fn(is_idle and { first_row } or rows)
    batch.names = names
    return is_idle and utils.make_idle(batch) or batch, read
end

--- The next batch of this epoch, or nil at its end.
function StreamLoader:next()
    start(self)
    local batch, n = collate(self, function()
        local row = self.ahead
        if row then
            self.ahead = nil
            look_ahead(self)
        end
        return row
    end, self.count)
    self.count = self.count + (n or 0)
    return batch
end

--- How many batches are left in the epoch: 0, or nil for nobody knows.
function StreamLoader:remaining()
    return self.ended and 0 or nil
end

--- nil: nobody knows how many batches an epoch has.
function StreamLoader.len()
    return nil
end

--- Go to the start of epoch `epoch`, unless that is the one being read.
function StreamLoader:set_epoch(epoch)
    if epoch ~= self.epoch then
        self.epoch, self.iterator, self.ended = epoch, nil, false
    end
end

--- Iterator over one pass in order, whatever the position is; it leaves it as it is.
function StreamLoader:batches()
    local iterator, count = self.dataset:iter { once = true }, 0
    local whole = setmetatable({ drop_last = false }, { __index = self })
    return function()
        local batch, n = collate(whole, function() return iterator:next() end, count)
        count = count + (n or 0)
        return batch
    end
end

--- The first row, for a look at it.
function StreamLoader:sample_row()
    return self.dataset:iter({ once = true }):next()
        or err.raise("data", "the dataset has no row")
end

-- ---------------------------------------------------------------- state

--- { stream = true, epoch, count (rows read of it), seed, shuffle, buffer_size, block, taken, iterator (the
--- dataset's own state), done (the epoch is read to its end) }.
function StreamLoader:state_dict()
    start(self)
    return {
        stream = true, epoch = self.epoch, count = self.count, seed = self.seed, shuffle = self.shuffle,
        buffer_size = self.buffer_size, block = self.place.block, taken = self.place.taken,
        iterator = self.place.iterator, done = self.ended,
    }
end

local function is_count(x)
    return type(x) == "number" and x % 1 == 0 and x >= 0 and x < 2 ^ 53
end

local function check(state)
    if state.stream ~= true then
        err.raise("state", "the checkpoint's data was read by row numbers, and this dataset is a stream: restore the "
            .. "data, or start in another checkpoint_dir")
    end
    for _, key in ipairs { "epoch", "count", "seed", "buffer_size", "block", "taken" } do
        if not is_count(state[key]) then
            err.raise("format", "dataloader state: %s must be a whole number", key)
        end
    end
    if type(state.shuffle) ~= "boolean" or type(state.iterator) ~= "table" or type(state.done) ~= "boolean"
        or state.buffer_size == 0 or state.taken > state.buffer_size then
        err.raise("format", "dataloader state: shuffle and done must be booleans, iterator a table, taken at most "
            .. "buffer_size")
    end
end

--- Go on from a saved state with the saved order, also with another batch_size.
function StreamLoader:load_state_dict(state)
    check(state)
    self.epoch, self.seed, self.shuffle, self.buffer_size = state.epoch, state.seed, state.shuffle, state.buffer_size
    begin(self)
    self.count, self.block = state.count, state.block
    self.iterator:load_state_dict(state.iterator)
    if self.shuffle and state.taken > 0 then
        fill_buffer(self)
        if #self.rows < state.taken then
            err.raise("state", "the dataset has fewer rows than when the checkpoint was made: restore the data, or "
                .. "start in another checkpoint_dir")
        end
        for k = 0, state.taken - 1 do
            self.rows[self.order[k]] = false
        end
        self.taken = state.taken
    end
    look_ahead(self)
    if self.ended ~= state.done then
        err.raise("state", "the dataset does not end where it did when the checkpoint was made: restore the data, or "
            .. "start in another checkpoint_dir")
    end
end

return M
