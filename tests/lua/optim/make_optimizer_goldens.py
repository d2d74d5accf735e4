"""What published implementations of Adafactor, Muon, NorMuon, SOAP and Shampoo make of a few tensors, for
golden_spec.lua.

Writes optimizer_goldens.json beside itself. Needs torch 2.15, transformers, pytorch_optimizer 4.1 (Shampoo), a copy
of soap.py (github.com/nikhilvyas/SOAP, commit a1e5535) and the folder of the package dion
(github.com/microsoft/dion, commit 7452a58, which NeMo Automodel's lock file names):

    TORCHDYNAMO_DISABLE=1 python make_optimizer_goldens.py --soap soap.py --dion DIR

All is computed in float64, also what the originals do in bfloat16 or float32, so that only the algorithm counts;
one case of torch.optim.Muon runs as it is. Weights and gradients come from a generator that golden_spec.lua has,
too.
"""
import argparse
import importlib
import json
import math
import pathlib
import sys
import types
from unittest import mock

import torch

STEPS = 7
NAMES = {  # name: shape
    "layers.0.wide.weight": [3, 5], "layers.0.tall.weight": [5, 3], "layers.0.square.weight": [4, 4],
    "layers.0.norm.weight": [4], "embed_tokens.weight": [6, 3], "lm_head.weight": [3, 4],
}
SHAPES = {"vector": [5], "wide": [3, 5], "square": [4, 4], "batch": [2, 3, 4], "one": [1, 1]}


def numbers(shape, seed):
    """Lehmer's generator, between -1 and 1."""
    x, out = seed * 7919 + 17, []
    for _ in range(math.prod(shape)):
        x = x * 16807 % 2147483647
        out.append(x / 2147483647 * 2 - 1)
    return torch.tensor(out, dtype=torch.float64).reshape(shape)


def listed(t):
    return [float(f"{x:.12g}") for x in t.detach().double().flatten().tolist()]


class Wide:
    """A stand-in for the module torch whose short dtypes are float64."""
    bfloat16 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def run(shapes, make, dtype=torch.float64, extra=None):
    params = {}
    for i, (name, shape) in enumerate(shapes.items()):
        params[name] = torch.nn.Parameter(numbers(shape, i + 1).to(dtype))
    optimizers, kept = make(params), {}
    for step in range(1, STEPS + 1):
        for i, p in enumerate(params.values()):
            p.grad = numbers(p.shape, 100 * step + i).to(dtype)
        for optimizer in optimizers:
            optimizer.step()
        if extra and step == 1:
            kept["first"] = extra(params, optimizers)
    kept["last"] = {name: listed(p) for name, p in params.items()}
    return kept


def uniform(cls, **options):
    return lambda params: [cls(list(params.values()), **options)]


def case(kind, options, shapes, kept, tolerance=1e-10, dtype="float64"):
    kept.update(kind=kind, options=options, shapes=list(shapes.items()), tolerance=tolerance, dtype=dtype)
    return kept


def adafactor():
    from transformers import Adafactor
    for options in (dict(), dict(lr=0.3, weight_decay=0.1), dict(lr=0.1, beta2_decay=-0.5, eps=[0.3, 0.7], d=1.5),
                    dict(lr=0.2, maximize=True)):
        yield case("adafactor", options, SHAPES, run(SHAPES, uniform(torch.optim.Adafactor, **options)))
    for options in (dict(), dict(warmup_init=True, weight_decay=0.1),
                    dict(lr=0.05, relative_step=False, scale_parameter=False, decay_rate=-0.6),
                    dict(lr=0.3, relative_step=False, weight_decay=0.2, eps=[1e-3, 0.5], clip_threshold=0.4)):
        yield case("transformers_adafactor", options, SHAPES, run(SHAPES, uniform(Adafactor, **options)))


def torch_muon():
    import torch.optim._muon as module
    matrices = [n for n, s in NAMES.items() if n.startswith("layers") and len(s) == 2]

    def make(options):
        lr, wd = options["lr"], options.get("weight_decay", 0.1)
        scalar = options.get("scalar_lr", lr)

        def optimizers(params):
            own = {k: v for k, v in options.items() if not k.startswith(("scalar", "embed", "lm_head", "ns_dtype"))}
            adamw = lambda name, lr, wd: torch.optim.AdamW([params[name]], lr=lr, weight_decay=wd)
            return [torch.optim.Muon([params[n] for n in matrices], **own),
                    adamw("layers.0.norm.weight", scalar, wd),
                    adamw("embed_tokens.weight", options.get("embed_lr", scalar), 0.0),
                    adamw("lm_head.weight", options.get("lm_head_lr", lr / 2.0), 0.0)]
        return optimizers

    all_options = (dict(lr=0.02), dict(lr=0.1, weight_decay=0.3, momentum=0.8, nesterov=False),
                   dict(lr=0.02, adjust_lr_fn="match_rms_adamw", ns_steps=3, scalar_lr=0.05),
                   dict(lr=0.02, adjust_lr_fn="spectral_unclamped", ns_coefficients=[2.0, -1.5, 0.5], eps=0.5,
                        embed_lr=0.01, lm_head_lr=0.03))
    with mock.patch.object(module, "torch", Wide()):
        for options in all_options:
            yield case("muon", options, NAMES, run(NAMES, make(options)))
    yield case("muon", all_options[0], NAMES, run(NAMES, make(all_options[0]), torch.float32), 6e-3, "float32")


