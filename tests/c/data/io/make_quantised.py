#!/usr/bin/env python3
"""Write quantised.gguf, which test_gguf_write.c compares with: numbers x, and for each type that amlua writes what
ggml's reference quantiser makes of them.

Needs numpy, gguf and llama-cpp-python, whose libggml-base has the quantisers (gguf's own are the same, but for
Q4_K, which it lacks).
usage: python3 tests/c/data/io/make_quantised.py   (from the project's root)
"""
import ctypes
import glob
import importlib.util
import os

import gguf
import numpy as np

here = os.path.dirname(os.path.abspath(__file__))
package = os.path.dirname(importlib.util.find_spec("llama_cpp").origin)
ggml = ctypes.CDLL(glob.glob(os.path.join(package, "lib", "libggml-base.so"))[0])
ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                                     ctypes.c_int64, ctypes.c_void_p]


def quantised(x, kind):
    if kind == gguf.GGMLQuantizationType.F16:
        return x.astype(np.float16)
    size, bytes_ = gguf.GGML_QUANT_SIZES[kind]
    out = np.zeros((x.shape[0], x.shape[1] // size * bytes_), np.uint8)
    assert ggml.ggml_quantize_chunk(int(kind), x.ctypes.data, out.ctypes.data, 0, *x.shape, None) == out.nbytes
    return out


def main():
    rng = np.random.default_rng(11)
    x = np.stack([
        rng.standard_normal(512), rng.standard_normal(512) ** 3 * 1e-3, rng.uniform(0.2, 0.3, 512),
        np.round(rng.standard_normal(512) * 4) / 7, rng.standard_normal(512) * 1e-6, np.zeros(512), np.full(512, -0.5),
        rng.standard_normal(512) * np.repeat(10.0 ** rng.integers(-3, 3, 16), 32),
    ]).astype(np.float32)
    w = gguf.GGUFWriter(os.path.join(here, "quantised.gguf"), "test")
    w.add_tensor("x", x)
    for name in ("F16", "BF16", "Q8_0", "Q4_0", "Q5_0", "Q4_K"):
        kind = gguf.GGMLQuantizationType[name]
        w.add_tensor(name, quantised(x, kind), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    main()
