"""The families that amlua has to equal transformers in: a small configuration of each, and what
transformers makes of one. golden.py and random_configs.py run this; the tests do not.

Not here: which numbers are compared and how closely (models_spec.lua, random_configs.py).
"""
import contextlib
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import common  # noqa: E402,F401, sets transformers offline and quiet
import torch  # noqa: E402
import transformers  # noqa: E402
from transformers.core_model_loading import revert_weight_conversion  # noqa: E402

BASE = dict(vocab_size=48, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=None)
EPS = 0.01  # large enough for a mistake to show
WINDOW = 6
MIXED = ["sliding_attention", "full_attention"]
EXPERTS = dict(BASE, intermediate_size=12, num_experts_per_tok=2, output_router_logits=True, router_aux_loss_coef=0.05)


def rope(kind="default", theta=10000.0, **values):
    return {"rope_theta": theta, "rope_type": kind, **values}


# name -> architecture, changes to BASE (None takes a field away)
CASES = {
    "llama": ("LlamaForCausalLM", dict(BASE, head_dim=6, rope_parameters=rope(
        "llama3", 500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16))),
    "smollm3": ("SmolLM3ForCausalLM", dict(BASE, num_hidden_layers=3, no_rope_layers=[1, 0, 1],
                                           use_sliding_window=True, sliding_window=WINDOW, tie_word_embeddings=True)),
    "mistral": ("MistralForCausalLM", dict(BASE, head_dim=6, sliding_window=WINDOW)),
    "ministral": ("MinistralForCausalLM", dict(BASE, head_dim=6, sliding_window=WINDOW, layer_types=MIXED)),
    "ministral3": ("Ministral3ForCausalLM", dict(BASE, head_dim=8, rope_parameters=rope(
        "yarn", 100.0, factor=4.0, original_max_position_embeddings=16, beta_fast=0.5, beta_slow=0.25,
        mscale_all_dim=1.0, mscale=0.8, llama_4_scaling_beta=0.4))),
    "qwen2": ("Qwen2ForCausalLM", dict(BASE, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1)),
    "qwen3": ("Qwen3ForCausalLM", dict(BASE, head_dim=6, tie_word_embeddings=True)),
    "gemma": ("GemmaForCausalLM", dict(BASE, head_dim=6, num_key_value_heads=1, pad_token_id=0)),
    "gemma2": ("Gemma2ForCausalLM", dict(BASE, head_dim=6, sliding_window=WINDOW, query_pre_attn_scalar=10,
                                         attn_logit_softcapping=3.0, final_logit_softcapping=4.0, pad_token_id=0)),
    "gemma3": ("Gemma3ForCausalLM", dict(
        BASE, num_hidden_layers=3, head_dim=8, num_key_value_heads=1, sliding_window=WINDOW, query_pre_attn_scalar=10,
        pad_token_id=0, sliding_window_pattern=2,
        rope_parameters={"full_attention": rope("linear", 5000.0, factor=4.0), "sliding_attention": rope(theta=100.0)})),
    "phi3": ("Phi3ForCausalLM", dict(BASE, num_key_value_heads=4, sliding_window=WINDOW)),
    # Phi-4-mini: part of each head is rotated; positions beyond 16 take the long factors
    "phi3_longrope": ("Phi3ForCausalLM", dict(
        BASE, num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
        original_max_position_embeddings=16,
        rope_parameters=rope("longrope", partial_rotary_factor=0.75, short_factor=[1.0, 1.1, 1.3],
                             long_factor=[1.2, 2.5, 4.0], original_max_position_embeddings=16))),
    "phi": ("PhiForCausalLM", dict(BASE, num_attention_heads=2, num_key_value_heads=1, qk_layernorm=True,
                                   rope_parameters=rope(partial_rotary_factor=0.5))),
    "olmo2": ("Olmo2ForCausalLM", dict(BASE)),
    "olmo": ("OlmoForCausalLM", dict(BASE, clip_qkv=1.2)),
    "granite": ("GraniteForCausalLM", dict(BASE, embedding_multiplier=3.0, logits_scaling=2.5, residual_multiplier=0.7,
                                           attention_multiplier=0.4, tie_word_embeddings=True, attention_bias=True,
                                           mlp_bias=True)),
    "glm4": ("Glm4ForCausalLM", dict(BASE, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
                                     rope_parameters=rope(partial_rotary_factor=0.5))),
    "glm": ("GlmForCausalLM", dict(BASE, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
                                   rope_parameters=rope(partial_rotary_factor=0.5))),
    "starcoder2": ("Starcoder2ForCausalLM", dict(BASE, sliding_window=WINDOW)),
    "gpt2": ("GPT2LMHeadModel", dict(vocab_size=48, n_positions=40, n_embd=16, n_layer=2, n_head=4, n_inner=40,
                                     bos_token_id=1, eos_token_id=2)),
    "gpt_neox": ("GPTNeoXForCausalLM", dict(BASE, num_attention_heads=2, intermediate_size=24, rope_parameters=rope(
        partial_rotary_factor=0.5), num_key_value_heads=None)),
    "gpt_neox_serial": ("GPTNeoXForCausalLM", dict(
        BASE, use_parallel_residual=False, attention_bias=False, num_key_value_heads=None, intermediate_size=24,
        rope_parameters=rope(partial_rotary_factor=1.0))),
    # Falcon 7B, 40B, 11B and RW, with so many heads that ALiBi's slopes are rounded
    "falcon": ("FalconForCausalLM", dict(BASE, num_key_value_heads=None, intermediate_size=None, ffn_hidden_size=24)),
    "falcon_new": ("FalconForCausalLM", dict(BASE, num_key_value_heads=None, intermediate_size=None, ffn_hidden_size=24,
                                             new_decoder_architecture=True, num_kv_heads=2)),
    "falcon_one_norm": ("FalconForCausalLM", dict(
        BASE, num_key_value_heads=None, intermediate_size=None, ffn_hidden_size=24, new_decoder_architecture=True,
        num_kv_heads=2, num_ln_in_parallel_attn=1, tie_word_embeddings=False)),
    "falcon_alibi": ("FalconForCausalLM", dict(
        BASE, hidden_size=24, num_attention_heads=12, num_hidden_layers=1, num_key_value_heads=None, intermediate_size=None, ffn_hidden_size=24, alibi=True, bias=True,
        multi_query=False, parallel_attn=False)),
    "nemotron": ("NemotronForCausalLM", dict(BASE, num_attention_heads=2, num_key_value_heads=1, attention_bias=True,
                                             mlp_bias=True, rope_parameters=rope(partial_rotary_factor=0.5))),
    "mixtral": ("MixtralForCausalLM", dict(EXPERTS, num_local_experts=4)),
    "qwen2_moe": ("Qwen2MoeForCausalLM", dict(
        EXPERTS, intermediate_size=20, moe_intermediate_size=8, shared_expert_intermediate_size=12, num_experts=4,
        num_hidden_layers=3, mlp_only_layers=[1], output_router_logits=False)),
    "qwen3_moe": ("Qwen3MoeForCausalLM", dict(EXPERTS, intermediate_size=20, moe_intermediate_size=8, num_experts=5,
                                              norm_topk_prob=True, head_dim=6)),
    "olmoe": ("OlmoeForCausalLM", dict(EXPERTS, num_experts=4)),
    "granitemoe": ("GraniteMoeForCausalLM", dict(
        EXPERTS, num_local_experts=4, embedding_multiplier=3.0, logits_scaling=2.5, residual_multiplier=0.7,
        attention_multiplier=0.4, tie_word_embeddings=True)),
    "gpt_oss": ("GptOssForCausalLM", dict(
        EXPERTS, num_local_experts=4, head_dim=8, num_attention_heads=2, num_key_value_heads=1, sliding_window=WINDOW,
        swiglu_limit=1.5, output_router_logits=False, rope_parameters=rope(
            "yarn", 1000.0, factor=4.0, beta_fast=4.0, beta_slow=1.0, truncate=False,
            original_max_position_embeddings=64))),
}


