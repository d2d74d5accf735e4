-- Small expressions against torch's values and gradients (tensor_vocabulary.py, which has the same
-- expressions in Python): on every device, in f32 and f64, from dense and from strided leaves.

local am = require("am")
local devices = require("tests.support.devices")

local golden = am.load_safetensors("tests/parity/golden/tensor_vocabulary.safetensors")
local INF = math.huge

local expressions = {
    add_broadcast = function(x, y) return x + y end,
    sub_numbers = function(x) return (2 - x) - 0.5 end,
    mul_row_column = function(x, y) return x * y end,
    div_numbers = function(x) return 3 / x + x / 4 end,
    div_whole = function(x, y) return x / y end,
    pow_tensors = function(x, y) return x ^ y end,
    pow_number_base = function(x) return 2 ^ x end,
    pow_zero = function(x, y) return x:pow(y) end,
    neg_abs = function(x) return -x:abs() end,
    exp_log = function(x) return (x:exp() + 1):log() end,
    log_ends = function(x) return x:log() end,
    sqrt_rsqrt = function(x) return x:sqrt() - x:rsqrt() end,
    sin_cos = function(x) return x:sin() * x:cos() end,
    tanh_sigmoid = function(x) return x:tanh() + x:sigmoid() end,
    activations = function(x) return x:relu() + x:silu() + x:gelu() end,
    gelu_tanh = function(x) return x:gelu("tanh") end,
    softplus = function(x) return x:softplus() end,
    erf_expm1_log1p = function(x) return x:erf() + x:expm1() + (x * x):log1p() end,
    rounding = function(x) return x:floor() + 10 * x:ceil() + 100 * x:round() + 1000 * x:sign() end,
    clamp = function(x) return x:clamp(-1, 1) end,
    clamp_min_max = function(x) return x:clamp_min(0.3) * x:clamp_max(0.2) end,
    maximum_ties = function(x, y) return x:maximum(y) + 2 * am.minimum(x, y) end,
    where = function(c, x, y) return am.where(c, x, y) end,
    where_numbers = function(c, x) return x * am.where(c, 2, 3):to(x:dtype()) end,
    masked_fill = function(x, m) return x:masked_fill(m, -INF):softmax(-1) end,
    comparisons = function(x, y) return x:eq(y), x:ne(y), x:lt(y), x:le(y), x:gt(y), x:ge(y) end,
    logical = function(x, y)
        return x:logical_and(y), x:logical_or(y), x:logical_not(), x:logical_xor(y)
    end,
    logical_of_numbers = function(x, y) return x:logical_and(y), x:logical_or(y), x:logical_not() end,
    classes = function(x) return x:isnan(), x:isfinite(), x:isinf() end,

    sum_all = function(x) return x:sum() end,
    sum_dims = function(x) return x:sum { 0, 2 } end,
    sum_negative_keepdim = function(x) return x:sum(-2, true) end,
    mean_dims_keepdim = function(x) return x:mean({ 0, -1 }, true) end,
    sum_empty = function(x) return x:sum(1) end,
    mean_empty = function(x) return x:mean(1) end,
    amax_ties = function(x) return x:amax { 0, 1 } end,
    amin_dim = function(x) return x:amin(1) end,
    max_all = function(x) return x:max() end,
    max_dim = function(x) return x:max(1) end,
    min_dim_keepdim = function(x) return x:min(0, true) end,
    argmax_argmin = function(x) return x:argmax(), x:argmax(0), x:argmin(-1, true) end,
    prod = function(x) return x:prod(1) end,
    prod_empty = function(x) return x:prod(0) end,
    var_std = function(x) return x:var(1) + x:std(1) end,
    var_population = function(x) return x:var({ 0, 1 }, 0, true) end,
    std_constant = function(x) return x:std() end,
    norms = function(x) return x:norm() + x:norm(1, 0) + x:norm(3, 0) end,
    norm_largest = function(x) return x:norm(INF, 1) end,
    norm_zero = function(x) return x:norm() end,
    logsumexp = function(x) return x:logsumexp(-1) end,
    logsumexp_dims = function(x) return x:logsumexp { 0, 2 } end,
    softmax = function(x) return x:softmax(0) + x:log_softmax(1) end,
    cumsum = function(x) return x:cumsum(1) end,
    cumsum_whole = function(x) return x:cumsum(0) end,
    any_all = function(x) return x:any(), x:all(), x:any(1), x:all(0, true) end,
    any_all_empty = function(x) return x:any(1), x:all(1) end,

    reshape_transposed = function(x) return x:t():reshape(2, -1) * 2 end,
    permute_narrow = function(x) return x:permute(2, 0, 1):narrow(1, 1, 2):sum(0) end,
    expand = function(x, y) return x:expand(2, 3, -1) * y end,
    squeeze_unsqueeze = function(x) return x:squeeze(1):unsqueeze(-1):squeeze() end,
    flatten = function(x) return x:flatten(), x:flatten(1, 2), x:flatten(-2) end,
    ["repeat"] = function(x) return x:tile(2, 1, 3) end,
    cat_strided = function(x, y) return am.cat({ x:t(), y }, 1) end,
    cat_many = function(x)
        return am.cat({ x, 2 * x, 3 * x, 4 * x, 5 * x, 6 * x, 7 * x, 8 * x }, -1)
    end,
    stack = function(x, y) return am.stack({ x, y }, -1) end,
    split = function(x) return unpack(x:split(2, 1)) end,
    split_sizes = function(x) return unpack(x:split { 1, 3 }) end,
    chunk_unbind = function(x)
        local halves, columns = x:chunk(2, 0), x:unbind(1)
        return halves[1], halves[2], columns[1], columns[2]
    end,
    flip_roll = function(x) return x:flip(0), x:flip(0, 1), x:roll(1), x:roll({ 1, -1 }, { 0, 1 }) end,
    tril_triu = function(x) return x:tril(), x:triu(1), x:tril(-1) end,
    empty_slices = function(x) return am.cat { x:narrow(0, 1, 0), x, x[{ { 3 } }] } end,

    index_select = function(x, k) return x:index_select(1, k) end,
    gather = function(x, k) return x:gather(-1, k) end,
    gather_smaller = function(x, k) return x:gather(0, k) end,
    scatter_add = function(x, k, y) return x:scatter_add(1, k, y) end,
    index_add = function(x, k, y) return x:index_add(0, k, y) end,
    take_along_dim = function(x, k) return x:take_along_dim(k, 1) end,
    sort = function(x) return x:sort(1) end,
    sort_ties_nan = function(x) return x:sort() end,
    sort_descending = function(x) return x:sort(0, true) end,
    argsort = function(x) return x:argsort() end,
    topk = function(x) return x:topk(2) end,
    topk_smallest = function(x) return x:topk(2, 0, false) end,
    select = function(x) return x[{ 1 }] * x[{ -1 }] + x[{ {}, 0 }]:sum() end,
    slices = function(x) return x[{ { 1 }, { 0, nil, 2 } }] * x[{ { 0, -1 }, { 1, nil, 2 } }] end,
    slice_rest = function(x) return x[{ "...", -1 }] + x[{ 0, "...", 1 }] end,
    slice_of_transposed = function(x) return x:t()[{ { 1, 3 } }] * 3 end,

    matmul = function(x, y) return x:matmul(y) end,
    matmul_transposed = function(x, y) return am.matmul(x:t(), y:t()) end,
    matmul_vectors = function(x, y) return x:matmul(y), y:matmul(x:t()), y:matmul(y) end,
    bmm_mm = function(x, y, z)
        local products = x:bmm(y)
        return am.stack { products[{ 0 }]:mm(z), products[{ 1 }]:mm(z) }
    end,
    mv_dot_outer = function(x, y, z) return x:mv(y), y:dot(y), y:outer(z) end,
    einsum_matmul = function(x, y) return am.einsum("bij,bjk->bik", x, y) end,
    einsum_scores = function(x, y) return am.einsum("bthd, bshd -> bhts", x, y) end,
    einsum_sums = function(x, y) return am.einsum("ij,jk->j", x, y) end,
    einsum_outer = function(x, y) return am.einsum("i,j->ji", x, y) end,
    einsum_implicit = function(x, y) return am.einsum("ij,jk", x, y) end,
    einsum_one = function(x) return am.einsum("ijk->ki", x), am.einsum("ij...->", x) end,
    einsum_dots = function(x, y) return am.einsum("...ij,jk->...ik", x, y) end,
    einsum_dots_both = function(x, y) return am.einsum("...i,...i", x, y) end,
    einsum_three = function(x, y, z) return am.einsum("ab,bc,cd->ad", x, y, z) end,

    sequences = function(opts)
        return am.arange(4, opts), am.arange(1, 2, 0.25, opts), am.arange(5, 0, -2, opts),
            am.linspace(0, 1, 5, opts), am.linspace(2, 3, 1, opts)
    end,
    identities = function(opts) return am.eye(3, opts), am.eye(2, 3, opts), am.eye(3, 2, opts) end,
    likes = function(x) return x:zeros_like(), x:ones_like(), x:full_like(2.5) end,
    casts = function(x) return x:float() * 2, x:half(), x:bfloat16(), x:int(), x:long(), x:bool() end,
}

