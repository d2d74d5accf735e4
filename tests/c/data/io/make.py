#!/usr/bin/env python3
"""Write the small files that test_safetensors.c, test_gguf.c and test_npy.c read.

Needs numpy, torch (for bfloat16), safetensors and gguf.
usage: python3 tests/c/data/io/make.py   (from the project's root)
"""
import os

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

here = os.path.dirname(os.path.abspath(__file__))


def path(name):
    return os.path.join(here, name)


def safetensors():
    values = torch.arange(12, dtype=torch.float32).reshape(3, 4) / 8 - 0.5
    save_file(
        {
            "f32": values,
            "bf16": values.to(torch.bfloat16),
            "f16": values.to(torch.float16),
            "f64": values.to(torch.float64),
            "i32": torch.tensor([-1, 0, 2147483647], dtype=torch.int32),
            "i64": torch.tensor([[-1], [9007199254740993]], dtype=torch.int64),
            "u8": torch.tensor([0, 255, 7], dtype=torch.uint8),
            "bool": torch.tensor([True, False, True]),
            "i8": torch.tensor([-1, 1], dtype=torch.int8),
            "scalar": torch.tensor(2.5),
            "empty": torch.zeros(2, 0, 3),
            "naïve.weight": torch.tensor([1.5]),
        },
        path("types.safetensors"),
        {"format": "pt", "note": 'a "quoted" line\n'},
    )


def gguf_types():
    """Every tensor type that is read, and every key-value type. Quantised tensors hold random
    bytes, so all bits of the blocks are used; `<name>.f32` holds what gguf makes of them."""
    rng = np.random.default_rng(7)
    w = gguf.GGUFWriter(path("types.gguf"), "test")
    w.add_uint8("kv.u8", 255)
    w.add_int8("kv.i8", -128)
    w.add_uint16("kv.u16", 65535)
    w.add_int16("kv.i16", -32768)
    w.add_uint32("kv.u32", 4294967295)
    w.add_int32("kv.i32", -2147483648)
    w.add_uint64("kv.u64", 18446744073709551615)
    w.add_int64("kv.i64", -9223372036854775808)
    w.add_float32("kv.f32", 0.1)
    w.add_float64("kv.f64", 0.1)
    w.add_bool("kv.bool", True)
    w.add_string("kv.string", 'é "\n')
    w.add_array("kv.strings", ["a", "", "Ġthe"])
    w.add_array("kv.ints", [-1, 2, 3])
    w.add_array("kv.floats", [0.5, -2.0])
    w.add_array("kv.bools", [True, False])
    w.add_array("kv.many", list(range(100)))

    values = (np.arange(12, dtype=np.float32) / 8 - 0.5).reshape(3, 4)
    w.add_tensor("f32", values)
    w.add_tensor("f16", values.astype(np.float16))
    w.add_tensor("f64", values.astype(np.float64))
    w.add_tensor("i32", np.array([-1, 0, 2147483647], dtype=np.int32))
    w.add_tensor("i64", np.array([-1, 9007199254740993], dtype=np.int64))
    w.add_tensor("i8", np.array([-1, 1], dtype=np.int8))
    bf16 = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint8).numpy()
    w.add_tensor("bf16", bf16, raw_dtype=gguf.GGMLQuantizationType.BF16)
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"):
        qtype = gguf.GGMLQuantizationType[name]
        _, size = gguf.GGML_QUANT_SIZES[qtype]
        blocks = rng.integers(0, 256, (3, 2, size), dtype=np.uint8)
        scales = 2 if name in ("Q4_1", "Q5_1") else 1
        halves = rng.normal(size=(3, 2, scales)).astype(np.float16)
        halves[0, 0] = np.float16(6e-8)  # subnormal
        blocks[:, :, : 2 * scales] = halves.view(np.uint8)
        rows = blocks.reshape(3, 2 * size)
        w.add_tensor(name, rows, raw_dtype=qtype)
        w.add_tensor(name + ".f32", gguf.quants.dequantize(rows, qtype))
    iq2_xs = np.zeros((1, 74), dtype=np.uint8)
    w.add_tensor("not_read", iq2_xs, raw_dtype=gguf.GGMLQuantizationType.IQ2_XS)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def gguf_kquants():
    """K-quants and MXFP4, the same way; apart from types.gguf, every byte of which a test damages in turn."""
    rng = np.random.default_rng(8)
    w = gguf.GGUFWriter(path("kquants.gguf"), "test")
    # d, and for some the minima's, lie at the front or the end of a block
    for name, at, scales in (("Q2_K", 80, 2), ("Q3_K", 108, 1), ("Q4_K", 0, 2), ("Q5_K", 0, 2), ("Q6_K", 208, 1)):
        qtype = gguf.GGMLQuantizationType[name]
        _, size = gguf.GGML_QUANT_SIZES[qtype]
        blocks = rng.integers(0, 256, (3, 2, size), dtype=np.uint8)
        halves = rng.normal(size=(3, 2, scales)).astype(np.float16)
        halves[0, 0] = np.float16(6e-8)
        blocks[:, :, at : at + 2 * scales] = halves.view(np.uint8)
        rows = blocks.reshape(3, 2 * size)
        w.add_tensor(name, rows, raw_dtype=qtype)
        w.add_tensor(name + ".f32", gguf.quants.dequantize(rows, qtype))
    qtype = gguf.GGMLQuantizationType.MXFP4
    blocks = rng.integers(0, 256, (3, 16, 17), dtype=np.uint8)
    blocks[0, :4, 0] = 0, 1, 2, 255  # subnormal scales, and numbers beyond f32
    rows = blocks.reshape(3, 16 * 17)
    w.add_tensor("MXFP4", rows, raw_dtype=qtype)
    w.add_tensor("MXFP4.f32", gguf.quants.dequantize(rows, qtype))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def npy():
    values = (np.arange(24, dtype=np.float32) / 8 - 0.5).reshape(2, 3, 4)
    np.save(path("f4.npy"), values)
    np.save(path("f4_fortran.npy"), np.asfortranarray(values))
    np.save(path("f8.npy"), values[0].astype(np.float64))
    np.save(path("f2.npy"), values[0].astype(np.float16))
    np.save(path("i4.npy"), np.array([-1, 0, 2147483647], dtype=np.int32))
    np.save(path("i8.npy"), np.array([-1, 9007199254740993], dtype=np.int64))
    np.save(path("u1.npy"), np.array([0, 255, 7], dtype=np.uint8))
    np.save(path("b1.npy"), np.array([True, False, True]))
    np.save(path("scalar.npy"), np.float32(2.5))
    np.save(path("empty.npy"), np.zeros((2, 0, 3), dtype=np.float32))
    np.save(path("big_endian.npy"), values.astype(">f4"))
    with open(path("version2.npy"), "wb") as f:
        np.lib.format.write_array(f, values[0], version=(2, 0))


safetensors()
gguf_types()
gguf_kquants()
npy()
