-- StatefulDataLoader: rows of a dataset as batches, in an order that depends on seed and epoch
-- alone, with a position inside the epoch that can be saved and restored.
-- Holds no data.
--
--   local loader = dataloader.StatefulDataLoader{ dataset = ds, batch_size = 4, shuffle = true, seed = 42 }
--   training:    loader:set_epoch(e)   loader:next() -> batch | nil   loader:remaining()
--   validation:  for batch in loader:batches() do … end      every row once, from the first
--
-- A batch is what collate_fn returns, with `names`, an array of what messages call its rows. Batches with pictures
-- (those of vlm/batches.lua) are begun ahead of the one that is handed out: see ahead.lua. A dataset that
-- is only read in order (is_iterable, see utils.lua) gets a loader of stream_loader.lua instead, which has
-- the same functions and whose len() is nil.

local ffi = require("ffi")
local edge = require("am.core.ffi")
local err = require("am.core.error")
local ahead = require("am.datasets.ahead")
local default_collater = require("am.datasets.collate").default_collater
local grouped = require("am.datasets.grouped")
local philox = require("am.datasets.philox")
local stream_loader = require("am.datasets.stream_loader")
local utils = require("am.datasets.utils")

local M = {}

--- What a `dataloader` section may hold.
M.fields = {
    batch_size = { type = "integer", min = 1,
                   doc = "rows in a batch; step_scheduler.local_batch_size is newer (also what null stands for)" },
    shuffle = { type = "boolean", doc = "a new order every epoch: true for training data with a length, false "
                .. "for streams and where the dataset has an order of its own (validation: false)" },
    shuffle_buffer_size = { type = "integer", min = 1, max = 2 ^ 24, default = 10000,
                            doc = "rows of a stream that are shuffled at a time" },
    drop_last = { type = "boolean", default = false, doc = "leave out a last batch that is not full" },
    group_by_length = { type = "boolean", default = false, doc = "shuffle, but keep rows of like length together" },
    dataloader_type = { type = "string", enum = { "single", "cyclic" },
                        doc = "for Megatron data: in its own order, or shuffled" },
    collate_fn = { type = "function", of = "_collater$", doc = "rows to a batch (am.datasets.default_collater)" },
    dataset = { type = "any", doc = "given by the recipe" },
    seed = { type = "integer", min = 0, doc = "of the order (the top-level seed)" },
    step_rows = { type = "integer", min = 1, doc = "given by the recipe: rows in an optimizer step" },
    rank = { type = "integer", min = 0, doc = "given by the recipe: which of those that share the rows this is" },
    ranks = { type = "integer", min = 1, doc = "given by the recipe: how many share the rows" },
    num_workers = { type = "integer", min = 0, no_effect = "rows are made before the first step" },
    pin_memory = { type = "boolean", default = false, no_effect = "without effect on a CPU" },
    persistent_workers = { type = "boolean", default = false, no_effect = "there are no workers to keep" },
    prefetch_factor = { type = "integer", min = 1, no_effect = "there are no workers that could read ahead" },
    processor = { type = "any", doc = "given by the recipe, for datasets with pictures" },
    timeout = { type = "number", min = 0, no_effect = "there are no workers to wait for" },
}

--- What these keys mean instead where rows have pictures: for the recipes that train on such.
M.picture_fields = {
    num_workers = { type = "integer", min = 0, max = 256,
                    doc = "threads that prepare pictures (the engine's choice); 0: prepared when they are needed" },
    prefetch_factor = { type = "integer", min = 1, max = 1024, doc = "batches whose pictures are prepared ahead (2)" },
}

local Loader = {}
Loader.__index = Loader

local epoch_order -- of rows, below

-- What dataloader_type says about `shuffle`, which stays what it is without one.
local function order_of(opts)
    if not opts.dataloader_type then
        return opts.shuffle
    elseif not opts.dataset.has_order then
        err.raise("usage", "dataloader.dataloader_type is for Megatron datasets; shuffle says the same for others")
    end
    return opts.dataloader_type == "cyclic"
end

