"""Small expressions of tensor ops as torch computes them: inputs, outputs, and the gradients of the sum
of the outputs times fixed weights. vocabulary_spec.lua has the same expressions in Lua.

Usage: tensor_vocabulary.py            (writes golden/tensor_vocabulary.safetensors)
"""
import math
import os

import torch
from safetensors.torch import save_file

INF, NAN = math.inf, math.nan
generator = torch.Generator().manual_seed(7)
cases = {}


def case(name, fn, *inputs):
    assert name not in cases, name
    cases[name] = fn, inputs


def n(*shape):
    """Multiples of 1/8 in -2..2, exact in every dtype."""
    return torch.randint(-16, 17, shape, generator=generator) / 8


def p(*shape):
    """Multiples of 1/8 in 1/4..2."""
    return torch.randint(2, 17, shape, generator=generator) / 8


def d(*shape):
    """Distinct multiples of 1/8 around 0."""
    count = math.prod(shape)
    return ((torch.randperm(count, generator=generator) - count // 2) / 8).reshape(shape)


def f(*values):
    return torch.tensor(values, dtype=torch.float32)


def i(*values):
    return torch.tensor(values, dtype=torch.int64)


def b(*values):
    return torch.tensor(values, dtype=torch.bool)


# ---- elementwise

case("add_broadcast", lambda x, y: x + y, n(3, 1), n(2, 1, 4))
case("sub_numbers", lambda x: (2 - x) - 0.5, n(5))
case("mul_row_column", lambda x, y: x * y, n(4, 1), n(3))
case("div_numbers", lambda x: 3 / x + x / 4, p(2, 3))
case("div_whole", lambda x, y: x / y, i(7, -7, 1), i(2, 2, 3))
case("pow_tensors", lambda x, y: x ** y, p(2, 3), n(3))
case("pow_number_base", lambda x: 2 ** x, n(4))
case("pow_zero", lambda x, y: x ** y, f(0, 0, 2, -1), f(0, 2, 0, 3))
case("neg_abs", lambda x: -x.abs(), f(-1, 0, 2, -INF))
case("exp_log", lambda x: (x.exp() + 1).log(), n(5))
case("log_ends", lambda x: x.log(), f(0, 1, INF, -1))
case("sqrt_rsqrt", lambda x: x.sqrt() - x.rsqrt(), p(5))
case("sin_cos", lambda x: x.sin() * x.cos(), n(7))
case("tanh_sigmoid", lambda x: x.tanh() + x.sigmoid(), f(-30, -1, 0, 1, 30))
case("activations", lambda x: x.relu() + torch.nn.functional.silu(x) + torch.nn.functional.gelu(x), n(9))
case("gelu_tanh", lambda x: torch.nn.functional.gelu(x, approximate="tanh"), n(6))
case("softplus", lambda x: torch.nn.functional.softplus(x, threshold=1e9), f(-50, -1, 0, 1, 50))
case("erf_expm1_log1p", lambda x: x.erf() + x.expm1() + (x * x).log1p(), n(6))
case("rounding", lambda x: x.floor() + 10 * x.ceil() + 100 * x.round() + 1000 * x.sign(),
     f(-1.5, -0.5, 0, 0.5, 1.5, 2.5, 2.625))
# Not on a bound: there, torch 2.15 gives the gradient 0, earlier ones and amlua 1.
case("clamp", lambda x: x.clamp(-1, 1), f(-2, -0.5, 0, 0.75, 2))
case("clamp_min_max", lambda x: x.clamp_min(0.3) * x.clamp_max(0.2), n(6))
case("maximum_ties", lambda x, y: torch.maximum(x, y) + 2 * torch.minimum(x, y), f(1, 2, INF), f(1, 3, 0))
case("where", lambda c, x, y: torch.where(c, x, y), b(True, False, True), n(2, 3), n(1))
case("where_numbers", lambda c, x: x * torch.where(c, 2.0, 3.0), b(True, False), n(2))
case("masked_fill", lambda x, m: x.masked_fill(m, -INF).softmax(-1), n(2, 3),
     torch.tensor([[True, False, False], [False, False, True]]))
case("comparisons", lambda x, y: (x.eq(y), x.ne(y), x.lt(y), x.le(y), x.gt(y), x.ge(y)),
     f(1, 2, 3, NAN), f(2, 2, 2, 2))
case("logical", lambda x, y: (x & y, x | y, ~x, x.logical_xor(y)), b(True, True, False, False),
     b(True, False, True, False))
case("logical_of_numbers", lambda x, y: (x.logical_and(y), x.logical_or(y), x.logical_not()), f(0, 1, NAN),
     f(2, 0, 0))
case("classes", lambda x: (x.isnan(), x.isfinite(), x.isinf()), f(1, NAN, INF, -INF, 0))

# ---- reductions

case("sum_all", lambda x: x.sum(), n(2, 3))
case("sum_dims", lambda x: x.sum((0, 2)), n(2, 3, 4))
case("sum_negative_keepdim", lambda x: x.sum(-2, keepdim=True), n(2, 3, 4))
case("mean_dims_keepdim", lambda x: x.mean((0, -1), keepdim=True), n(2, 3, 4))
case("sum_empty", lambda x: x.sum(1), torch.zeros(2, 0))
case("mean_empty", lambda x: x.mean(1), torch.zeros(2, 0))
case("amax_ties", lambda x: x.amax((0, 1)), f(1, 3, 3, 2).reshape(2, 2))
case("amin_dim", lambda x: x.amin(1), d(2, 4))
case("max_all", lambda x: x.max(), f(1, 3, 3, 2))
case("max_dim", lambda x: tuple(x.max(1)), f(1, 3, 3, 2, NAN, 4).reshape(2, 3))
case("min_dim_keepdim", lambda x: tuple(x.min(0, keepdim=True)), d(3, 2))
case("argmax_argmin", lambda x: (x.argmax(), x.argmax(0), x.argmin(-1, keepdim=True)), d(3, 4))
case("prod", lambda x: x.prod(1), f(2, 3, 4, 2, 0, 4, 0, 3, 0).reshape(3, 3))
case("prod_empty", lambda x: x.prod(0), torch.zeros(0, 2))
case("var_std", lambda x: x.var(1) + x.std(1), n(3, 5))
case("var_population", lambda x: x.var((0, 1), correction=0, keepdim=True), n(2, 4))
case("std_constant", lambda x: x.std(), torch.ones(4))
case("norms", lambda x: x.norm() + x.norm(1, 0) + x.norm(3, 0), n(4, 2))
case("norm_largest", lambda x: torch.linalg.vector_norm(x, INF, 1), d(2, 3))
case("norm_zero", lambda x: x.norm(), torch.zeros(3))
case("logsumexp", lambda x: x.logsumexp(-1), f(10, 11, -INF, 0, 1, 2).reshape(3, 2))
case("logsumexp_dims", lambda x: x.logsumexp((0, 2)), n(2, 3, 2))
case("softmax", lambda x: x.softmax(0) + x.log_softmax(1), n(3, 4))
case("cumsum", lambda x: x.cumsum(1), n(2, 5))
case("cumsum_whole", lambda x: x.cumsum(0), i(3, 1, 2))
case("any_all", lambda x: (x.any(), x.all(), x.any(1), x.all(0, keepdim=True)),
     torch.tensor([[True, False], [True, True]]))
case("any_all_empty", lambda x: (x.any(1), x.all(1)), torch.zeros(2, 0, dtype=torch.bool))

# ---- shape

case("reshape_transposed", lambda x: x.t().reshape(2, -1) * 2, n(3, 4))
case("permute_narrow", lambda x: x.permute(2, 0, 1).narrow(1, 1, 2).sum(0), n(3, 2, 4))
case("expand", lambda x, y: x.expand(2, 3, -1) * y, n(3, 1), n(2, 3, 4))
case("squeeze_unsqueeze", lambda x: x.squeeze(1).unsqueeze(-1).squeeze(), n(3, 1, 2))
case("flatten", lambda x: (x.flatten(), x.flatten(1, 2), x.flatten(-2)), n(2, 3, 2))
case("repeat", lambda x: x.repeat(2, 1, 3), n(2, 2))
case("cat_strided", lambda x, y: torch.cat((x.t(), y), 1), n(2, 3), n(3, 1))
case("cat_many", lambda x: torch.cat((x, 2 * x, 3 * x, 4 * x, 5 * x, 6 * x, 7 * x, 8 * x), -1), n(2))
case("stack", lambda x, y: torch.stack((x, y), -1), n(2, 3), n(2, 3))
case("split", lambda x: x.split(2, 1), n(2, 5))
case("split_sizes", lambda x: x.split([1, 3]), n(4))
case("chunk_unbind", lambda x: x.chunk(2, 0) + x.unbind(1), n(5, 2))
case("flip_roll", lambda x: (x.flip(0), x.flip((0, 1)), x.roll(1), x.roll((1, -1), (0, 1))), n(2, 3))
case("tril_triu", lambda x: (x.tril(), x.triu(1), x.tril(-1)), n(2, 3, 4))
case("empty_slices", lambda x: torch.cat((x.narrow(0, 1, 0), x, x[3:])), n(3, 2))

# ---- picks and orders

case("index_select", lambda x, k: x.index_select(1, k), n(2, 4), i(3, 0, 3))
case("gather", lambda x, k: x.gather(-1, k), n(2, 4), i(0, 0, 3, 2).reshape(2, 2))
case("gather_smaller", lambda x, k: x.gather(0, k), n(3, 4), i(2, 0).reshape(1, 2))
case("scatter_add", lambda x, k, y: x.scatter_add(1, k, y), n(2, 3), i(0, 0, 2, 1, 1, 1).reshape(2, 3),
     n(2, 3))
case("index_add", lambda x, k, y: x.index_add(0, k, y), n(3, 2), i(2, 0, 2, 2), n(4, 2))
case("take_along_dim", lambda x, k: torch.take_along_dim(x, k, 1), n(3, 4), i(1, 0).reshape(1, 2))
case("sort", lambda x: tuple(x.sort(1)), d(2, 5))
case("sort_ties_nan", lambda x: tuple(x.sort(stable=True)), f(2, NAN, -1, 2, INF, -INF))
case("sort_descending", lambda x: tuple(x.sort(dim=0, descending=True, stable=True)),
     f(2, NAN, -1, 2).reshape(4, 1))
case("argsort", lambda x: x.argsort(), i(3, -1, 2))
case("topk", lambda x: tuple(x.topk(2)), d(3, 5))
case("topk_smallest", lambda x: tuple(x.topk(2, 0, largest=False)), d(4, 2))
case("select", lambda x: x[1] * x[-1] + x[:, 0].sum(), n(3, 3))
case("slices", lambda x: x[1:, ::2] * x[:-1, 1::2], n(3, 4))
case("slice_rest", lambda x: x[..., -1] + x[0, ..., 1], n(2, 3, 4))
case("slice_of_transposed", lambda x: x.t()[1:3] * 3, n(2, 4))

# ---- products

case("matmul", lambda x, y: x @ y, n(2, 1, 3, 2), n(4, 2, 3))
case("matmul_transposed", lambda x, y: x.t() @ y.t(), n(3, 2), n(4, 3))
case("matmul_vectors", lambda x, y: (x @ y, y @ x.t(), y @ y), n(2, 3), n(3))
case("bmm_mm", lambda x, y, z: torch.bmm(x, y) @ z, n(2, 3, 2), n(2, 2, 3), n(3, 1))
case("mv_dot_outer", lambda x, y, z: (x.mv(y), y.dot(y), torch.outer(y, z)), n(2, 3), n(3), n(2))
case("einsum_matmul", lambda x, y: torch.einsum("bij,bjk->bik", x, y), n(2, 3, 4), n(2, 4, 2))
case("einsum_scores", lambda x, y: torch.einsum("bthd,bshd->bhts", x, y), n(2, 3, 2, 2), n(2, 4, 2, 2))
case("einsum_sums", lambda x, y: torch.einsum("ij,jk->j", x, y), n(2, 3), n(3, 4))
case("einsum_outer", lambda x, y: torch.einsum("i,j->ji", x, y), n(2), n(3))
case("einsum_implicit", lambda x, y: torch.einsum("ij,jk", x, y), n(2, 3), n(3, 2))
case("einsum_one", lambda x: (torch.einsum("ijk->ki", x), torch.einsum("ij...->", x)), n(2, 3, 2))
case("einsum_dots", lambda x, y: torch.einsum("...ij,jk->...ik", x, y), n(2, 1, 2, 3), n(3, 2))
case("einsum_dots_both", lambda x, y: torch.einsum("...i,...i", x, y), n(2, 1, 3), n(4, 3))
case("einsum_three", lambda x, y, z: torch.einsum("ab,bc,cd->ad", x, y, z), n(2, 3), n(3, 2), n(2, 2))

# ---- constructors and casts

case("sequences", lambda: (torch.arange(4), torch.arange(1, 2, 0.25), torch.arange(5, 0, -2),
                           torch.linspace(0, 1, 5), torch.linspace(2, 3, 1)))
case("identities", lambda: (torch.eye(3), torch.eye(2, 3), torch.eye(3, 2)))
case("likes", lambda x: (torch.zeros_like(x), torch.ones_like(x), torch.full_like(x, 2.5)), n(2, 3))
case("casts", lambda x: (x.float() * 2, x.half(), x.bfloat16(), x.int(), x.long(), x.bool()),
     f(-1.5, 0, 2.75))


def weights(out):
    k = torch.arange(out.numel())
    return ((k * 7 % 11 - 4.5) / 4).reshape(out.shape).to(out.dtype)


def main():
    tensors = {}

    def keep(key, t):
        tensors[key] = t.detach().clone().contiguous()

    for name, (fn, inputs) in cases.items():
        ins = [t.double().requires_grad_() if t.is_floating_point() else t for t in inputs]
        outs = fn(*ins)
        outs = outs if isinstance(outs, tuple) else (outs,)
        loss = sum((o * weights(o)).sum().double() for o in outs if o.requires_grad)
        if torch.is_tensor(loss):
            loss.backward()
        for k, t in enumerate(inputs):
            keep(f"{name}.in{k}", t)
        for k, t in enumerate(outs):
            keep(f"{name}.out{k}", t)
        for k, t in enumerate(ins):
            if t.grad is not None:
                keep(f"{name}.grad{k}", t.grad)
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden", "tensor_vocabulary.safetensors")
    save_file(tensors, path)
    print(len(cases), "cases,", os.path.getsize(path), "bytes")


main()
