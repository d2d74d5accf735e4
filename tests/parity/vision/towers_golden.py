"""Goldens of the vision towers: a tiny random checkpoint of each and what transformers computes of it.

    python towers_golden.py [CASE ...]

Writes golden/CASE/{config.json,model.safetensors} with the names that files on the hub have, read back by transformers,
and golden.safetensors: pixels [2,3,H,W] of the size that the tower is made for and other [1,3,H',W'] of another one;
hidden.I, last, pooled of the first and other.hidden.1, other.last, other.pooled of the second, whose positions are
resampled; of DINOv2 masked [2,patches] and masked.last; weights w.NAME of a loss, the sum of the outputs NAME times
them; losses [3] before each of three steps of torch's AdamW (lr 1e-3, weight decay 0.1), grad.NAME of the first and
step.NAME after the third, by names in files. Its metadata has the versions and the seed.
"""
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "models"))

import families  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
BASE = dict(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, layer_norm_eps=0.01)
# name -> class, changes to BASE, size of the other pictures; sides are no multiples of a patch, but for one
CASES = {
    "clip": ("CLIPVisionModel", dict(intermediate_size=20, image_size=14, patch_size=4), (21, 10)),
    "siglip": ("SiglipVisionModel", dict(intermediate_size=20, image_size=13, patch_size=3, num_hidden_layers=2),
               (10, 16)),
    "dinov2": ("Dinov2Model", dict(image_size=20, patch_size=4, mlp_ratio=2), (12, 30)),
    "dinov2_swiglu": ("Dinov2Model", dict(image_size=12, patch_size=3, mlp_ratio=2, use_swiglu_ffn=True,
                                          qkv_bias=False, use_mask_token=False, num_hidden_layers=2), (18, 18)),
}


def random_weights(model, gen):
    """Weights that show a mistake: no norm is the identity, no bias zero."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=gen)
            if "norm" in name.lower() or "layer_scale" in name:
                p.copy_(0.2 * noise + (0 if name.endswith("bias") else 1))
            elif name.endswith("bias"):
                p.copy_(0.3 * noise)
            elif p.dim() < 2 or any(part in name for part in ("position", "token", "probe")):
                p.copy_(0.7 * noise)
            else:
                fan = p[0].numel()
                p.copy_(noise * (1.5 if "q_proj" in name or "k_proj" in name else 1.0) * fan ** -0.5)
    return model


def in_files(model, tensors):
    """The same under the names of files on the hub."""
    named = families.saved_names(model, tensors)
    prefix = "" if model.config.model_type == "dinov2" else "vision_model."
    return {k if k.startswith(prefix) else prefix + k: v for k, v in named.items()}


def outputs(model, golden):
    """{name: tensor} of both sizes of pictures."""
    resampled = {} if model.config.model_type == "dinov2" else {"interpolate_pos_encoding": True}
    first = model(golden["pixels"], output_hidden_states=True)
    other = model(golden["other"], output_hidden_states=True, **resampled)
    out = {f"hidden.{i}": h for i, h in enumerate(first.hidden_states)}
    out.update({"last": first.last_hidden_state, "pooled": first.pooler_output,
                "other.hidden.1": other.hidden_states[1], "other.last": other.last_hidden_state,
                "other.pooled": other.pooler_output})
    if "masked" in golden:
        out["masked.last"] = model(golden["pixels"], bool_masked_pos=golden["masked"].bool()).last_hidden_state
    return out


def make(name):
    cls, fields, other = CASES[name]
    folder, seed = os.path.join(HERE, "golden", name), 100 * list(CASES).index(name) + 1
    gen = torch.Generator().manual_seed(seed)
    shutil.rmtree(folder, ignore_errors=True)
    model_class = getattr(transformers, cls)
    model = model_class(model_class.config_class(**{**BASE, **fields}, architectures=[cls], dtype="float32"))
    random_weights(model, gen).save_pretrained(folder)
    file = os.path.join(folder, "model.safetensors")
    save_file(in_files(model, dict(model.named_parameters())), file, metadata={"format": "pt"})
    model = model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    stored, read = load_file(file), in_files(model, dict(model.named_parameters()))
    assert all(torch.equal(read[k], stored[k]) for k in set(read) | set(stored)), f"{name} is not read as it was written"

    side = fields["image_size"]
    golden = {"pixels": torch.randn(2, 3, side, side, generator=gen),
              "other": torch.randn(1, 3, *other, generator=gen)}
    if cls == "Dinov2Model" and model.config.use_mask_token:
        patches = (side // fields["patch_size"]) ** 2
        golden["masked"] = (torch.rand(2, patches, generator=gen) < 0.3).int()
    with torch.no_grad():
        golden.update({k: v.contiguous() for k, v in outputs(model, golden).items()})
    asked = [k for k in golden if k.endswith(("hidden.1", "last", "pooled"))]
    golden.update({"w." + k: torch.randn(golden[k].shape, generator=gen) / golden[k].numel() ** 0.5 for k in asked})

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, foreach=False)
    losses = []
    for step in range(3):
        optimizer.zero_grad(set_to_none=True)
        out = outputs(model, golden)
        loss = sum((out[k] * golden["w." + k]).sum() for k in asked)
        loss.backward()
        losses.append(loss.item())
        if step == 0:
            grads = in_files(model, {n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
                                     for n, p in model.named_parameters()})
        optimizer.step()
    golden["losses"] = torch.tensor(losses)
    golden.update({"grad." + k: v for k, v in grads.items()})
    golden.update({"step." + k: v.detach() for k, v in in_files(model, dict(model.named_parameters())).items()})
    assert set(grads) == set(load_file(file)), set(grads) ^ set(load_file(file))
    assert all(torch.isfinite(v).all() for v in golden.values() if v.is_floating_point())
    save_file({k: v.detach().contiguous().clone() for k, v in golden.items()}, os.path.join(folder, "golden.safetensors"),
              metadata={"made_with": f"torch {torch.__version__}, transformers {transformers.__version__}, seed {seed}"})
    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    zero = [k for k, v in grads.items() if v.abs().max() == 0]
    print(f"{name:16} {size / 1e3:6.1f} kB  losses {losses}" + (f"  ZERO {zero}" if zero else ""), flush=True)


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        make(case)
