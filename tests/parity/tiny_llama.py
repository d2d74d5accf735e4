"""Tiny random Llamas: a Hugging Face directory and a golden for each case.

    python tiny_llama.py [CASE ...]

Writes golden/tiny_llama/CASE/{config.json,model.safetensors,golden.safetensors}. Half of the
config.json files are spelled as files on the hub are (torch_dtype, rope_theta, rope_scaling), the
others as transformers 5 writes them (dtype, rope_parameters). Oracle: transformers' default
(sdpa) attention in f32; logits64 from common.float64_llama.
"""
import json
import os
import sys

import common
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

BASE = dict(hidden_size=32, intermediate_size=44, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, vocab_size=67, max_position_embeddings=64,
            bos_token_id=1, eos_token_id=2, rms_norm_eps=1e-5)
ROPE = dict(BASE, hidden_size=24, intermediate_size=20, num_hidden_layers=1, num_attention_heads=3,
            num_key_value_heads=1, head_dim=16, vocab_size=43)


def rope(kind, theta=10000.0, **values):
    return {"rope_theta": theta, "rope_type": kind, **values}


# name -> config, spelling ("hub", "hub_type": rope_scaling with the older key `type`, "v5"),
# shape of the batch, layout of its padding
CASES = {
    "mha": dict(config=dict(BASE, num_key_value_heads=4), spelling="hub", shape=(2, 13)),
    "gqa": dict(config=BASE, spelling="v5", shape=(3, 11), padding="right"),
    "mqa": dict(config=dict(BASE, num_key_value_heads=1), spelling="hub", shape=(2, 9), padding="left"),
    "gqa_tied": dict(config=dict(BASE, tie_word_embeddings=True), spelling="v5", shape=(3, 17), padding="right"),
    "mha_tied": dict(config=dict(BASE, num_key_value_heads=4, tie_word_embeddings=True, vocab_size=257),
                     spelling="hub", shape=(2, 7)),
    "pad_token": dict(config=dict(BASE, tie_word_embeddings=True, pad_token_id=2), spelling="hub",
                      shape=(3, 12), padding="right"),
    "attention_bias": dict(config=dict(BASE, attention_bias=True), spelling="hub", shape=(2, 15), padding="right"),
    "mlp_bias": dict(config=dict(BASE, attention_bias=True, mlp_bias=True, num_key_value_heads=4),
                     spelling="v5", shape=(2, 10)),
    "head_dim_6": dict(config=dict(BASE, hidden_size=40, head_dim=6, rms_norm_eps=1e-6), spelling="hub",
                       shape=(2, 13), padding="right"),
    "head_dim_10": dict(config=dict(BASE, hidden_size=35, num_attention_heads=5, num_key_value_heads=1,
                                    head_dim=10, attention_bias=True), spelling="v5", shape=(1, 19)),
    "one_token": dict(config=dict(BASE, head_dim=2, num_hidden_layers=1), spelling="v5", shape=(2, 1)),
    "gelu": dict(config=dict(BASE, hidden_act="gelu"), spelling="v5", shape=(2, 8)),
    "gelu_tanh": dict(config=dict(BASE, hidden_act="gelu_pytorch_tanh"), spelling="hub", shape=(2, 8)),
    "packed": dict(config=BASE, spelling="hub", shape=(2, 24), positions="packed"),
    "rope_theta": dict(config=dict(ROPE, rope_parameters=rope("default", 500.0)), spelling="hub", shape=(2, 33)),
    "rope_linear": dict(config=dict(ROPE, rope_parameters=rope("linear", factor=3.0)),
                        spelling="hub_type", shape=(2, 21)),
    "rope_llama3": dict(config=dict(ROPE, max_position_embeddings=256, rope_parameters=rope(
        "llama3", 500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=32)), spelling="hub", shape=(1, 45)),
    "rope_llama3_v5": dict(config=dict(ROPE, max_position_embeddings=128, rope_parameters=rope(
        "llama3", 10000.0, factor=32.0, low_freq_factor=2.0, high_freq_factor=16.0,
        original_max_position_embeddings=64)), spelling="v5", shape=(2, 19), padding="right"),
    "rope_yarn": dict(config=dict(ROPE, max_position_embeddings=128, rope_parameters=rope(
        "yarn", factor=4.0, original_max_position_embeddings=32)), spelling="hub_type", shape=(1, 45)),
    "rope_yarn_options": dict(config=dict(ROPE, max_position_embeddings=32, rope_parameters=rope(
        "yarn", 1000.0, factor=2.5, beta_fast=8.0, beta_slow=0.5, attention_factor=1.3, truncate=False,
        original_max_position_embeddings=16)), spelling="v5", shape=(2, 37), padding="left"),
    "rope_yarn_mscale": dict(config=dict(ROPE, rope_parameters=rope(
        "yarn", factor=4.0, mscale=0.8, mscale_all_dim=0.5, original_max_position_embeddings=16)),
        spelling="hub", shape=(1, 20)),
    "rope_dynamic": dict(config=dict(ROPE, max_position_embeddings=16, rope_parameters=rope(
        "dynamic", factor=2.0)), spelling="hub_type", shape=(1, 41)),
    "rope_dynamic_short": dict(config=dict(ROPE, rope_parameters=rope("dynamic", factor=4.0)),
                               spelling="v5", shape=(2, 15), padding="right"),
    "rope_dynamic_padded": dict(config=dict(ROPE, max_position_embeddings=16, rope_parameters=rope(
        "dynamic", factor=3.0)), spelling="hub", shape=(2, 27), padding="right"),
}


