"""What the golden scripts share: writing files, and transformers in true float64.

Nothing here is run by the tests of amlua; see README.md for how goldens are made.
"""
import contextlib
import hashlib
import json
import os
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import torch
import transformers
from safetensors.torch import save_file
from transformers.models.llama import modeling_llama

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "golden")


def golden_path(*parts):
    path = os.path.join(GOLDEN, *parts)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def write_json(path, value):
    """JSON with one space of indent, but a list of plain values stays on one line."""
    def plain(v):
        return not isinstance(v, (dict, list))

    def dump(v, depth):
        pad, end = " " * (depth + 1), " " * depth
        if isinstance(v, dict) and v:
            rows = [pad + json.dumps(k, ensure_ascii=True) + ": " + dump(x, depth + 1)
                    for k, x in v.items()]
            return "{\n" + ",\n".join(rows) + "\n" + end + "}"
        if isinstance(v, list) and v and not all(plain(x) for x in v):
            return "[\n" + ",\n".join(pad + dump(x, depth + 1) for x in v) + "\n" + end + "]"
        return json.dumps(v, ensure_ascii=True)

    with open(path, "w", encoding="ascii") as f:
        f.write(dump(value, 0) + "\n")


def write_tensors(path, tensors):
    """A safetensors file; non-contiguous and shared tensors are copied first."""
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, path,
              metadata={"format": "pt"})


def sha256(tensor):
    """sha256 of a tensor's row-major little-endian bytes."""
    data = tensor.detach().contiguous().cpu().numpy()
    return hashlib.sha256(data.tobytes()).hexdigest()


def random_weights(model, gen, scale=1.0):
    """Refill a Llama in place from `gen`, so that logits are O(1..10) and attention is far from
    uniform: projections ~ N(0, (scale/sqrt(fan_in))^2) with q and k 1.6 times that, norm weights
    around 1, biases around 0, embeddings ~ N(0, 1) (half that when tied)."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=gen)
            if "norm" in name:
                p.copy_(1 + 0.2 * noise)
            elif name.endswith("bias"):
                p.copy_(0.2 * noise)
            elif "embed_tokens" in name:
                p.copy_(noise * (0.5 if model.config.tie_word_embeddings else 1.0))
            elif "lm_head" in name:
                p.copy_(noise * 2 * p.shape[1] ** -0.5)
            else:
                gain = 1.6 if "q_proj" in name or "k_proj" in name else 1.0
                p.copy_(noise * gain * scale * p.shape[1] ** -0.5)


def _rms_norm64(self, x):
    variance = x.pow(2).mean(-1, keepdim=True)
    return self.weight * (x * torch.rsqrt(variance + self.variance_epsilon))


def _attention64(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    key = modeling_llama.repeat_kv(key, module.num_key_value_groups)
    value = modeling_llama.repeat_kv(value, module.num_key_value_groups)
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = torch.softmax(weights, dim=-1)
    out = torch.matmul(weights, value).transpose(1, 2).contiguous()
    return out, weights


@contextlib.contextmanager
def float64_llama(model):
    """Inside, `model` runs wholly in float64, except RoPE's angles, cosines and sines, which stay
    as transformers computes them in f32 (true float64 angles would be another function: they move
    SmolLM2's logits by 8.5e-4 at T = 2048). transformers alone keeps RMSNorm and softmax in f32."""
    norm = modeling_llama.LlamaRMSNorm.forward
    eager = modeling_llama.eager_attention_forward
    implementation = model.config._attn_implementation
    modeling_llama.LlamaRMSNorm.forward = _rms_norm64
    modeling_llama.eager_attention_forward = _attention64
    model.set_attn_implementation("eager")
    model.double()
    try:
        yield model
    finally:
        modeling_llama.LlamaRMSNorm.forward = norm
        modeling_llama.eager_attention_forward = eager
        model.float()
        model.set_attn_implementation(implementation)


def charsmap():
    """SentencePiece's compiled replacements, of a few rules, in base64: what a Precompiled normalizer holds."""
    import base64
    import io
    import tempfile
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2
    rules = {"\u00c9": "E", "e\u0301": "\u00e9", "\u2167": "VIII", "\u3000": " ", "\u00a0": " ", "\t": " ", "\u00bd": "1/2", "\ufb01": "fi",
             "\u00ad": "", "\uff0c": ",", "\u1112\u1161\u11ab": "\ud55c", "q": "Q"}
    with tempfile.NamedTemporaryFile("w", suffix=".tsv", encoding="utf-8") as f:
        for source, target in rules.items():
            f.write(" ".join(f"{ord(c):X}" for c in source) + "\t" + " ".join(f"{ord(c):X}" for c in target) + "\n")
        f.flush()
        out = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(["the thing in the word"] * 9), model_writer=out, vocab_size=18,
                                                 normalization_rule_tsv=f.name, hard_vocab_limit=False, minloglevel=2)
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(out.getvalue())
    return base64.b64encode(model.normalizer_spec.precompiled_charsmap).decode()