def config_of(architecture, fields):
    cls = getattr(transformers, architecture).config_class
    values = {k: v for k, v in fields.items() if v is not None or k == "pad_token_id" or k.endswith("_softcapping")}
    for key in ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps"):
        if hasattr(cls, key):
            values.setdefault(key, EPS)
    return cls(**values, architectures=[architecture], dtype="float32")


def hub_spelling(config):
    """A config.json of transformers 5 as a dict in the spelling of the hub's older files."""
    c = dict(config)
    c["torch_dtype"] = c.pop("dtype")
    kind = c["model_type"]
    scaling = dict(c.pop("rope_parameters", None) or {})
    if kind == "gemma3_text":
        local, scaling = scaling["sliding_attention"], dict(scaling["full_attention"])
        c["rope_local_base_freq"] = local["rope_theta"]
    if scaling:
        c["rotary_emb_base" if kind == "gpt_neox" else "rope_theta"] = scaling.pop("rope_theta")
        part = scaling.pop("partial_rotary_factor", None)
        if part is not None:
            c["rotary_pct" if kind == "gpt_neox" else "partial_rotary_factor"] = part
        if scaling["rope_type"] == "default":
            scaling = None
        elif kind == "phi3":  # the older key still
            scaling["type"] = scaling.pop("rope_type")
        if kind == "phi3" and scaling:
            scaling.pop("original_max_position_embeddings")
        c["rope_scaling"] = scaling
    if kind in ("gemma2", "qwen2", "qwen2_moe", "qwen3"):
        del c["layer_types"]
    if kind == "gemma3_text":
        c["sliding_window_pattern"] = c.pop("_sliding_window_pattern")
        if c["layer_types"] == ["full_attention" if (i + 1) % c["sliding_window_pattern"] == 0 else "sliding_attention"
                                for i in range(c["num_hidden_layers"])]:
            del c["layer_types"]
    if kind == "qwen3_moe":
        c["num_experts"] = c.pop("num_local_experts")
    heads = c.get("num_attention_heads")
    if kind in ("llama", "mistral", "nemotron") and c["head_dim"] * heads == c["hidden_size"]:
        del c["head_dim"]
    c["transformers_version"] = "4.46.0"
    return dict(sorted(c.items()))


