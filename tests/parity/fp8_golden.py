"""A tiny Llama by torchao's float8 recipes, emulated: losses of a few steps and the first one's gradients.

    python fp8_golden.py

Writes golden/fp8/{config.json,model.safetensors,golden.safetensors}, in f32; weights are numbers of bf16.
For each recipe R: `R.losses` of STEPS steps of plain gradient descent, and `R.gradient`, every STRIDE-th
element of all gradients of the first, end to end in the order of names; all linear maps are in 8 bits, the
head as well. And of one map `x`, `weight`, `dout`, with `R.out`, `R.dx`, `R.dweight`; columns and rows differ
widely, and a row of x is 0.
"""
import dataclasses

import common
import torch
from torchao.float8 import Float8LinearConfig, convert_to_float8_training
from torchao.float8.float8_linear import Float8Linear
from transformers import LlamaConfig, LlamaForCausalLM

RECIPES = ("tensorwise", "rowwise", "rowwise_with_gw_hp")
STEPS, LR, STRIDE = 4, 0.05, 12
CONFIG = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
              num_key_value_heads=2, head_dim=8, vocab_size=32, max_position_embeddings=32, attention_bias=True,
              bos_token_id=1, eos_token_id=2, rms_norm_eps=1e-5, tie_word_embeddings=False)


def make_model():
    model = LlamaForCausalLM(LlamaConfig(**CONFIG))
    common.random_weights(model, torch.Generator().manual_seed(8), 2.0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.bfloat16())
    return model


def run(recipe, ids):
    model = make_model()
    config = dataclasses.replace(Float8LinearConfig.from_recipe_name(recipe), emulate=True)
    convert_to_float8_training(model, config=config)
    losses, sample = [], None
    for _ in range(STEPS):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        losses.append(loss.item())
        named = sorted(model.named_parameters())
        if sample is None:
            sample = torch.cat([p.grad.flatten() for _, p in named])[::STRIDE].clone()
        with torch.no_grad():
            for _, p in named:
                p -= LR * p.grad
                p.grad = None
    return torch.tensor(losses, dtype=torch.float64), sample


def one_map(golden):
    gen = torch.Generator().manual_seed(10)
    x, dout = torch.randn(2, 6, 32, generator=gen), 1e-4 * torch.randn(2, 6, 16, generator=gen)
    x, dout = x * torch.logspace(-5, 2, 32), dout * torch.logspace(-2, 1, 12).reshape(2, 6, 1)
    x[1, 2] = 0
    linear = torch.nn.Linear(32, 16, bias=False)
    weight = torch.randn(16, 32, generator=gen) * torch.logspace(-2, 0, 16)[:, None]
    linear.weight = torch.nn.Parameter(weight)
    golden |= {"x": x, "weight": weight, "dout": dout}
    for recipe in RECIPES:
        config = dataclasses.replace(Float8LinearConfig.from_recipe_name(recipe), emulate=True)
        x = x.detach().requires_grad_()
        linear.weight.grad = None
        out = Float8Linear.from_float(linear, config)(x)
        out.backward(dout)
        golden |= {recipe + ".out": out, recipe + ".dx": x.grad, recipe + ".dweight": linear.weight.grad}


def main():
    ids = torch.randint(3, CONFIG["vocab_size"], (2, 13), generator=torch.Generator().manual_seed(9))
    model, golden = make_model(), {"input_ids": ids}
    for recipe in RECIPES:
        golden[recipe + ".losses"], golden[recipe + ".gradient"] = run(recipe, ids)
    one_map(golden)
    common.write_json(common.golden_path("fp8", "config.json"), {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float32",
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, **CONFIG})
    common.write_tensors(common.golden_path("fp8", "model.safetensors"),
                         {name: p.detach().bfloat16() for name, p in model.named_parameters()})
    common.write_tensors(common.golden_path("fp8", "golden.safetensors"), golden)


if __name__ == "__main__":
    main()
