-- A dataset of conversations with the processor that reads them: token rows whose number, lengths and labels are
-- known before the first step, as those of text are. For that each row is made once, from text and the headers of
-- its pictures, by a process for each thread; its tokens stay in a file (../token_rows.lua) for packing, and the
-- row is made anew when it is asked for. Pixels are not touched.
--
-- Rows whose pictures have no readable header are left out here (or end the run), those that prove broken when they
-- are decoded in their batch (batches.lua).

local log = require("am.utils.log").get("am.datasets")
local formatting = require("am.datasets.formatting")
local token_rows = require("am.datasets.token_rows")
local utils = require("am.datasets.utils")
local broken = require("am.datasets.vlm.broken")
local samples = require("am.datasets.vlm.samples")

local M = {}

local SAID, ENOUGH = 1000, 128 -- rows that are announced; rows for which a process is worth its start

local Prepared = {}
Prepared.__index = Prepared

--- Rows have pictures, so a loader prepares batches ahead.
Prepared.has_pictures = true

local function example_of(self, i)
    return samples.example(self.dataset:get(i), utils.row_name(self.dataset, i))
end

-- The row of example i, or nil and why it is left out; nil, the reason and what is to be done about it for a broken
-- picture.
local function row_of(self, i)
    local example = example_of(self, i)
    local row, e = samples.row(example, self.processor, self.template)
    if not row then
        return nil, broken.reason(e), example.broken
    end
    return samples.cut(row, self.opts, self.processor)
end

-- The source that token_rows.lua makes a file of, perhaps in copies of this process.
local function source_of(self)
    local rows, dataset = { enough = ENOUGH }, self.dataset
    function rows.len() return dataset:len() end
    function rows.place(_, i)
        if dataset.place then
            return dataset:place(i)
        end
        return 1, i
    end
    function rows.row(_, i)
        local row, why, rule = row_of(self, i)
        if rule and not rule.skips then
            rule:found(utils.row_name(dataset, i), why) -- raises
        end
        return row, why
    end
    return rows
end

-- The number that each kept row has in the dataset; nil where none was left out.
local function numbers_of(self)
    local dataset = self.dataset
    if #self.left_out == 0 then
        return nil
    end
    local out, left, at = {}, {}, 0
    for _, i in ipairs(self.left_out) do
        left[i] = true
    end
    for i = 1, dataset:len() do
        if not left[i] then
            at = at + 1
            out[at] = i
        end
    end
    return out
end

-- The source of the chat template that rows are rendered by, nil where there is none of that kind.
local function template_of(processor)
    local template = processor.chat_template or processor.tokenizer.chat_template
    return type(template) == "table" and template.default or type(template) == "string" and template or nil
end

--- Token rows of a dataset of conversations. opts: max_length, drop_overlong (see samples.cut); what the dataset's
--- own section says about them counts where they are absent.
--- Raises "data" naming the row for the first that cannot be used, and for a picture where the dataset says stop.
function M.prepare(dataset, processor, opts)
    opts = opts or {}
    local own = dataset.opts or {}
    if own.chat_template then
        formatting.set_chat_template(processor, own.chat_template)
        processor.tokenizer.chat_template = processor.chat_template
    end
    local self = setmetatable({ dataset = dataset, processor = processor, left_out = {}, opts = {
        max_length = opts.max_length or own.max_length,
        drop_overlong = opts.drop_overlong,
    } }, Prepared)
    self.template = template_of(processor) -- also when another dataset gives the processor its own
    if not opts.max_length and own.max_length then
        self.opts.drop_overlong = not own.truncate
    end
    if dataset:len() >= SAID then
        log:info("reading the text of %d rows and the headers of their pictures", dataset:len())
    end
    self.rows = token_rows.open {
        files = dataset.source and dataset.source.files or { "dataset" },
        open = function() return source_of(self) end,
        on_skip = function(i, reason)
            self.left_out[#self.left_out + 1] = i
            if broken.is_reason(reason) then
                dataset.broken:found(dataset:name(i), reason)
            end
        end,
    }
    self.numbers = numbers_of(self)
    return self
end

function Prepared:len() return self.rows:len() end
function Prepared:length(i) return self.rows:length(i) end
function Prepared:sample(i) return self.rows:sample(i) end
function Prepared:stats() return self.rows:stats() end

local function number(self, i)
    return self.numbers and self.numbers[i] or i
end

function Prepared:name(i) return utils.row_name(self.dataset, number(self, i)) end

--- Row i: { input_ids, labels, token_type_ids, plans, name, broken }. Where a picture cannot be read any more it is
--- { left_out = why, name }.
function Prepared:get(i)
    local row, why, rule = row_of(self, number(self, i))
    if rule then
        rule:found(self:name(i), why)
    end
    return row or { left_out = why, name = self:name(i) }
end

--- The example that row i is made of: { conversation, images, name, broken }.
function Prepared:example(i)
    return example_of(self, number(self, i))
end

return M