# ---- weights ----------------------------------------------------------------------------------

def _adds_one(model, name):
    """Norms whose weight counts from 0."""
    kind = model.config.model_type
    return kind.startswith("gemma") or (kind == "nemotron" and name.endswith("weight"))


def random_weights(model, gen):
    """Refill a model from `gen` so that no number is trivially 1 or 0, logits are O(1..10), attention
    and routers are far from uniform."""
    modules = dict(model.named_modules())
    tied = model.config.tie_word_embeddings
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=gen)
            owner = modules[name.rpartition(".")[0]]
            kind = type(owner).__name__
            if "Norm" in kind:
                p.copy_(0.2 * noise + (0 if name.endswith("bias") or _adds_one(model, name) else 1))
            elif name.endswith("bias"):
                p.copy_(0.3 * noise)
            elif name.endswith("sinks"):
                p.copy_(noise)
            elif kind == "Embedding":
                # Gemma multiplies the looked-up rows by the root of their width
                scale = 0.4 if model.config.model_type.startswith("gemma") else 0.6 if tied else 1.0
                p.copy_(noise * (0.5 * scale if "wpe" in name else scale))
            elif "Router" in kind or name.endswith(".gate.weight"):
                p.copy_(noise * 2.5 * p.shape[-1] ** -0.5)
            else:
                across = p.shape[0] if kind == "Conv1D" else p.shape[1] if kind == "GptOssExperts" else p.shape[-1]
                gain = 2.0 if "lm_head" in name or "embed_out" in name else 1.0
                if any(part in name for part in ("q_proj", "k_proj", "qkv", "query_key", "c_attn")):
                    gain = 1.5
                p.copy_(noise * gain * across ** -0.5)
    return model


def write_hub_config(folder, name):
    """Write folder/config.json again as folder/NAME, as older files on the hub spell it."""
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        config = hub_spelling(json.load(f))
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        f.write(json.dumps(config, indent=2) + "\n")


def make(architecture, fields, folder, gen):
    """A random checkpoint as transformers' save_pretrained writes it, opened again by transformers."""
    config = config_of(architecture, fields)
    model = getattr(transformers, architecture)(config)
    random_weights(model, gen).save_pretrained(folder)
    return opened(folder)


def attention_of(folder):
    """eager, but for Falcon's ALiBi, which transformers' eager attention adds twice."""
    return "sdpa" if getattr(transformers.AutoConfig.from_pretrained(folder), "alibi", False) else "eager"


def auto_of(folder):
    """The class that opens a checkpoint: of text, or of images and text."""
    config = transformers.AutoConfig.from_pretrained(folder)
    return transformers.AutoModelForImageTextToText if hasattr(config, "vision_config") \
        else transformers.AutoModelForCausalLM


def opened(folder):
    model = auto_of(folder).from_pretrained(folder, dtype=torch.float32, attn_implementation=attention_of(folder))
    if hasattr(model.config, "_experts_implementation"):
        model.config._experts_implementation = "eager"
    return model.eval()


