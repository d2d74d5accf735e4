-- Einstein's summation over any number of operands: each pair becomes one batched matrix product, or
-- a product with broadcasting where nothing is summed over. Adds itself to the functions of ops.lua.

local err = require("am.core.error")
local ops = require("am.core.ops")
local tensor = require("am.core.tensor")

local function fail(spec, fmt, ...)
    err.raise("argument", "einsum \"%s\": %s", spec, string.format(fmt, ...))
end

-- "ij..." for a tensor with n dims as a list of labels, one a dim; those of "..." are "1", "2", …
-- counted from the right.
local function labels_of(spec, term, n)
    local before, after = term:match("^(%a*)%.%.%.(%a*)$")
    local letters = before and before .. after or term
    if not letters:find("^%a*$") then
        fail(spec, "\"%s\" is not made of letters and one \"...\"", term)
    end
    local rest = n - #letters
    if rest < 0 or (rest > 0 and not before) then
        fail(spec, "\"%s\" for a tensor with %d dims", term, n)
    end
    local labels, seen = {}, {}
    for letter in (before or letters):gmatch("%a") do labels[#labels + 1] = letter end
    for i = before and rest or 0, 1, -1 do labels[#labels + 1] = tostring(i) end
    for letter in (after or ""):gmatch("%a") do labels[#labels + 1] = letter end
    for _, label in ipairs(labels) do
        if seen[label] then
            fail(spec, "index %s is there twice in \"%s\"; diagonals are not supported", label, term)
        end
        seen[label] = true
    end
    return labels
end

-- The labels of the result when none are named: those of "...", then the letters that occur once.
local function implicit(operands)
    local times, most, out = {}, 0, {}
    for _, operand in ipairs(operands) do
        for _, label in ipairs(operand.labels) do
            times[label] = (times[label] or 0) + 1
            most = math.max(most, tonumber(label) or 0)
        end
    end
    for label, n in pairs(times) do
        if n == 1 and label:find("%a") then out[#out + 1] = label end
    end
    table.sort(out)
    for i = 1, most do table.insert(out, 1, tostring(i)) end
    return out
end

local function set_of(labels)
    local set = {}
    for _, label in ipairs(labels) do set[label] = true end
    return set
end

-- The operand with its dims in the order of labels.
local function ordered(operand, labels)
    local at, dims = {}, {}
    for i, label in ipairs(operand.labels) do at[label] = i - 1 end
    for i, label in ipairs(labels) do dims[i] = at[label] end
    return ops.permute(operand.t, dims)
end

-- Sum over the labels that are not among `kept`.
local function sum_out(operand, kept)
    local dims, labels = {}, {}
    for i, label in ipairs(operand.labels) do
        if kept[label] then
            labels[#labels + 1] = label
        else
            dims[#dims + 1] = i - 1
        end
    end
    if #dims == 0 then
        return operand
    end
    return { t = ops.sum(operand.t, dims), labels = labels }
end

local function join(...)
    local all = {}
    for _, labels in ipairs { ... } do
        for _, label in ipairs(labels) do all[#all + 1] = label end
    end
    return all
end

local function sizes_of(labels, sizes)
    local list, product = {}, 1
    for i, label in ipairs(labels) do
        list[i] = sizes[label]
        product = product * sizes[label]
    end
    return list, product
end

-- One operand of two; labels that nobody else wants are summed over.
local function contract(a, b, wanted, sizes)
    local in_a, in_b, kept_a, kept_b = set_of(a.labels), set_of(b.labels), {}, {}
    for label in pairs(sizes) do
        kept_a[label], kept_b[label] = in_b[label] or wanted[label], in_a[label] or wanted[label]
    end
    a, b = sum_out(a, kept_a), sum_out(b, kept_b)
    local batch, summed, free_a, free_b = {}, {}, {}, {}
    for _, label in ipairs(a.labels) do
        local list = not in_b[label] and free_a or wanted[label] and batch or summed
        list[#list + 1] = label
    end
    for _, label in ipairs(b.labels) do
        if not in_a[label] then free_b[#free_b + 1] = label end
    end
    local labels = join(batch, free_a, free_b)
    local shape = sizes_of(labels, sizes)
    local _, n = sizes_of(batch, sizes)
    local _, rows = sizes_of(free_a, sizes)
    local _, columns = sizes_of(free_b, sizes)
    local _, depth = sizes_of(summed, sizes)
    local left = ops.reshape(ordered(a, join(batch, free_a, summed)), n, rows, depth)
    local right = ops.reshape(ordered(b, join(batch, summed, free_b)), n, depth, columns)
    local product = #summed > 0 and ops.matmul(left, right) or left * right
    return { t = ops.reshape(product, shape), labels = labels }
end

--- einsum("bij,bjk->bik", a, b): letters name dims; those that the right side lacks are summed over.
--- "..." stands for any number of further dims, which broadcast.
---@param spec string
---@param ... am.Tensor
function ops.einsum(spec, ...)
    local tensors, operands, sizes = { ... }, {}, {}
    if type(spec) ~= "string" then
        err.raise("argument", "einsum takes a text like \"ij,jk->ik\" first")
    end
    local text = spec:gsub("%s", "")
    local inputs, output = text:match("^([^>]-)%->([^>]*)$")
    for term in ((inputs or text) .. ","):gmatch("([^,]*),") do
        local t = tensors[#operands + 1]
        if not tensor.is(t) then
            fail(spec, "a tensor for \"%s\" is missing", term)
        end
        operands[#operands + 1] = { t = t, labels = labels_of(spec, term, t:dim()) }
    end
    if #operands ~= #tensors then
        fail(spec, "%d tensors for %d terms", #tensors, #operands)
    end
    for _, operand in ipairs(operands) do
        for i, label in ipairs(operand.labels) do
            local n = operand.t:size(i - 1)
            local known = sizes[label] or n
            if known ~= n and known ~= 1 and n ~= 1 then
                err.raise("shape", "einsum \"%s\": index %s is %d and %d", spec, label, known, n)
            end
            sizes[label] = known == 1 and n or known
        end
    end
    local out
    if not output then
        out = implicit(operands)
    else
        local dots = 0
        for _, operand in ipairs(operands) do
            for _, label in ipairs(operand.labels) do dots = math.max(dots, tonumber(label) or 0) end
        end
        local letters = #output:gsub("%.", "")
        out = labels_of(spec, output, letters + (output:find(".", 1, true) and dots or 0))
    end
    for _, label in ipairs(out) do
        if not sizes[label] then
            fail(spec, "index %s of the result is in no term", label)
        end
    end
    for _, operand in ipairs(operands) do
        operand.t = ops.expand(operand.t, (sizes_of(operand.labels, sizes)))
    end
    local result = operands[1]
    for i = 2, #operands do
        local wanted = set_of(out)
        for j = i + 1, #operands do
            for _, label in ipairs(operands[j].labels) do wanted[label] = true end
        end
        result = contract(result, operands[i], wanted, sizes)
    end
    return ordered(sum_out(result, set_of(out)), out)
end

return ops.einsum