def dion(folder):
    for name in ("triton", "triton.language", "triton.runtime", "triton.runtime.driver"):
        sys.modules[name] = mock.MagicMock()
    package = types.ModuleType("dion")
    package.__path__ = [str(pathlib.Path(folder) / "dion")]
    sys.modules["dion"] = package
    muon, normuon = importlib.import_module("dion.muon"), importlib.import_module("dion.normuon")
    package.Dion = package.Dion2 = None
    package.Muon, package.NorMuon = muon.Muon, normuon.NorMuon
    from nemo_automodel.components.optim.dion import _separate_param_groups

    class Model(torch.nn.Module):
        def __init__(self, params):
            super().__init__()
            for name, p in params.items():
                *path, leaf = name.split(".")
                at = self
                for part in path:
                    if not hasattr(at, part):
                        new = torch.nn.Embedding(1, 1) if part == "embed_tokens" else torch.nn.Module()
                        at.add_module(part, new)
                    at = getattr(at, part)
                setattr(at, leaf, p)

    def make(cls, options):
        grouping = {k: options.get(k) for k in ("scalar_lr", "embed_lr", "lm_head_lr")}
        own = {k: v for k, v in options.items() if k not in grouping and not k.startswith("scalar")}

        def optimizers(params):
            groups = _separate_param_groups(Model(params), options["lr"], options.get("scalar_opt", "adamw"),
                                            options.get("weight_decay", 0.0), (0.9, 0.999), 1e-8, **grouping)
            return [cls([g for g in groups if g["params"]], **{"weight_decay": 0.0, **own})]
        return optimizers

    # its learning rates are float32 tensors
    with mock.patch.object(muon, "torch", Wide()), mock.patch.object(normuon, "torch", Wide()):
        for options in (dict(lr=0.02), dict(lr=0.1, weight_decay=0.3, mu=0.8, nesterov=True, adjust_lr="rms_norm",
                                            scalar_lr=0.05), dict(lr=0.05, adjust_lr=None, epsilon=0.5,
                                                                  scalar_opt="lion", embed_lr=0.02, lm_head_lr=0.01)):
            yield case("dion_muon", options, NAMES, run(NAMES, make(muon.Muon, options)), 1e-6)
        for options in (dict(lr=0.02, adjust_lr="spectral_norm"),
                        dict(lr=0.1, weight_decay=0.2, mu=0.8, muon_beta2=0.5, adjust_lr="rms_norm")):
            yield case("normuon", options, NAMES, run(NAMES, make(normuon.NorMuon, options)), 1e-6)


def soap(path):
    spec = importlib.util.spec_from_file_location("soap", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.torch = Wide()
    square = {"vector": [5], "square": [4, 4], "other": [3, 3]}
    one_sided = {"wide": [3, 5], "batch": [2, 3, 9]}  # what is larger than 3 is left alone
    with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
        torch.set_default_dtype(torch.float64)
        for options in (dict(precondition_frequency=2), dict(lr=0.05, betas=[0.8, 0.7], weight_decay=0.2, eps=1e-3,
                                                             precondition_frequency=1, shampoo_beta=0.6),
                        dict(lr=0.02, normalize_grads=True, correct_bias=False, precondition_frequency=3)):
            yield case("soap", options, square, run(square, uniform(module.SOAP, **options)), 1e-8)
        options = dict(lr=0.05, precondition_frequency=2, max_precond_dim=3)
        yield case("soap", options, one_sided, run(one_sided, uniform(module.SOAP, **options)), 1e-8)

        # Where a preconditioner lacks rank, the bases of its null space are anyone's: the original's are handed over.
        def bases(params, optimizers):
            state = optimizers[0].state
            return {n: [listed(q) for q in state[p]["Q"] if len(q)] for n, p in params.items()}
        lacking = {"wide": [3, 5], "batch": [2, 3, 4], "vector": [3]}
        for options in (dict(lr=0.05, precondition_frequency=3, precondition_1d=True),
                        dict(lr=0.05, precondition_frequency=4, merge_dims=True, max_precond_dim=6)):
            yield case("soap", options, lacking, run(lacking, uniform(module.SOAP, **options), extra=bases), 1e-7)
        torch.set_default_dtype(torch.float32)


def shampoo():
    from pytorch_optimizer import Shampoo
    for options in (dict(lr=0.1), dict(lr=0.1, momentum=0.9, weight_decay=0.1, preconditioning_compute_steps=2,
                                       matrix_eps=1e-2),
                    dict(lr=0.3, weight_decay=0.2, weight_decouple=True, matrix_eps=1e-2),
                    dict(lr=0.3, weight_decay=0.02, weight_decouple=True, fixed_decay=True)):
        yield case("shampoo", options, SHAPES, run(SHAPES, uniform(Shampoo, **options)), 1e-8)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--soap", required=True)
    parser.add_argument("--dion", required=True)
    args = parser.parse_args()
    cases = [*adafactor(), *torch_muon(), *soap(args.soap), *shampoo(), *dion(args.dion)]
    text = ",\n".join(json.dumps(c) for c in cases)
    pathlib.Path(__file__).with_name("optimizer_goldens.json").write_text(f"[\n{text}\n]\n")