-- f32: the roundings of a few operations, in units of the largest number of the tensor, and sums of
-- products; f64: the same, and what the goldens' own arithmetic is off by.
local runs = { { dtype = "float32", tolerance = 2e-6 }, { dtype = "float64", tolerance = 1e-14 } }
local floats = { float16 = true, bfloat16 = true, float32 = true, float64 = true }

local function numbers(t)
    local array, n = t:to_buffer()
    local list = {}
    for i = 1, n do list[i] = tonumber(array[i - 1]) end
    return list
end

-- Equal (NaN to NaN, infinity to infinity), or within tolerance of the largest finite number.
local function compare(what, actual, expected, tolerance)
    assert.same(expected:size(), actual:size(), what)
    local a, e, largest = numbers(actual), numbers(expected), 0
    for _, v in ipairs(e) do
        if math.abs(v) < INF then largest = math.max(largest, math.abs(v)) end
    end
    for i = 1, #e do
        local close = a[i] == e[i] or (a[i] ~= a[i] and e[i] ~= e[i])
            or (math.abs(e[i]) < INF and math.abs(a[i] - e[i]) <= tolerance * largest)
        assert.is_true(close, ("%s: element %d is %.17g, torch has %.17g"):format(what, i - 1, a[i], e[i]))
    end
