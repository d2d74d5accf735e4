-- A processor: an image processor and a tokenizer together. Plans images, renders conversations with their images
-- as ids, runs plans in the background and gathers what they made as arguments of a model's forward. Names and
-- results follow transformers; what families do differently is in their files. Batches of texts as transformers'
-- processors are called with: batch.lua.

local ffi = require("ffi")
local err = require("am.core.error")
local files = require("am.processors.files")
local image = require("am.core.image")
local sources = require("am.processors.sources")
local text = require("am.processors.text")

local M = {}

local MAX_TOKENS = 2 ^ 18 -- that an image stands for
local MAX_BYTES = 2 ^ 31 - 2 ^ 12 -- of an FFI array

---@class am.Processor
---@field class string transformers' name of the class
---@field tokenizer am.Tokenizer
---@field image_processor am.ImageProcessor
---@field image_token string the marker of an image in rendered text
---@field image_token_id integer the id that is repeated for an image's features
---@field special_ids table a set of the ids that no model should be taught to write: image tokens and what is
---   around them
---@field chat_template string|table|nil the processor's own, or several by name; the tokenizer's where it has none
---@field settings table keys of processor_config.json
local Processor = {}
Processor.__index = Processor
M.Processor = Processor

-- ---- tokens -------------------------------------------------------------------------------------

-- The id of a token that the tokenizer must know. Raises "format".
function Processor:token_id(token)
    return self.tokenizer.engine:id(token) or err.raise("format", "%s: %s needs the token \"%s\", and the tokenizer "
        .. "in %s does not have it", self.file, self.class, token, self.description.dir)
end

-- For families: the token that marks an image and is repeated for its features. `others`: tokens around images.
function Processor:use_image_token(token, others)
    self.image_token, self.image_token_id = token, self:token_id(token)
    self.special_ids[self.image_token_id] = true
    for _, other in ipairs(others or {}) do
        local id = self.tokenizer.engine:id(other)
        if id then
            self.special_ids[id] = true
        end
    end
end

-- For families: how many features an image has, of a plan without expansion.
function Processor.count(_, plan, n)
    if n < 1 or n > MAX_TOKENS then
        err.raise("data", "%s, which becomes %s, would stand for %d tokens, and an image has 1 to %d",
            plan.source.name, table.concat(plan.shape, " x "), n, MAX_TOKENS)
    end
    return n
end

-- 1 where an id is that of an image's features, else 0.
function Processor:marked(ids)
    local out = {}
    for i, id in ipairs(ids) do out[i] = id == self.image_token_id and 1 or 0 end
    return out
end

-- ---- images -------------------------------------------------------------------------------------

