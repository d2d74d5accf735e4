-- How likely a model holds a continuation of a context, summed over its tokens. Holds no tasks.
--
-- Texts become tokens as lm-eval's HFLM does it: white space at the end of the context goes to the
-- continuation, both are tokenised as one text, of which the tokens behind the context's number of them are
-- the continuation's, and stand behind the tokens of the context alone. With no context, the token that a
-- text begins with (or ends) stands for it.

local autograd = require("am.core.autograd")
local err = require("am.core.error")
local scope = require("am.core.scope")
local tensor = require("am.core.tensor")

local M = {}

local BATCH_TOKENS = 4096
local CHUNK = 4 * 1024 * 1024 -- logits at a time

local function begin_token(tokenizer)
    return tokenizer.bos_token_id or tokenizer.eos_token_id
        or err.raise("usage", "a context is empty, and the tokenizer has no token for the begin of a text")
end

--- The ids of a request { context, continuation }, and how many of them at the end are the continuation's.
function M.encode(tokenizer, request)
    local context, spaces = request.context:match("^(.-)(%s*)$")
    if context == "" then
        local ids = tokenizer:encode(request.context .. request.continuation, { add_special_tokens = false })
        local begin = begin_token(tokenizer)
        if ids[1] == begin then
            return ids, #ids - 1
        end
        table.insert(ids, 1, begin)
        return ids, #ids - 1
    end
    local ids = tokenizer:encode(context, { add_special_tokens = true })
    local whole = tokenizer:encode(context .. spaces .. request.continuation, { add_special_tokens = true })
    local count = math.max(#whole - #ids, 0)
    for i = #ids + 1, #whole do
        ids[i] = whole[i]
    end
    return ids, count
end

-- { ids, labels, first } of a request: the last `limit` inputs, and the continuation's ids, which follow the
-- inputs from `first` on.
local function prepare(tokenizer, request, i, limit)
    local ids, count = M.encode(tokenizer, request)
    if count < 1 or #ids < 2 then
        err.raise("data", "request %d: the continuation %q adds no token to its context", i, request.continuation)
    end
    local cut = math.max(0, #ids - 1 - limit)
    count = math.min(count, #ids - 1 - cut)
    local row = { number = i, ids = {}, labels = {}, first = #ids - cut - count }
    for k = cut + 1, #ids - 1 do
        row.ids[k - cut] = ids[k]
    end
    for k = #ids - count + 1, #ids do
        row.labels[#row.labels + 1] = ids[k]
    end
    return row
end

-- Log-probabilities of labels and whether each is the first choice, both as Lua arrays.
local function score_rows(model, hidden, labels)
    local n, vocab = hidden:size(0), model.config.vocab_size
    local rows = math.max(1, math.floor(CHUNK / vocab))
    local values, greedy = {}, {}
    for first = 0, n - 1, rows do
        scope.scope(function()
            local count = math.min(rows, n - first)
            local some = labels:narrow(0, first, count)
            local logits = model:head(hidden:narrow(0, first, count)):to("float32")
            local own = logits:log_softmax(-1):gather(-1, some:reshape(count, 1):to("int64")):reshape(count)
            local best = logits:argmax(-1):to("int32"):eq(some):to("float32")
            for k, value in ipairs(own:totable()) do
                values[first + k] = value
            end
            for k, value in ipairs(best:totable()) do
                greedy[first + k] = value == 1
            end
        end)
    end
    return values, greedy
end

-- Score a batch of prepared rows of at most `length` ids into results.
local function score_batch(model, batch, length, results)
    local ids, mask, places, labels = {}, {}, {}, {}
    for b, row in ipairs(batch) do
        ids[b], mask[b] = {}, {}
        for t = 1, length do
            ids[b][t], mask[b][t] = row.ids[t] or 0, row.ids[t] and 1 or 0
        end
        for k, label in ipairs(row.labels) do
            labels[#labels + 1] = label
            places[#places + 1] = (b - 1) * length + row.first + k - 2
        end
    end
    scope.scope(function()
        local device = model:device()
        local out = model:forward { input_ids = ids, attention_mask = mask, logits_to_keep = false }
        local hidden = out.hidden_states:reshape(#batch * length, out.hidden_states:size(2))
        hidden = hidden:index_select(0, tensor.tensor(places, { dtype = "int32", device = device }))
        local values, greedy = score_rows(model, hidden, tensor.tensor(labels, { dtype = "int32", device = device }))
        local at = 0
        for _, row in ipairs(batch) do
            local result = { sum = 0, tokens = #row.labels, greedy = true }
            for k = at + 1, at + #row.labels do
                result.sum, result.greedy = result.sum + values[k], result.greedy and greedy[k]
            end
            at, results[row.number] = at + #row.labels, result
        end
    end)
end

--- Log-likelihoods of continuations. requests: an array of { context, continuation }, texts. limit: the
--- positions that the model has; of longer texts the end counts. Returns an array of { sum (natural
--- logarithm), tokens, greedy (every token is the model's first choice) }.
function M.score(model, tokenizer, requests, limit)
    local rows, results = {}, {}
    for i, request in ipairs(requests) do
        rows[i] = prepare(tokenizer, request, i, limit)
    end
    table.sort(rows, function(a, b)
        return #a.ids > #b.ids or (#a.ids == #b.ids and a.number < b.number)
    end)
    model:eval()
    autograd.no_grad(function()
        local at = 1
        while at <= #rows do
            local length, batch = #rows[at].ids, {}
            while rows[at] and (#batch == 0 or (#batch + 1) * length <= BATCH_TOKENS) do
                batch[#batch + 1] = rows[at]
                at = at + 1
            end
            score_batch(model, batch, length, results)
        end
    end)
    return results
end

return M