end

local function weights(out)
    local list = {}
    for i = 0, out:numel() - 1 do list[i + 1] = (i * 7 % 11 - 4.5) / 4 end
    return am.tensor(list, { dtype = out:dtype(), device = out:device() }):reshape(out:size())
end

-- The golden's inputs as leaves; strided ones lie in memory as their transposes do.
local function leaves_of(name, run, strided)
    local leaves = {}
    for k = 0, 7 do
        local stored = golden[name .. ".in" .. k]
        if not stored then break end
        local is_float = floats[stored:dtype()]
        local leaf = stored:to { dtype = is_float and run.dtype or stored:dtype(), device = run.device }:clone()
        if strided and leaf:dim() > 1 then
            leaf = leaf:transpose(0, -1):contiguous():transpose(0, -1):detach()
        end
        leaves[k + 1] = is_float and leaf:requires_grad_() or leaf
    end
    if #leaves == 0 then
        leaves[1] = { device = run.device }
    end
    return leaves
end

local function evaluate(name, run, strided)
    local leaves = leaves_of(name, run, strided)
    local outs, loss = { expressions[name](unpack(leaves)) }, nil
    for k, out in ipairs(outs) do
        local what = ("%s, output %d"):format(name, k - 1)
        local expected = assert(golden[name .. ".out" .. k - 1], what)
        local dtype = expected:dtype() == "float64" and run.dtype or expected:dtype()
        assert.equal(dtype, out:dtype(), what)
        assert.equal(run.device, out:device(), what)
        local rounded = out:dtype() == run.dtype and run.tolerance or 2e-6
        compare(what, out, expected, rounded)
        if out.requires_grad then
            local part = (out * weights(out)):sum():double()
            loss = loss and loss + part or part
        end
    end
    assert.is_nil(golden[name .. ".out" .. #outs], name .. ": too few outputs")
    if loss then
        loss:backward()
    end
    for k, leaf in ipairs(leaves) do
        local expected = golden[("%s.grad%d"):format(name, k - 1)]
        local what = ("%s, gradient %d"):format(name, k - 1)
        assert.equal(expected ~= nil, type(leaf) == "cdata" and leaf.grad ~= nil, what)
        if expected then
            compare(what, leaf.grad, expected, run.tolerance)
        end
    end
end

describe("the vocabulary of tensors", function()
    local names = {}
    for key in pairs(golden) do
        names[key:match("^(.-)%.")] = true
    end

    it("has a golden for every expression, and the reverse", function()
        for name in pairs(names) do assert.is_function(expressions[name], name) end
        for name in pairs(expressions) do assert.is_true(names[name], name) end
    end)

    for _, device in ipairs(devices) do
        for _, run in ipairs(runs) do
            it(("gives torch's values and gradients on %s in %s"):format(device, run.dtype), function()
                for name in pairs(expressions) do
                    for _, strided in ipairs { false, true } do
                        am.scope(evaluate, name, { dtype = run.dtype, tolerance = run.tolerance,
                                                   device = device }, strided)
                    end
                end
            end)
        end
    end
end)
