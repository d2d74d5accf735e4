-- Classification of sequences on top of a decoder, as transformers' GenericForSequenceClassification has
-- it: `score`, a linear map without bias, of the state of a row's last token that is no padding. Made from
-- any causal model, whose head it has instead; holds no architecture.

local ffi = require("ffi")
local err = require("am.core.error")
local json = require("am.utils.json")
local ops = require("am.core.ops")
local tensor = require("am.core.tensor")
local Linear = require("am.nn.linear")
local Module = require("am.nn.module")

local M = {}

--- How many classes a configuration has: num_labels, or as many as id2label names; 2 where it says neither.
function M.num_labels(c)
    local n = c.num_labels
    if n == nil and type(c.id2label) == "table" then
        n = 0
        for _ in pairs(c.id2label) do
            n = n + 1
        end
    end
    n = n or 2
    if type(n) ~= "number" or n % 1 ~= 0 or n < 2 or n > 2 ^ 20 then
        c:unsupported("num_labels", tostring(n) .. " labels: 2 and more are there, regression (1) is not")
    end
    return n
end

-- What transformers writes into config.json for n labels; names that are there stay.
local function name_labels(c, n)
    local names = {}
    for i = 0, n - 1 do
        local old = type(c.id2label) == "table" and c.id2label[tostring(i)]
        names[i] = type(old) == "string" and old or "LABEL_" .. i
    end
    c.id2label, c.label2id = {}, {}
    for i = 0, n - 1 do
        c.id2label[tostring(i)], c.label2id[names[i]] = names[i], i
    end
    c.num_labels = nil
end

local function int_tensor(value)
    if not tensor.is(value) then
        value = tensor.tensor(type(value[1]) == "table" and value or { value }, { dtype = "int32" })
    end
    return value:to("int32")
end

-- Where the last token of each of b rows is, a C array of places in [B T]: by key ranges, by the mask, or by
-- padding ids.
local function last_places(args, b, t, pad)
    local is_padding
    if args.bounds then
        local bounds = args.bounds:to_buffer()
        is_padding = function(at) return bounds[2 * at + 1] == 0 end
    elseif args.attention_mask then
        local mask = int_tensor(args.attention_mask):to_buffer()
        is_padding = function(at) return mask[at] == 0 end
    elseif pad then
        local ids = int_tensor(args.input_ids):to_buffer()
        is_padding = function(at) return ids[at] == pad end
    elseif b > 1 then
        err.raise("usage", "several rows need an attention_mask, or pad_token_id in config.json: it must be seen where "
                  .. "each ends")
    else
        is_padding = function() return false end
    end
    local places = ffi.new("int32_t[?]", b)
    for i = 0, b - 1 do
        local last = t - 1
        while last > 0 and is_padding(i * t + last) do
            last = last - 1
        end
        places[i] = i * t + last
    end
    return places
end

local Classifier = {}

--- Run the model. args: those of a causal model (input_ids [B, T], attention_mask, position_ids, longest, bounds,
--- samples) and labels (B classes). Returns { logits = [B, num_labels], loss = mean cross-entropy }.
function Classifier:forward(args)
    local inputs = { logits_to_keep = false }
    for _, key in ipairs { "input_ids", "attention_mask", "position_ids", "longest", "bounds", "samples" } do
        inputs[key] = args[key]
    end
    local hidden = self:states(inputs).hidden_states
    local b, t = hidden:size(0), hidden:size(1)
    local places = last_places(args, b, t, self.config.pad_token_id)
    local rows = tensor.from_buffer(places, { b }, { dtype = "int32", device = self:device() })
    local logits = self.score:forward(hidden:reshape(b * t, hidden:size(2)):index_select(0, rows))
    local result = { logits = logits }
    if args.labels ~= nil then
        local labels = tensor.is(args.labels) and args.labels
            or tensor.tensor(args.labels, { dtype = "int32", device = self:device() })
        result.loss = ops.cross_entropy(logits:to("float32"), labels) * (1 / b)
    end
    return result
end

--- The module that maps states to the classes' logits.
function Classifier:get_output_embeddings()
    return self.score
end

--- Raises "usage": a classifier does not generate.
function Classifier:generate()
    err.raise("usage", "%s does not generate: it classifies", self.class_name)
end

local SUFFIX = "ForSequenceClassification"

-- Classes of Gemma 3 without "Text" are those of its model of images.
local OTHERS = { Gemma3ForCausalLM = "Gemma3TextForSequenceClassification" }

--- The classifier's name by its causal model's: "LlamaForCausalLM" -> "LlamaForSequenceClassification".
function M.class_name(causal)
    if OTHERS[causal] then
        return OTHERS[causal]
    end
    return (causal:gsub("ForCausalLM$", SUFFIX):gsub("LMHeadModel$", SUFFIX))
end

--- A classifier that has a causal model's body; its weights are not there yet.
function M.new(causal, c)
    local n = M.num_labels(c)
    local self = Module.init(Module.class(M.class_name(causal.class_name)))
    self.config, self.names = c, causal.names
    self.model = self:add(causal.names.body, causal.model)
    self:add("score", Linear.new(c:integer("hidden_size"), n))
    self.tied = {}
    self.fresh = { ["score.weight"] = true } -- a checkpoint of a causal model has none,
    local head = causal.names.head
    self.unused = { "^" .. head .. "%." } -- and a head instead
    for _, pattern in ipairs(causal.unused or {}) do
        table.insert(self.unused, pattern)
    end
    name_labels(c, n)
    c.architectures = json.array { self.class_name }
    return self
end

--- Give a classifier its methods, over those of causal models, which it has already.
function M.extend(model)
    model.states = model.forward
    for name, method in pairs(Classifier) do
        model[name] = method
    end
    return model
end

return M