--- opts: dataset (len, get), collate_fn (array of rows -> batch; default_collater), batch_size (1),
--- shuffle (false), seed (0), drop_last (false), group_by_length (false; with step_rows, batch_size by
--- default: see grouped.lua. Reads the length of every row), shuffle_buffer_size (for streams). Where the dataset
--- has_pictures also processor, which collate_fn gets as its second argument, num_workers (the engine's choice) and
--- prefetch_factor (2).
--- With ranks (1), so many processes share the rows: each batch_size * ranks rows of the order in turn are a batch for
--- each, of which this is number `rank` (0). All have equally many batches; where rows run out, one from which nothing
--- is learnt. Positions are those of all, so that a run can go on with another number of ranks.
function M.StatefulDataLoader(opts)
    local size = opts.batch_size or 1
    if type(size) ~= "number" or size % 1 ~= 0 or size < 1 then
        err.raise("usage", "dataloader.batch_size must be a whole number of at least 1, not %s", tostring(size))
    elseif opts.dataset.is_iterable then
        if opts.group_by_length or opts.dataloader_type then
            err.raise("usage", "dataloader.%s needs a dataset that knows its length, and this one is a stream",
                opts.group_by_length and "group_by_length" or "dataloader_type")
        end
        return stream_loader.new {
            dataset = opts.dataset, collate_fn = opts.collate_fn or default_collater, batch_size = size,
            shuffle = opts.shuffle, shuffle_buffer_size = opts.shuffle_buffer_size, seed = opts.seed,
            drop_last = opts.drop_last, rank = opts.rank, ranks = opts.ranks,
        }
    end
    local self = setmetatable({
        dataset = opts.dataset, collate_fn = opts.collate_fn or default_collater, batch_size = size,
        shuffle = order_of(opts) or false, seed = opts.seed or 0, epoch = 0, position = 0,
        num_rows = opts.dataset:len(), group_rows = opts.group_by_length and (opts.step_rows or size) or nil,
        processor = opts.processor, depth = ahead.depth(opts), rank = opts.rank or 0, stride = size * (opts.ranks or 1),
    }, Loader)
    self.queue = self:new_queue(function() return epoch_order(self) end)
    if opts.group_by_length and not self.shuffle then
        err.raise("usage", "dataloader.group_by_length needs shuffle: true; without it rows keep their order")
    end
    self.end_row = opts.drop_last and self.num_rows - self.num_rows % self.stride or self.num_rows
    if self.end_row == 0 then
        err.raise("data", self.num_rows == 0 and "the dataset is empty"
            or "drop_last leaves nothing: %d rows are less than a batch of %d", self.num_rows, self.stride)
    end
    return self
end

--- Batches in an epoch.
function Loader:len()
    return math.ceil(self.end_row / self.stride)
end

--- Batches left in this epoch.
function Loader:remaining()
    return math.ceil(math.max(0, self.end_row - self.position) / self.stride)
end

--- Go to the start of epoch `epoch`, unless that is the one being read.
function Loader:set_epoch(epoch)
    if epoch ~= self.epoch then
        self.epoch, self.position = epoch, 0
    end
end

-- This rank's part of the rows behind `position` of an order (nil: as they come) as a batch. Raises
-- "interrupted" on Ctrl-C at the prompt.
local function collate_at(self, position, order)
    edge.check(edge.C.am_signals_check())
    local dataset, rows, names = self.dataset, {}, {}
    local first = position + self.rank * self.batch_size
    local is_idle = first >= self.end_row
    local last = is_idle and position or math.min(first + self.batch_size, self.end_row) - 1
    for k = is_idle and position or first, last do
        local i = order and order[k] or k + 1
        rows[#rows + 1] = dataset:get(i)
        names[#rows] = utils.row_name(dataset, i)
    end
    local batch
    if self.processor then
        batch = self.collate_fn(rows, self.processor)
    else
        batch = self.collate_fn(rows)
    end
    batch.names = batch.names or names
    return is_idle and utils.make_idle(batch) or batch
end

local function row_lengths(self)
    if not self.lengths then
        local dataset = self.dataset
        self.lengths = ffi.new("int32_t[?]", self.num_rows)
        for i = 1, self.num_rows do
            self.lengths[i - 1] = utils.row_length(dataset, i)
        end
    end
    return self.lengths
end

function epoch_order(self)
    if self.shuffle and self.order_epoch ~= self.epoch then
        self.order = nil -- never two at once
        self.order = philox.permutation(self.num_rows, self.seed, self.epoch)
        if self.group_rows then
            grouped.arrange(self.order, self.num_rows, row_lengths(self), self.group_rows)
        end
        self.order_epoch = self.epoch
    end
    return self.order
end

-- Batches from where they are asked for on; order() says in which order rows come.
function Loader:new_queue(order)
    return ahead.new(self.depth, function(position)
        if position < self.end_row then
            return collate_at(self, position, order()), position + self.stride
        end
    end)
end

--- The next batch of this epoch, or nil at its end.
function Loader:next()
    if self.position >= self.end_row then
        return nil
    end
    local batch = self.queue:take(self.position)
    self.position = math.min(self.position + self.stride, self.end_row)
    return batch
end

local function nothing() end

--- Iterator over one pass from the first row in the dataset's order, whatever shuffle and position
--- say; it leaves them as they are.
function Loader:batches()
    local position, queue = 0, self:new_queue(nothing)
    return function()
        if position < self.end_row then
            local batch = queue:take(position)
            position = position + self.stride
            return batch
        end
    end
end

--- The first row, for a look at it.
function Loader:sample_row()
    return self.dataset:get(1)
end

--- { epoch, position (rows read of it), done (it is read to its end), num_rows, seed, shuffle, group_rows }.
function Loader:state_dict()
    return {
        epoch = self.epoch, position = self.position, done = self.position >= self.end_row,
        num_rows = self.num_rows, seed = self.seed, shuffle = self.shuffle, group_rows = self.group_rows,
    }
end

local function is_count(x)
    return type(x) == "number" and x % 1 == 0 and x >= 0
end

--- Go on from a saved state with the saved order, also with another batch_size. In the middle of an
--- epoch the dataset must have as many rows as then; at its end it may have grown or shrunk. Returns notes: what
--- the saved order says that this loader was made with otherwise.
function Loader:load_state_dict(state)
    if state.stream then
        err.raise("state", "the checkpoint's data was a stream, and this dataset is read by row numbers: restore the "
            .. "data, or start in another checkpoint_dir")
    elseif not (is_count(state.epoch) and is_count(state.position) and is_count(state.num_rows) and is_count(state.seed)
        and type(state.shuffle) == "boolean" and is_count(state.group_rows or 1) and state.group_rows ~= 0) then
        err.raise("format", "dataloader state: epoch, position, num_rows, seed and group_rows must be whole "
            .. "numbers, shuffle a boolean")
    end
    if state.num_rows ~= self.num_rows and state.position > 0 and not state.done then
        err.raise("state", "the checkpoint was made in the middle of an epoch of %d rows, but the dataset has %d: "
            .. "restore the data, or start in another checkpoint_dir", state.num_rows, self.num_rows)
    end
    local notes = {}
    if state.shuffle ~= self.shuffle then
        notes[1] = string.format("dataloader.shuffle %s, not %s", state.shuffle, self.shuffle)
    end
    self.epoch, self.seed, self.shuffle, self.group_rows = state.epoch, state.seed, state.shuffle, state.group_rows
    self.position = state.done and self.end_row or state.position
    self.order, self.order_epoch = nil, nil
    self.queue:clear()
    return notes
end

-- From a configuration: shuffled unless it says otherwise, or the dataset is a stream or has an order of
-- its own.
local function build(opts)
    if opts.shuffle == nil then
        opts.shuffle = not (opts.dataset.is_iterable or opts.dataset.has_order)
    end
    return M.StatefulDataLoader(opts)
end

--- What a configuration may name with `_target_`.
M.targets = { {
    name = "am.datasets.StatefulDataLoader",
    aliases = {
        "torchdata.stateful_dataloader.StatefulDataLoader", "torch.utils.data.DataLoader",
        "nemo_automodel.components.datasets.loader.ParallelAwareDataloader",
    },
    doc = "batches in a shuffled order that can be resumed",
    fields = M.fields,
    build = build,
} }

return M