def hub_spelling(path, legacy_type):
    """Rewrite a config.json of transformers 5 as the hub's files spell it."""
    with open(path, encoding="utf-8") as f:
        config = json.load(f)
    config["torch_dtype"] = config.pop("dtype")
    scaling = dict(config.pop("rope_parameters"))
    config["rope_theta"] = scaling.pop("rope_theta")
    if scaling["rope_type"] == "default":
        scaling = None
    elif legacy_type:
        scaling["type"] = scaling.pop("rope_type")
    config["rope_scaling"] = scaling
    if config["head_dim"] * config["num_attention_heads"] == config["hidden_size"]:
        del config["head_dim"]
    config["transformers_version"] = "4.46.0"
    with open(path, "w", encoding="utf-8") as f:
        json.dump(dict(sorted(config.items())), f, indent=2)
        f.write("\n")


def make_batch(case, vocab, gen):
    batch, length = case["shape"]
    ids = torch.randint(0, vocab, (batch, length), generator=gen)
    labels = ids.clone()
    for row in range(batch):  # prompts are not trained on, nor is a token here and there
        labels[row, :min(row + 1, length - 1)] = -100
    labels[torch.rand(labels.shape, generator=gen) < 0.15] = -100
    if length == 1:  # nothing to predict: the loss would be 0/0
        return {"input_ids": ids}
    labels[0, -1] = ids[0, -1]
    inputs = {"input_ids": ids, "labels": labels}
    if "padding" in case:
        mask = torch.ones_like(ids)
        for row in range(1, batch):
            count = min(length - 2, 2 + 3 * row)
            pad = slice(length - count, length) if case["padding"] == "right" else slice(0, count)
            mask[row, pad], ids[row, pad], labels[row, pad] = 0, 2, -100
        inputs["attention_mask"] = mask
        if case["padding"] == "left":
            inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    if case.get("positions") == "packed":
        rows = [[7, 1, 10, 6], [length]]
        inputs["position_ids"] = torch.tensor(
            [[p for n in row for p in range(n)] for row in rows])
        for row, lengths in enumerate(rows):  # a sample's first token is not predicted by another's
            start = 0
            for n in lengths:
                labels[row, start] = -100
                start += n
    return inputs


def make(name, seed):
    case = CASES[name]
    gen = torch.Generator().manual_seed(seed)
    folder = os.path.dirname(common.golden_path("tiny_llama", name, "config.json"))
    model = LlamaForCausalLM(LlamaConfig(**case["config"], dtype="float32"))
    common.random_weights(model, gen)
    model.save_pretrained(folder)
    os.remove(os.path.join(folder, "generation_config.json"))
    if case["spelling"] != "v5":
        hub_spelling(os.path.join(folder, "config.json"), case["spelling"] == "hub_type")

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    inputs = make_batch(case, model.config.vocab_size, gen)
    if name == "pad_token":  # the padding token is also a real, attended token of the rows
        inputs["input_ids"][:, 3] = model.config.pad_token_id
        inputs["labels"][:, 3] = model.config.pad_token_id
    forward = {k: v for k, v in inputs.items()}
    out = model(**forward, use_cache=False)
    assert torch.isfinite(out.logits).all()
    golden = {**inputs, "logits": out.logits}
    if "labels" in inputs:
        out.loss.backward()
        golden["loss"] = out.loss.reshape(1)
        for key, p in model.named_parameters():
            golden["grad." + key] = p.grad

    attended = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
    if case.get("positions") == "packed":
        check_packed(model, inputs, out.logits)
    fresh = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad(), common.float64_llama(fresh):
        logits64 = fresh(**forward, use_cache=False).logits
    assert logits64.dtype == torch.float64
    golden["logits64"] = logits64
    error = (out.logits.double() - logits64)[attended].abs()
    golden["error_mean"] = error.mean().reshape(1)
    common.write_tensors(os.path.join(folder, "golden.safetensors"), golden)
    largest = out.logits[attended].abs().max().item()
    sharp = fresh(**forward, use_cache=False).logits[attended].softmax(-1).max(-1).values.mean().item()
    loss = out.loss.item() if out.loss is not None else float("nan")
    print(f"{name:20} |logits| {largest:6.2f}  top p {sharp:.2f}  loss {loss:7.4f}  "
          f"f32 error mean {error.mean().item() / largest:.1e} max {error.max().item() / largest:.1e}")


def check_packed(model, inputs, logits):
    """transformers isolates the samples of a row whose positions restart: make sure it did."""
    ids, positions = inputs["input_ids"][0], inputs["position_ids"][0]
    starts = [i for i, p in enumerate(positions.tolist()) if p == 0] + [len(ids)]
    for start, end in zip(starts, starts[1:]):
        alone = model(input_ids=ids[None, start:end], use_cache=False).logits[0]
        assert torch.allclose(alone, logits[0, start:end], atol=1e-5), "samples are not isolated"


def main():
    names = sys.argv[1:] or list(CASES)
    for name in names:
        make(name, seed=1000 + list(CASES).index(name))


if __name__ == "__main__":
    main()
