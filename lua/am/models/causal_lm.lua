-- What every causal language model shares: inputs as transformers takes them, the loss, generation's
-- entry, saving. decoder.lua makes the modules of an architecture's description; this file drives them.
--
-- A model that is no such description is a module (nn/module.lua) that `new(config)` makes, with
--   config          what it was given; recipes read hidden_size, num_hidden_layers, num_attention_heads and vocab_size
--   model           the body, a child, with
--       embed_tokens    an Embedding, a child
--       forward(input_ids [B, T], position_ids [B or 1, T], ctx {bounds, cache, longest, inputs = what the model's
--                       forward was given}) -> states [B, T, C], and of
--                       a model with experts a list of their routers' logits. What may be seen goes to attention
--                       as ctx {bounds, cache, layer = number from 1} (nn/attention.lua)
--       release()       if it holds tensors that are no parameters
--   lm_head         a Linear, a child
-- and, where they differ: names {body, embeddings, head}, what files call these three; tied {name = the name whose
-- tensor it is}; unused, Lua patterns of tensors in files to pass over; logit_scale; logit_softcap.
-- Parameters are called in files as in the model. The body's activation_checkpointing is set from outside; one that
-- ignores it keeps all activations.

local ffi = require("ffi")
local core_args = require("am.core.args")
local err = require("am.core.error")
local ops = require("am.core.ops")
local tensor = require("am.core.tensor")
local moe = require("am.nn.moe")

local M = {}

-- ---- inputs ---------------------------------------------------------------------------------

