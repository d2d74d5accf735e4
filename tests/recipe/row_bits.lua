-- Prints "N rows are the same" when every row's hidden states and logits have the same bits alone, in
-- padded batches and in packs, and fails at the first that differs. A program of its own because the
-- kernels are chosen once a process: isa_spec.lua runs it for each instruction set. Arguments: the length
-- of the longest row, and the dtype.
local am = require("am")
local collate = require("am.datasets.collate")
local ffi = require("ffi")

am.manual_seed(3)
local C, V = 192, 517 -- not multiples of a tile, wide enough for every code path of a matrix product
local model = am.AutoModelForCausalLM.from_config({
    architectures = { "LlamaForCausalLM" }, model_type = "llama", hidden_size = C, intermediate_size = 1032,
    num_hidden_layers = 2, num_attention_heads = 4, num_key_value_heads = 2, vocab_size = V,
    max_position_embeddings = 2048, rms_norm_eps = 1e-5, initializer_range = 0.05,
}, { torch_dtype = arg[2] })

local rows, longest = {}, tonumber(arg[1])
for i, length in ipairs { 1, 2, 3, 7, 33, 64, 130, 299, 600 } do
    length = math.min(length, longest)
    local row = { input_ids = {}, labels = {} }
    for t = 1, length do
        row.input_ids[t], row.labels[t] = (i * 101 + t * 37) % V, 0
    end
    rows[i] = row
end

-- Samples of a packed row follow one another.
local function pack(list)
    local row = { input_ids = {}, labels = {}, position_ids = {}, seq_lens = {} }
    for _, i in ipairs(list) do
        for t, id in ipairs(rows[i].input_ids) do
            table.insert(row.input_ids, id)
            table.insert(row.labels, 0)
            table.insert(row.position_ids, t - 1)
        end
        table.insert(row.seq_lens, #rows[i].input_ids)
    end
    return row
end

-- {hidden, logits}: [B * T * width] floats of a batch of rows, and T.
local function forward(list)
    local batch = collate.default_collater(list)
    local function int32(array, shape) return am.from_buffer(array, shape, { dtype = "int32" }) end
    return am.no_grad(am.scope, function()
        local out = model:forward {
            input_ids = int32(batch.input_ids, { batch.B, batch.T }),
            position_ids = int32(batch.position_ids, { batch.B, batch.T }),
            bounds = int32(batch.bounds, { batch.B, batch.T, 2 }), output_hidden_states = true,
        }
        local hidden, scores = out.hidden_states:to("float32"), out.logits:to("float32")
        return { { hidden:to_buffer(), C }, { scores:to_buffer(), V } }, batch.T
    end)
end

local function bytes(value, row, T, start, length)
    local array, width = value[1], value[2]
    return ffi.string(array + (row * T + start) * width, length * width * 4)
end

local checked = 0
local alone = {}
for i, row in ipairs(rows) do
    alone[i] = forward { row }
end

local function check(what, out, T, places)
    for _, p in ipairs(places) do
        local length = #rows[p.row].input_ids
        for k, name in ipairs { "hidden states", "logits" } do
            if bytes(out[k], p.at, T, p.start, length) ~= bytes(alone[p.row][k], 0, length, 0, length) then
                error(string.format("%s: the %s of the row of %d tokens differ from those it has alone", what, name,
                                    length), 0)
            end
        end
        checked = checked + 1
    end
end

-- all in one padded batch; in twos; packed in two rows of a batch, in both orders
local all, places = {}, {}
for i, row in ipairs(rows) do
    all[i], places[i] = row, { row = i, at = i - 1, start = 0 }
end
local out, T = forward(all)
check("padded batch", out, T, places)
for i = 1, #rows - 1 do
    out, T = forward { rows[i], rows[i + 1] }
    check("batch of two", out, T, { { row = i, at = 0, start = 0 }, { row = i + 1, at = 1, start = 0 } })
end
for _, order in ipairs { { 1, 2, 3, 4, 5, 6, 7, 8, 9 }, { 9, 4, 8, 1, 7, 3, 6, 2, 5 } } do
    local first, second = { unpack(order, 1, 5) }, { unpack(order, 6) }
    out, T = forward { pack(first), pack(second) }
    places = {}
    for at, list in ipairs { first, second } do
        local start = 0
        for _, i in ipairs(list) do
            places[#places + 1] = { row = i, at = at - 1, start = start }
            start = start + #rows[i].input_ids
        end
    end
    check("pack", out, T, places)
end
print(checked .. " rows are the same")
