"""RoPE's inverse frequencies, cosines and sines as transformers computes them in f32.

    python rope_tables.py

Writes golden/rope.safetensors and golden/rope.json (see README.md): the RoPE configurations of the
tiny Llamas and those of some well-known models.
"""
import common
import tiny_llama
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

POSITIONS = [0, 1, 2, 3, 7, 31, 100, 511, 2047, 8191, 131071]


def rope(kind, theta, **values):
    return {"rope_type": kind, "rope_theta": theta, **values}


# name -> head_dim, max_position_embeddings, rope_parameters, sequence lengths
MODELS = {
    "smollm2": (64, 8192, rope("default", 100000.0), [33]),
    "llama2": (128, 4096, rope("default", 10000.0), [33]),
    "llama31": (128, 131072, rope("llama3", 500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                  original_max_position_embeddings=8192), [33]),
    "llama32": (64, 131072, rope("llama3", 500000.0, factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                 original_max_position_embeddings=8192), [33]),
    "qwen2_yarn": (128, 32768, rope("yarn", 1000000.0, factor=4.0,
                                    original_max_position_embeddings=32768), [33]),
    "yarn_long": (64, 65536, rope("yarn", 10000.0, factor=16.0,
                                  original_max_position_embeddings=4096), [33]),
    "linear": (128, 16384, rope("linear", 10000.0, factor=4.0), [33]),
    "dynamic": (128, 2048, rope("dynamic", 10000.0, factor=2.0), [33, 2048, 2049, 4096, 10000]),
    "odd": (6, 64, rope("default", 10000.0), [33]),
}


def main():
    cases = dict(MODELS)
    for name, case in tiny_llama.CASES.items():
        config = case["config"]
        if "rope_parameters" in config:
            cases["tiny_" + name] = (config["head_dim"], config["max_position_embeddings"],
                                     config["rope_parameters"], [case["shape"][1]])
    tensors, table = {}, []
    for name, (head_dim, max_positions, parameters, lengths) in cases.items():
        for length in lengths:
            config = LlamaConfig(hidden_size=head_dim * 2, num_attention_heads=2, head_dim=head_dim,
                                 max_position_embeddings=max_positions, rope_parameters=dict(parameters))
            module = LlamaRotaryEmbedding(config)
            cos, sin = module(torch.zeros(1, dtype=torch.float32), torch.arange(length)[None])
            key = name if len(lengths) == 1 else f"{name}_{length}"
            angles = torch.tensor(POSITIONS)[:, None].float() * module.inv_freq[None]
            scale = module.attention_scaling
            tensors[key + ".inv_freq"] = module.inv_freq
            tensors[key + ".cos"] = angles.cos() * scale
            tensors[key + ".sin"] = angles.sin() * scale
            reachable = [i for i, p in enumerate(POSITIONS) if p < length]
            at = [POSITIONS[i] for i in reachable]
            assert torch.equal(tensors[key + ".cos"][reachable], cos[0, at, :head_dim // 2])
            assert torch.equal(tensors[key + ".sin"][reachable], sin[0, at, :head_dim // 2])
            table.append({"name": key, "head_dim": head_dim, "max_position_embeddings": max_positions,
                          "rope_parameters": parameters, "sequence_length": length,
                          "attention_scaling": float(scale)})
    common.write_tensors(common.golden_path("rope.safetensors"), tensors)
    common.write_json(common.golden_path("rope.json"), {"positions": POSITIONS, "cases": table})
    print(len(table), "tables")


if __name__ == "__main__":
    main()
