-- Token rows with pictures as a batch. Holds no labels and no template, and knows no device.
--
-- A batch is that of ../collate.lua, with names (of its rows), and
--   token_type_ids, mm_token_type_ids   int32_t[B * T], where the processor has them; 0 in padding
--   plans            those of its pictures, sample by sample in order
--   bytes            that these will take
--   start()          begin to prepare the pictures on the processor's threads
--   finish()         wait for them -> a batch with `fields`: what processor:collect gives (pixel_values, …; empty
--                    without pictures). It is another batch where a picture proved broken and its row was left out
--
-- A batch that has lost all of its rows is one token of padding, from which nothing is learnt, so that a run has as
-- many batches as it was planned with.

local ffi = require("ffi")
local err = require("am.core.error")
local collate = require("am.datasets.collate")
local utils = require("am.datasets.utils")
local broken = require("am.datasets.vlm.broken")
local samples = require("am.datasets.vlm.samples")

local M = {}

local Batch = {}
Batch.__index = Batch

-- What of a row is left when one of its samples goes: nothing, unless it is a pack (packed.lua).
local function samples_of(row)
    return row.samples or { row }
end

-- The numbers that rows have under a key, as the batch holds them; nil where none has any.
local function types_of(batch, rows, key)
    local out
    for b, row in ipairs(rows) do
        if row[key] then
            out = out or ffi.new("int32_t[?]", batch.B * batch.T)
            for t, x in ipairs(row[key]) do
                out[(b - 1) * batch.T + t - 1] = x
            end
        end
    end
    return out
end

--- A batch of token rows (see samples.row, packed.lua). opts: those of ../collate.lua's default_collater.
function M.new(rows, processor, opts)
    local padding = { input_ids = { opts.pad_token_id or 0 }, labels = { utils.IGNORE } }
    local self = setmetatable(collate.default_collater(#rows > 0 and rows or { padding }, opts), Batch)
    self.rows, self.processor, self.opts, self.names, self.plans, self.bytes = rows, processor, opts, {}, {}, 0
    for b, row in ipairs(rows) do
        self.names[b] = row.name
        for _, sample in ipairs(samples_of(row)) do
            for _, plan in ipairs(sample.plans) do
                self.plans[#self.plans + 1] = plan
                self.bytes = self.bytes + 4 * plan.n_floats
            end
        end
    end
    for _, key in ipairs(samples.TYPES) do
        self[key] = types_of(self, rows, key)
    end
    return self
end

function Batch:start()
    if self.pending or #self.plans == 0 then
        return
    end
    self.pending = {} -- one for each sample
    for _, row in ipairs(self.rows) do
        for _, sample in ipairs(samples_of(row)) do
            self.pending[#self.pending + 1] = self.processor:submit(sample.plans)
        end
    end
end

-- The rows without the samples whose pictures are broken; each of these is looked at alone.
local function without_broken(self, reason)
    local kept, found = {}, false
    for _, row in ipairs(self.rows) do
        local good, all = {}, samples_of(row)
        for _, sample in ipairs(all) do
            local ok, e = true, nil
            if #sample.plans > 0 then
                ok, e = pcall(function() return self.processor:collect { self.processor:submit(sample.plans) } end)
            end
            if ok then
                good[#good + 1] = sample
            elseif broken.is(e) then
                found = true
                sample.broken:found(sample.name, broken.reason(e))
            else
                error(e, 0)
            end
        end
        if #good == #all then
            kept[#kept + 1] = row
        elseif #good > 0 then
            kept[#kept + 1] = row.join(good)
        end
    end
    return found and kept or error(reason, 0)
end

function Batch:finish()
    if #self.plans == 0 then
        self.fields = {}
        return self
    end
    self:start()
    local ok, fields = pcall(self.processor.collect, self.processor, self.pending)
    self.pending = nil
    if ok then
        self.fields = fields
        return self
    elseif not err.is(fields) or not broken.is(fields) then
        error(fields, 0)
    end
    local rest = M.new(without_broken(self, fields), self.processor, self.opts)
    return (self.is_idle and utils.make_idle(rest) or rest):finish()
end

return M
