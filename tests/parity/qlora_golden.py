"""QLoRA by transformers, bitsandbytes and PEFT, on the CPU: what they store of matrices in few bits, and the logits,
losses and gradients of a tiny Llama with LoRA over weights in few bits, of numbers that the test makes, too.

    python qlora_golden.py

Writes golden/qlora/golden.safetensors (packed bytes of small matrices, and what they stand for; the model's figures)
and golden/qlora/digests.json (BLAKE2b of larger matrices' bytes). Needs bitsandbytes 0.50. Of int8 the model is one
with the weights that int8 stands for: bitsandbytes rounds activations to int8, too, which amlua does not.
"""
import hashlib
import tempfile
import warnings

import bitsandbytes.functional as F
import common
import torch
from peft import LoraConfig, get_peft_model
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

CONFIG = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
              vocab_size=60, max_position_embeddings=32, rms_norm_eps=1e-5, tie_word_embeddings=False)
STEPS = 5
# rows, columns, dtype: whole blocks, a last block that is not full, rows that end inside of blocks and of bytes
SMALL = {"whole": (3, 128, torch.bfloat16), "ragged": (7, 30, torch.float32), "odd": (3, 21, torch.float16),
         "zero": (2, 64, torch.float32)}
LARGE = {"bf16": (300, 640, torch.bfloat16), "f16": (257, 129, torch.float16)}


def lehmer(count, state=1):
    """Numbers that Lua can make, too."""
    out = []
    for _ in range(count):
        state = state * 48271 % 2147483647
        out.append(state / 2147483647 - 0.5)
    return torch.tensor(out, dtype=torch.float64)


def filled(shape, seed):
    return (0.4 * lehmer(shape.numel(), seed)).to(torch.float32).reshape(shape)


def matrix(rows, cols, dtype, zero=False):
    w = lehmer(rows * cols).reshape(rows, cols)
    return (torch.zeros_like(w) if zero else w * w.abs()).to(dtype)


def packed(w, kind, nested):
    """The bytes as amlua lays them out, and what they stand for."""
    if kind == "int8":
        codes, scale, _ = F.int8_vectorwise_quant(w.half())
        parts, dequantized = [scale, codes], F.int8_vectorwise_dequant(codes, scale)
    else:
        codes, state = F.quantize_4bit(w, quant_type=kind, compress_statistics=nested)
        parts, dequantized = [state.absmax, codes], F.dequantize_4bit(codes, state)
        if nested:
            parts = [state.offset.reshape(1), state.state2.absmax] + parts
    flat = torch.cat([p.contiguous().reshape(-1).view(torch.uint8) for p in parts])
    return flat, dequantized.to(w.dtype).contiguous()


def bits():
    tensors, digests = {}, {}
    kinds = [("nf4", False), ("nf4", True), ("fp4", False), ("fp4", True), ("int8", False)]
    for kind, nested in kinds:
        label = kind + ("_nested" if nested else "")
        for name, (rows, cols, dtype) in SMALL.items():
            flat, dequantized = packed(matrix(rows, cols, dtype, name == "zero"), kind, nested)
            tensors[f"{name}.{label}.bytes"] = flat
            tensors[f"{name}.{label}.unpacked"] = dequantized
        for name, (rows, cols, dtype) in LARGE.items():
            flat, dequantized = packed(matrix(rows, cols, dtype), kind, nested)
            digests[f"{name}.{label}"] = {
                "bytes": hashlib.blake2b(flat.numpy().tobytes(), digest_size=32).hexdigest(),
                "unpacked": hashlib.blake2b(dequantized.view(torch.int16).numpy().tobytes(), digest_size=32).hexdigest(),
            }
    return tensors, digests


def base(kind):
    """A tiny Llama whose rows are whole blocks: of shorter ones bitsandbytes 0.50 mixes up scales with AVX-512."""
    torch.manual_seed(0)
    plain = LlamaForCausalLM(LlamaConfig(**CONFIG)).float()
    for i, (name, p) in enumerate(sorted(plain.named_parameters())):
        p.data = torch.ones_like(p) if "norm" in name else filled(p.shape, i + 1)
    if kind == "int8":
        for name, module in plain.named_modules():
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                module.weight.data = packed(module.weight.data, "int8", False)[1]
        return plain
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                  bnb_4bit_compute_dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        plain.save_pretrained(folder)
        return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=settings,
                                                device_map="cpu")


def figures(kind):
    ids = torch.tensor([[k * 13 % CONFIG["vocab_size"] for k in range(1, 13)]])
    model = get_peft_model(base(kind), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", lora_dropout=0.0))
    model.train()  # in eval mode bitsandbytes takes kernels that want larger shapes
    trained = {n.replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}
    for i, name in enumerate(sorted(trained)):
        trained[name].data = filled(trained[name].shape, i + 101)
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2, weight_decay=0.0)
    out, losses = {}, []
    for step in range(STEPS):
        result = model(input_ids=ids, labels=ids)
        optimizer.zero_grad()
        result.loss.backward()
        losses.append(result.loss.item())
        if step == 0:
            out[f"{kind}.logits"] = result.logits.detach().clone()
            for name in sorted(trained):
                if "layers.0." in name and ("q_proj" in name or "down_proj" in name):
                    out[f"{kind}.grad.{name}"] = trained[name].grad.clone()
        optimizer.step()
    out[f"{kind}.losses"] = torch.tensor(losses, dtype=torch.float64)
    return out


def main():
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    tensors, digests = bits()
    for kind in ("nf4", "int8"):
        tensors.update(figures(kind))
    common.write_tensors(common.golden_path("qlora", "golden.safetensors"), tensors)
    common.write_json(common.golden_path("qlora", "digests.json"), digests)


if __name__ == "__main__":
    main()
