"""Writes golden/mxfp4.safetensors: packed weights of random bytes and what transformers makes of them.

usage: python tests/parity/mxfp4_golden.py
"""

import pathlib

import torch
from safetensors.torch import save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

generator = torch.Generator().manual_seed(5)
blocks = torch.randint(0, 256, (3, 5, 2, 16), dtype=torch.uint8, generator=generator)
scales = torch.randint(100, 150, (3, 5, 2), dtype=torch.uint8, generator=generator)
weights = convert_moe_packed_tensors(blocks, scales, dtype=torch.bfloat16).contiguous()
save_file({"w_blocks": blocks, "w_scales": scales, "w": weights}, pathlib.Path(__file__).parent / "golden/mxfp4.safetensors")