-- Rows of whole numbers, all of one length.
local function check_rows(rows, what)
    for i, row in ipairs(core_args.dense(what, rows)) do
        if type(row) ~= "table" then
            err.raise("argument", "%s: row %d is a %s, not a table of whole numbers", what, i, type(row))
        end
        for k, id in ipairs(core_args.dense(what, row)) do
            if type(id) ~= "boolean" and type(id) ~= "table" then -- a table is one dim too many
                core_args.int(what, ("number %d of row %d"):format(k, i), id)
            end
        end
        if #row ~= #rows[1] then
            err.raise("shape", "%s: row %d has %d numbers, the first has %d; pad them and give attention_mask",
                      what, i, #row, #rows[1])
        end
    end
end

-- An int32 tensor [B, T] from a tensor or nested tables.
local function ids_tensor(value, device, what)
    if value == nil then
        return nil
    end
    local t = value
    if type(t) == "table" then
        if type(t[1]) ~= "table" then
            t = { t }
        end
        check_rows(t, what)
        t = tensor.tensor(t, { dtype = "int32", device = device })
    elseif not tensor.is(t) then
        err.raise("argument", "%s must be a tensor or a table of rows of whole numbers, not a %s", what, type(t))
    end
    if t:dim() ~= 2 then
        err.raise("shape", "%s must be [batch, time], not [%s]", what, table.concat(t:size(), ", "))
    end
    if t:dtype():find("float") then
        err.raise("argument", "%s must be whole numbers, not %s", what, t:dtype())
    end
    if t:dtype() ~= "int32" then
        t = t:to("int32")
    end
    return t:to { device = device }
end

local function int_array(t)
    local array, n = t:to_buffer()
    return array, n
end

-- Key ranges [B, T, 2] from an attention mask: each row's ones must be one run. Padding sees nothing. And how many
-- samples there are.
local function bounds_from_mask(mask, b, t, past)
    local m, n = int_array(mask)
    local width = mask:size(1)
    if n ~= b * width or width ~= t + past then
        err.raise("shape", "attention_mask must be [%d, %d], not [%s]", b, t + past,
                  table.concat(mask:size(), ", "))
    end
    local out, all = ffi.new("int32_t[?]", b * t * 2), true
    for i = 0, b - 1 do
        local first, last = nil, -1
        for s = 0, width - 1 do
            if m[i * width + s] ~= 0 then
                if first and last ~= s - 1 then
                    err.raise("unsupported", "attention_mask row %d has a gap at %d; a row's ones "
                              .. "must stand together", i, s)
                end
                first, last = first or s, s
            end
        end
        all = all and first == 0 and last == width - 1
        for q = 0, t - 1 do
            local inside = first and q + past >= first and q + past <= last
            out[(i * t + q) * 2] = inside and first or 0
            out[(i * t + q) * 2 + 1] = inside and last + 1 or 0
        end
    end
    return not all and out or nil, b
end

-- Packed rows: positions that restart begin a new sample, which does not see the one before. Key ranges, and how many
-- samples there are.
local function bounds_from_positions(position_ids, b, t)
    local p = int_array(position_ids)
    local out, samples = ffi.new("int32_t[?]", b * t * 2), b
    for i = 0, b - 1 do
        local row, start = i * t, 0
        for q = 0, t - 1 do
            if q > 0 and p[row + q] ~= p[row + q - 1] + 1 then
                for k = start, q - 1 do
                    out[(row + k) * 2 + 1] = q
                end
                start, samples = q, samples + 1
            end
            out[(row + q) * 2] = start
        end
        for k = start, t - 1 do
            out[(row + k) * 2 + 1] = t
        end
    end
    return samples > b and out or nil, samples
end

local function highest(position_ids)
    local p, n = int_array(position_ids)
    local max = 0
    for i = 0, n - 1 do
        max = math.max(max, p[i])
    end
    return max
end

-- Everything a forward pass needs, as tensors on the model's device.
local function prepare(self, args)
    if type(args) ~= "table" then
        err.raise("argument", "forward takes a table: model:forward{input_ids = ids}")
    end
    local device = self:device()
    local input_ids = ids_tensor(args.input_ids
        or err.raise("argument", "forward needs input_ids"), device, "input_ids")
    local b, t = input_ids:size(0), input_ids:size(1)
    local past = args.cache and args.cache.used or 0
    local position_ids = ids_tensor(args.position_ids, device, "position_ids")
    local bounds, samples = args.bounds, args.samples
    if bounds == nil then
        local array
        if args.attention_mask ~= nil then
            array, samples = bounds_from_mask(ids_tensor(args.attention_mask, device, "attention_mask"), b, t,
                                              past)
        elseif position_ids and past == 0 then
            array, samples = bounds_from_positions(position_ids, b, t)
        end
        bounds = array and tensor.from_buffer(array, { b, t, 2 }, { dtype = "int32", device = device })
    end
    local longest
    if position_ids then
        longest = args.part and args.part.longest or args.longest or highest(position_ids) + 1
    else
        local p = ffi.new("int32_t[?]", t)
        for i = 0, t - 1 do
            p[i] = past + i
        end
        position_ids = tensor.from_buffer(p, { 1, t }, { dtype = "int32", device = device })
        longest = past + t
    end
    return input_ids, position_ids, { bounds = bounds, samples = samples, cache = args.cache, longest = longest,
                                      part = args.part, inputs = args }
end

-- ---- forward --------------------------------------------------------------------------------

-- labels [B, T] -> flat [B*T], each moved one to the left as transformers does.
local function shifted(labels, ignore)
    local b, t = labels:size(0), labels:size(1)
    local l = int_array(labels)
    local out = ffi.new("int32_t[?]", b * t)
    local count = 0
    for i = 0, b - 1 do
        for q = 0, t - 1 do
            local v = q + 1 < t and l[i * t + q + 1] or ignore
            out[i * t + q] = v
            count = count + (v ~= ignore and 1 or 0)
        end
    end
    return tensor.from_buffer(out, { b * t }, { dtype = "int32", device = labels:device() }), count
end

local CausalLM = {}

--- Run the model. args: input_ids [B, T] (tensor or nested tables), attention_mask, position_ids, longest (the highest
--- of these, plus 1, for a caller who knows it: else they are read, for which a device is waited for),
--- labels (unshifted, -100 ignored), bounds (int32 [B, T, 2]: key ranges, instead of a mask),
--- samples (how many samples bounds are of, where rows are samples one behind the other),
--- cache (nn.cache), logits_to_keep (0: all; k: the last k positions only), output_hidden_states,
--- output_router_logits (that of the configuration), part (the rows are parts of longer ones, of which others have the
--- rest; with position_ids and bounds, whose ranges are of the whole rows' keys):
---   attend(q, k, v, bounds, opts)  in place of ops.attention
---   sum(t)                         t added up over all parts, with its gradient
---   longest                        the highest position of the whole rows, plus 1
--- Returns {logits=, loss=, hidden_states=, router_logits=, aux_loss=}; hidden_states are those after the last norm,
--- and with logits_to_keep = false there are no logits at all. Router logits are a list by layer, [B T, E]; with
--- them the loss has router_aux_loss_coef times aux_loss in it, which balances experts (nn/moe.lua).
function CausalLM:forward(args)
    local input_ids, position_ids, ctx = prepare(self, args)
    local hidden, router_logits = self.model:forward(input_ids, position_ids, ctx)
    local out = {}
    if router_logits and #router_logits > 0 and (args.output_router_logits or self.config.output_router_logits) then
        out.router_logits = router_logits
        out.aux_loss = self:balancing_loss(router_logits, ctx.bounds, ctx.part and ctx.part.sum)
    end
    if args.cache then
        args.cache:advance(input_ids:size(1))
    end
    if args.output_hidden_states or args.logits_to_keep == false then
        out.hidden_states = hidden
    end
    if args.logits_to_keep ~= false then
        local keep = args.logits_to_keep or 0
        local t = hidden:size(1)
        if keep > 0 and keep < t then
            hidden = hidden:narrow(1, t - keep, keep)
        end
        out.logits = self:head(hidden)
    end
    if args.labels ~= nil then
        if not out.logits or out.logits:size(1) < input_ids:size(1) then
            err.raise("argument", "labels need the logits of all positions; leave logits_to_keep at 0")
        end
        local labels, count = shifted(ids_tensor(args.labels, self:device(), "labels"), -100)
        local b, t, v = out.logits:size(0), out.logits:size(1), out.logits:size(2)
        if labels:numel() ~= b * t then
            err.raise("shape", "labels must be as large as input_ids")
        end
        local logits = out.logits:reshape(b * t, v):to("float32")
        out.loss = ops.cross_entropy(logits, labels) * (1 / math.max(count, 1))
        if out.aux_loss then
            out.loss = out.loss + out.aux_loss * (self.config.router_aux_loss_coef or 0)
        end
    end
    return out
end

--- The loss that balances experts over the tokens that are no padding (by key ranges), of a list of router logits.
--- sum: adds up what the tokens of other parts have, see forward.
function CausalLM:balancing_loss(router_logits, bounds, sum)
    local mask
    if bounds then
        local ends = bounds:reshape(-1, 2):narrow(1, 1, 1):reshape(-1)
        mask = ends:gt(0):to("float32")
    end
    local c = self.config
    return moe.load_balancing_loss(router_logits, c.num_experts, c.num_experts_per_tok, mask, sum)
end

--- The module that maps states to logits, without what follows it.
function CausalLM:get_output_embeddings()
    return self[self.names.head]
end

--- The body that has the decoder's layers.
function CausalLM:get_decoder()
    return self.model
end

--- The module that looks tokens up.
function CausalLM:get_input_embeddings()
    return self.model[self.names.embeddings]
end

local function scaled_products(self, hidden)
    local logits = self:get_output_embeddings():forward(hidden)
    return self.logit_scale and logits * self.logit_scale or logits
end

--- hidden [..., C] -> logits [..., V], scaled and soft-capped as the family does.
function CausalLM:head(hidden)
    local logits, cap = scaled_products(self, hidden), self.logit_softcap
    return cap and (logits * (1 / cap)):tanh() * cap or logits
end

--- What a loss needs to know of the head (am.loss): head, logits before the cap; head_weight (the matrix [V, C],
--- for losses that never store logits; nil when the head is more than that: a bias, an adapter); head_input, what is
--- done to states before, if anything; fp8: `head` multiplies in 8 bits, with scales of all rows that it is given at
--- once; logit_scale, softcap, vocab_size.
function CausalLM:head_context()
    local head = self:get_output_embeddings()
    local ctx = {
        head = function(hidden) return scaled_products(self, hidden) end,
        head_weight = head.class_name == "Linear" and not head.bias and head.weight or nil,
        fp8 = head.fp8 ~= nil,
        logit_scale = self.logit_scale,
        softcap = self.logit_softcap,
        vocab_size = self.config.vocab_size,
    }
    if head.product and not head.bias then
        ctx.head_weight, ctx.head_input = head:product()
    end
    return ctx
end

--- See Body:rotary_stage (decoder.lua); nil for a body that has none.
function CausalLM:rotary_stage(longest)
    return self.model.rotary_stage and self.model:rotary_stage(longest)
end

--- The name of the device that the embeddings are on.
function CausalLM:device()
    return self:get_input_embeddings().weight:device()
end

--- The name of the embeddings' dtype.
function CausalLM:dtype()
    return self:get_input_embeddings().weight:dtype()
end

--- How many numbers the parameters have, and how many of them require grad.
function CausalLM:num_parameters()
    local total, trainable = 0, 0
    for _, t in self:named_parameters() do
        total = total + t:numel()
        trainable = trainable + (t.requires_grad and t:numel() or 0)
    end
    return total, trainable
end

--- New token ids after `ids` (a Lua array): see generation.lua for opts.
function CausalLM:generate(ids, opts)
    return require("am.models.generation").generate(self, ids, opts)
end

--- Write config.json and safetensors (with an index when in several files) as transformers reads.
function CausalLM:save_pretrained(dir, opts)
    return require("am.models.saving").save(self, dir, opts)
end

--- Write one GGUF file that llama.cpp reads. opts: type ("f16"; f32, bf16, q8_0, q4_0, q4_k: of matrices), name
--- (general.name), tokenizer (what Tokenizer:gguf_metadata returns; without one llama.cpp has no text).
function CausalLM:save_gguf(file, opts)
    return require("am.models.gguf_export").save(file, self, opts or {})
end

--- Free all parameters now.
function CausalLM:close()
    for _, module in self:named_modules() do
        for _, slot in ipairs(module._parameters) do
            local t = module[slot.name]
            module[slot.name] = nil
            if t and not slot.shared then
                t:release()
            end
        end
    end
    if self.model and self.model.release then
        self.model:release()
    end
end

--- The methods by name; a model of another kind takes those that fit (vision/tower.lua).
M.methods = CausalLM

--- What files call a model's parts, unless it says otherwise; layers and norm are those of decoder.lua.
M.names = { body = "model", embeddings = "embed_tokens", layers = "layers", norm = "norm", head = "lm_head" }

--- Give an architecture's model these methods.
function M.extend(model)
    model.names = setmetatable(model.names or {}, { __index = M.names })
    model.model = model.model or model[model.names.body]
    model.tied = model.tied or {}
    for name, fn in pairs(CausalLM) do
        model[name] = fn
    end
    return model
end

return M