--- The plan of an image, from its header alone. `source`: a path, a URL, a data: URL, or a table with path or data
--- (a file's bytes), and name (for messages) and max_pixels where you like. A plan has
---   source, steps, n_floats, shape     what collect will make of it: n_floats numbers in this shape
---   expansion                          the text that stands for the image
---   num_tokens                         how many image_token_id are in it: the features of the image
--- and fields of its family (grid, rows, cols, crops). Raises "data", "io", "format" or "unsupported" naming the file.
function Processor:plan(source)
    local opened = sources.open(source, self.alpha)
    local info = image.header(opened)
    local plan = self.image_processor:layout(info.height, info.width, opened.name)
    plan.source = opened
    if self.family then
        plan.expansion, plan.num_tokens = self.family.expand(self, plan)
    end
    return plan
end

-- A C array of n numbers of a type, at least one.
local function array(ctype, n)
    local bytes = ffi.sizeof(ctype) * n
    if bytes > MAX_BYTES then
        err.raise("usage", "the images of one batch take %.1f GB, and can be 2.1 GB together: take fewer rows at once "
            .. "(local_batch_size), or have the processor make smaller images", bytes / 1e9)
    end
    return ffi.new(ctype .. "[?]", math.max(1, n))
end

-- Raise "usage" where `list` is no array of what a method takes; `is` says of one item whether it is.
local function need_list(list, is, method, what)
    local good = type(list) == "table" and not is(list)
    for i = 1, good and table.maxn(list) or 0 do good = good and is(list[i]) end
    if not good then
        err.raise("usage", "%s takes an array of %s", method, what)
    end
end

local function is_plan(value)
    return type(value) == "table" and value.steps ~= nil and value.source ~= nil
end

---@class am.processors.Pending
local Pending = {}
Pending.__index = Pending

--- Begin to decode and prepare the images of these plans, on background threads. Give what it returns to wait or
--- collect.
---@return am.processors.Pending
function Processor:submit(plans) -- luacheck: no self
    need_list(plans, is_plan, "submit", "plans")
    local jobs, total = {}, 0
    for i, plan in ipairs(plans) do
        jobs[i] = image.submit(plan.source, plan.steps, plan.n_floats)
        total = total + plan.n_floats
    end
    return setmetatable({ plans = plans, jobs = jobs, n_floats = total }, Pending)
end

--- Wait for images that were submitted; once is enough. An image that cannot be used raises an error whose message
--- begins with its name and whose field `image` is its number among the plans; the images behind it are let go.
function Processor:wait(pending) -- luacheck: no self
    if pending.failure then
        error(pending.failure, 0)
    elseif pending.buffer then
        return pending
    end
    local buffer, at = array("float", pending.n_floats), 0
    for i, plan in ipairs(pending.plans) do
        local ok, e = pcall(pending.jobs[i].wait, pending.jobs[i], buffer + at)
        if not ok then
            for _, job in ipairs(pending.jobs) do job:cancel() end
            if err.is(e) then e.image = i end
            pending.failure = e
            error(e, 0)
        end
        at = at + plan.n_floats
    end
    pending.buffer, pending.jobs = buffer, nil
    return pending
end

-- ---- gathering ----------------------------------------------------------------------------------

-- The outputs of all in one buffer; that of a single one is not copied.
local function joined(pendings)
    if #pendings == 1 then
        return pendings[1].buffer
    end
    local total, at = 0, 0
    for _, pending in ipairs(pendings) do total = total + pending.n_floats end
    local buffer = array("float", total)
    for _, pending in ipairs(pendings) do
        ffi.copy(buffer + at, pending.buffer, 4 * pending.n_floats)
        at = at + pending.n_floats
    end
    return buffer
end

-- All plans must have the shape of the first but for their count.
local function common_shape(plans)
    local first = plans[1].shape
    for _, plan in ipairs(plans) do
        for i = 2, #first do
            if plan.shape[i] ~= first[i] then
                err.raise("data", "%s becomes %s and %s %s: images of one batch must become equally large; set "
                    .. "do_resize and do_center_crop, or a size of height and width", plans[1].source.name,
                    table.concat(first, " x ", 2), plan.source.name, table.concat(plan.shape, " x ", 2))
            end
        end
    end
    return first
end

local join = {}

-- [images, 3, height, width]
function join.stack(pendings, plans)
    local first, n = common_shape(plans), 0
    for _, plan in ipairs(plans) do n = n + plan.shape[1] end
    return { pixel_values = { buffer = joined(pendings), shape = { n, first[2], first[3], first[4] } } }
end

-- [rows of all, columns], and a row of { 1, height, width } patches for each
function join.rows(pendings, plans)
    local n, grids = 0, {}
    for i, plan in ipairs(plans) do
        n, grids[i] = n + plan.shape[1], plan.grid
    end
    return { pixel_values = { buffer = joined(pendings), shape = { n, plans[1].shape[2] } }, image_grid_thw = grids }
end

-- [samples, most images, 3, height, width], a sample for each pending; missing images are 0 and masked out
function join.samples(pendings, plans, masked)
    local first, most, counts = common_shape(plans), 0, {}
    for i, pending in ipairs(pendings) do
        counts[i] = 0
        for _, plan in ipairs(pending.plans) do counts[i] = counts[i] + plan.shape[1] end
        most = math.max(most, counts[i])
    end
    local one, area = first[2] * first[3] * first[4], first[3] * first[4]
    local buffer = #pendings == 1 and pendings[1].buffer or array("float", #pendings * most * one)
    local mask = masked and array("int64_t", #pendings * most * area)
    for i, pending in ipairs(pendings) do
        if #pendings > 1 then
            ffi.copy(buffer + (i - 1) * most * one, pending.buffer, 4 * pending.n_floats)
        end
        local from = (i - 1) * most * area
        for k = from, masked and from + counts[i] * area - 1 or -1 do mask[k] = 1 end
    end
    return {
        pixel_values = { buffer = buffer, shape = { #pendings, most, first[2], first[3], first[4] } },
        pixel_attention_mask = masked and { buffer = mask, dtype = "int64",
                                            shape = { #pendings, most, first[3], first[4] } } or nil,
    }
end

--- What a model's forward takes for the images of these pendings (one, or an array with one for each sample), as
--- { buffer =, shape =, dtype = (nil: float32) } or nested arrays of whole numbers; nil without images. Waits for
--- them where that is not done.
function Processor:collect(pendings)
    if getmetatable(pendings) == Pending then
        pendings = { pendings }
    end
    need_list(pendings, function(value) return getmetatable(value) == Pending end, "collect", "what submit returned")
    local plans = {}
    for _, pending in ipairs(pendings) do
        self:wait(pending)
        for _, plan in ipairs(pending.plans) do plans[#plans + 1] = plan end
    end
    return plans[1] and join[self.image_processor.join](pendings, plans, self.image_processor.settings.do_pad)
        or nil
end

-- Raise "usage" where this is an image processor alone.
function Processor:need_text()
    if not self.family then
        err.raise("usage", "%s takes images only", self.class)
    end
end

-- ---- text ---------------------------------------------------------------------------------------

-- The source of the template to use: one given, one of several by name, the processor's, else nil for the tokenizer's.
local function template_of(self, wanted)
    local own = self.chat_template
    if type(own) == "table" then
        return wanted and (own[wanted] or wanted) or own.default or err.raise("usage",
            "this processor has several chat templates and no default; name one as chat_template")
    end
    return wanted or own
end

--- A conversation as text, its images as markers, and the spans that the assistant wrote where
--- opts.return_assistant_tokens_mask asks for them; opts as those of the tokenizer's apply_chat_template.
function Processor:chat_text(messages, opts)
    self:need_text()
    local own = {}
    for name, value in pairs(opts or {}) do own[name] = value end
    own.chat_template, own.return_dict = template_of(self, own.chat_template), true
    return self.tokenizer:chat_text(messages, own)
end

-- Special tokens go around a text that does not begin with the first of them itself, as in transformers.
local function add_special_tokens(self, rendered)
    local bos = self.tokenizer.bos_token
    return not (bos and rendered:sub(1, #bos) == bos)
end

local function check_count(self, ids, plans)
    local n, wanted = 0, 0
    for _, id in ipairs(ids) do n = n + (id == self.image_token_id and 1 or 0) end
    for _, plan in ipairs(plans) do wanted = wanted + plan.num_tokens end
    if n ~= wanted then
        err.raise("data", "the text has %d image tokens, and its %d image%s would make %d: a message must not hold "
            .. "\"%s\" itself", n, #plans, #plans == 1 and "" or "s", wanted,
            self.tokenizer:convert_ids_to_tokens(self.image_token_id))
    end
end

--- Ids of a text with markers, as render gives them. `spans`: what the assistant wrote, or nil. opts:
--- add_special_tokens (default true), suffix (PaliGemma's).
function Processor:encode(rendered, plans, spans, opts)
    self:need_text()
    opts, plans = opts or {}, plans or {}
    need_list(plans, is_plan, "encode", "plans behind the text")
    local video = self.family.refused and self.family.refused(self)
    if video and rendered:find(video, 1, true) then
        err.raise("unsupported", "the text has \"%s\", the marker of a video, and videos are not supported", video)
    end
    local arrange = self.family.arrange
    if arrange then
        rendered, spans = arrange(self, rendered, #plans, spans)
    end
    local whole, moved = text.expand(rendered, self.image_token, plans, spans)
    local ids, ranges = self.tokenizer:encode(whole, {
        return_offsets = moved ~= nil, add_special_tokens = opts.add_special_tokens ~= false and not arrange })
    local out = { input_ids = ids, attention_mask = {} }
    if moved then
        out.assistant_masks = text.mask(ranges, moved)
    end
    if self.family.finish then
        self.family.finish(self, out, opts, plans)
    end
    check_count(self, out.input_ids, plans)
    for i = 1, #out.input_ids do out.attention_mask[i] = 1 end
    return out
end

--- A conversation as ids: { input_ids, attention_mask, assistant_masks (where asked for), token_type_ids or
--- mm_token_type_ids (of families that have them) }. `plans`: those of its images, in order. opts: those of the
--- tokenizer's apply_chat_template. Raises "data" where images and markers do not match.
function Processor:render(messages, plans, opts)
    self:need_text()
    need_list(plans or {}, is_plan, "render", "plans behind the messages")
    if self.family.render then
        local out = self.family.render(self, messages, plans or {}, opts or {})
        if out then
            return out
        end
    end
    local rendered, spans = self:chat_text(messages, opts)
    return self:encode(rendered, plans, spans, { add_special_tokens = add_special_tokens(self, rendered) })
end

-- ---- fitting a model ----------------------------------------------------------------------------

--- Raise "data" where a model of this config.json (an object) cannot take what the processor makes: it is of another
--- family, or has other image tokens, patches or sizes. An image processor alone fits any.
function Processor:check(config)
    if type(config) ~= "table" then
        err.raise("usage", "check takes the object of a config.json, not a %s", type(config))
    end
    local must = {}
    function must.fail(fmt, ...)
        err.raise("data", "%s does not fit the model: %s", self.file, fmt:format(...))
    end
    function must.same(name, ours, models)
        if ours ~= nil and (type(models) == "number" or type(models) == "string") and ours ~= models then
            must.fail("%s is %s here and %s in the model", name, tostring(ours), tostring(models))
        end
    end
    if self.family then
        local theirs, vision = files.class_of(config.model_type), config.vision_config
        if theirs and not self.alike[theirs] then
            must.fail("a %s goes with other models; a %s takes a %s", self.class, config.model_type, theirs)
        end
        self.family.check(self, config, type(vision) == "table" and vision or {}, must)
    end
end

return M
