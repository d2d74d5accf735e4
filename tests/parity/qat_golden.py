"""Training that knows of later quantisation: fake quantisation and a tiny Llama trained with it, by torchao.

    python qat_golden.py

Writes golden/qat/: rounding.safetensors (numbers and gradients of every kind and dtype), a tiny Llama (config.json,
model.safetensors, weights in bfloat16), training.json (losses, gradient norms, and gradients of one step, per kind).
Oracle: torchao's IntxFakeQuantizer, Int8DynActInt4WeightQATQuantizer and Int4WeightOnlyQATQuantizer; transformers;
torch.optim.AdamW. Fake quantisation is off in the first AFTER steps, as fake_quant_after_n_steps has it.
"""
import json
import os
import random

import torch
from safetensors.torch import save_file
from torchao.quantization.qat import Int4WeightOnlyQATQuantizer, Int8DynActInt4WeightQATQuantizer
from torchao.quantization.qat.fake_quantizer import IntxFakeQuantizer
from torchao.quantization.qat.linear import (
    FakeQuantizedLinear,
    _get_4w_weight_config,
    _get_8da4w_activation_config,
    _get_8da4w_weight_config,
    enable_linear_fake_quant,
)
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden", "qat")
GROUP, STEPS, AFTER, LR = 16, 6, 2, 3e-3
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
KINDS = {
    "int4_float32": _get_8da4w_weight_config(GROUP, torch.float32),
    "int4_bfloat16": _get_8da4w_weight_config(GROUP, torch.bfloat16),
    "uint4": _get_4w_weight_config(GROUP, torch.bfloat16),
    "int8": _get_8da4w_activation_config(torch.float32),
}


def rounding():
    torch.manual_seed(3)
    x = torch.randn(5, 2 * GROUP)
    x[1] = 0
    x[2, :GROUP] = 0.37  # all the same, the largest is cut off
    x[3] = x[3].abs() * 1e-3
    x[3, 5], x[4, 20] = 40.0, -40.0
    grad = torch.randn(x.shape)
    tensors = {"x": x, "grad": grad}
    for name, dtype in DTYPES.items():
        for kind, config in KINDS.items():
            leaf = x.clone().to(dtype).requires_grad_()
            y = IntxFakeQuantizer(config)(leaf)
            y.backward(grad.to(dtype))
            tensors[f"{name}.{kind}.y"], tensors[f"{name}.{kind}.dx"] = y.detach(), leaf.grad
    save_file(tensors, os.path.join(OUT, "rounding.safetensors"))


QUANTIZERS = {
    "int8_dynact_int4weight": lambda: Int8DynActInt4WeightQATQuantizer(
        groupsize=32, precision=torch.float32, scales_precision=torch.bfloat16),
    "int4_weight_only": lambda: Int4WeightOnlyQATQuantizer(
        groupsize=32, inner_k_tiles=2, precision=torch.float32, scales_precision=torch.bfloat16),
}


def switch(model, on):
    for module in model.modules():
        enable_linear_fake_quant(module, on)


def gradients(model, rows):
    count, total = sum(len(row) - 1 for row in rows), 0.0
    for row in rows:
        logits = model(torch.tensor([row[:-1]])).logits[0]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(row[1:]), reduction="sum")
        total += loss.item()
        (loss / count).backward()
    return total / count


def training():
    rng = random.Random(5)
    rows = [[rng.randrange(67) for _ in range(rng.randrange(9, 17))] for _ in range(4)]
    torch.manual_seed(4)
    config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
                         num_key_value_heads=2, vocab_size=67, max_position_embeddings=64, bos_token_id=1,
                         eos_token_id=2, tie_word_embeddings=True, initializer_range=0.3)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(OUT)
    os.remove(os.path.join(OUT, "generation_config.json"))
    out = {"lr": LR, "after": AFTER, "rows": rows}
    for kind, quantizer in QUANTIZERS.items():
        model = AutoModelForCausalLM.from_pretrained(OUT, dtype=torch.float32)
        model = quantizer().prepare(model)
        taken = sorted(n for n, m in model.named_modules() if isinstance(m, FakeQuantizedLinear))
        first = gradients(model, rows)
        grads = {n: p.grad.flatten()[:: max(1, p.numel() // 5)].tolist() for n, p in model.named_parameters()}
        norms = {n: p.grad.norm().item() for n, p in model.named_parameters()}
        model.zero_grad()
        optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01)
        steps = []
        for step in range(STEPS):
            switch(model, step >= AFTER)
            loss = gradients(model, rows)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
            optimizer.step()
            optimizer.zero_grad()
            steps.append([loss, norm])
        out[kind] = {"taken": taken, "loss": first, "grads": grads, "norms": norms, "steps": steps}
    with open(os.path.join(OUT, "training.json"), "w") as f:
        json.dump(json.loads(json.dumps(out), parse_float=lambda x: float(f"{float(x):.8g}")), f)
        f.write("\n")


os.makedirs(OUT, exist_ok=True)
rounding()
training()
