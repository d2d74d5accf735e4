"""What transformers computes in float64, and how far that moves when weights move by half a unit of f32's last place:
no two programs in f32 need be closer than that.

Not here: what is compared (random_configs.py).
"""
import families
import torch
from torch.overrides import TorchFunctionMode


class _Wide(TorchFunctionMode):
    """Within, what transformers casts to f32 (norms, softmax, losses, routers) stays in float64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if args and isinstance(args[0], torch.Tensor) and args[0].dtype == torch.float64:
            if func is torch.Tensor.float:
                return args[0]
            if func is torch.Tensor.to:
                args = tuple(torch.float64 if a is torch.float32 else a for a in args)
            if kwargs.get("dtype") is torch.float32:
                kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)


def computed(numbers, folder, inputs, seed=None):
    """numbers(model, inputs) of the checkpoint in `folder`, in float64; with a seed, of weights moved at random.
    RoPE's angles, cosines and sines stay as they are in f32: others would make another function of it."""
    model = families.opened(folder).double()
    for module in model.modules():
        if type(module).__name__.endswith("RotaryEmbedding"):
            module.float()
        if hasattr(module, "reorder_and_upcast_attn"):
            module.reorder_and_upcast_attn = False  # GPT-2's way to have its scores in f32
    if seed is not None:
        gen = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1 + 2.0 ** -24 * (2 * torch.rand(p.shape, generator=gen, dtype=torch.float64) - 1))
    with _Wide():
        return numbers(model, {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()})