def saved_names(model, tensors):
    """Tensors under the names in memory -> under those of the saved checkpoint, with transformers'
    own conversion (which splits what it keeps stacked or fused)."""
    if not tensors:
        return {}
    return {k: v.contiguous() for k, v in revert_weight_conversion(model, dict(tensors)).items()}


# ---- what transformers computes ---------------------------------------------------------------

LENGTHS = (21, 13)  # longer than every window, and what is left of it after padding


def inputs_of(vocab, gen, lengths=LENGTHS, offset=6, left=False):
    """Rows padded on the right, or the left; positions begin at `offset` times the row's number."""
    longest = max(lengths)
    ids = torch.randint(3, vocab, (len(lengths), longest), generator=gen)
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[torch.rand(labels.shape, generator=gen) < 0.15] = -100
    positions = torch.arange(longest).repeat(len(lengths), 1)
    for row, length in enumerate(lengths):
        padding = slice(0, longest - length) if left else slice(length, longest)
        first = longest - length if left else 0
        labels[row, first:first + min(row + 1, length - 1)] = -100
        labels[row, first + length - 1] = ids[row, first + length - 1]
        ids[row, padding], labels[row, padding], mask[row, padding] = 0, -100, 0
        positions[row] = (positions[row] - first).clamp(min=0) + offset * row
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "labels": labels}


@contextlib.contextmanager
def router_margins(model):
    """Within, yields a list that grows by each router's smallest lead of the last expert taken over
    the first that is not: where it is next to nothing, rounding chooses the expert."""
    margins, hooks = [], []

    def note(module, _, output):
        logits, k = output[0].detach().float(), module.top_k
        if k < logits.shape[-1]:
            best = logits.topk(k + 1, dim=-1).values
            margins.append((best[..., k - 1] - best[..., k]).min().item())

    for module in model.modules():
        if type(module).__name__.endswith("TopKRouter"):
            hooks.append(module.register_forward_hook(note))
    try:
        yield margins
    finally:
        for hook in hooks:
            hook.remove()


def losses_and_steps(model, inputs, steps=3):
    """{logits, loss, grad.NAME, step.NAME, losses} under saved names: gradients of the first step,
    parameters after `steps` steps of torch's AdamW."""
    out = {}
    names = {id(p): n for n, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, foreach=False)
    losses = []
    for step in range(steps):
        result = model(**inputs, use_cache=False)
        optimizer.zero_grad(set_to_none=True)
        result.loss.backward()
        losses.append(result.loss.item())
        if step == 0:
            out["logits"] = result.logits.detach()
            grads = {names[id(p)]: torch.zeros_like(p) if p.grad is None else p.grad.clone()
                     for p in model.parameters()}
            out.update({"grad." + k: v for k, v in saved_names(model, grads).items()})
        optimizer.step()
    out["losses"] = torch.tensor(losses)
    state = {names[id(p)]: p.detach() for p in model.parameters()}
    out.update({"step." + k: v for k, v in saved_names(model, state).items()})
    return out


def classify(folder, inputs, gen):
    """{score.weight [3,hidden], classes [2,3]}: a head for transformers' classifier on the checkpoint's
    body, and its logits. {} where transformers has no classifier."""
    config = transformers.AutoConfig.from_pretrained(folder)
    cls = transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if cls is None:
        return {}
    model = cls.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention_of(folder), num_labels=3,
                                pad_token_id=0).eval()
    with torch.no_grad():
        model.score.weight.copy_(torch.randn(model.score.weight.shape, generator=gen))
        logits = model(**{k: v for k, v in inputs.items() if k != "labels"}, use_cache=False).logits
    return {"score.weight": model.score.weight.detach(), "classes": logits}


def greedy(model, prompt, count):
    """(ids of prompt and continuation, smallest lead of a chosen token over the next best as a part of
    the largest logit). Nothing ends it early; with and without cache must agree."""
    ids, margin = list(prompt), float("inf")
    with torch.no_grad():
        for _ in range(count):
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            best = logits.topk(2).values
            margin = min(margin, ((best[0] - best[1]) / logits.abs().max()).item())
            ids.append(int(logits.argmax()))
        model.generation_config.eos_token_id = None
        row = torch.tensor([prompt])
        cached = model.generate(input_ids=row, attention_mask=torch.ones_like(row), do_sample=False,
                                max_new_tokens=count, use_cache=True)[0].tolist()
    return ids, margin, cached == ids
