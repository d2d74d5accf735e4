#!/usr/bin/env python3
"""Write the PyTorch files that test_pytorch.c and pytorch_spec.lua read, and beside each the same
tensors, contiguous, as safetensors.

Needs torch, transformers and safetensors.
usage: python3 tests/c/data/io/make_pytorch.py   (from the project's root)
"""
import collections
import io
import json
import os
import struct
import zipfile

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

here = os.path.dirname(os.path.abspath(__file__))


def path(name):
    return os.path.join(here, name)


def expect(name, tensors):
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, path(name), {"format": "pt"})
    os.chmod(path(name), 0o644)


def types():
    """Every type of element that torch.save can name and safetensors too."""
    values = torch.arange(12, dtype=torch.float32).reshape(3, 4) / 8 - 0.5
    tensors = {
        "f32": values, "bf16": values.to(torch.bfloat16), "f16": values.to(torch.float16), "f64": values.to(torch.float64),
        "i32": torch.tensor([-1, 0, 2147483647], dtype=torch.int32), "i64": torch.tensor([[-1], [9007199254740993]]),
        "u8": torch.tensor([0, 255, 7], dtype=torch.uint8), "bool": torch.tensor([True, False, True]),
        "i8": torch.tensor([-1, 1], dtype=torch.int8), "i16": torch.tensor([-300, 300], dtype=torch.int16),
        "c64": torch.tensor([1 + 2j]), "u16": torch.tensor([65535], dtype=torch.uint16),
        "f8": torch.tensor([0.5, -2.0]).to(torch.float8_e4m3fn),
        "scalar": torch.tensor(2.5), "empty": torch.zeros(2, 0, 3), "na\u00efve.weight": torch.tensor([1.5]),
    }
    torch.save(tensors, path("types.bin"))
    expect("types_bin.safetensors", tensors)


def views():
    """Strides, offsets, tensors that share storages, parameters; and _metadata, as modules give it."""
    base = torch.arange(120, dtype=torch.float32).reshape(2, 3, 4, 5)
    half = base.to(torch.float16)
    flags = torch.arange(24).reshape(4, 6) % 5 == 0
    tensors = collections.OrderedDict(
        whole=base, tied=base, parameter=torch.nn.Parameter(base[1, 2]), frozen=torch.nn.Parameter(half[1], requires_grad=False),
        transposed=base.transpose(0, 3), permuted=half.permute(2, 0, 3, 1), sliced=base[:, 1:, ::2, 1:4], column=half[0, 0, :, 3],
        row=base[1, 0, 2], diagonal=base[0, 0].diagonal(), expanded=torch.tensor([[1.0], [2.0]]).expand(2, 3),
        overlapping=base.flatten().as_strided((4, 6), (3, 2), 5), flags=flags.t(), ones=torch.ones(3, 1, 2).transpose(0, 1),
        last=base[1:, 2:, 3:, 4:], none=base[:, :0])
    tensors._metadata = collections.OrderedDict({"": {"version": 1}, "layer": {"version": 2}})
    torch.save(tensors, path("views.bin"))
    torch.save(tensors, path("views_legacy.bin"), _use_new_zipfile_serialization=False)
    expect("views_bin.safetensors", tensors)


def nested():
    """As training scripts save: the state dict under a key, beside other state."""
    layer = torch.nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(6).reshape(2, 3))
        layer.bias.copy_(torch.tensor([0.5, -0.5]))
    state = {k: v.clone() for k, v in layer.state_dict().items()}
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    others = {"epoch": 3, "big": 2**40, "small": -(2**40), "loss": 0.5, "note": "x" * 300, "done": True, "none": None,
              "optimizer": optimizer.state_dict(), "history": [1, (2, 3), []]}
    torch.save({**others, "state_dict": state}, path("nested.bin"))
    torch.save({"model": {**state, "steps": 7}, **others}, path("nested_model.bin"))
    expect("nested_bin.safetensors", state)


def rezip(name, out, zip64):
    """The entries of a zip file, unaligned; zip64: with the places and sizes that a file of more
    than 4 GB needs."""
    source, f, central = zipfile.ZipFile(path(name)), io.BytesIO(), b""
    for info in source.infolist():
        data, text = source.read(info), info.filename.replace("types/", "another top/").encode()
        place = f.tell()
        f.write(struct.pack("<4s5H3I2H", b"PK\3\4", 45, 0, 0, 0, 0, info.CRC, len(data), len(data), len(text), 0))
        f.write(text + data)
        extra = struct.pack("<HHI", 0x7075, 4, 9)
        sizes = (len(data), len(data), place)
        if zip64:
            extra += struct.pack("<HHQQQ", 1, 24, *sizes)
            sizes = (2**32 - 1,) * 3
        central += struct.pack("<4s6H3I5H2I", b"PK\1\2", 45, 45, 0, 0, 0, 0, info.CRC, sizes[0], sizes[1], len(text),
                               len(extra), 2, 0, 0, 0, sizes[2]) + text + extra + b"??"
    begin, count = f.tell(), len(source.infolist())
    f.write(central)
    if zip64:
        end = f.tell()
        f.write(struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(central), begin))
        f.write(struct.pack("<4sIQI", b"PK\6\7", 0, end, 1))
        count, begin = 0xFFFF, 2**32 - 1
    f.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(central), begin, 0))
    with open(path(out), "wb") as g:
        g.write(f.getvalue())
    torch.load(path(out), weights_only=True)  # PyTorch agrees that it is one


def llama():
    """A tiny model with tied weights as older repositories have it: pytorch_model.bin, and in two files
    with an index."""
    config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
                         num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=True)
    state = LlamaForCausalLM(config).state_dict()
    files = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    where = {name: files["layers" not in name] for name in state}
    os.makedirs(path("llama"), exist_ok=True)
    config.architectures = ["LlamaForCausalLM"]
    config.to_json_file(path("llama/config.json"))
    torch.save(state, path("llama/pytorch_model.bin"))
    for file in files:
        torch.save({n: t for n, t in state.items() if where[n] == file}, path("llama/" + file))
    with open(path("llama/pytorch_model.bin.index.json"), "w") as f:
        total = sum(t.numel() * t.element_size() for t in state.values())
        json.dump({"metadata": {"total_size": total}, "weight_map": where}, f, indent=2)
        f.write("\n")
    expect("llama/expected.safetensors", state)


torch.manual_seed(0)
types()
views()
nested()
rezip("types.bin", "types_zip.bin", False)
rezip("types.bin", "types_zip64.bin", True)
llama()
